// Node 18 has no global File, which the OpenAI SDK needs for uploads.
globalThis.File ??= require("node:buffer").File;
