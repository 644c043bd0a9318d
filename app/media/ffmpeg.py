"""The ffmpeg program: finds the newest one, runs it with limits.

Always a child process in its own process group, without a shell and without our environment, limited in memory, CPU
time and file size; killed with its group at the time-out or when the calling task is cancelled. No text of a file or
prompt becomes part of an argument or filter.
"""

import asyncio
import os
import re
import resource
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

from app import errors, settings
from app.media.turns import Turns
from app.telemetry.logs import log

AT_ONCE = 2
"""Pictures and test cards that one process of ours makes at a time."""
MAX_ALLOC_BYTES = 512 * 2**20
MAX_PICTURE_MEMORY_BYTES = 2**30
"""Limit of one ffmpeg that reads a video. A sprite sheet of a 4K video takes 380 MiB, of an 8K one 460."""
MAX_PICTURE_BYTES = 64 * 2**20
KEPT_STDERR_BYTES = 4_096
MAX_STDERR_BYTES = 2**20
"""ffmpeg is killed beyond this: some decoders repeat an out-of-memory error for ever."""
NEEDED = (("-filters", " drawtext "), ("-encoders", " libx264 "), ("-encoders", " libwebp "))

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


class FfmpegFailed(errors.GatewayError):
    """ffmpeg ended with an error; the message is short and names no path."""

    default_code = "ffmpeg_failed"

    def __init__(self, message: str) -> None:
        # OpenAI's SDKs retry a 5xx without this header, and each retry would take as long as the first try.
        super().__init__(message, headers={"x-should-retry": "false"})


class FfmpegStopped(FfmpegFailed):
    """ffmpeg did not start, could not read or write a file, or was stopped. Says nothing about the video itself."""


class FfmpegExhausted(FfmpegStopped):
    """ffmpeg ran too long, or was killed by the system. The cause may be the video or a busy machine."""


class FfmpegMissing(FfmpegFailed):
    """There is no ffmpeg program on this machine; the message says how to get one."""

    status_code = 501
    default_code = "ffmpeg_missing"


class Program(NamedTuple):
    path: str
    version: str
    """As it names itself, such as `7.1` or `N-118193-g5f38c82536`; empty where it names none."""
    release: tuple[int, ...]
    """For comparisons; empty where unknown."""


def program() -> Program:
    """Return the newest ffmpeg of those on PATH and the one of the imageio-ffmpeg wheel. Raises `FfmpegMissing`.

    A build that lacks something we use is taken only when there is no better one. Blocks on the first call.
    """
    return _newest(settings.child_process_env().get("PATH", ""))


def is_installed() -> bool:
    """Return True if there is an ffmpeg program. The first call may block for a moment."""
    return _is_installed(settings.child_process_env().get("PATH", ""))


def turns() -> Turns:
    """The turns of this event loop: hold one while ffmpeg runs for a picture or a test card."""
    return _turns.setdefault(asyncio.get_running_loop(), Turns(AT_ONCE))


