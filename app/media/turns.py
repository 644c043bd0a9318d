"""Turns at a limited resource, shared evenly between the keys that wait, and work that several requests wait for."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from app import errors

RETRY_AFTER_S = 10
"""Seconds after which a request is to be repeated that found its key's queue full."""


class Turns:
    """Limit of `at_once` turns held at a time. For one event loop.

    A free turn goes to the waiting key that holds the fewest, among equals in rounds. A key alone may hold all turns.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By key, the key first that is next among equals."""

    @property
    def waiting(self) -> int:
        """Number of callers that wait for a turn."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def of(self, key: str, *, what: str, max_waiting: int | None = None) -> AsyncIterator[None]:
        """Hold one turn of `key`, after waiting for it. Raises `RateLimited` when `max_waiting` wait already; `what` is
        what they wait for, in the plural."""
        await self._take(key, what, max_waiting)
        try:
            yield
        finally:
            self._give_back(key)

    async def _take(self, key: str, what: str, max_waiting: int | None) -> None:
        queue = self._waiting.get(key, deque())
        if max_waiting is not None and len(queue) >= max_waiting:
            raise errors.RateLimited(
                f"{max_waiting} {what} of this project are waiting to be made; try again later",
                retry_after_s=RETRY_AFTER_S,
            )
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._waiting[key] = queue
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(key, turn)
            else:
                self._give_back(key)
            raise

    def _hand_out(self) -> None:
        while self._free and self._waiting:
            key = min(self._waiting, key=lambda waiting: self._held[waiting])
            queue = self._waiting.pop(key)
            turn = queue.popleft()
            if queue:
                self._waiting[key] = queue  # behind the others
            if not turn.done():
                turn.set_result(None)
                self._held[key] += 1
                self._free -= 1

    def _give_back(self, key: str) -> None:
        self._held[key] -= 1
        self._held += Counter()  # forgets keys that hold none
        self._free += 1
        self._hand_out()

    def _leave(self, key: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(key)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[key]


class Shared:
    """A task that several callers wait for. It is cancelled when all have gone before it has begun."""

    def __init__(self, work: Callable[["Shared"], Coroutine[Any, Any, None]]) -> None:
        self.begun = False
        """Set by the work itself once it is worth finishing, whether or not a caller waits."""
        self._callers = 0
        self._task = asyncio.create_task(work(self))
        self._task.add_done_callback(lambda done: done.cancelled() or done.exception())

    @property
    def ended(self) -> bool:
        """True when it has ended or is being cancelled: too late to wait for it."""
        return self._task.done() or self._task.cancelling() > 0

    async def wait(self) -> None:
        """Wait for the end of the work; raises what it raises."""
        self._callers += 1
        try:
            await asyncio.shield(self._task)
        finally:
            self._callers -= 1
            if not self._callers and not self.begun:
                self._task.cancel()
