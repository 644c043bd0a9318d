// Makes, polls and downloads a video with the client that @hey-api/openapi-ts generates: key, path of the file. The
// client knows the address of the gateway from the document.
import { writeFileSync } from "node:fs";
import { createVideo, downloadContent, retrieveVideo, type Video } from "./client";
import { client } from "./client/client.gen";

// The fields of a video that are `any` or `unknown`.
type Untyped = { [Name in keyof Video]-?: unknown extends Video[Name] ? Name : never }[keyof Video];
const everyFieldHasAType: [Untyped] extends [never] ? true : Untyped = true;

async function main(key: string, path: string): Promise<void> {
  client.setConfig({ auth: key });
  const body = { prompt: "a paper boat", model: "sandbox/testcard", seconds: 2 };
  const created = await createVideo({ body, throwOnError: true });
  if (!("status" in created.data)) throw new Error("an estimate without a dry run");
  let video: Video = created.data;
  while (video.status !== "completed" && video.status !== "failed") {
    const read = await retrieveVideo({ path: { video_id: video.id }, query: { wait: 10 }, throwOnError: true });
    video = read.data;
  }
  if (video.output === null) throw new Error(video.error?.message ?? "no output");
  const file = await downloadContent({ path: { video_id: video.id }, throwOnError: true });
  const bytes = Buffer.from(await file.data.arrayBuffer());
  if (bytes.length !== video.output.size_bytes) throw new Error(`${bytes.length} bytes`);
  writeFileSync(path, bytes);

  const refused = await retrieveVideo({ path: { video_id: "video_unknown" } });
  console.log(refused.error?.error.code, everyFieldHasAType);
}

main(process.argv[2] ?? "", process.argv[3] ?? "").catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
