// The console's own script: the policy for htmx's markup, times in the browser's zone, copy buttons, the sign-in link,
// live lists, sprite sheets, the player, shortcuts.

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

document.addEventListener("keydown", (event) => {
  const form = event.target.closest("form[data-sends-by]");
  if (form && event.key === form.dataset.sendsBy && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});

// Live: one stream for the page says which videos have changed, and the page asks for what it shows of them. Only a
// visible page holds a connection; one that becomes visible again is told what it has missed.

const TOP = 100; // pixels from the top within which new videos appear by themselves
const LOST_MS = 10_000;
let stream = null;
let lastEvent = "";
let lost = 0;
const coming = new Set();
const fresh = new Set();

// A line for screen readers alone: what it says can be seen at the video, and the page must not jump.
const spoken = document.createElement("p");
spoken.id = "spoken";
spoken.className = "hidden";
spoken.setAttribute("role", "status");
document.addEventListener("DOMContentLoaded", () => {
  if (document.querySelector("[data-feed]")) document.getElementById("main").append(spoken);
});

// Each part has requests of its own (`source`): htmx lets those of one element wait for each other, and drops some.
async function refresh(part) {
  const { id } = part;
  const ran = "running" in part.dataset;
  await htmx.ajax("GET", part.dataset.part, { source: part, target: part, swap: "outerMorph" });
  const { end } = document.getElementById(id)?.dataset ?? {};
  if (ran && end) spoken.textContent = end;
}

async function addNew(list, id) {
  if (coming.has(id)) return;
  coming.add(id);
  const address = `${list.dataset.cards}/${id}/card?view=${list.dataset.view ?? ""}`;
  await htmx.ajax("GET", address, { source: list, target: list, swap: "afterbegin" });
  coming.delete(id);
}

function isNew(list, id) {
  const newest = list.querySelector("[data-video]")?.dataset.video ?? "";
  return id > newest; // ids are ordered by time
}

function changed(event) {
  lastEvent = event.lastEventId || lastEvent;
  const { id } = JSON.parse(event.data);
  const card = document.getElementById(`card-${id}`);
  const whole = document.querySelector(`#video[data-video="${id}"]`);
  const list = document.querySelector("[data-cards]");
  if (event.type === "video.deleted") {
    card?.remove();
  } else if (whole) {
    if (!whole.querySelector("video")) refresh(whole);
  } else if (card) {
    refresh(card);
  } else if (list && isNew(list, id)) {
    if ("takesNew" in list.dataset && scrollY < TOP) addNew(list, id);
    else countNew(id);
  }
}

function countNew(id) {
  const line = document.getElementById("fresh");
  if (!line) return;
  fresh.add(id);
  line.querySelector("span").textContent = fresh.size;
  line.hidden = false;
}

function isLive() {
  clearTimeout(lost);
  lost = 0;
  document.getElementById("not-live")?.remove();
}

function isLost() {
  lost ||= setTimeout(() => {
    if (document.getElementById("not-live")) return;
    const line = document.createElement("p");
    const link = document.createElement("a");
    line.id = "not-live";
    line.className = "notice";
    line.setAttribute("role", "status");
    link.href = location.href;
    link.textContent = "Reload";
    line.append("Not live: what has changed is not shown. ", link);
    document.getElementById("main").prepend(line);
  }, LOST_MS);
}

function follow() {
  const source = document.querySelector("[data-feed]");
  if (!source || document.hidden || stream) return;
  const from = lastEvent ? `?last_event_id=${lastEvent}` : "";
  stream = new EventSource(source.dataset.feed + from);
  for (const name of ["video.status", "video.progress", "video.deleted"]) stream.addEventListener(name, changed);
  stream.addEventListener("reset", () => location.reload());
  stream.addEventListener("open", isLive);
  stream.addEventListener("error", () => {
    isLost();
    if (stream?.readyState !== EventSource.CLOSED) return; // it connects again by itself
    stream = null;
    setTimeout(follow, 10_000);
  });
}

document.addEventListener("DOMContentLoaded", follow);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    stream?.close();
    stream = null;
    isLive();
  } else {
    follow();
  }
});

// Of what the reader has opened or ticked, a part that is replaced keeps the state.
document.addEventListener("htmx:before:morph:attr", (event) => {
  const { attrName } = event.detail;
  if (attrName === "open" || (attrName === "hidden" && "strip" in event.target.dataset)) event.preventDefault();
});

