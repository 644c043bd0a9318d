// A part of the page that is asked for again while the page is visible. One that cannot be had stays as it is, marked as
// old.

const AGAIN_MS = 5_000;
let missed = false;

function askAgain() {
  const part = document.querySelector("[data-again]");
  if (part && !document.hidden) htmx.ajax("GET", part.dataset.again, { source: part, target: part, swap: "outerMorph" });
}

document.addEventListener("DOMContentLoaded", () => {
  htmx.config.morphIgnore.push("open"); // details that are open stay open
  setInterval(askAgain, AGAIN_MS);
  document.addEventListener("visibilitychange", askAgain);
});
for (const name of ["htmx:error", "htmx:response:error"]) {
  document.addEventListener(name, (event) => {
    if (!event.target.matches?.("[data-again]")) return;
    event.target.classList.add("stale");
    missed = true;
  });
}
document.addEventListener("htmx:after:swap", (event) => {
  if (!missed || !event.target.matches?.("[data-again]:not(.stale)")) return;
  missed = false;
  document.getElementById("status").textContent = "";
});