async def run(
    args: Sequence[str],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    max_bytes: int = MAX_PICTURE_BYTES,
    max_memory_bytes: int = MAX_PICTURE_MEMORY_BYTES,
) -> None:
    """Run ffmpeg on `args`, which begin with the options of an input; the caller holds a turn. Raises `FfmpegFailed`.

    `max_bytes` is what it may write to one file. Success does not mean that it wrote a picture, or anything.
    """
    quiet = ("-nostdin", "-hide_banner", "-loglevel", "error", "-y", "-filter_threads", "2")
    # The CPU time limit also ends a child whose parent was killed.
    limits = ("-max_alloc", str(MAX_ALLOC_BYTES), "-timelimit", str(int(timeout_s * 4) + 1))
    exe = await asyncio.to_thread(program)
    try:
        process = await asyncio.create_subprocess_exec(
            *(exe.path, *quiet, *limits, "-protocol_whitelist", "file", *args),
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
            stderr_text, flooded = await _read_stderr(process)
            code = await process.wait()
    except TimeoutError:
        raise FfmpegExhausted(f"ffmpeg was stopped after {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            _kill(process)
            await process.wait()
    if code != 0:
        raise _failure(code, stderr_text, flooded=flooded)


def _failure(code: int, stderr_text: str, *, flooded: bool) -> FfmpegFailed:
    message = f"ffmpeg failed ({code}): {_scrub(stderr_text)}"
    if code == -signal.SIGKILL and not flooded:  # such as by the kernel when memory ran out
        return FfmpegExhausted(message)
    # It catches SIGTERM and then ends with 255 without a word, as it also does when the whole machine is shut down.
    if code in (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP) or (code == 255 and not stderr_text.strip()):
        return FfmpegStopped(message)
    return FfmpegStopped(message) if "No space left on device" in stderr_text else FfmpegFailed(message)


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


def _plain(text: str, limit: int) -> str:
    """One line of printable text: no control, format or unassigned characters, cut with an ellipsis."""
    seen = (" " if c.isspace() else c for c in text[: limit * 20] if c.isspace() or unicodedata.category(c)[0] != "C")
    line = " ".join("".join(seen).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


@cache
def _newest(search_path: str) -> Program:
    found = sorted(map(_identify, _candidates(search_path)), key=lambda found: found.release, reverse=True)
    if not found:
        raise FfmpegMissing("there is no ffmpeg program here: install ffmpeg, or the extra `ffmpeg` of this package")
    chosen = next((one for one in found if _complete(one.path)), found[0])
    log.info("ffmpeg chosen", path=chosen.path, version=chosen.version, found=len(found))
    return chosen


@cache
def _is_installed(search_path: str) -> bool:
    return any(map(_is_usable, _on_path(search_path))) or bool(_candidates(search_path))


def _on_path(search_path: str) -> list[str]:
    return [os.path.abspath(os.path.join(folder, "ffmpeg")) for folder in search_path.split(os.pathsep) if folder]


def _is_usable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _candidates(search_path: str) -> list[str]:
    """The programs named ffmpeg in the folders of PATH, then the wheel's; each once."""
    found = _on_path(search_path)
    with suppress(ImportError, RuntimeError):
        import imageio_ffmpeg

        found.append(imageio_ffmpeg.get_ffmpeg_exe())
    usable = [path for path in found if _is_usable(path)]
    return list({os.path.realpath(path): path for path in reversed(usable)}.values())[::-1]


def _identify(path: str) -> Program:
    said = _ask(path, "-version")
    named = re.match(r"ffmpeg version (\S{1,80})", said)
    return Program(path, _plain(named[1], 80) if named else "", release_of(said))


def release_of(said: str) -> tuple[int, ...]:
    """Return the release that `ffmpeg -version` names, such as (7, 1); empty where it names none.

    A build of the development branch names no release: it counts as newer than those with the same libavcodec.
    """
    if named := re.match(r"ffmpeg version n?(\d{1,3}(?:\.\d{1,4}){0,3})(?!\d)", said):
        return tuple(int(part) for part in named[1].split("."))
    library = re.search(r"^libavcodec\s+(\d{1,3})\.", said, re.MULTILINE)
    return (max(0, int(library[1]) - 54), 1_000) if library else ()


def _complete(path: str) -> bool:
    return all(name in _ask(path, option) for option, name in NEEDED)


@cache
def _ask(path: str, option: str) -> str:
    """The output of ffmpeg for an option that only prints something; empty when that fails."""
    try:
        return subprocess.run(
            [path, "-hide_banner", option],
            capture_output=True,
            env=settings.child_process_env(),
            text=True,
            errors="replace",
            timeout=20,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _read_stderr(process: asyncio.subprocess.Process) -> tuple[str, bool]:
    """Read stderr to its end and keep the beginning: the first error is the cause of the others. The second value is
    True when there was so much of it that ffmpeg was killed."""
    kept, total = bytearray(), 0
    stream = process.stderr
    while stream and (piece := await stream.read(65_536)):
        kept += piece[: KEPT_STDERR_BYTES - len(kept)]
        total += len(piece)
        if total > MAX_STDERR_BYTES:
            _kill(process)
            break
    return kept.decode("utf-8", "replace"), total > MAX_STDERR_BYTES


def _scrub(stderr_text: str) -> str:
    """One short line without paths, memory addresses and control characters."""
    text = re.sub(r"(file:)?/\S*/", "", re.sub(r" @ 0x[0-9a-f]+", "", stderr_text))
    return _plain(text, 300) or "it gave no reason"
