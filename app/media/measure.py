"""Length and shape of a stored video file, and whether it is complete; measured in a child process with limits.

Media files are untrusted and the library that reads them (MediaInfo) is written in C++. The child has no access to
files, network or environment: it asks for ranges of the file over a pipe, so that a directory and a bucket are the same
and a bucket's object is not copied. The child's answer is untrusted as well.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from weakref import WeakKeyDictionary

from app import settings
from app.media.sniff import sniff
from app.media.store import Store, StoredFile
from app.telemetry.logs import log

AT_ONCE = 2
"""Children that one process of ours runs at a time; further calls wait."""
TIMEOUT_S = 60
MAX_RANGE_BYTES = 2**20
MAX_READ_BYTES = 256 * 2**20
"""Limit of all ranges of one file."""
MAX_RANGES = 8_192
MIN_SECONDS, MAX_SECONDS = 0.001, 10_000_000
MAX_SIDE = 32_768
CHILD = Path(__file__).with_name("measure_child.py")

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


@dataclass(frozen=True)
class Measured:
    """A video file as a player shows it; None where a value is unknown."""

    duration_s: float | None = None
    """Length of the video track; of an animated picture, the sum of its frames."""
    width: int | None = None
    """In pixels as shown: after rotation, with square pixels."""
    height: int | None = None
    codec: str | None = None
    truncated: bool | None = None
    """True if the end of the file is missing."""

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Self:
        """Read a child's answer; values that no video has are left out."""
        duration_s = _number(answer.get("duration_s"), MIN_SECONDS, MAX_SECONDS)
        width, height = (_number(answer.get(side), 1, MAX_SIDE) for side in ("width", "height"))
        codec, truncated = answer.get("codec"), answer.get("truncated")
        return cls(
            duration_s=round(duration_s, 3) if duration_s else None,
            width=round(width) if width and height else None,
            height=round(height) if width and height else None,
            codec=codec if isinstance(codec, str) and re.fullmatch(r"[a-z0-9.-]{1,20}", codec) else None,
            truncated=truncated if isinstance(truncated, bool) else None,
        )


async def measure(store: Store, file: StoredFile) -> Measured:
    """Measure a stored file. A file that cannot be measured is only logged; raises `StorageUnavailable`, `MissingFile`.

    Waits for a turn; a child that runs longer than a minute is killed.
    """
    async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE)):
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await _ask_child(store, file)
        except (OSError, ValueError, RecursionError) as error:  # OSError includes TimeoutError
            log.warning("file not measured", key=file.key, error=type(error).__name__, reason=str(error)[:200])
            return Measured()
    if "error" in answer:
        log.warning("file not measured", key=file.key, error=f"{answer['error']!s:.80}")
    return Measured.from_answer(answer)


async def _ask_child(store: Store, file: StoredFile) -> dict[str, Any]:
    """Start a child, serve its reads and return its answer. Raises `OSError`, `ValueError`, `RecursionError`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-B", str(CHILD), str(file.size), sniff(file.head) or "unknown"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=settings.child_process_env(),
        start_new_session=True,
    )
    try:
        return await _serve(process, store, file)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _serve(process: asyncio.subprocess.Process, store: Store, file: StoredFile) -> dict[str, Any]:
    """Answer lines `offset length` with bytes until a line is a JSON object."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the child has no pipes")
    left = MAX_READ_BYTES
    for _ in range(MAX_RANGES):
        line = await process.stdout.readline()
        if line.startswith(b"{") and line.endswith(b"\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        if not line:
            raise ValueError("the child ended without an answer")
        start, length = map(int, line.split())
        left -= length
        if start < 0 or not 0 < length <= MAX_RANGE_BYTES or start + length > file.size or left < 0:
            raise ValueError("the child asked for more than it may read")
        content = await store.read(file.key, start, length)
        if len(content) != length:
            raise ValueError("the file is shorter than it was")
        process.stdin.write(content)
        await process.stdin.drain()
    raise ValueError("the child asked too often")


def _number(value: Any, least: float, most: float) -> float | None:
    """`value` if it is a number within the two bounds."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and least <= value <= most else None
