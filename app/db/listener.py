"""PostgreSQL LISTEN: wakes requests that wait for a video, tells streams of changed videos, and invalidates the API-key
cache.

Triggers notify of every change of a video's status or progress and of its deletion, and of a key or a project; a new
video is announced by the process that created it. A waiter or a stream costs no query until it is woken.
Twice a second the process sends itself a heartbeat over another connection and receives it on this one:
only a recent heartbeat proves that no notice was missed. Behind a pooler that does not pass notices on, or while the
connection is down, waiters are woken every second, streams read by time, and the key cache lives for less than one.
"""

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg

from app.db.address import Address
from app.db.changes import Changes
from app.db.faults import read_fault
from app.telemetry.logs import log

VIDEOS_CHANNEL, PROJECTS_CHANNEL, KEYS_CHANNEL = "gateway_videos", "gateway_projects", "gateway_keys"
ONLY_PROGRESS = "/progress"
"""End of a notice of `PROJECTS_CHANNEL` (`project/video`) about a video whose status has not changed."""
ANNOUNCE_GAP_S = 0.05
"""Time for which new videos are collected before they are announced in one statement."""
MAX_ANNOUNCED = 1_000
"""New videos that wait to be announced, at most; streams learn of further ones when they change."""
RECONNECT_S = 1.0
HEARTBEAT_S = 0.4
CURRENT_S = 0.9
"""Age up to which a received heartbeat proves that all earlier notices were received, too."""
MAX_MISSED_HEARTBEATS = 6
"""Missed heartbeats before reconnecting; waiters are woken so that they re-read the row. Counted, not timed: on a
busy machine this process itself may be late."""


