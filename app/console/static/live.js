// Live: a stream says which videos have changed, and the page asks for what it shows of them. All visible pages of a
// browser share one stream, since a browser opens six connections to a server at most: the page that holds a lock has
// it, and tells the others. A hidden page takes no part; one that becomes visible again is told what it has missed.

const TOP = 100; // pixels from the top within which new videos appear by themselves
const LOST_MS = 10_000;
let stream = null;
let lastEvent = document.body.dataset.since ?? ""; // from before the page was rendered
let lost = 0;
const coming = new Set();
let adding = Promise.resolve();
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

// One after the other, since all have the list as their source.
function addNew(list, id) {
  if (coming.has(id)) return;
  coming.add(id);
  const address = `${list.dataset.cards}/${id}/card?view=${list.dataset.view ?? ""}`;
  adding = adding
    .then(() => htmx.ajax("GET", address, { source: list, target: list, swap: "afterbegin" }))
    .catch(() => {}) // htmx tells of it
    .finally(() => coming.delete(id));
}

// A card that comes twice, by the stream and by the answer of a form, takes the place of the first.
document.addEventListener("htmx:before:swap", (event) => {
  for (const { type, target, swapSpec, fragment } of event.detail.tasks) {
    if (type !== "main" || swapSpec.style !== "afterbegin" || !target?.querySelector) continue;
    for (const card of fragment.querySelectorAll("[data-video][id]")) target.querySelector(`#${card.id}`)?.remove();
  }
});

function refreshRunning() {
  for (const part of document.querySelectorAll("[data-part][data-running]")) {
    if (!part.querySelector("video")) refresh(part);
  }
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
  lost ||= setTimeout(() => sayOld("Not live: what has changed is not shown. "), LOST_MS);
}

function sayOld(words) {
  if (document.getElementById("not-live")) return;
  const line = document.createElement("p");
  const link = document.createElement("a");
  line.id = "not-live";
  line.className = "notice";
  line.setAttribute("role", "status");
  link.href = location.href;
  link.textContent = "Reload";
  line.append(words, link);
  document.getElementById("main").prepend(line);
}

const feed = document.querySelector("[data-feed]")?.dataset.feed;
const NAME = `vgw-live ${feed} ${document.body.dataset.session}`; // another key has another stream
const others = feed && "BroadcastChannel" in window ? new BroadcastChannel(NAME) : null;
let unfollow = null; // ends this page's part in following

function tell(event) {
  const { type, data, lastEventId } = event;
  others?.postMessage({ type, data, lastEventId });
  take({ type, data, lastEventId });
}

function take(event) {
  if (event.type === "reset") resume(event);
  else if (event.type === "open") isLive();
  else if (event.type === "error") isLost();
  else changed(event);
}

// More has happened than is told. What runs is asked for again; a list may lack others, and stays: the page may have a
// form with what the reader has typed.
function resume(event) {
  lastEvent = event.lastEventId || lastEvent;
  refreshRunning();
  if (document.querySelector("[data-cards]")) sayOld("There may be videos that this list does not show. ");
}

others?.addEventListener("message", ({ data }) => {
  if (!unfollow) return;
  if (data.type !== "since") take(data);
  else if (stream && Number(data.lastEventId) < Number(lastEvent)) goBackTo(data.lastEventId);
});

// A page that joins has missed what came since its own last event: the stream is opened again from there, for all.
function goBackTo(mark) {
  stream.close();
  lastEvent = mark;
  openStream();
}

function openStream() {
  stream = new EventSource(feed + (lastEvent ? `?last_event_id=${lastEvent}` : ""));
  for (const name of ["video.status", "video.progress", "video.deleted", "reset", "open"]) {
    stream.addEventListener(name, tell);
  }
  stream.addEventListener("error", (event) => {
    tell(event);
    if (stream?.readyState !== EventSource.CLOSED) return; // it connects again by itself
    stream = null;
    setTimeout(() => {
      if (unfollow && !stream) openStream();
    }, LOST_MS);
  });
}

function follow() {
  if (!feed || document.hidden || unfollow) return;
  const left = new AbortController();
  const ended = new Promise((resolve) => {
    unfollow = () => {
      unfollow = null;
      stream?.close();
      stream = null;
      left.abort();
      resolve();
      isLive();
    };
  });
  const lead = () => {
    openStream();
    return ended;
  };
  // Locks are there on https and on this machine's own addresses; elsewhere each page has a stream of its own.
  if (others && navigator.locks) navigator.locks.request(NAME, { signal: left.signal }, lead).catch(() => {});
  else lead();
  others?.postMessage({ type: "since", lastEventId: lastEvent });
}

document.addEventListener("DOMContentLoaded", follow);
window.addEventListener("pagehide", () => unfollow?.());
window.addEventListener("pageshow", follow);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) unfollow?.();
  else {
    follow();
    if (feed) refreshRunning();
  }
});

// Of what the reader has opened or ticked, a part that is replaced keeps the state.
document.addEventListener("htmx:before:morph:attr", (event) => {
  const { attrName } = event.detail;
  if (attrName === "open" || (attrName === "hidden" && "strip" in event.target.dataset)) event.preventDefault();
});
