"""Thumbnail and sprite sheet from the frames of a video file.

Video files are untrusted: the first bytes must be those of a video, ffmpeg may use the demuxer of that format and video
decoders only. A picture is judged by its bytes, never by ffmpeg's exit code: releases 4.2 to 5.1 write a few bytes of
rubbish and succeed when there is no frame at the time asked for.
"""

import asyncio
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from app.media import ffmpeg
from app.media.ffmpeg import FfmpegExhausted, FfmpegFailed, FfmpegMissing, FfmpegStopped
from app.media.sniff import HEAD_BYTES, sniff
from app.telemetry.logs import log

MAX_PIXELS = 8_192 * 8_192
DEMUXERS = {
    "video/mp4": "mov",
    "video/quicktime": "mov",
    "video/webm": "matroska",
    "video/x-matroska": "matroska",
    "video/mp2t": "mpegts",
    "image/gif": "gif",
    "image/webp": "webp_anim",  # only newer builds have it
}
"""Demuxer by the content type that the first bytes show. ffmpeg must not guess: a playlist (HLS, concat) that is named
like a video refers to other files."""
UNSEEKABLE = ("gif", "webp_anim")
DECODERS = "h264,hevc,libdav1d,libaom-av1,av1,vp8,libvpx,vp9,libvpx-vp9,mpeg4,prores,gif,webp_anim,webp"
"""Video decoders only; sound is not decoded."""

THUMBNAIL_WIDTH = 640
COLUMNS, ROWS = 5, 5
TILES = COLUMNS * ROWS
TILE_WIDTH, MAX_TILE_HEIGHT = 160, 640
DECODED_S = 60
"""Length up to which a sprite sheet is made by decoding the whole video in one run: 25 exact seeks decode about half of
the frames between two key frames each, in all as much as a minute or two of video."""
MAX_SPAN_S = 10_000_000

SQUARE = r"setsar=r=if(between(sar\,0.2\,5)\,sar\,1)"
"""Drops a pixel aspect ratio that no camera has; `dar` below is the aspect ratio that a player shows."""
THUMBNAIL = rf"{SQUARE},scale=w=max(2\,2*trunc(min({THUMBNAIL_WIDTH}\,iw*sar)/2)):h=max(2\,2*round(ow/dar/2)),setsar=1"
TILE = (
    rf"{SQUARE},scale=w=max(2\,2*round(min({TILE_WIDTH}\,{MAX_TILE_HEIGHT}*dar)/2))"
    rf":h=max(2\,2*round(ow/dar/2)),setsar=1"
)
FIRST = "setpts=PTS-STARTPTS"
"""Keeps a key frame before the time asked for, which would be dropped for its negative time."""
JPEG_HEAD = b"\xff\xd8\xff"
PPM_HEAD = re.compile(rb"P6\s(\d{1,5})\s(\d{1,5})\s255\s")


class NoPicture(FfmpegFailed):
    """The file is not a video, or no picture can be made of it."""

    status_code = 404
    type = "invalid_request_error"
    default_code = "no_picture"

    def __init__(self, message: str, *, final: bool = True) -> None:
        super().__init__(message)
        self.final = final
        """False where another try may succeed: the machine may have been busy."""


class Tile(NamedTuple):
    width: int
    height: int
    pixels: bytes
    """RGB, three bytes a pixel."""


def thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """Return the size of the thumbnail of a video that players show in this size, by the arithmetic of `THUMBNAIL`."""
    across = max(2, 2 * (min(THUMBNAIL_WIDTH, width) // 2))
    return across, max(2, 2 * int(across * height / width / 2 + 0.5))


async def thumbnail(source: Path, target: Path, *, duration_s: float | None = None, timeout_s: float) -> None:
    """Make a WebP of the frame at a tenth of the length of the video track, else of the first one, at most 640 px
    wide. Raises `NoPicture`, `FfmpegFailed`."""
    video = await _open(source, timeout_s)
    codec = ("-c:v", "libwebp", "-quality", "80", "-f", "webp")
    if duration_s:
        # There is no frame where a video is shorter than it says, and no quick way to one without key frames.
        with suppress(NoPicture):
            await video.extract(target, THUMBNAIL, codec, at_s=duration_s / 10, limit_s=timeout_s / 2)
            if is_webp(await asyncio.to_thread(_content, target)):
                return
    await video.extract(target, THUMBNAIL, codec)
    if not is_webp(await asyncio.to_thread(_content, target)):
        raise NoPicture("no picture can be made of this video: it has no frames")


async def spritesheet(source: Path, target: Path, *, duration_s: float | None, timeout_s: float) -> None:
    """Make a JPEG of 5 by 5 evenly spaced frames, each 160 px wide. Unknown length: one frame per second.

    Raises `NoPicture`, `FfmpegFailed`.
    """
    video = await _open(source, timeout_s)
    span_s = min(duration_s, MAX_SPAN_S) if duration_s else float(TILES)
    tiles: list[Tile] = []
    with tempfile.TemporaryDirectory(prefix="tiles-", dir=target.parent) as folder:
        if span_s <= DECODED_S or video.demuxer in UNSEEKABLE:
            try:
                tiles = await _decoded_tiles(video, Path(folder), span_s)
            except NoPicture as error:
                if error.final:
                    raise
        if not tiles:
            tiles = await _sought_tiles(video, Path(folder), span_s)
        await _write_sheet(tiles, Path(folder) / "sheet.rgb", target, timeout_s=max(10, video.left_s))


@dataclass(frozen=True)
class _Video:
    """A video file, and the moment in the loop's time by which its picture has to be made."""

    path: Path
    demuxer: str
    timeout_s: float
    deadline: float

    @property
    def left_s(self) -> float:
        return self.deadline - asyncio.get_running_loop().time()

    async def extract(
        self,
        target: Path,
        graph: str,
        codec: tuple[str, ...],
        *,
        at_s: float = 0,
        exact: bool = True,
        frames: int = 1,
        limit_s: float | None = None,
    ) -> None:
        """Write frames from `at_s` on; not `exact`: from the key frame before it. There may be none, or rubbish.

        Raises `NoPicture`, `FfmpegStopped`, `FfmpegMissing`.
        """
        seek = ("-ss", f"{at_s:.3f}") if at_s else ()
        source = (
            *("-f", self.demuxer, "-format_whitelist", self.demuxer, "-codec_whitelist", DECODERS),
            *("-max_pixels", str(MAX_PIXELS), "-threads", "2"),
            *(() if exact else ("-noaccurate_seek",)),
            *(*seek, "-i", f"file:{self.path}", "-map", "0:V:0", "-frames:v", str(frames), "-vf", graph),
        )
        await asyncio.to_thread(target.unlink, missing_ok=True)
        limit_s = max(0.001, min(self.left_s, limit_s or self.timeout_s))
        try:
            await ffmpeg.run((*source, *codec, f"file:{target.name}"), timeout_s=limit_s, cwd=target.parent)
        except FfmpegExhausted as error:
            log.info("ffmpeg run failed", reason=error.message)
            message = f"no picture can be made of this video: it takes too long (more than {self.timeout_s:g} s)"
            raise NoPicture(message, final=False) from error
        except (FfmpegStopped, FfmpegMissing):
            raise
        except FfmpegFailed as error:
            log.info("ffmpeg run failed", reason=error.message)
            raise NoPicture("no picture can be made of this video: it is damaged or its format is unknown") from error


async def _open(source: Path, timeout_s: float) -> _Video:
    try:
        kind = sniff(await asyncio.to_thread(_head, source))
    except OSError as error:
        raise FfmpegStopped(f"the video file cannot be read ({type(error).__name__})") from error
    demuxer = DEMUXERS.get(kind or "")
    if demuxer is None:
        raise NoPicture("no picture can be made of this file: it is not a video")
    path = await asyncio.to_thread(source.absolute)  # ffmpeg runs in another folder
    return _Video(path, demuxer, timeout_s, asyncio.get_running_loop().time() + timeout_s)


async def _decoded_tiles(video: _Video, folder: Path, span_s: float) -> list[Tile]:
    """Decode the whole video, in at most a third of the time."""
    graph = f"fps={TILES / span_s:.9f}:eof_action=pass,{TILE}"  # at least one frame
    codec = ("-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2")
    await video.extract(folder / "%02d.ppm", graph, codec, frames=TILES, limit_s=video.timeout_s / 3)
    tiles: list[Tile] = []
    for number in range(1, TILES + 1):
        tile = await asyncio.to_thread(_read_tile, folder / f"{number:02}.ppm")
        if tile is not None and tile[:2] == (tiles or [tile])[0][:2]:  # some videos change their shape on the way
            tiles.append(tile)
    return tiles


async def _sought_tiles(video: _Video, folder: Path, span_s: float) -> list[Tile]:
    """Seek to each frame: one run each, since 25 inputs of one run would be in memory together.

    Exact seeks decode from the key frame on. Where one takes long, all further ones take the key frame itself. A frame
    that is damaged or not there is replaced by the one before.
    """
    tiles: list[Tile] = []
    graph, exact = f"{FIRST},{TILE}", True
    for number in range(TILES):
        at_s = number * span_s / TILES
        try:
            tile = await _tile_at(video, folder / "tile.ppm", graph, at_s, exact=exact)
        except NoPicture:
            if not exact:
                raise
            exact = False
            tile = await _tile_at(video, folder / "tile.ppm", graph, at_s, exact=exact)
        if tile is None and not tiles:
            raise NoPicture("no picture can be made of this video: its first frame cannot be read")
        tiles.append(tile or tiles[-1])
        graph = f"{FIRST},scale={tiles[0].width}:{tiles[0].height}"
    return tiles


async def _tile_at(video: _Video, path: Path, graph: str, at_s: float, *, exact: bool) -> Tile | None:
    """The frame at a time; None where there is none or it is damaged. Raises `NoPicture` if that takes too long."""
    codec = ("-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2", "-update", "1")
    limit_s = video.timeout_s / 40 if exact else None
    try:
        await video.extract(path, graph, codec, at_s=at_s, exact=exact, limit_s=limit_s)
    except NoPicture as error:
        if not error.final:
            raise
        return None
    return await asyncio.to_thread(_read_tile, path)


async def _write_sheet(tiles: list[Tile], scratch: Path, target: Path, *, timeout_s: float) -> None:
    """Encode the tiles as one JPEG; the last one fills the places that are left."""
    width, height = tiles[0][:2]
    await asyncio.to_thread(scratch.write_bytes, _joined([*tiles, *[tiles[-1]] * TILES][:TILES]))
    source = ("-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{COLUMNS * width}x{ROWS * height}")
    codec = ("-vf", "scale=out_range=full", "-pix_fmt", "yuvj420p", "-c:v", "mjpeg", "-q:v", "4")
    args = (*source, "-i", f"file:{scratch}", "-frames:v", "1", *codec, "-f", "image2", "-update", "1")
    await ffmpeg.run((*args, f"file:{target.name}"), timeout_s=timeout_s, cwd=target.parent)
    if not is_jpeg(await asyncio.to_thread(_content, target)):
        raise FfmpegStopped("ffmpeg made no JPEG")


def _joined(tiles: list[Tile]) -> bytes:
    """The pixels of the sheet, line by line."""
    stride = tiles[0].width * 3
    return b"".join(
        tile.pixels[line * stride : (line + 1) * stride]
        for row in range(ROWS)
        for line in range(tiles[0].height)
        for tile in tiles[row * COLUMNS : (row + 1) * COLUMNS]
    )


def _read_tile(path: Path) -> Tile | None:
    """Read a PPM file; None where there is none or not a whole one."""
    content = _content(path)
    head = PPM_HEAD.match(content)
    if head is None:
        return None
    tile = Tile(int(head[1]), int(head[2]), content[head.end() :])
    return tile if len(tile.pixels) == tile.width * tile.height * 3 > 0 else None


def is_webp(content: bytes, size: int | None = None) -> bool:
    """Return True for a whole WebP file; of one of `size` bytes the first 16 are enough."""
    length = int.from_bytes(content[4:8], "little") + 8
    shape = content[:4] == b"RIFF" and content[8:15] == b"WEBPVP8"
    return shape and length == (len(content) if size is None else size)


def is_jpeg(content: bytes) -> bool:
    """Return True for a whole JPEG file."""
    return len(content) > 100 and content.startswith(JPEG_HEAD) and content.endswith(b"\xff\xd9")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _content(path: Path) -> bytes:
    """The bytes of a file that ffmpeg wrote; empty where it wrote none."""
    return path.read_bytes() if path.is_file() else b""
