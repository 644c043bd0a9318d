"""Turns to decode large bodies: a limit of bytes, in order, that one key cannot use up alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app import errors
from app.http.spool import ByteTurns, Turn

pytestmark = pytest.mark.anyio


class Holder:
    """A task that asks for a turn and holds it until it is to end."""

    def __init__(self, turns: ByteTurns, key: str, size: int) -> None:
        self._over = asyncio.Event()
        self.turn: Turn | None = None
        self.task = asyncio.create_task(self._hold(turns, key, size))

    async def _hold(self, turns: ByteTurns, key: str, size: int) -> None:
        async with turns.of(key, size) as self.turn:
            await self._over.wait()
        self.turn = None

    async def end(self) -> None:
        self._over.set()
        await self.task


@asynccontextmanager
async def holders(turns: ByteTurns, *wanted: tuple[str, int]) -> AsyncIterator[list[Holder]]:
    """Holders that asked in this order."""
    found = [Holder(turns, key, size) for key, size in wanted]
    await settled()
    yield found
    for holder in found:
        holder.task.cancel()
    await asyncio.gather(*(holder.task for holder in found), return_exceptions=True)


async def settled() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


def holding(found: list[Holder]) -> list[bool]:
    return [holder.turn is not None for holder in found]


async def test_turns_are_given_in_order_until_the_bytes_are_used_up() -> None:
    async with holders(ByteTurns(10), ("a", 4), ("b", 4), ("c", 4), ("d", 1)) as found:
        assert holding(found) == [True, True, False, False], "a small one does not pass a large one"
        await found[0].end()
        await settled()
        assert holding(found) == [False, True, True, True]


async def test_a_key_that_has_its_half_lets_others_pass() -> None:
    async with holders(ByteTurns(10), ("a", 4), ("a", 4), ("b", 5)) as found:
        assert holding(found) == [True, False, True]
        await found[0].end()
        await settled()
        assert holding(found) == [False, True, True]


async def test_a_single_turn_of_a_key_may_be_larger_than_its_half() -> None:
    async with holders(ByteTurns(10), ("a", 10), ("b", 99)) as found:
        assert holding(found) == [True, False]
        await found[0].end()
        await settled()
        assert holding(found) == [False, True]


async def test_what_a_turn_gives_back_is_for_others() -> None:
    turns = ByteTurns(10)
    async with holders(turns, ("a", 8), ("a", 3), ("b", 6)) as found:
        assert found[0].turn is not None
        turns.shrink(found[0].turn, 1)
        await settled()
        assert holding(found) == [True, True, True]
        turns.shrink(found[0].turn, 5)
        assert found[0].turn.size == 1, "a turn does not grow"
    async with turns.of("c", 10, wait_s=0):
        pass


async def test_a_waiting_request_that_ends_is_passed_over() -> None:
    async with holders(ByteTurns(10), ("a", 6), ("b", 9), ("c", 4)) as found:
        assert holding(found) == [True, False, False]
        found[1].task.cancel()
        await settled()
        assert holding(found) == [True, False, True]


async def test_a_turn_that_comes_together_with_its_end_is_given_back() -> None:
    turns = ByteTurns(10)
    async with holders(turns, ("a", 10), ("b", 10)) as found:
        assert found[0].turn is not None
        turns.shrink(found[0].turn, 0)  # grants the turn of b, whose task has not run yet
        found[1].task.cancel()
    async with turns.of("c", 10, wait_s=0):
        pass


async def test_a_wait_that_takes_too_long_is_a_503() -> None:
    turns = ByteTurns(10)
    async with turns.of("a", 10):
        with pytest.raises(errors.ServiceUnavailable) as refused:
            async with turns.of("b", 1, wait_s=0):
                raise AssertionError("there was no room")
        assert refused.value.headers["retry-after"] == "5"
    async with turns.of("b", 10, wait_s=0):
        pass
