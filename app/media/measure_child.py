"""Program that measures one media file, run by `measure.py`: `measure_child.py SIZE CONTENT_TYPE`.

Stand-alone: nothing of the gateway is imported. The file is read through the parent: a line `offset length` on
standard output is answered with the bytes on standard input. The last line is the result, a JSON object. Length and
shape of video tracks are MediaInfo's; where a header and the frames disagree, the frames count. Completeness and the
times of animated pictures are read here, from the outermost structure of each format. Every byte is untrusted: the
limits below end a run that a file makes long or large.
"""

import ctypes
import json
import os
import resource
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

MAX_CPU_S = 20
MAX_MEMORY_BYTES = 512 * 2**20
BLOCK_BYTES = 128 * 1024
MAX_SCANNED_BYTES = 64 * 2**20
"""Size of the largest Matroska file whose frames are all looked at."""
TOLERANCE_S = 0.1
"""Difference between header and frames that is left to the header."""

FINISHED, GO_ON = 8, 2**64 - 1
"""MediaInfo's flag of a file of which it has seen enough, and its offset for reading on without a seek."""

CODECS = {"AVC": "h264", "MPEG-4 Visual": "mpeg4"}
"""Codec names by MediaInfo's; all others are in lower case."""


class Cut(Exception):  # says what is wrong with the file
    """The file ends before something that it promises."""


