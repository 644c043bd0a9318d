// The console's own script: the policy for htmx's markup, times in the browser's zone, copy buttons, the sign-in link.

// htmx puts answers of this gateway into the page; templates have escaped what they hold. Scripts are never made.
trustedTypes?.createPolicy("default", { createHTML: (markup) => markup });

const shown = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function showTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
    time.title = time.textContent;
    time.textContent = shown.format(new Date(time.dateTime));
    time.dataset.local = "";
  }
}

document.addEventListener("DOMContentLoaded", () => {
  showTimes(document);
  document.querySelector("form[data-submit-at-once]")?.requestSubmit();
});
document.addEventListener("htmx:after:swap", () => showTimes(document));

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
