// Shortcuts: none is active in fields or beside another key. A cookie keeps that they are switched off.

const SHORTCUTS = [
  ["j / k", "next and previous video of a list"],
  ["/", "search"],
  ["g p", "first page of the menu"],
  ["g l", "library"],
  ["?", "this list"],
];
const KEYS_OFF = "vgw_keys=off";
let leader = 0;

function consolePath() {
  return new URL(document.querySelector(".brand").href).pathname;
}

function switchKeys(on) {
  const life = on ? 0 : 31_536_000;
  const safe = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `${KEYS_OFF}; path=${consolePath()}; max-age=${life}; samesite=lax${safe}`;
}

function showKeys() {
  const dialog = document.createElement("dialog");
  const title = document.createElement("h2");
  const list = document.createElement("dl");
  const label = document.createElement("label");
  const box = document.createElement("input");
  const form = document.createElement("form");
  const close = document.createElement("button");
  title.textContent = "Shortcuts";
  title.id = "keys-title";
  dialog.setAttribute("aria-labelledby", title.id);
  for (const [key, words] of SHORTCUTS) {
    const [term, meaning] = [document.createElement("dt"), document.createElement("dd")];
    const shape = document.createElement("kbd");
    shape.textContent = key;
    meaning.textContent = words;
    term.append(shape);
    list.append(term, meaning);
  }
  box.type = "checkbox";
  box.checked = !document.cookie.includes(KEYS_OFF);
  box.addEventListener("change", () => switchKeys(box.checked));
  label.className = "switch";
  label.append(box, " Shortcuts are on; ? works always");
  form.method = "dialog";
  close.textContent = "Close";
  form.append(close);
  dialog.append(title, list, label, form);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  close.focus();
}

function step(by) {
  const items = [...document.querySelectorAll("#cards [data-video] :is(.picture, .item)")];
  if (!items.length) return;
  const at = items.findIndex((item) => item.closest("[data-video]").contains(document.activeElement));
  const next = at < 0 ? (by > 0 ? 0 : items.length - 1) : Math.min(items.length - 1, Math.max(0, at + by));
  items[next].focus();
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  "/": () => document.querySelector('input[name="q"]')?.focus(),
};
const PAGES = { p: "header nav a", l: 'header nav a[href$="/videos"]' };

document.addEventListener("keydown", (event) => {
  const isField = event.target.closest?.("input, select, textarea, [contenteditable]");
  if (isField || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (document.querySelector("dialog[open]") || !document.querySelector("header nav")) return;
  if (event.key === "?") {
    event.preventDefault();
    showKeys();
  }
  if (document.cookie.includes(KEYS_OFF)) return;
  if (event.timeStamp - leader < 1_500 && PAGES[event.key]) {
    location.assign(document.querySelector(PAGES[event.key]).href);
  } else if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
  leader = event.key === "g" ? event.timeStamp : 0;
});