class ParentFile:
    """The file as the parent reads it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._position = 0
        self._block = lru_cache(maxsize=256)(self._ask)

    def at(self, offset: int, length: int) -> bytes:
        """Return exactly these bytes. Raises `Cut` beyond the end of the file."""
        if offset + length > self.size:
            raise Cut
        self._position = offset
        return self.read(length)

    def number(self, layout: str, offset: int) -> int:
        """Return the unsigned number at `offset`."""
        return int(struct.unpack(layout, self.at(offset, struct.calcsize(layout)))[0])

    def read(self, length: int) -> bytes:
        """Return the next bytes, fewer at the end of the file."""
        end = min(self._position + length, self.size)
        pieces = []
        while self._position < end:
            number, start = divmod(self._position, BLOCK_BYTES)
            piece = self._block(number)[start : start + end - self._position]
            pieces.append(piece)
            self._position += len(piece)
        return b"".join(pieces)

    def seek(self, offset: int) -> None:
        self._position = offset

    def _ask(self, number: int) -> bytes:
        start = number * BLOCK_BYTES
        length = min(BLOCK_BYTES, self.size - start)
        sys.stdout.write(f"{start} {length}\n")
        sys.stdout.flush()
        content = sys.stdin.buffer.read(length)
        if len(content) != length:
            raise EOFError
        return content


# MP4 and QuickTime: ISO/IEC 14496-12

TOP_BOXES = frozenset(
    (
        b"ftyp",
        b"styp",
        b"moov",
        b"moof",
        b"mdat",
        b"free",
        b"skip",
        b"wide",
        b"uuid",
        b"pnot",
        b"sidx",
        b"mfra",
        b"meta",
    )
)


def read_iso(file: ParentFile) -> dict[str, Any]:
    """Measure a file of boxes. Raises `Cut` if it has no `moov`, or a box at the top goes beyond its end.

    Bytes after the `moov` that are no box of the format are ignored: zeros, or what a server has appended.
    """
    offset, has_index, open_ended = 0, False, 0
    while offset + 8 <= file.size:
        length, kind = struct.unpack(">I4s", file.at(offset, 8))
        if length == 1:
            length = file.number(">Q", offset + 8)
        elif length == 0 and kind in TOP_BOXES:
            length = file.size - offset
            open_ended = length if kind == b"mdat" else 0
        if length < 8:
            break
        if offset + length > file.size:
            if kind in TOP_BOXES or not has_index:
                raise Cut
            break
        has_index = has_index or kind == b"moov"
        offset += length
    if not has_index:
        raise Cut
    tracks = parse(file)
    if (
        open_ended
        and sum(number(track, "Source_StreamSize") or number(track, "StreamSize") for track in tracks) > open_ended
    ):
        raise Cut  # a box of size 0 ends at the end of the file, wherever that is
    track = video_track(tracks)
    said, sampled = number(track, "Duration"), number(track, "Source_Duration")
    # An edit list makes the track shorter than its frames, never longer.
    seconds = sampled if sampled and not 0 < said <= sampled + TOLERANCE_S else said
    return described(track, seconds)


# Matroska and WebM: RFC 9559

SEGMENT, INFO, CLUSTER, BLOCK_GROUP = 0x18538067, 0x1549A966, 0x1F43B675, 0xA0
TIMESTAMP_SCALE, CLUSTER_TIMESTAMP, SIMPLE_BLOCK, BLOCK, BLOCK_DURATION = 0x2AD7B1, 0xE7, 0xA3, 0xA1, 0x9B
OTHERS = (0x114D9B74, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, 0xEC)
ELEMENTS = frozenset((SEGMENT, INFO, CLUSTER, BLOCK_GROUP, SIMPLE_BLOCK, BLOCK, *OTHERS))


def read_matroska(file: ParentFile) -> dict[str, Any]:
    """Measure a Matroska or WebM file. Raises `Cut` if it has no segment, or an element goes beyond its end."""
    times = block_times(file)
    track = video_track(parse(file))
    said, sampled = number(track, "Duration"), 0.0
    with suppress(KeyError, ValueError):
        sampled = times[int(track["ID"])].seconds
    return described(track, sampled if sampled and abs(said - sampled) > TOLERANCE_S else said)


class Times:
    """First and last time stamp of the blocks of one track, in seconds."""

    def __init__(self) -> None:
        self.first, self.last, self.end, self.count = float("inf"), 0.0, 0.0, 0

    def add(self, at: float) -> None:
        self.first, self.last, self.count = min(self.first, at), max(self.last, at), self.count + 1

    @property
    def seconds(self) -> float:
        """From the first frame to the end of the last, which lasts as long as the others unless it has a duration;
        0 if unknown."""
        shown = self.last - self.first
        return max(self.end - self.first, shown + shown / (self.count - 1) if self.count > 1 else 0)


def block_times(file: ParentFile) -> dict[int, Times]:
    """Return the times of all blocks by track number; of a large file, those outside of clusters of known size only."""
    times: dict[int, Times] = {}
    scale, cluster, number, at = 1_000_000, 0, 0, 0.0
    has_segment = False
    for kind, start, end in elements(file):
        if kind == SEGMENT:
            has_segment = True
        elif kind == TIMESTAMP_SCALE and end is not None:
            scale = int.from_bytes(file.at(start, min(8, end - start)), "big")
        elif kind == CLUSTER_TIMESTAMP and end is not None:
            cluster = int.from_bytes(file.at(start, min(8, end - start)), "big")
        elif kind in (SIMPLE_BLOCK, BLOCK):
            number, width = vint(file, start) or (0, 1)
            (relative,) = struct.unpack(">h", file.at(start + width, 2))
            at = (cluster + relative) * scale / 1e9
            times.setdefault(number, Times()).add(at)
        elif kind == BLOCK_DURATION and end is not None and number in times:
            lasts = int.from_bytes(file.at(start, min(8, end - start)), "big") * scale / 1e9
            times[number].end = max(times[number].end, at + lasts)
    if not has_segment:
        raise Cut
    return times


def elements(file: ParentFile) -> Iterator[tuple[int, int, int | None]]:
    """Yield (id, start, end) of the content of each element in the order of the file, those inside of a segment, its
    clusters and their groups as well; the end is None if unknown. Raises `Cut`."""
    entered = {SEGMENT, INFO, CLUSTER, BLOCK_GROUP} if file.size <= MAX_SCANNED_BYTES else {SEGMENT, INFO}
    offset, limit = 0, file.size
    while offset < limit:
        length = 9 - file.at(offset, 1)[0].bit_length()
        size = vint(file, offset + length) if length <= 4 else None
        if size is None:  # not an element: what follows a segment of unknown size
            return
        kind = int.from_bytes(file.at(offset, length), "big")
        start = offset + length + size[1]
        end = None if size[0] == 2 ** (7 * size[1]) - 1 else start + size[0]
        if end is not None and end > file.size:
            if kind in ELEMENTS:
                raise Cut
            return
        yield kind, start, end
        if kind == SEGMENT:
            limit = file.size if end is None else end
        offset = start if end is None or kind in entered else end


def vint(file: ParentFile, offset: int) -> tuple[int, int] | None:
    """Return a number of variable width and its width in bytes; None if there is none."""
    first = file.at(offset, 1)[0] if offset < file.size else 0
    width = 9 - first.bit_length()
    if width > 8 or offset + width > file.size:
        return None
    return int.from_bytes(file.at(offset, width), "big") - (1 << 7 * width), width


# MPEG transport streams


def read_transport_stream(file: ParentFile) -> dict[str, Any]:
    """Measure a transport stream. Raises `Cut` if it ends with a part of a packet."""
    packet, sync = (188, 0) if file.at(0, 1) == file.at(188, 1) == b"G" else (192, 4)
    begun = file.size - file.size % packet + sync
    if begun < file.size and file.at(begun, 1) == b"G":
        raise Cut
    track = video_track(parse(file))
    return described(track, number(track, "Duration"))


# Animated pictures


def read_gif(file: ParentFile) -> dict[str, Any]:
    """Measure a GIF. Raises `Cut` if it has no trailer."""
    width, height, flags = struct.unpack("<HHB", file.at(6, 5))
    offset, delays, delay = 13 + palette_bytes(flags), [], 0
    while (kind := file.at(offset, 1)) != b";":
        if kind == b"!":
            if file.at(offset + 1, 1) == b"\xf9":
                delay = file.number("<H", offset + 4)
            offset += 2
        elif kind == b",":
            delays.append(delay)
            delay = 0
            offset += 11 + palette_bytes(file.at(offset + 9, 1)[0])
        else:
            break
        while length := file.at(offset, 1)[0]:
            offset += 1 + length
        offset += 1
    return {"width": width, "height": height, "duration_s": shown_for(delays, 100), "codec": "gif"}


def palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 128 else 0


def read_webp(file: ParentFile) -> dict[str, Any]:
    """Measure an animated WebP. Raises `Cut` if it is shorter than it says."""
    end = 8 + file.number("<I", 4)
    file.at(end - 1, 1)
    width = height = None
    offset, delays = 12, []
    while offset + 8 <= end:
        kind, length = struct.unpack("<4sI", file.at(offset, 8))
        if kind == b"VP8X":
            width, height = (1 + int.from_bytes(file.at(offset + place, 3), "little") for place in (12, 15))
        elif kind == b"ANMF":
            delays.append(int.from_bytes(file.at(offset + 20, 3), "little"))
        offset += 8 + length + length % 2
    return {"width": width, "height": height, "duration_s": shown_for(delays, 1_000), "codec": "webp"}


def shown_for(delays: list[int], per_second: int) -> float | None:
    """The length of an animation in seconds. As in browsers, a frame of at most 0.01 s is shown for 0.1 s; a single
    frame without a time has no length."""
    if not any(delays) and len(delays) < 2:
        return None
    return sum(delay if delay * 100 > per_second else per_second // 10 for delay in delays) / per_second


# All formats


def read_other(file: ParentFile) -> dict[str, Any]:
    """Measure a file of a type that is not known here; nothing is said of its completeness."""
    track = video_track(parse(file))
    return described(track, number(track, "Duration"))


READERS: dict[str, Callable[[ParentFile], dict[str, Any]]] = {
    "video/mp4": read_iso,
    "video/quicktime": read_iso,
    "video/webm": read_matroska,
    "video/x-matroska": read_matroska,
    "video/mp2t": read_transport_stream,
    "image/gif": read_gif,
    "image/webp": read_webp,
}


@cache
def library() -> ctypes.CDLL:
    """Load MediaInfo from the package pymediainfo, whose own module takes longer to import than a file to measure."""
    spec = find_spec("pymediainfo")
    folders = spec.submodule_search_locations if spec is not None else None
    name = "libmediainfo.0.dylib" if sys.platform == "darwin" else "libmediainfo.so.0"
    path = os.path.join(folders[0], name) if folders else name
    loaded = ctypes.CDLL(path if os.path.exists(path) else name)
    pointer, text, size, number_64 = ctypes.c_void_p, ctypes.c_wchar_p, ctypes.c_size_t, ctypes.c_uint64
    for function, result, arguments in (
        (loaded.MediaInfo_New, pointer, ()),
        (loaded.MediaInfo_Option, text, (pointer, text, text)),
        (loaded.MediaInfo_Inform, text, (pointer, size)),
        (loaded.MediaInfo_Open_Buffer_Init, size, (pointer, number_64, number_64)),
        (loaded.MediaInfo_Open_Buffer_Continue, size, (pointer, ctypes.c_char_p, size)),
        (loaded.MediaInfo_Open_Buffer_Continue_GoTo_Get, number_64, (pointer,)),
        (loaded.MediaInfo_Open_Buffer_Finalize, size, (pointer,)),
    ):
        function.restype, function.argtypes = result, arguments
    return loaded


def parse(file: ParentFile) -> list[dict[str, Any]]:
    """Return MediaInfo's tracks. It is fed with blocks and says where to go on; the process ends with its handle."""
    media_info = library()
    handle = media_info.MediaInfo_New()
    for name, value in (("Cover_Data", ""), ("CharSet", "UTF-8"), ("Inform", "JSON"), ("Complete", "")):
        media_info.MediaInfo_Option(handle, name, value)
    media_info.MediaInfo_Open_Buffer_Init(handle, file.size, 0)
    file.seek(0)
    while block := file.read(BLOCK_BYTES):
        if media_info.MediaInfo_Open_Buffer_Continue(handle, block, len(block)) & FINISHED:
            break
        offset = media_info.MediaInfo_Open_Buffer_Continue_GoTo_Get(handle)
        if offset != GO_ON:
            file.seek(offset)
            media_info.MediaInfo_Open_Buffer_Init(handle, file.size, offset)
    media_info.MediaInfo_Open_Buffer_Finalize(handle)
    found = json.loads(media_info.MediaInfo_Inform(handle, 0))
    return [track for track in (found.get("media") or {}).get("track") or [] if track["@type"] != "General"]


