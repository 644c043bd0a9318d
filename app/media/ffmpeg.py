"""The ffmpeg program: runs it with limits, makes thumbnails and sprite sheets.

Always a child process in its own process group, without a shell and without our environment, limited in memory, CPU
time and file size; killed with its group at the time-out or when the calling task is cancelled. Video files are
untrusted: the first bytes must be those of a video, ffmpeg may use the demuxer of that format and video decoders only,
and no text of a file or prompt becomes part of an argument or filter.
"""

import asyncio
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from weakref import WeakKeyDictionary

from app import errors, settings
from app.media.sniff import sniff
from app.telemetry import log

AT_ONCE = 2
"""ffmpeg processes that one process of ours runs at a time; further calls wait."""
MAX_ALLOC_BYTES = 512 * 2**20
MAX_PICTURE_MEMORY_BYTES = 2**30
"""Limit of one ffmpeg that reads a video. A sprite sheet of a 4K video takes 380 MiB, of an 8K one 460."""
MAX_PICTURE_BYTES = 64 * 2**20
MAX_PIXELS = 8_192 * 8_192
KEPT_STDERR_BYTES = 4_096
MAX_STDERR_BYTES = 2**20
"""ffmpeg is killed beyond this: some decoders repeat an out-of-memory error for ever."""
DEMUXERS = {"video/mp4": "mov", "video/quicktime": "mov", "video/webm": "matroska"}
"""Demuxer by the content type that the first bytes show. ffmpeg must not guess: a playlist (HLS, concat) that is named
like a video refers to other files."""
DECODERS = "h264,hevc,libdav1d,libaom-av1,av1,vp8,libvpx,vp9,libvpx-vp9,mpeg4,prores"
"""Video decoders only; sound is not decoded."""
NEEDED = (("-filters", " drawtext "), ("-encoders", " libx264 "), ("-encoders", " libwebp "))

THUMBNAIL_WIDTH = 640
SHEET_COLUMNS, SHEET_ROWS, SHEET_TILE_WIDTH = 5, 5, 160


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


class FfmpegFailed(errors.GatewayError):
    """ffmpeg ended with an error; the message is short and names no path."""

    default_code = "ffmpeg_failed"

    def __init__(self, message: str) -> None:
        # OpenAI's SDKs retry a 5xx without this header, and each retry would take as long as the first try.
        super().__init__(message, headers={"x-should-retry": "false"})


class FfmpegStopped(FfmpegFailed):
    """ffmpeg did not start, could not read the file or ran too long. Says nothing about the video itself."""


class NoPicture(FfmpegFailed):
    """The file is not a video, or no picture can be made of it."""

    status_code = 404
    type = "invalid_request_error"
    default_code = "no_picture"


class FfmpegMissing(FfmpegFailed):
    """There is no ffmpeg program on this machine; the message says how to get one."""

    status_code = 501
    default_code = "ffmpeg_missing"


@cache
def program() -> str:
    """Return the path of ffmpeg: the one on PATH, else the one of the imageio-ffmpeg wheel. Raises `FfmpegMissing`.

    A build that lacks something we use is taken only when there is no better one. Blocks on the first call.
    """
    found = _candidates()
    if not found:
        raise FfmpegMissing("there is no ffmpeg program here: install ffmpeg or `pip install video-gateway[ffmpeg]`")
    return next((path for path in found if _complete(path)), found[0])


async def run(
    args: Sequence[str],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    max_bytes: int = MAX_PICTURE_BYTES,
    max_memory_bytes: int = MAX_PICTURE_MEMORY_BYTES,
) -> None:
    """Run ffmpeg on `args`, which begin with the options of an input. Raises `FfmpegFailed`.

    `max_bytes` is what it may write to one file.
    """
    quiet = ("-nostdin", "-hide_banner", "-loglevel", "error", "-y", "-filter_threads", "2")
    # The CPU time limit also ends a child whose parent was killed.
    limits = ("-max_alloc", str(MAX_ALLOC_BYTES), "-timelimit", str(int(timeout_s * 4) + 1))
    exe = await asyncio.to_thread(program)
    async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE)):
        try:
            process = await asyncio.create_subprocess_exec(
                *(exe, *quiet, *limits, "-protocol_whitelist", "file", *args),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=settings.child_process_env(),
                start_new_session=True,
            )
        except OSError as error:
            raise FfmpegStopped(f"ffmpeg could not be started ({type(error).__name__})") from error
        try:
            _limit(process.pid, max_bytes=max_bytes, max_memory_bytes=max_memory_bytes)
            async with asyncio.timeout(timeout_s):
                stderr_text = await _read_stderr(process)
                code = await process.wait()
        except TimeoutError:
            raise FfmpegStopped(f"ffmpeg was stopped after {timeout_s:g} s") from None
        finally:
            if process.returncode is None:
                _kill(process)
                await process.wait()
    if code != 0:
        raise FfmpegFailed(f"ffmpeg failed ({code}): {_scrub(stderr_text)}")


