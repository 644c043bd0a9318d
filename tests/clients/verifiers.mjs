// Driver of the JavaScript libraries that verify webhooks: `standardwebhooks` or `svix`, by the argument.
import { EVENT, event, must, report, step, version } from "./steps.mjs";

const name = process.argv[2];
version(name);
const { Webhook } = await import(name);
if (!EVENT) {
  report("webhook", "not tried");
  process.exit();
}
await step("webhook", () => {
  const { body, headers, secret } = event();
  new Webhook(secret).verify(body, headers);
  let refused = false;
  try {
    new Webhook(secret).verify(`${body} `, headers);
  } catch {
    refused = true;
  }
  must(refused, "a changed body passes");
});