def video_track(tracks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the track that a player shows: the first one that is not switched off; empty if there is none."""
    videos = [track for track in tracks if track["@type"] == "Video"]
    return next((track for track in videos if track.get("Default") != "No"), videos[0] if videos else {})


def number(track: dict[str, Any], name: str) -> float:
    """Return a value of a track, 0 if it is missing or no number."""
    try:
        return float(track[name])
    except (KeyError, TypeError, ValueError):
        return 0


def described(track: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the result for a video track: its shape with square pixels, after rotation."""
    width = round(number(track, "Width") * (number(track, "PixelAspectRatio") or 1))
    height = round(number(track, "Height"))
    if round(number(track, "Rotation")) % 180 == 90:
        width, height = height, width
    name = track.get("Format", "")
    return {"duration_s": seconds, "width": width, "height": height, "codec": CODECS.get(name, name.lower())}


def set_limits() -> None:
    """Limit this process; from now on it can open no file and no socket."""
    limits = {
        resource.RLIMIT_CPU: MAX_CPU_S,
        resource.RLIMIT_DATA: MAX_MEMORY_BYTES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 0,
    }
    for kind, limit in limits.items():
        with suppress(OSError, ValueError):  # lower already, or not known on this system
            resource.setrlimit(kind, (limit, limit))


def main(size: int, content_type: str) -> None:
    result: dict[str, Any]
    try:
        library()  # loaded while files can be opened
        set_limits()
        reader = READERS.get(content_type)
        result = (reader or read_other)(ParentFile(size))
        if reader is not None:
            result["truncated"] = False
    except Cut:
        result = {"truncated": True}
    except Exception as error:
        result = {"error": type(error).__name__}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
