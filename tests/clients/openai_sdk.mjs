// Driver of the `openai` package for Node.
import { randomUUID } from "node:crypto";
import OpenAI, { toFile } from "openai";
import { EVENT, event, isAVideo, key, model, must, pause, png, report, step, url, version } from "./steps.mjs";

version("openai");
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
const asked = { model, prompt: "a paper boat on a pond", seconds: "4", size: "1280x720" };

async function finished(video) {
  while (video.status === "queued" || video.status === "in_progress") {
    await pause(500);
    video = await client.videos.retrieve(video.id);
  }
  must(video.status === "completed", `${video.status} ${video.error?.message}`);
}

let video;
await step("create", async () => {
  video = await client.videos.create(asked, { headers: { "Idempotency-Key": randomUUID() } });
  must(video.status === "queued", video.status);
});
await step("poll", () => finished(video));
await step("download", async () => {
  isAVideo(Buffer.from(await (await client.videos.downloadContent(video.id)).arrayBuffer()));
});
await step("list", async () => {
  const ids = (await client.videos.list({ limit: 5 })).data.map(({ id }) => id);
  must(ids.includes(video.id), "the list lacks the video");
});
await step("picture", async () => {
  const picture = await toFile(png, "boat.png", { type: "image/png" });
  await finished(await client.videos.create({ ...asked, input_reference: picture }));
});
await step("delete", async () => must((await client.videos.delete(video.id)).deleted, "not deleted"));
if (!EVENT) {
  report("webhook", "not tried");
} else {
  await step("webhook", async () => {
    const { body, headers, secret } = event();
    must((await client.webhooks.unwrap(body, headers, secret)).type === "video.completed", "another type");
  });
}
