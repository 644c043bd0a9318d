"""Test cards of the sandbox: an H.264 video with the prompt, a title, notes and a running clock."""

import asyncio
import shutil
import tempfile
import unicodedata
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from app.media.ffmpeg import (
    _plain,
    run,
    turns,
)

MAX_CARD_MEMORY_BYTES = 3 * 2**30
"""A card of 3840x2160 takes 1,250 MiB, the largest one (3840x3840) 2,070: x264 buffers many frames."""

MAX_CARD_BYTES = 2**30

FONT = Path(__file__).parent / "Roboto-Regular.ttf"

MAX_CARD_CHARACTERS = 400

LINE_HEIGHT = 1.36
"""Height of a line with the space after it, in units of the font size."""

WIDTHS = {**dict.fromkeys("iljI.,:;'|! ft", 0.29), **dict.fromkeys("mwMW@%", 0.9)}
"""Widths of narrow and wide characters, in units of the font size."""
PALETTES = (
    ("0x0b132b", "0x1c2e5a", "0x3a506b", "0x5bc0be"),
    ("0x160f29", "0x3b1f5c", "0x5c2a72", "0xf2a65a"),
    ("0x0d1f1a", "0x17463c", "0x24705a", "0xf4d35e"),
    ("0x1f0d14", "0x571a33", "0x7d2941", "0xffb4a2"),
    ("0x10141f", "0x2a3550", "0x445274", "0x9ad1ff"),
)
"""Three background colours and one for the lines; the prompt selects one palette."""

BARS = ("0xebebeb", "0xe5d13f", "0x3fc7c9", "0x45b649", "0xb54ab0", "0xd0433c", "0x3c54c8")


async def render_card(
    path: Path,
    *,
    seconds: float,
    width: int,
    height: int,
    prompt: str,
    title: str,
    notes: str = "",
    fps: int = 24,
    timeout_s: float,
) -> None:
    """Render an H.264 video: the prompt, a title line, notes and a running clock. Odd sizes are rounded to even."""
    width, height = max(2, width // 2 * 2), max(2, height // 2 * 2)
    codec = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "21", "-pix_fmt", "yuv420p", "-threads", "2")
    colour = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv")
    frames = ("-frames:v", str(max(1, round(seconds * fps))))
    with tempfile.TemporaryDirectory(prefix="testcard-") as directory:
        folder = Path(directory)
        graph = _draw(folder, width, height, seconds, prompt=prompt, title=title, notes=notes, fps=fps)
        (folder / "font.ttf").symlink_to(FONT)
        args = ("-f", "lavfi", "-i", graph, *frames, *codec, *colour, "-bitexact", "-movflags", "+faststart")
        async with turns().of("test cards", what="test cards"):
            await run(
                (*args, "card.mp4"),
                timeout_s=timeout_s,
                cwd=folder,
                max_bytes=MAX_CARD_BYTES,
                max_memory_bytes=MAX_CARD_MEMORY_BYTES,
            )
        await asyncio.to_thread(shutil.move, folder / "card.mp4", path)


class _Line(NamedTuple):
    """One piece of text on the card; `x` and `y` are ffmpeg expressions over the size of the text (tw, th)."""

    name: str
    text: str
    size: int
    x: str
    y: str
    colour: str = "white"
    expansion: str = "none"


def _draw(
    folder: Path, width: int, height: int, seconds: float, *, prompt: str, title: str, notes: str, fps: int
) -> str:
    """Write the texts of a card into `folder` and return its filter graph, which reads them from there.

    A slowly moving background, colour bars, and a line along the bottom that grows with time.
    """
    short = min(width, height)
    margin, small, clock = max(2, short * 7 // 100), max(6, short * 4 // 100), max(8, short * 9 // 100)
    room = width - 2 * margin
    foot = height - margin - short // 100
    top, bottom = margin + 2 * small, foot - clock - 3 * small
    size, wrapped = _fit(_plain(prompt, MAX_CARD_CHARACTERS), room, bottom - top - small, short)
    lines = [
        _Line("title", _cut(_plain(title, 200), room - small, small), small, f"{margin + small}", f"{margin}"),
        _Line("prompt", wrapped, size, f"{margin}", f"({top + bottom}-th)/2"),
        _Line("notes", _cut(_plain(notes, 200), room, small), small, f"{margin}", f"{bottom}", "white@0.7"),
        # The clock text begins with a blank for a minus sign, a quarter of the font size wide.
        _Line("clock", "%{pts:hms}", clock, f"{margin - clock // 4}", f"{foot}-th", expansion="normal"),
    ]
    *ground, accent = PALETTES[crc32(prompt.encode("utf-8", "replace")) % len(PALETTES)]
    bar = max(2, short * 12 // 1000)
    side = max(2, min(clock * 6 // 10, (room - 6 * clock) // len(BARS)))
    boxes = [f"drawbox=x={margin}:y={margin}:w={max(2, small // 5)}:h={small}:color={accent}:t=fill"]
    for index, colour in enumerate(reversed(BARS)):
        left, top = width - margin - side * (index + 1), foot - side
        boxes.append(f"drawbox=x={left}:y={top}:w={side}:h={side}:color={colour}@0.9:t=fill")
    boxes.append(f"drawbox=x=0:y=ih-{bar}:w=iw:h={bar}:color=white@0.15:t=fill")
    texts = []
    for line in lines:
        if line.text:
            (folder / f"{line.name}.txt").write_text(line.text, encoding="utf-8", errors="replace")
            texts.append(
                f"drawtext=fontfile=font.ttf:textfile={line.name}.txt:expansion={line.expansion}"
                f":fontsize={line.size}:x={line.x}:y={line.y}:line_spacing={line.size // 6}:fontcolor={line.colour}"
            )
    colours = ":".join(f"c{index}={colour}" for index, colour in enumerate(ground))
    return (
        f"gradients=s=160x90:r={fps}:n=3:{colours}:speed=0.03:seed=1,scale={width}:{height}:flags=bicubic,setsar=1,"
        f"format=yuv420p,{','.join(boxes + texts)}[card];"
        f"color=c={accent}:s={width}x{bar}:r={fps},format=yuv420p[line];"
        f"[card][line]overlay=x='-w+w*(t+1/{fps})/{seconds:.3f}':y=H-h:shortest=1[out0]"
    )


def _fit(text: str, width: int, height: int, short: int) -> tuple[int, str]:
    """Return the largest font size at which `text` fits, and the text in lines."""
    size = short * 9 // 100
    while size > max(6, short * 4 // 100) and len(_wrap(text, width, size)) * size * LINE_HEIGHT > height:
        size -= 1
    size = max(6, size)
    lines = _wrap(text, width, size)
    return size, "\n".join(lines[: max(1, int(height / (size * LINE_HEIGHT)))])


def _wrap(text: str, width: int, size: int) -> list[str]:
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if _ems(joined) * size <= width:
            lines[-1] = joined
            continue
        for character in f"\n{word}" if lines[-1] else word:
            if character == "\n" or _ems(lines[-1] + character) * size > width:
                lines.append("")
            lines[-1] += character.strip("\n")
    return lines


def _cut(text: str, width: int, size: int) -> str:
    """The beginning of `text` that fits on one line."""
    first, *more = _wrap(text, width, size)
    return f"{first[:-1]}…" if more else first


def _ems(text: str) -> float:
    """Approximate width of `text` in units of the font size; rather too wide than too narrow."""
    return sum(map(_width, text))


def _width(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return 1.0
    return WIDTHS.get(character, 0.68 if character.isupper() else 0.57)