def _limit(pid: int, *, max_bytes: int, max_memory_bytes: int) -> None:
    """Set the limits of a child that has just been started; memory that it already has counts, too.

    Not by a `preexec_fn`, which is not safe in a process with threads. Linux only: elsewhere only the options of `run`
    apply. Data rather than address space: the address space that a program reserves depends on the number of cores.
    """
    if sys.platform != "linux":
        return
    limits = {
        resource.RLIMIT_DATA: max_memory_bytes,
        resource.RLIMIT_FSIZE: max_bytes,
        resource.RLIMIT_CORE: 0,
    }
    try:
        for kind, limit in limits.items():
            _, most = resource.prlimit(pid, kind)
            limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
            resource.prlimit(pid, kind, (limit, limit))
    except ProcessLookupError:  # it has already ended
        pass
    except OSError as error:  # a sandbox that does not allow prlimit
        log.warning("ffmpeg limits of memory and file size not set", error=type(error).__name__)


async def thumbnail(source: Path, target: Path, *, duration_s: float | None = None, timeout_s: float) -> None:
    """Make a WebP of the frame at a tenth of the duration, at most 640 px wide. Raises `NoPicture`, `FfmpegFailed`."""
    scale = f"scale='min({THUMBNAIL_WIDTH},iw)':-2"
    picture = ("-frames:v", "1", "-an", "-vf", scale, "-c:v", "libwebp", "-quality", "80", "-f", "webp")
    if duration_s:
        with suppress(NoPicture):  # a video shorter than its header says has no frame there
            return await _picture(source, target, picture, start_s=duration_s / 10, timeout_s=timeout_s)
    return await _picture(source, target, picture, start_s=0, timeout_s=timeout_s)


async def spritesheet(source: Path, target: Path, *, duration_s: float | None, timeout_s: float) -> None:
    """Make a JPEG of 5 by 5 evenly spaced frames, each 160 px wide. Unknown duration: one frame per second.

    Raises `NoPicture`, `FfmpegFailed`.
    """
    count = SHEET_COLUMNS * SHEET_ROWS
    steps = (
        f"fps={count / min(duration_s, 86_400) if duration_s else 1:.6f}:eof_action=pass",  # at least one frame
        f"scale={SHEET_TILE_WIDTH}:-2",
        f"tpad=stop_mode=clone:stop={count}",  # a video shorter than its header says would leave black tiles
        f"tile={SHEET_COLUMNS}x{SHEET_ROWS}",
        "scale=out_range=full,format=yuv420p,setrange=full",  # as JPEG needs it
    )
    picture = ("-frames:v", "1", "-an", "-vf", ",".join(steps), "-c:v", "mjpeg", "-q:v", "4", "-f", "image2")
    await _picture(source, target, (*picture, "-update", "1"), start_s=0, timeout_s=timeout_s)


async def _picture(source: Path, target: Path, picture: Sequence[str], *, start_s: float, timeout_s: float) -> None:
    try:
        kind = sniff(await asyncio.to_thread(_head, source))
    except OSError as error:
        raise FfmpegStopped(f"the video file cannot be read ({type(error).__name__})") from error
    demuxer = DEMUXERS.get(kind or "")
    if demuxer is None:
        raise NoPicture("no picture can be made of this file: it is not a video")
    bounds = ("-f", demuxer, "-format_whitelist", demuxer, "-codec_whitelist", DECODERS, "-max_pixels", str(MAX_PIXELS))
    source_args = (*bounds, "-threads", "2", "-ss", f"{start_s:.3f}", "-i", f"file:{source}", "-map", "0:v:0")
    try:
        await run((*source_args, *picture, f"file:{target}"), timeout_s=timeout_s)
    except (FfmpegStopped, FfmpegMissing):
        raise
    except FfmpegFailed as error:
        log.warning("picture not made", reason=error.message)
        raise NoPicture("no picture can be made of this video: it is damaged or its format is unknown") from error
    if not await asyncio.to_thread(_has_bytes, target):
        raise NoPicture("no picture can be made of this video: it has no frames")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _has_bytes(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _plain(text: str, limit: int) -> str:
    """One line of printable text: no control, format or unassigned characters, cut with an ellipsis."""
    seen = (" " if c.isspace() else c for c in text[: limit * 20] if c.isspace() or unicodedata.category(c)[0] != "C")
    line = " ".join("".join(seen).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _candidates() -> list[str]:
    found = [path] if (path := shutil.which("ffmpeg")) else []
    with suppress(ImportError, RuntimeError):
        import imageio_ffmpeg

        found.append(imageio_ffmpeg.get_ffmpeg_exe())
    return found


def _complete(path: str) -> bool:
    try:
        listings = {
            option: subprocess.run(
                [path, "-hide_banner", option],
                capture_output=True,
                env=settings.child_process_env(),
                text=True,
                timeout=20,
            ).stdout
            for option, _ in NEEDED
        }
    except (OSError, subprocess.SubprocessError):
        return False
    return all(name in listings[option] for option, name in NEEDED)


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _read_stderr(process: asyncio.subprocess.Process) -> str:
    """Read stderr to its end and keep the beginning: the first error is the cause of the others."""
    kept, total = bytearray(), 0
    stream = process.stderr
    while stream and (piece := await stream.read(65_536)):
        kept += piece[: KEPT_STDERR_BYTES - len(kept)]
        total += len(piece)
        if total > MAX_STDERR_BYTES:
            _kill(process)
            break
    return kept.decode("utf-8", "replace")


def _scrub(stderr_text: str) -> str:
    """One short line without paths, memory addresses and control characters."""
    text = re.sub(r"(file:)?/\S*/", "", re.sub(r" @ 0x[0-9a-f]+", "", stderr_text))
    return _plain(text, 300) or "it gave no reason"
