"""Waiting without polling: one LISTEN connection for each process wakes whoever waits for a video.

A trigger rings for every change of a video's status or progress. A waiter costs no query until it is woken; while the
connection is down everybody is woken now and then instead, so nothing is ever waited for in vain.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from app.telemetry import log

CHANNEL = "gateway_videos"
RECONNECT_S = 1.0


class Bell:
    """Who waits for which video in this process."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("postgresql+psycopg://", "postgresql://", 1)
        self.closed = False
        self._connecting = False
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def listening(self, video_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the video changes; enter it before reading the video, clear it before reading
        again."""
        rung = asyncio.Event()
        self._waiting[video_id].add(rung)
        try:
            yield rung
        finally:
            self._waiting[video_id].discard(rung)
            if not self._waiting[video_id]:
                del self._waiting[video_id]

    @property
    def waiters(self) -> int:
        return sum(len(events) for events in self._waiting.values())

    def close(self) -> None:
        """Send everybody home: the server is stopping."""
        self.closed = True
        self._ring_all()

    async def stop(self, listening: "asyncio.Task[None]") -> None:
        """End the task of `run`. A connection that is just being made is waited for, or it would be left open."""
        self.close()
        if not self._connecting:
            listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening

    async def run(self) -> None:
        """Listen until stopped, whatever happens to the connection."""
        while not self.closed:
            try:
                await self._listen()
            except (psycopg.Error, OSError) as error:
                log.warning("not listening; waiters look for themselves", error=type(error).__name__)
            self._ring_all()
            if not self.closed:
                await asyncio.sleep(RECONNECT_S)

    async def _listen(self) -> None:
        self._connecting = True
        try:
            connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True, connect_timeout=5)
        finally:
            self._connecting = False
        async with connection:
            if self.closed:
                return
            await connection.execute(f"listen {CHANNEL}".encode())
            self._ring_all()  # what changed while nobody listened
            async for notice in connection.notifies():
                for rung in self._waiting.get(notice.payload, ()):
                    rung.set()

    def _ring_all(self) -> None:
        for events in self._waiting.values():
            for rung in events:
                rung.set()
