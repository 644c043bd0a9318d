"""One LISTEN connection for each process: wakes whoever waits for a video, and knows when keys have changed.

Triggers ring for every change of a video's status or progress, and of a key or a project. A waiter costs no query until
it is woken. Twice a second the process rings for itself, on another connection, and hears it on this one: only what was
heard lately proves that nothing was missed. Behind a pooler that does not pass notices on, or while the connection is
down, everybody is woken now and then and nothing remembered about a key counts for longer than a second, so nothing is
waited for or trusted in vain.
"""

import asyncio
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg

from app.telemetry import log

CHANNEL, KEYS_CHANNEL = "gateway_videos", "gateway_keys"
RECONNECT_S = 1.0
BEAT_S = 0.4
FRESH_S = 0.9
"""Whatever was rung so long ago has been heard."""
DEAF_BEATS = 6
"""After so many without an echo, the connection is made anew and everybody looks for himself. Counted rather than
timed: on a busy machine it is this process that is late."""


class Bell:
    """Who waits for which video in this process, and how often keys have changed."""

    def __init__(self, url: str, ring: Callable[[str, str], Awaitable[object]]) -> None:
        self._url = url.replace("postgresql+psycopg://", "postgresql://", 1)
        self._ring = ring
        """Notifies a channel; never on the connection that listens, which may hear itself through a pooler."""
        self.closed = False
        self.changes = 0
        """Changes of keys and projects heard of, and times when some may have been missed."""
        self._echoed = float("-inf")
        """When the last beat that came back was sent."""
        self._beats = f"gateway_beat_{secrets.token_hex(8)}"
        self._connecting = False
        self._deaf = False
        self._unheard = 0
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._by: Counter[str] = Counter()

    @property
    def hears(self) -> bool:
        """Whether all that was rung up to a moment ago has been heard."""
        return time.monotonic() - self._echoed < FRESH_S

    @contextmanager
    def listening(self, video_id: str, who: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the video changes; enter it before reading the video, clear it before reading
        again."""
        rung = asyncio.Event()
        self._waiting[video_id].add(rung)
        self._by[who] += 1
        try:
            yield rung
        finally:
            self._by[who] -= 1
            if not self._by[who]:
                del self._by[who]
            self._waiting[video_id].discard(rung)
            if not self._waiting[video_id]:
                del self._waiting[video_id]

    def waiting(self, who: str) -> int:
        """How many of somebody's are listening."""
        return self._by[who]

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
            except (psycopg.Error, OSError) as error:  # a TimeoutError is an OSError
                if not self._deaf:
                    hint = "is there a pooler in between? see GATEWAY_DATABASE_LISTEN_URL"
                    more = {"hint": hint} if isinstance(error, TimeoutError) else {}
                    log.warning("not listening; waiters look for themselves", error=type(error).__name__, **more)
                self._deaf = True
            self._ring_all()
            if not self.closed:
                await asyncio.sleep(RECONNECT_S)

    async def _listen(self) -> None:
        self._connecting = True
        try:
            connection = await psycopg.AsyncConnection.connect(
                self._url,
                autocommit=True,
                connect_timeout=5,
                prepare_threshold=None,
                application_name="video-gateway listener",
            )
        finally:
            self._connecting = False
        async with connection:
            if self.closed:
                return
            for channel in (CHANNEL, KEYS_CHANNEL, self._beats):
                await connection.execute(f"listen {channel}".encode())
            self._missed()  # what changed while nobody listened
            self._unheard = 0
            beating = asyncio.create_task(self._beat())
            try:
                while not self.closed:
                    async for notice in connection.notifies(timeout=1):
                        self._hear(notice)
                    if self._unheard > DEAF_BEATS:
                        raise TimeoutError
            finally:
                beating.cancel()

    async def _beat(self) -> None:
        while True:
            self._unheard += 1
            with suppress(psycopg.Error, OSError):  # not heard, then
                await self._ring(self._beats, str(time.monotonic()))
            await asyncio.sleep(BEAT_S)

    def _hear(self, notice: psycopg.Notify) -> None:
        if notice.channel == CHANNEL:
            for rung in self._waiting.get(notice.payload, ()):
                rung.set()
        elif notice.channel == self._beats:
            self._echoed = float(notice.payload)
            self._unheard = 0
            self._deaf = False
        else:
            self._missed()

    def _missed(self) -> None:
        """Forget what was known of keys, and let everybody look again whether they may."""
        self.changes += 1
        self._ring_all()

    def _ring_all(self) -> None:
        for events in self._waiting.values():
            for rung in events:
                rung.set()