class Listener:
    """The waiters of this process by video, its streams by project, and a counter of key changes. One connection for
    the whole process."""

    def __init__(self, address: Address, notify: Callable[..., Awaitable[object]]) -> None:
        self._address = address
        self._notify = notify
        """Sends notices, by channel and payloads, on another connection: a pooler may return notices to the connection
        that sent them."""
        self.closed = False
        self.key_changes = 0
        """Increased by each change of a key or project, and whenever a change may have been missed."""
        self.notices = 0
        """Number of notices about the videos of projects. While it stands still and none is missing, nothing that was
        read has become old."""
        self._heartbeat_at = float("-inf")
        """When the last received heartbeat was sent."""
        self._heartbeat_channel = f"gateway_heartbeat_{secrets.token_hex(8)}"
        self._connecting = False
        self._disconnected = False
        self._missed_heartbeats = 0
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._followed: defaultdict[str | None, set[Changes]] = defaultdict(set)
        """The changes that streams collect, by project; None: of all projects."""
        self._new: list[str] = []
        """Videos that are announced next, as notices."""
        self._announcing: asyncio.Task[None] | None = None

    @property
    def is_current(self) -> bool:
        """True when all notices up to a moment ago were received."""
        return time.monotonic() - self._heartbeat_at < CURRENT_S

    @contextmanager
    def waiter(self, video_id: str) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever the video changes. Enter the block before reading the video, clear the
        event before reading again."""
        changed = asyncio.Event()
        self._waiting[video_id].add(changed)
        try:
            yield changed
        finally:
            self._waiting[video_id].discard(changed)
            if not self._waiting[video_id]:
                del self._waiting[video_id]

    @contextmanager
    def changes(self, project_id: str | None) -> Iterator[Changes]:
        """Yield the changes of a project's videos from now on, None for those of all projects."""
        changes = Changes()
        self._followed[project_id].add(changes)
        try:
            yield changes
        finally:
            self._followed[project_id].discard(changes)
            if not self._followed[project_id]:
                del self._followed[project_id]

    @property
    def waiters(self) -> int:
        """Number of all waiters and streams in this process."""
        return sum(map(len, self._waiting.values())) + sum(map(len, self._followed.values()))

    def announce(self, project_id: str, video_id: str) -> None:
        """Notify the streams of all processes of a new video, after its commit: soon, together with others, and on
        another connection, so that no create waits for it. If that fails, they learn of it when it changes."""
        if len(self._new) < MAX_ANNOUNCED and not self.closed:
            self._new.append(f"{project_id}/{video_id}")
            if self._announcing is None or self._announcing.done():
                self._announcing = asyncio.create_task(self._announce())

    async def _announce(self) -> None:
        while self._new:
            await asyncio.sleep(ANNOUNCE_GAP_S)
            new, self._new = self._new, []
            with suppress(psycopg.Error, OSError):
                await self._notify(PROJECTS_CHANNEL, *new)

    def close(self) -> None:
        """Wake all waiters: the server is shutting down."""
        self.closed = True
        self._wake_all()

    async def stop(self, running: "asyncio.Task[None]") -> None:
        """End the task of `run`. A connection attempt under way is awaited, or it would be left open."""
        self.close()
        if self._announcing is not None:
            self._announcing.cancel()
            await asyncio.wait({self._announcing})
        if not self._connecting:
            running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    async def run(self) -> None:
        """Listen until stopped; reconnects whenever the connection breaks."""
        while not self.closed:
            try:
                await self._listen()
            except (psycopg.Error, OSError) as error:  # includes TimeoutError
                if not self._disconnected:
                    log.warning("listener disconnected, waiters poll", **_facts(error))
                self._disconnected = True
            self._wake_all()
            if not self.closed:
                await asyncio.sleep(RECONNECT_S)

    async def _listen(self) -> None:
        self._connecting = True
        try:
            connection = await psycopg.AsyncConnection.connect(
                self._address.conninfo,
                autocommit=True,
                prepare_threshold=None,
                application_name="video-gateway listener",
            )
        finally:
            self._connecting = False
        async with connection:
            if self.closed:
                return
            for channel in (VIDEOS_CHANNEL, PROJECTS_CHANNEL, KEYS_CHANNEL, self._heartbeat_channel):
                await connection.execute(f"listen {channel}".encode())
            self.notices += 1
            for changes in self._all_changes():
                changes.missed = True  # notices before LISTEN were
            self._keys_changed()  # those of keys, too
            self._missed_heartbeats = 0
            heartbeat = asyncio.create_task(self._send_heartbeats())
            try:
                while not self.closed:
                    async for notice in connection.notifies(timeout=1):
                        self._receive(notice)
                    if self._missed_heartbeats > MAX_MISSED_HEARTBEATS:
                        raise TimeoutError
            finally:
                heartbeat.cancel()

    async def _send_heartbeats(self) -> None:
        while True:
            self._missed_heartbeats += 1
            with suppress(psycopg.Error, OSError):  # counts as missed
                await self._notify(self._heartbeat_channel, str(time.monotonic()))
            await asyncio.sleep(HEARTBEAT_S)

    def _receive(self, notice: psycopg.Notify) -> None:
        if notice.channel == VIDEOS_CHANNEL:
            for changed in self._waiting.get(notice.payload, ()):
                changed.set()
        elif notice.channel == PROJECTS_CHANNEL:
            self.notices += 1
            named = notice.payload.removesuffix(ONLY_PROGRESS)
            project_id, _, video_id = named.rpartition("/")
            for changes in (*self._followed.get(project_id, ()), *self._followed.get(None, ())):
                changes.add(video_id, only_progress=named != notice.payload)
        elif notice.channel == self._heartbeat_channel:
            self._heartbeat_at = float(notice.payload)
            self._missed_heartbeats = 0
            self._disconnected = False
        else:
            self._keys_changed()

    def _keys_changed(self) -> None:
        """Invalidate the key cache, and wake all waiters so that their key is checked again."""
        self.key_changes += 1
        self._wake_all()

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for changed in events:
                changed.set()
        for changes in self._all_changes():
            changes.woken.set()

    def _all_changes(self) -> Iterator[Changes]:
        for followed in self._followed.values():
            yield from followed


def _facts(error: Exception) -> dict[str, str]:
    if isinstance(error, TimeoutError):
        return {"reason": "no notices arrived", "hint": "behind a pooler, set GATEWAY_DATABASE_LISTEN_URL"}
    fault = read_fault(error)
    if fault is None:
        return {"error": type(error).__name__}
    return {"kind": fault.kind, "reason": fault.text, "detail": fault.detail}
