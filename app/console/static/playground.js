// The playground: counts and shows chosen files, takes pasted ones, and asks before it spends much.

const LARGEST_PREVIEW = 10 * 2 ** 20;

function withPrompt(address) {
  const prompt = document.getElementById("prompt").value;
  return prompt ? `${address}&prompt=${encodeURIComponent(prompt)}` : address;
}

function showFiles(input) {
  const files = [...input.files];
  document.getElementById(input.dataset.counts).value = files.length || "";
  const shown = document.getElementById(input.dataset.previews);
  shown.replaceChildren();
  for (const file of files) {
    if (!file.type.startsWith("image/") || file.size > LARGEST_PREVIEW) continue;
    const reader = new FileReader();
    reader.addEventListener("load", () => {
      const picture = document.createElement("img");
      picture.alt = file.name;
      picture.src = reader.result;
      shown.append(picture);
    });
    reader.readAsDataURL(file);
  }
}

document.addEventListener("change", ({ target }) => {
  const { counts, changesPage } = target.dataset;
  if (changesPage) location.href = withPrompt(`${changesPage}&from=${encodeURIComponent(target.value)}`);
  if (counts) showFiles(target);
});

document.addEventListener("click", (event) => {
  const tab = event.target.closest("[data-carries-prompt]");
  if (tab) tab.href = withPrompt(tab.href);
});

// Another model keeps the chosen files that it has a field for; its other fields have the values that the gateway sent.
document.addEventListener("htmx:after:swap", (event) => {
  if (event.detail.ctx?.target?.id === "fields") {
    for (const field of document.querySelectorAll("#fields :is(input, textarea):not([type=file])")) {
      field.value = field.defaultValue;
    }
    for (const option of document.querySelectorAll("#fields option")) option.selected = option.defaultSelected;
  }
  for (const input of document.querySelectorAll("[data-counts]")) {
    const shown = document.getElementById(input.dataset.previews);
    if (input.files.length && !shown.childElementCount) showFiles(input);
  }
});

document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
  const field = [...document.querySelectorAll("#form input[type=file]")].find(({ files }) => !files.length);
  if (!file || !field || event.clipboardData.types.includes("text/plain")) return; // office programs send both
  event.preventDefault();
  const chosen = new DataTransfer();
  chosen.items.add(file);
  field.files = chosen.files;
  field.dispatchEvent(new Event("change", { bubbles: true }));
});

document.addEventListener("submit", (event) => {
  const words = document.getElementById("price")?.dataset.asks;
  const dialog = document.getElementById("ask");
  if (event.target.id !== "form" || !words || !dialog || "confirmed" in dialog.dataset) {
    if (dialog) delete dialog.dataset.confirmed;
    return;
  }
  event.preventDefault();
  event.stopImmediatePropagation();
  dialog.querySelector("[data-words]").textContent = words;
  dialog.showModal();
}, true); // before htmx sends it

document.addEventListener("click", (event) => {
  const dialog = event.target.closest("dialog");
  if (event.target.closest("[data-closes]")) dialog.close();
  if (event.target.closest("[data-confirms]")) {
    dialog.dataset.confirmed = "";
    dialog.close();
    document.getElementById("form").requestSubmit();
  }
});
