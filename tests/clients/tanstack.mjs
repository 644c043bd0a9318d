// Driver of TanStack AI.
import { generateVideo, getVideoJobStatus } from "@tanstack/ai";
import { createOpenaiVideo } from "@tanstack/ai-openai";
import { isAVideo, key, model, must, pause, png, step, url, version } from "./steps.mjs";

version("@tanstack/ai");
const adapter = createOpenaiVideo(model, key, { baseURL: `${url}/v1` });

async function finished(jobId) {
  let job = await getVideoJobStatus({ adapter, jobId });
  while (job.status === "pending" || job.status === "processing") {
    await pause(500);
    job = await getVideoJobStatus({ adapter, jobId });
  }
  must(job.status === "completed", `${job.status} ${job.error}`);
  return job;
}

let jobId, job;
await step("create", async () => {
  ({ jobId } = await generateVideo({ adapter, prompt: "a paper boat on a pond", size: "1280x720", duration: 4 }));
});
await step("poll", async () => {
  job = await finished(jobId);
});
await step("download", async () => isAVideo(Buffer.from(await (await fetch(job.url)).arrayBuffer())));
await step("picture", async () => {
  const source = { type: "data", value: png.toString("base64"), mimeType: "image/png" };
  const prompt = [{ type: "text", content: "a paper boat" }, { type: "image", source }];
  await finished((await generateVideo({ adapter, prompt, size: "1280x720", duration: 4 })).jobId);
});
