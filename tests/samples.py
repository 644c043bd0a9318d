"""Video files with the oddities of real ones, made by ffmpeg or by changing the bytes of others; no ffprobe needed.

samples = Samples(folder)
samples("frag.mp4")  # bytes, made once
"""

import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

from obstore.store import MemoryStore

from app.media import ffmpeg
from app.media.measure import Measured, measure
from app.media.store import Store


def _picture(size: str = "640x360", rate: str = "24", seconds: float = 4) -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", f"testsrc=size={size}:rate={rate}:duration={seconds}")


def _sound(seconds: float) -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}")


H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
H265 = ("-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=error")
VP8 = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8")
AV1 = ("-c:v", "libaom-av1", "-cpu-used", "8", "-usage", "realtime", "-pix_fmt", "yuv420p")
SECOND_IS_DEFAULT = ("-map", "0", "-map", "1", "-disposition:v:0", "0", "-disposition:v:1", "default")

ENCODED: dict[str, tuple[str, ...]] = {
    "base.mp4": (*_picture(), *H264),
    "fast.mp4": (*_picture(), *H264, "-movflags", "+faststart"),
    "long.mp4": (*_picture("64x48", "8", 10), *H264),
    "hd.mp4": (*_picture("1280x720", "8", 1), *H264),
    "clip.mov": (*_picture(), *H264, "-timecode", "01:00:00:00"),
    "frag.mp4": (*_picture(), *H264, "-g", "24", "-movflags", "frag_keyframe+empty_moov+default_base_moof"),
    "frag_moov.mp4": (*_picture(), *H264, "-g", "24", "-movflags", "frag_keyframe"),
    "frag_sidx.mp4": (*_picture(), *H264, "-g", "24", "-movflags", "frag_keyframe+empty_moov+global_sidx"),
    "frag60.mp4": (*_picture("320x180", seconds=60), *H264, "-g", "48", "-movflags", "frag_keyframe+empty_moov"),
    "sar.mp4": (*_picture("640x480", seconds=3), "-vf", "setsar=16/9", *H264),
    "longaudio.mp4": (*_picture(), *_sound(30), *H264, "-c:a", "aac"),
    "longaudio.mkv": (*_picture(), *_sound(30), *H264, "-c:a", "aac"),
    "still8.mp4": (*_picture(rate="1/10", seconds=8), *_sound(8), "-t", "8", *H264, "-c:a", "aac"),
    "one.mp4": (*_picture(), "-frames:v", "1", *H264),
    "two.mp4": (*_picture("320x240", seconds=2), *_picture(), *SECOND_IS_DEFAULT, *H264),
    "two.mkv": (*_picture("320x240", seconds=2), *_picture(), *SECOND_IS_DEFAULT, *H264),
    "hevc10.mp4": (*_picture(seconds=3), *H265, "-tag:v", "hvc1"),
    "av1.mp4": (*_picture("320x180", seconds=1), *AV1),
    "web.webm": (*_picture(), *VP8),
    "live.webm": (*_picture(), *VP8, "-live", "1"),
    "mkv.mkv": (*_picture(seconds=3), *H264),
    "ts.ts": (*_picture("320x180", seconds=2), *H264),
    "m2ts.ts": (*_picture("320x180", seconds=2), *H264, "-mpegts_m2ts_mode", "1"),
    "anim.gif": (*_picture("160x90", "8", 2),),
    "anim.webp": (*_picture("160x90", "8", 2), "-c:v", "libwebp_anim", "-loop", "0"),
}
"""Arguments of ffmpeg without the target."""


def boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and whole box of each box."""
    offset = 0
    while offset < len(content):
        length, kind = struct.unpack_from(">I4s", content, offset)
        yield kind, content[offset : offset + length]
        offset += length


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def patched(content: bytes, *changes: tuple[bytes, int, str, int]) -> bytes:
    """Change numbers at (box, offset in its body, layout, number)."""
    raw = bytearray(content)
    for kind, offset, layout, number in changes:
        struct.pack_into(layout, raw, raw.index(kind) + 4 + offset, number)
    return bytes(raw)


def relaid(content: bytes, before: bytes = b"", *, index_first: bool = False, mdat: str = "plain") -> bytes:
    """Write a file with `moov` last in another layout, its chunk offsets moved along."""
    parts = dict(boxes(content))
    media = parts[b"mdat"][8:]
    header = {
        "plain": struct.pack(">I4s", 8 + len(media), b"mdat"),
        "wide": struct.pack(">I4sQ", 1, b"mdat", 16 + len(media)),
        "open": struct.pack(">I4s", 0, b"mdat"),
    }[mdat]
    head = before + parts[b"ftyp"] + (parts[b"moov"] if index_first else b"")
    moov = bytearray(parts[b"moov"])
    moved = len(head) + len(header) - content.index(media)
    chunks = moov.index(b"stco") + 8
    (count,) = struct.unpack_from(">I", moov, chunks)
    for at in range(chunks + 4, chunks + 4 + 4 * count, 4):
        struct.pack_into(">I", moov, at, struct.unpack_from(">I", moov, at)[0] + moved)
    if index_first:
        return before + parts[b"ftyp"] + bytes(moov) + header + media
    return head + header + media + bytes(moov)


def rotated(content: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """Set the four numbers of a track's matrix that turn it, in units of a quarter turn's sine and cosine."""
    places = (40, 44, 52, 56)
    return patched(content, *((b"tkhd", at, ">i", value << 16) for at, value in zip(places, matrix, strict=True)))


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


LENGTHS = ((b"mvhd", 16), (b"tkhd", 20), (b"mdhd", 16))
"""Boxes that say how long the video is, and where."""
SHOWN = ((b"elst", 8), (b"tkhd", 20))
"""Boxes that say how much of the track is shown."""
LONGEST = 2**32 - 2

CHANGED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "mdat64.mp4": ("base.mp4", partial(relaid, mdat="wide")),
    "mdat0.mp4": ("base.mp4", partial(relaid, index_first=True, mdat="open")),
    "freefirst.mp4": ("base.mp4", partial(relaid, before=box(b"free", bytes(8)))),
    "uuidfirst.mp4": ("base.mp4", partial(relaid, before=box(b"uuid", b"0123456789abcdef" + b"x" * 8))),
    "styp.mp4": ("base.mp4", lambda content: content.replace(b"ftyp", b"styp", 1)),
    "editlist.mp4": (
        "base.mp4",
        lambda content: patched(content, *((*at, ">I", 1_500) for at in SHOWN)),
    ),
    "rot90.mp4": ("base.mp4", partial(rotated, matrix=(0, 1, -1, 0))),
    "rot180.mp4": ("base.mp4", partial(rotated, matrix=(-1, 0, 0, -1))),
    "rot270.mp4": ("base.mp4", partial(rotated, matrix=(0, -1, 1, 0))),
    "lie_long.mp4": ("fast.mp4", lambda content: patched(content, (b"mvhd", 16, ">I", 4_294_000_000))),
    "lie_zero.mp4": ("fast.mp4", lambda content: patched(content, (b"mvhd", 16, ">I", 0))),
    "all_long.mp4": ("fast.mp4", lambda content: patched(content, *((*at, ">I", LONGEST) for at in LENGTHS))),
    "all_zero.mp4": ("fast.mp4", lambda content: patched(content, *((*at, ">I", 0) for at in LENGTHS))),
    "lie.webm": ("web.webm", lambda content: content.replace(b"00:00:04.0", b"99:00:04.0")),
    "zeros.mp4": ("fast.mp4", lambda content: content + bytes(5_000)),
    "freelast.mp4": ("fast.mp4", lambda content: content + box(b"free", bytes(92))),
    "textlast.mp4": ("base.mp4", lambda content: content + b"\r\n--boundary--\r\n"),
    "zeros.webm": ("web.webm", lambda content: content + bytes(1_000)),
    "cut_fast.mp4": ("fast.mp4", half),
    "cut_base.mp4": ("base.mp4", half),
    "cut_frag.mp4": ("frag.mp4", half),
    "cut_mdat0.mp4": ("mdat0.mp4", half),
    "cut.webm": ("web.webm", half),
    "cut_live.webm": ("live.webm", half),
    "cut.mkv": ("mkv.mkv", half),
    "cut.ts": ("ts.ts", lambda content: content[:-100]),
    "cut.gif": ("anim.gif", half),
    "cut.webp": ("anim.webp", half),
}
"""The file that each is made from, and the change."""


class Samples:
    """Files by name, made on first use and kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str) -> bytes:
        path = self._folder / name
        if not path.exists():
            if name in ENCODED:
                command = [ffmpeg.program().path, "-v", "error", "-nostdin", "-y", *ENCODED[name], str(path)]
                subprocess.run(command, check=True)
            else:
                source, change = CHANGED[name]
                path.write_bytes(change(self(source)))
        return path.read_bytes()


async def measured(content: bytes) -> Measured:
    """Measure a file as the gateway does."""

    async def whole() -> AsyncIterator[bytes]:
        yield content

    store = Store(MemoryStore())
    return await measure(store, await store.put("file", whole(), max_bytes=2**40))
