"""Request bodies while they are received: in memory or in a temporary file, within limits of process and project.

A body is received completely before it is decoded, so an unfinished one holds about 1 MiB of memory, whatever its size.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from starlette.requests import Request

from app import errors
from app.telemetry.logs import log

PIECE_BYTES = 2**20
"""A body up to this size stays in memory; a longer one is written to a file and read from it in pieces of this size."""
FREE_BYTES = 64 * 2**10
"""Bytes of each body that are not counted, so that small requests pass while large ones use up the limit. The server
buffers as many for each connection anyway."""
WAIT_S = 30
"""Longest wait for a turn to decode a large body."""
BUSY_RETRY_S = 5


@dataclass(eq=False)
class Turn:
    """Permission to hold `size` bytes of a decoded body, until it ends."""

    project: str
    size: int
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Spool:
    """One request body. Beyond 1 MiB it is in a temporary file without a name, which is gone with the process."""

    def __init__(self) -> None:
        self.size = 0
        self.turn: Turn | None = None
        self._memory = bytearray()
        self._file: BinaryIO | None = None

    @property
    def is_large(self) -> bool:
        """True if the body is in a file."""
        return self._file is not None

    async def write(self, data: bytes) -> None:
        """Append to the body. Raises `ServiceUnavailable` when the temporary directory is full."""
        self._memory += data
        self.size += len(data)
        if len(self._memory) > PIECE_BYTES:
            await self._flush()

    async def read(self) -> bytes:
        """Return the whole body."""
        if self._file is None:
            return bytes(self._memory)
        await self._flush()
        self._file.seek(0)
        return await asyncio.to_thread(self._file.read)

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The body in pieces."""
        if self._file is None:
            yield bytes(self._memory)
            return
        await self._flush()
        self._file.seek(0)
        while piece := await asyncio.to_thread(self._file.read, PIECE_BYTES):
            yield piece

    def close(self) -> None:
        """Delete the body."""
        self._memory.clear()
        if self._file is not None:
            with suppress(OSError):  # it may still try to write what the full disk has refused
                self._file.close()

    async def _flush(self) -> None:
        with disk_errors():
            if self._file is None:
                self._file = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115  # closed by `close`
            piece, self._memory = self._memory, bytearray()
            await asyncio.to_thread(self._file.write, piece)
            # Not left in the file's own buffer, where an error would appear at a later call.
            await asyncio.to_thread(self._file.flush)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn an `OSError` of the temporary directory into `ServiceUnavailable`."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        log.error("request body not written", directory=tempfile.gettempdir(), reason=reason)
        raise errors.ServiceUnavailable(
            "the gateway has no room for large request bodies at present; try again later"
        ) from error


class ByteTurns:
    """Turns to hold bytes, first come, first served: `total` bytes together, and one project at most half of them,
    unless it holds a single turn. A project that has its half lets others pass. For one event loop."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._held: Counter[str] = Counter()
        self._waiting: list[Turn] = []

    @asynccontextmanager
    async def of(self, project: str, size: int, *, wait_s: float = WAIT_S) -> AsyncIterator[Turn]:
        """Hold a turn of `size` bytes, after waiting for it. Raises `ServiceUnavailable` after `wait_s`."""
        turn = Turn(project, min(size, self._total))
        self._waiting.append(turn)
        self._hand_out()
        try:
            await _granted(turn, wait_s)
            yield turn
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)
                self._hand_out()
            else:
                self.shrink(turn, 0)

    def shrink(self, turn: Turn, size: int) -> None:
        """Give back what a turn holds beyond `size` bytes."""
        given_back = max(0, turn.size - size)
        turn.size -= given_back
        self._free += given_back
        self._held[turn.project] -= given_back
        self._held += Counter()  # forgets projects that hold nothing
        self._hand_out()

    def _hand_out(self) -> None:
        for turn in list(self._waiting):
            held = self._held[turn.project]
            if held and held + turn.size > self._total // 2:
                continue
            if turn.size > self._free:
                break
            self._waiting.remove(turn)
            self._free -= turn.size
            self._held[turn.project] += turn.size
            if not turn.granted.done():  # else its request has ended, and gives the turn back
                turn.granted.set_result(None)


async def _granted(turn: Turn, wait_s: float) -> None:
    try:
        async with asyncio.timeout(wait_s):
            await turn.granted
    except TimeoutError:
        raise errors.ServiceUnavailable(
            f"other large request bodies kept the gateway busy for {wait_s:g} s; send this one again, or send files as "
            "multipart/form-data",
            retry_after_s=BUSY_RETRY_S,
        ) from None


class Bodies:
    """The request bodies of one process. A single body of the permitted size always fits into the limits."""

    def __init__(self, max_bytes: int, max_body_bytes: int) -> None:
        self._max_bytes = max(max_bytes, max_body_bytes)
        self._max_project_bytes = max(max_bytes // 2, max_body_bytes)
        self._received: Counter[str] = Counter()
        self._turns = ByteTurns(max_body_bytes)

    @asynccontextmanager
    async def receive(self, request: Request, *, at_most: int | None = None) -> AsyncIterator[Spool]:
        """Receive the whole body, and wait for the turn to decode a large one, whose result takes its size or `at_most`
        bytes. What has arrived is counted from the first byte until the block ends.

        Raises `ServiceUnavailable` or `RateLimited` when the process or the project receives too much at once.
        """
        project, spool, counted = _project_of(request), Spool(), 0
        try:
            async for data in request.stream():
                beyond = spool.size + len(data) - FREE_BYTES
                if beyond > counted:
                    self._count(project, beyond - counted)
                    counted = beyond
                await spool.write(data)
            if spool.is_large:
                size = spool.size if at_most is None else min(spool.size, at_most)
                async with self._turns.of(project, size) as spool.turn:
                    yield spool
            else:
                yield spool
        finally:
            if counted:
                self._received[project] -= counted
                self._received += Counter()
            spool.close()

    def shrink(self, spool: Spool, size: int) -> None:
        """Give back the part of a body's turn that its decoded text does not need."""
        if spool.turn is not None:
            self._turns.shrink(spool.turn, size)

    def _count(self, project: str, size: int) -> None:
        if self._received.total() + size > self._max_bytes:
            raise errors.ServiceUnavailable(
                f"the gateway receives more than {self._max_bytes // 2**20} MiB of request bodies at once; send this "
                "one again. GATEWAY_MAX_BODIES_MB sets this",
                retry_after_s=1,
            )
        if self._received[project] + size > self._max_project_bytes:
            raise errors.RateLimited(
                f"this project sends more than {self._max_project_bytes // 2**20} MiB of request bodies at once; send "
                "this one when another is done. Half of GATEWAY_MAX_BODIES_MB is for one project",
                retry_after_s=1,
                code="too_many_bodies",
            )
        self._received[project] += size


def _project_of(request: Request) -> str:
    """The project of the authenticated key; the operator has none."""
    return str(request.scope.get("gateway_project", ""))
