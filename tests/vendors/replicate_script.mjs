// Replicate's client for Node at the fake: a prediction, a failure, cancels, an upload and refusals, as it reads them.

import Replicate from "replicate";

const MODEL = "kwaivgi/kling-v3-video";
const { URL: url, KEY: key } = process.env;
const [client, stranger] = [key, "wrong"].map((auth) => new Replicate({ auth, baseUrl: `${url}/v1` }));

async function statusOf(call) {
  try {
    await call();
  } catch (error) {
    return error.response?.status ?? error.message;
  }
  return null;
}

function make(prompt, fields = {}, by = client) {
  return by.predictions.create({ model: MODEL, input: { prompt, duration: 5, ...fields } });
}

const made = await make("a paper boat");
const words = [];
let task;
do {
  task = await client.predictions.get(made.id);
  words.push(task.status);
} while (["starting", "processing"].includes(task.status));
const failed = await client.predictions.get((await make("a boat that fails")).id);
const stopped = await make("a paper boat");
for (let poll = 0; poll < 2; poll += 1) await client.predictions.get(stopped.id);
const waiting = await make("a paper boat");
await make("it sails", { start_image: new Blob(["\x89PNG"], { type: "image/png" }) });
const saw = {
  words,
  bytes: (await (await fetch(task.output)).arrayBuffer()).byteLength,
  failed: [failed.status, failed.error],
  canceled: (await client.predictions.cancel(stopped.id)).status,
  aborted: (await client.predictions.cancel(waiting.id)).status,
  unknown: await statusOf(() => client.predictions.get("none")),
  listed: (await client.predictions.list()).results.length,
  "unknown field": await statusOf(() => make("a boat", { foo: 1 })),
  "wrong key": await statusOf(() => make("a boat", {}, stranger)),
};
console.log(JSON.stringify(saw));
