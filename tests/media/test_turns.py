"""Turns at a limited resource: even shares, queues that are left, limits; and work that several wait for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app import errors
from app.media.turns import Shared, Turns

pytestmark = pytest.mark.anyio


class Queue:
    """Callers at two turns; each holds its turn until it is let go."""

    def __init__(self) -> None:
        self.turns = Turns(2)
        self.served: list[str] = []
        self._ends: list[asyncio.Event] = []

    async def caller(self, key: str, max_waiting: int | None = None) -> None:
        async with self.turns.of(key, what="pictures", max_waiting=max_waiting):
            self.served.append(key)
            self._ends.append(asyncio.Event())
            await self._ends[-1].wait()

    async def end_one(self, number: int) -> None:
        self._ends[number].set()
        await settled()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def callers(queue: Queue, keys: str) -> AsyncIterator[list[asyncio.Task[None]]]:
    """One caller for each letter, in this order."""
    tasks = [asyncio.create_task(queue.caller(key)) for key in keys]
    await settled()
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_key_alone_has_all_turns() -> None:
    queue = Queue()
    async with callers(queue, "aaa"):
        assert queue.served == ["a", "a"]
        await queue.end_one(0)
        assert queue.served == ["a", "a", "a"]


async def test_a_free_turn_goes_to_the_key_that_has_fewest() -> None:
    queue = Queue()
    async with callers(queue, "aaaaaabb"):
        for number in range(4):
            await queue.end_one(number)
        assert "".join(queue.served) == "aababa"


async def test_keys_that_wait_are_served_in_turn() -> None:
    queue = Queue()
    async with callers(queue, "aaaaabbbbcccc"):
        for number in range(11):
            await queue.end_one(number)
        rounds = [sorted(queue.served[start : start + 3]) for start in (2, 5, 8)]
        assert rounds == [["a", "b", "c"]] * 3


async def test_a_caller_who_leaves_the_queue_takes_no_turn() -> None:
    queue = Queue()
    async with callers(queue, "aabc") as tasks:
        tasks[2].cancel()
        await queue.end_one(0)
        assert "".join(queue.served) == "aac"
        await queue.end_one(1)
        async with asyncio.timeout(5), queue.turns.of("d", what="pictures"):
            pass


async def test_a_caller_who_leaves_as_its_turn_comes_passes_it_on() -> None:
    queue = Queue()
    async with callers(queue, "aabc") as tasks:
        tasks[0].cancel()
        await asyncio.sleep(0)  # its turn is given to b, who has not run yet
        tasks[2].cancel()
        await settled()
        assert "".join(queue.served) == "aac"


async def test_a_full_queue_is_an_error_for_its_own_key_only() -> None:
    queue = Queue()
    async with callers(queue, "aaaa"):
        with pytest.raises(errors.RateLimited) as caught:
            await queue.caller("a", max_waiting=2)
        assert int(caught.value.headers["retry-after"]) > 0
        other = asyncio.create_task(queue.caller("b", max_waiting=2))
        await settled()
        await queue.end_one(0)
        assert "".join(queue.served) == "aab"
        other.cancel()


@pytest.mark.parametrize("begun", [False, True])
async def test_shared_work_ends_with_its_last_caller_unless_it_has_begun(begun: bool) -> None:
    go, done = asyncio.Event(), asyncio.Event()

    async def work(shared: Shared) -> None:
        shared.begun = begun
        await go.wait()
        done.set()

    shared = Shared(work)
    first, second = (asyncio.create_task(shared.wait()) for _ in range(2))
    await settled()
    first.cancel()
    await settled()
    assert not shared.ended
    second.cancel()
    await settled()
    assert shared.ended is not begun
    go.set()
    await settled()
    assert done.is_set() is begun
