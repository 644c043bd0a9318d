// OpenRouter's `@openrouter/sdk` at the fake: a whole task, a failure and refusals, as it reads them.
import { OpenRouter } from "@openrouter/sdk";

const { URL: url, KEY: key } = process.env;
const model = "google/veo-3.1";
const asked = { model, prompt: "a paper boat" };
const client = (apiKey) =>
  new OpenRouter({ serverURL: `${url}/api/v1`, apiKey, retryConfig: { strategy: "none" } }).videoGeneration;
const videos = client(key);
const generate = (fields, api = videos) => api.generate({ videoGenerationRequest: { ...asked, ...fields } });
const state = (jobId) => videos.getGeneration({ jobId });
const ofMakers = { googleVertex: { parameters: { negativePrompt: "people" } } };

async function finished(job) {
  const words = [job.status];
  while (words.at(-1) === "pending" || words.at(-1) === "in_progress") {
    job = await state(job.id);
    words.push(job.status);
  }
  return [job, words];
}

async function bytesOf(jobId) {
  let bytes = 0;
  for await (const chunk of await videos.getVideoContent({ jobId, index: 0 })) {
    bytes += chunk.length;
  }
  return bytes;
}

async function errorOf(call) {
  try {
    await call();
  } catch (error) {
    return [error.constructor.name, error.statusCode, error.message];
  }
  return [];
}

const [job, words] = await finished(
  await generate({ duration: 8, resolution: "720p", aspectRatio: "16:9", generateAudio: false, seed: 7 }),
);
const failed = await state((await generate({ prompt: "a boat that fails" })).id);
const running = await generate({ provider: { options: ofMakers } });
const picture = (address) => ({ type: "image_url", imageUrl: { url: address } });
const frame = await generate({
  frameImages: [{ ...picture("data:image/png;base64,iVBORw=="), frameType: "first_frame" }],
});
const reference = await generate({
  model: "bytedance/seedance-2.0",
  inputReferences: [picture("https://cdn.example/a.png")],
});
const models = (await videos.listVideosModels()).data;
const veo = models.find(({ id }) => id === model);
const saw = {
  words,
  cost: job.usage.cost,
  bytes: await bytesOf(job.id),
  failed: [failed.status, failed.error],
  "first frame": frame.status,
  reference: reference.status,
  models: models.length,
  durations: veo.supportedDurations,
  price: veo.pricingSkus.duration_seconds_with_audio,
  "no file yet": await errorOf(() => bytesOf(running.id)),
  "of an unfinished one": (await errorOf(() => generate({ previousJobId: running.id }))).slice(0, 2),
  "length that no model has": (await errorOf(() => generate({ duration: 7 }))).slice(0, 2),
  "unknown task": await errorOf(() => state("none")),
  "wrong key": (await errorOf(() => generate({}, client("wrong")))).slice(0, 2),
};
console.log(JSON.stringify(saw));
