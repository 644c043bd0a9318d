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
  if (!picture || !step || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
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
