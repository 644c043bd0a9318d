// The script of every page: the policy for htmx's markup, times in the browser's zone, dialogs, copy buttons, forms and
// their errors.

// htmx puts answers of this gateway into the page; templates have escaped what they hold. Scripts are never made.
window.trustedTypes?.createPolicy("default", { createHTML: (markup) => markup });

const shown = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" }); // of times near by, with seconds

function showTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
    time.title = time.textContent;
    time.textContent = ("clock" in time.dataset ? clock : shown).format(new Date(time.dateTime));
    time.dataset.local = "";
  }
}

document.addEventListener("DOMContentLoaded", () => {
  showTimes(document);
  document.querySelector("form[data-submit-at-once]")?.requestSubmit();
});
document.addEventListener("htmx:after:swap", () => showTimes(document));

// Dialogs that the page opens with; one with a secret stays until its link is followed, which leaves no way back to it.
document.addEventListener("DOMContentLoaded", () => {
  for (const dialog of document.querySelectorAll("dialog[data-modal]")) {
    dialog.close();
    dialog.showModal();
    if ("stays" in dialog.dataset) dialog.addEventListener("cancel", (event) => event.preventDefault());
  }
  for (const element of document.querySelectorAll("[data-without-script]")) element.hidden = true;
});

document.addEventListener("change", (event) => {
  if ("submits" in event.target.dataset) event.target.form.requestSubmit();
});

// A double click sends a form once. One with a mark of its own (`retry`) is made once by the gateway.
const SAME_MS = 2_000;
const sentAt = new WeakMap();
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || !event.submitter || form.querySelector("[name=retry]")) return;
  if (event.timeStamp - (sentAt.get(form) ?? -SAME_MS) < SAME_MS) {
    event.preventDefault();
    event.stopImmediatePropagation();
  } else {
    sentAt.set(form, event.timeStamp);
  }
}, true); // before htmx sends it

// A form whose answer takes a while says so in its button.
document.addEventListener("submit", (event) => {
  const button = event.submitter;
  if (event.defaultPrevented || !button || !("waits" in button.dataset)) return;
  button.textContent = button.dataset.waits;
  button.disabled = true;
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-replaces]");
  if (!link) return;
  event.preventDefault();
  location.replace(link.href);
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent.trim());
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source); // plain http beyond this machine has no clipboard
    button.textContent = "Selected: press Ctrl+C";
  }
});

// Errors: the field that one names is marked, and a limit that passes counts down.

document.addEventListener("htmx:after:swap", () => {
  for (const field of document.querySelectorAll("[aria-describedby=status]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
  }
  const problem = document.querySelector("#status .problem");
  if (!problem || "shown" in problem.dataset) return;
  problem.dataset.shown = "";
  const { param, retryAfter } = problem.dataset;
  const field = document.getElementById(`f-${param}`) ?? document.getElementById(param ?? "");
  if (field) {
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-describedby", "status");
    field.focus();
  }
  if (!retryAfter) return;
  const left = document.createElement("strong");
  problem.append(" ", left);
  let seconds = Number(retryAfter);
  const count = () => {
    left.textContent = seconds > 0 ? `Wait ${seconds} s.` : "Try again now.";
    if (seconds-- > 0) setTimeout(count, 1_000);
  };
  count();
});

// Requests of htmx: those of a reader that fail say so; a page that looks again by itself has lines of its own for that.

function sayProblem(source, words) {
  const status = document.getElementById("status");
  if (!status || source?.closest?.("[data-part], [data-again], [data-cards]")) return;
  const line = document.createElement("span");
  line.className = "problem";
  line.setAttribute("role", "alert");
  line.textContent = words;
  status.replaceChildren(line);
}

document.addEventListener("htmx:config:request", (event) => {
  const { ctx } = event.detail;
  if (ctx.request.body instanceof FormData && ctx.sourceElement.querySelector?.("input[type=file]")) {
    ctx.request.timeout = 3_600_000; // a large file on a slow line
  }
});

document.addEventListener("htmx:before:response", (event) => {
  const { response, sourceElement } = event.detail.ctx;
  const kind = response.headers.get("content-type") ?? "text/html"; // an answer without content has none
  if (kind.startsWith("text/html")) return;
  event.preventDefault();
  sayProblem(sourceElement, `The gateway could not answer this (status ${response.status}). What you typed is kept.`);
});

document.addEventListener("htmx:error", (event) => {
  const { ctx } = event.detail;
  if (ctx) sayProblem(ctx.sourceElement, "The gateway did not answer. What you typed is kept; try again.");
});

document.addEventListener("keydown", (event) => {
  const form = event.target.closest("form[data-sends-by]");
  if (form && event.key === form.dataset.sendsBy && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});
