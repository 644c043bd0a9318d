// The library: its player, what is selected, and times of its form in the browser's zone.

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-play]");
  const dialog = document.getElementById("player");
  if (!link || !dialog || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const video = dialog.querySelector("video");
  dialog.querySelector("h2").textContent = link.dataset.title;
  dialog.querySelector("a").href = link.href;
  video.src = link.dataset.play;
  dialog.showModal();
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
    video.muted = true;
    video.play().catch(() => {}); // closed before it began
  }
  const back = link.id || link.closest("[id]")?.id;
  dialog.addEventListener("close", () => {
    video.removeAttribute("src");
    video.load();
    (link.isConnected ? link : document.querySelector(`#${back} [data-play]`))?.focus();
  }, { once: true });
});

function countSelected() {
  const form = document.getElementById("selected");
  if (!form) return;
  const count = document.querySelectorAll('[form="selected"]:checked').length;
  form.querySelector("[data-selected]").textContent = `Selected: ${count}`;
  for (const button of form.querySelectorAll("button")) button.disabled = !count;
}

document.addEventListener("DOMContentLoaded", countSelected);
document.addEventListener("htmx:after:swap", countSelected);
document.addEventListener("change", countSelected);
window.addEventListener("pageshow", countSelected);

document.addEventListener("DOMContentLoaded", () => {
  for (const input of document.querySelectorAll('input[type="datetime-local"]')) {
    input.closest("label").querySelector("[data-zone]").hidden = true;
    if (!input.value) continue;
    const moment = new Date(`${input.value}Z`);
    const local = new Date(moment.getTime() - moment.getTimezoneOffset() * 60_000);
    input.value = local.toISOString().slice(0, input.value.length);
  }
});

document.addEventListener("formdata", (event) => {
  for (const input of event.target.querySelectorAll('input[type="datetime-local"]')) {
    if (input.value) event.formData.set(input.name, new Date(input.value).toISOString().replace(".000Z", "Z"));
  }
  for (const [name, value] of [...event.formData]) {
    if (value === "" && event.target.method === "get") event.formData.delete(name);
  }
});