// A sprite sheet has 5 by 5 frames. It is loaded when the pointer or the focus rests on a card.

const SIDE = 5;

function showFrame(picture, number) {
  const sheet = picture.querySelector(".sheet");
  if (!sheet) return;
  const frame = Math.max(0, Math.min(SIDE * SIDE - 1, number));
  picture.dataset.frame = frame;
  const [across, down] = [frame % SIDE, Math.floor(frame / SIDE)];
  sheet.style.backgroundPosition = `${(across * 100) / (SIDE - 1)}% ${(down * 100) / (SIDE - 1)}%`;
}

function loadSheet(picture) {
  if (picture.querySelector(".sheet") || navigator.connection?.saveData) return;
  const sheet = document.createElement("span");
  sheet.className = "sheet";
  sheet.style.backgroundImage = `url("${picture.dataset.sheet}")`;
  picture.append(sheet);
  showFrame(picture, 0);
}

function dropSheet(picture) {
  clearTimeout(picture.timer);
  picture.querySelector(".sheet")?.remove();
}

function rest(event) {
  const picture = event.target.closest?.("[data-sheet]");
  if (!picture || picture.contains(event.relatedTarget)) return;
  clearTimeout(picture.timer);
  picture.timer = setTimeout(() => loadSheet(picture), 150);
}

function leave(event) {
  const picture = event.target.closest?.("[data-sheet]");
  if (picture && !picture.contains(event.relatedTarget)) dropSheet(picture);
}

for (const name of ["pointerover", "focusin"]) document.addEventListener(name, rest);
for (const name of ["pointerout", "focusout"]) document.addEventListener(name, leave);

document.addEventListener("pointermove", (event) => {
  const picture = event.target.closest?.("[data-sheet]");
  if (!picture) return;
  const { left, width } = picture.getBoundingClientRect();
  showFrame(picture, Math.floor(((event.clientX - left) / width) * SIDE * SIDE));
});

document.addEventListener("keydown", (event) => {
  const picture = event.target.closest?.("[data-sheet]");
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!picture || !step) return;
  event.preventDefault();
  loadSheet(picture);
  showFrame(picture, Number(picture.dataset.frame ?? 0) + step);
});

// A video's page: the frames of its sprite sheet below the player lead to their times.

function clockTime(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}.${Math.floor((seconds % 1) * 10)}`;
}

function fillStrip(strip, sheet) {
  const player = document.getElementById(strip.dataset.player);
  const count = SIDE * SIDE;
  const length = () => Number(strip.dataset.duration) || player.duration || 0;
  for (let frame = 0; frame < count; frame += 1) {
    const button = document.createElement("button");
    const [across, down] = [frame % SIDE, Math.floor(frame / SIDE)];
    button.type = "button";
    button.style.backgroundImage = `url("${sheet.src}")`;
    button.style.backgroundPosition = `${(across * 100) / (SIDE - 1)}% ${(down * 100) / (SIDE - 1)}%`;
    button.style.aspectRatio = `${sheet.naturalWidth} / ${sheet.naturalHeight}`;
    const label = document.createElement("span");
    label.textContent = clockTime((frame * length()) / count);
    button.append(label);
    button.addEventListener("click", () => {
      player.currentTime = (frame * length()) / count;
    });
    strip.append(button);
  }
  player.addEventListener("timeupdate", () => {
    const shownNow = Math.min(count - 1, Math.floor((player.currentTime * count) / (length() || 1)));
    for (const [frame, button] of [...strip.children].entries()) {
      if (frame === shownNow) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  });
  strip.hidden = false;
}

function showStrips() {
  for (const strip of document.querySelectorAll("[data-strip]:empty")) {
    if (strip.loading) continue;
    strip.loading = true;
    const sheet = new Image();
    sheet.addEventListener("load", () => fillStrip(strip, sheet));
    sheet.src = strip.dataset.strip;
  }
}

document.addEventListener("DOMContentLoaded", showStrips);
document.addEventListener("htmx:after:swap", showStrips);

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

// Shortcuts: none is active in fields or beside another key. A cookie keeps that they are switched off.

const SHORTCUTS = [
  ["j / k", "next and previous video of a list"],
  ["/", "search"],
  ["g p", "playground"],
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
const PAGES = { p: "playground", l: "videos" };

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
    location.assign(`${consolePath()}/${PAGES[event.key]}`);
  } else if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
  leader = event.key === "g" ? event.timeStamp : 0;
});
