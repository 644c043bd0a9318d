// Driver of the AI SDK, with the provider of docs/clients.md, which stands in example.mts and runs when it is imported.
import { readFileSync } from "node:fs";
import { isAVideo, model, png, report, step, version } from "./steps.mjs";

version("ai");
let example;
await step("create", async () => {
  example = await import("./example.mts");
});
if (example) {
  report("poll", "yes");
  await step("download", () => isAVideo(readFileSync("boat.mp4")));
  await step("picture", async () => {
    const prompt = { image: png, text: "a paper boat" };
    await example.generateVideo({ model: example.gatewayVideo(model), prompt, duration: 4 });
  });
}
