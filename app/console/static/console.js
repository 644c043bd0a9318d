// The console's own script: the policy for htmx's markup, times in the browser's zone, copy buttons, the sign-in link,
// live lists, parts that are asked for again, sprite sheets.

// htmx puts answers of this gateway into the page; templates have escaped what they hold. Scripts are never made.
trustedTypes?.createPolicy("default", { createHTML: (markup) => markup });

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

// The playground: counts and shows chosen files, takes pasted ones, and asks before it spends much.

const LARGEST_PREVIEW = 10 * 2 ** 20;

document.addEventListener("change", (event) => {
  const { counts, previews, changesPage } = event.target.dataset;
  if (changesPage) location.href = `${changesPage}&from=${encodeURIComponent(event.target.value)}`;
  if (!counts) return;
  const files = [...event.target.files];
  document.getElementById(counts).value = files.length || "";
  const shown = document.getElementById(previews);
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
});

document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
  const field = [...document.querySelectorAll("#form input[type=file]")].find(({ files }) => !files.length);
  if (!file || !field) return;
  event.preventDefault();
  const chosen = new DataTransfer();
  chosen.items.add(file);
  field.files = chosen.files;
  field.dispatchEvent(new Event("change", { bubbles: true }));
});

document.addEventListener("submit", (event) => {
  const words = document.getElementById("price")?.dataset.asks;
  const dialog = document.getElementById("ask");
  if (event.target.id !== "form" || !words || !dialog || dialog.dataset.confirmed) {
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

document.addEventListener("keydown", (event) => {
  const form = event.target.closest("form[data-sends-by]");
  if (form && event.key === form.dataset.sendsBy && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});

// Live: one stream for the page says which videos have changed, and the page asks for what it shows of them. Only a
// visible page holds a connection; one that becomes visible again is told what it has missed.

let stream = null;
let lastEvent = "";

function changed(event) {
  lastEvent = event.lastEventId || lastEvent;
  const { id } = JSON.parse(event.data);
  const card = document.getElementById(`card-${id}`);
  const whole = document.querySelector(`#video[data-video="${id}"]`);
  const list = document.querySelector("[data-cards]");
  if (event.type === "video.deleted") {
    card?.remove();
  } else if (whole) {
    if (!whole.querySelector("video")) htmx.ajax("GET", whole.dataset.part, { target: whole, swap: "outerMorph" });
  } else if (card) {
    htmx.ajax("GET", `${list.dataset.cards}/${id}/card`, { target: card, swap: "outerMorph" });
  } else if (list && "takesNew" in list.dataset) {
    htmx.ajax("GET", `${list.dataset.cards}/${id}/card`, { target: list, swap: "afterbegin" });
  }
}

function follow() {
  const source = document.querySelector("[data-feed]");
  if (!source || document.hidden || stream) return;
  const from = lastEvent ? `?last_event_id=${lastEvent}` : "";
  stream = new EventSource(source.dataset.feed + from);
  for (const name of ["video.status", "video.progress", "video.deleted"]) stream.addEventListener(name, changed);
  stream.addEventListener("reset", () => location.reload());
  stream.addEventListener("error", () => {
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
  } else {
    follow();
  }
});

// Parts of a page that are asked for again while it is visible. One that cannot be had stays as it is, marked as old.

const AGAIN_MS = 5_000;
let missed = false;

function askAgain() {
  const part = document.querySelector("[data-again]");
  if (part && !document.hidden) htmx.ajax("GET", part.dataset.again, { source: part, target: part, swap: "outerMorph" });
}

document.addEventListener("DOMContentLoaded", () => {
  if (!document.querySelector("[data-again]")) return;
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

// Buttons that wait for a vendor say so.
document.addEventListener("submit", (event) => {
  const button = event.submitter;
  if (!button || !("waits" in button.dataset)) return;
  button.textContent = button.dataset.waits;
  setTimeout(() => (button.disabled = true)); // a disabled one would not send the form
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
