"""Reader of MP4 and QuickTime headers, and a sniffer of the few types we handle. Pure: no I/O of its own.

Every byte is untrusted: all sizes are checked against the enclosing box, the number of boxes read is limited, and
invalid values give None rather than an error. Layout: ISO/IEC 14496-12.
"""

import re
import struct
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

MAX_MOOV_BYTES = 64 * 2**20
MAX_TOP_BOXES = 64
MAX_BOXES = 10_000
MAX_SECONDS = 10_000_000

CODECS = {
    "avc1": "h264", "avc3": "h264", "hvc1": "hevc", "hev1": "hevc", "dvh1": "hevc", "dvhe": "hevc",
    "av01": "av1", "vp08": "vp8", "vp09": "vp9", "mp4v": "mpeg4",
    "apch": "prores", "apcn": "prores", "apcs": "prores", "apco": "prores", "ap4h": "prores", "ap4x": "prores",
}  # fmt: skip
"""Codec names by sample entry; an unknown one is named by its own four letters."""

VIDEO_TYPE = re.compile(r"video/[a-z0-9.+-]{1,60}")
"""A content type that is safe to store and send; an upstream may send anything."""

Box = tuple[bytes, memoryview]
Fetch = Callable[[int, int], Awaitable[bytes]]


@dataclass(frozen=True)
class VideoHeader:
    """Values in the header of a video file; None where one is missing or invalid."""

    duration_s: float | None
    width: int | None
    """In pixels as stored, before any rotation."""
    height: int | None
    codec: str | None


async def read_header(fetch: Fetch, size: int) -> VideoHeader | None:
    """Read the header of a file of `size` bytes; None where there is none. `fetch` takes (offset, length)."""
    offset = 0
    for _ in range(MAX_TOP_BOXES):
        if offset + 8 > size:
            return None
        head = await fetch(offset, min(16, size - offset))
        found = _header(head, size - offset)
        if found is None:
            return None
        kind, start, length = found
        if kind == b"moov":
            if not start < length <= MAX_MOOV_BYTES:
                return None
            moov = await fetch(offset + start, length - start)
            return _video_header(memoryview(moov)) if len(moov) == length - start else None
        offset += length
    return None


def sniff(head: bytes) -> str | None:
    """Return the content type that the first bytes (64 are enough) show; None for a type we do not handle."""
    kind = head[4:8]
    if kind == b"ftyp":
        brand = head[8:12]
        if brand == b"qt  ":
            return "video/quicktime"
        return None if brand[:3] in (b"avi", b"hei", b"hev", b"mif", b"msf", b"M4A", b"M4B") else "video/mp4"
    if kind in (b"styp", b"free", b"skip", b"uuid"):
        return "video/mp4"
    if kind in (b"moov", b"mdat", b"wide", b"pnot"):
        return "video/quicktime"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska" if b"matroska" in head[:64] else None
    if head[:1] == b"G" and head[188:189] == b"G":
        return "video/mp2t"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    images = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF87a": "gif", b"GIF89a": "gif"}
    return next((f"image/{name}" for magic, name in images.items() if head.startswith(magic)), None)


def is_text(head: bytes) -> bool:
    """Return True if the first bytes are text, such as an error page or a playlist. No video file begins with text."""
    return bool(head) and all(byte >= 32 or byte in b"\t\n\f\r" for byte in head)


def _header(head: bytes | memoryview, room: int) -> tuple[bytes, int, int] | None:
    """Return (type, bytes of the header, bytes of the box) of the box that begins with `head`; None if it is broken."""
    if len(head) < 8:
        return None
    length, kind = struct.unpack_from(">I4s", head)
    start = 8
    if length == 1:
        if len(head) < 16:
            return None
        (length,), start = struct.unpack_from(">Q", head, 8), 16
    elif length == 0:
        length = room
    return (kind, start, length) if start <= length <= room else None


class _Budget:
    """Limit of the boxes that are read in one file."""

    def __init__(self) -> None:
        self.left = MAX_BOXES

    def boxes(self, body: memoryview) -> Iterator[Box]:
        """The boxes inside `body`, up to the first broken one."""
        offset = 0
        while self.left > 0 and (found := _header(body[offset : offset + 16], len(body) - offset)):
            self.left -= 1
            kind, start, length = found
            yield kind, body[offset + start : offset + length]
            offset += length

    def first(self, body: memoryview | None, *path: bytes) -> memoryview | None:
        """The first box at `path` inside `body`."""
        for name in path:
            if body is None:
                return None
            body = next((inside for kind, inside in self.boxes(body) if kind == name), None)
        return body


def _video_header(moov: memoryview) -> VideoHeader:
    budget = _Budget()
    width = height = codec = duration = None
    fragments = None
    video = False
    for kind, body in budget.boxes(moov):
        if kind == b"mvhd":
            duration = _times(body)
        elif kind == b"mvex":
            fragments = budget.first(body, b"mehd")
        elif kind == b"trak" and not video and _is_video(budget.first(body, b"mdia", b"hdlr")):
            video = True
            width, height, codec = _entry(budget.first(body, b"mdia", b"minf", b"stbl", b"stsd"))
            if not width or not height:
                width, height = _track_size(budget.first(body, b"tkhd"))
    return VideoHeader(_seconds(duration, fragments), width or None, height or None, codec)


def _times(mvhd: memoryview) -> tuple[int, int | None] | None:
    """Return (units per second, length in units or None) of the video."""
    layout = ">16xIQ" if _long(mvhd) else ">8xII"
    if len(mvhd) < 4 + struct.calcsize(layout):
        return None
    scale, length = struct.unpack_from(layout, mvhd, 4)
    unknown = 2**64 - 1 if _long(mvhd) else 2**32 - 1
    return scale, None if length == unknown else length


def _seconds(times: tuple[int, int | None] | None, mehd: memoryview | None) -> float | None:
    if times is None or times[0] == 0:
        return None
    scale, length = times
    if not length and mehd is not None:
        layout = ">Q" if _long(mehd) else ">I"
        length = struct.unpack_from(layout, mehd, 4)[0] if len(mehd) >= 4 + struct.calcsize(layout) else None
    return length / scale if length and length / scale <= MAX_SECONDS else None


def _long(box: memoryview) -> bool:
    """Return True for a box of version 1, which has 64-bit numbers."""
    return bytes(box[:1]) == b"\x01"


def _is_video(hdlr: memoryview | None) -> bool:
    return hdlr is not None and bytes(hdlr[8:12]) == b"vide"


def _entry(stsd: memoryview | None) -> tuple[int | None, int | None, str | None]:
    """Return width, height and codec of the first sample entry, which follows 8 bytes of version and count."""
    if stsd is None or len(stsd) < 16:
        return None, None, None
    letters = bytes(stsd[12:16])
    codec = letters.decode("ascii").strip() if letters.isascii() and letters.decode().isprintable() else None
    width, height = struct.unpack_from(">HH", stsd, 40) if len(stsd) >= 44 else (None, None)
    return width, height, CODECS.get(codec or "", codec or None)


def _track_size(tkhd: memoryview | None) -> tuple[int | None, int | None]:
    """Return the two 16.16 numbers that end a track header."""
    if tkhd is None or len(tkhd) < 84:
        return None, None
    width, height = struct.unpack_from(">II", tkhd, 88 if _long(tkhd) and len(tkhd) >= 96 else 76)
    return width >> 16, height >> 16
