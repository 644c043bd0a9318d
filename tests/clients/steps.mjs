// Report of a driver: one JSON line for each step.
import { readFileSync } from "node:fs";

export const { URL: url, KEY: key, EVENT } = process.env;
export const model = "sora-2";
export const png = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAACAAAAASCAIAAAC1qksFAAAAH0lEQVR42mMwaDhAU8QwasGoBaMWjFowasGoBfSwAAAEOzwuyeFWYQAAAABJRU5ErkJggg==",
  "base64",
);

export function report(step, result) {
  console.log(JSON.stringify({ step, result }));
}

export function version(name) {
  report("version", JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8")).version);
}

export async function step(name, work) {
  try {
    await work();
    report(name, "yes");
  } catch (error) {
    report(name, `no: ${error}`.slice(0, 300));
  }
}

export function must(condition, message) {
  if (!condition) {
    throw new Error(message);
  }
}

export function isAVideo(content) {
  must(content.subarray(4, 8).toString() === "ftyp", "the content is no video");
}

export function event() {
  return JSON.parse(readFileSync(EVENT, "utf8"));
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
