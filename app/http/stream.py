"""Server-sent events about all videos of a project, or of the gateway, as `video.status`, `video.progress`,
`video.deleted`, `video.counts` and `reset`.

A stream keeps ids, not videos, and reads a video when it is about to send it: a slow client costs little memory and
gets the latest state. The `id:` of an event is the time up to which its client has everything, in microseconds: that of
the last change of the video, never later than the time at which the ids were taken.
"""

import json
import re
from asyncio import ensure_future, get_running_loop, sleep
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse

from app import errors
from app.accounts.auth import Caller
from app.db.changes import MAX_PENDING, Changes
from app.db.faults import is_unavailable
from app.db.models import Video
from app.http.context import Gateway
from app.http.openapi import Responses, parameter
from app.http.wait import disconnected, first_of
from app.jobs import changes as queries

KEEP_ALIVE_S = 15
"""Seconds between comments: proxies close idle streams."""
POLL_S = 1.0
"""Seconds between two looks at the database while notices may be missing."""
GAP_S = 0.05
"""Time for which changes are collected before they are read."""
PACE = timedelta(seconds=5)
"""Shortest time between two events of progress about one video, between two counts, and between two resets."""
MAX_SHOWN_RUNNING = 200
"""Running videos up to which each one's progress is sent; beyond, they are counted."""
MAX_MISSED = 500
"""Changes that are sent after an interruption; beyond, the client reads its list again."""
READ_BATCH = 50
"""Videos that are read and rendered at once."""

EVENT_STREAM: Responses = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
RESUME = (
    parameter("header", "Last-Event-ID", "Id of the last event received: what has changed since then is sent first."),
    parameter("query", "last_event_id", "The same, for clients that cannot send the header, which takes precedence."),
)
_RUNNING = ("queued", "in_progress")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Render = Callable[[list[Video]], Awaitable[list[dict[str, Any]]]]
Check = Callable[[], Awaitable[None]]
"""Called every `KEEP_ALIVE_S`, and raises a `GatewayError` when the stream has to end."""


def stream_response(
    request: Request,
    gateway: Gateway,
    *,
    project_id: str | None,
    caller: Caller | None,
    render: Render,
    check: Check | None = None,
) -> StreamingResponse:
    """Stream the changes of a project's videos, of all projects if it is None, until the client leaves, the key of
    `caller` is no longer valid, `check` raises a `GatewayError`, the database is away or the server stops. Raises
    `InvalidRequest`."""
    resumed_at = _resumed_at(request)
    stream = _Stream(gateway, project_id, caller, render, check)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(stream.run(request, resumed_at), media_type="text/event-stream", headers=headers)


def _resumed_at(request: Request) -> datetime | None:
    """The time from which a client needs changes, None if it is new. Raises `InvalidRequest`."""
    given = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    if not given:
        return None
    if not re.fullmatch("[0-9]{1,17}", given):
        raise errors.InvalidRequest(
            "last_event_id: expected the id of an event of this stream, which is a number; connect without it, then "
            "read your list of videos",
            param="last_event_id",
            code="invalid_value",
        )
    return _EPOCH + timedelta(microseconds=int(given))


class _Stream:
    """One client's stream. Times are those of the gateway's clock; waits are real."""

    def __init__(
        self, gateway: Gateway, project_id: str | None, caller: Caller | None, render: Render, check: Check | None
    ) -> None:
        self._gateway = gateway
        self._project_id = project_id
        self._caller = caller
        self._render = render
        self._check = check
        now = self._checked_at = gateway.clock()
        self._known_until = now
        """Time up to which no change is missing; it lags behind while notices arrive."""
        self._read: dict[str, tuple[str, bool, datetime]] = {}
        """Status, deletion and time of change of the videos found by the last read by time."""
        self._looked_at = float("-inf")
        """When changes were last read by time, by the clock of the event loop."""
        self._progress: dict[str, None] = {}
        """Videos with progress to send, each when its time has come."""
        self._sent: dict[str, datetime] = {}
        """When progress was last sent, by video; those of the last moments."""
        self._crowded, self._moved = False, False
        """More videos run than are shown; something has changed since they were counted."""
        self._counted_at = self._reset_at = now - PACE

    async def run(self, request: Request, resumed_at: datetime | None) -> AsyncIterator[bytes]:
        loop = get_running_loop()
        gone = ensure_future(disconnected(request))
        try:
            with self._gateway.listener.changes(self._project_id) as changes:
                yield _comment("connected", min(resumed_at or self._known_until, self._known_until))
                async for event in self._resume(changes, resumed_at):
                    yield event
                last = loop.time()
                while not gone.done() and not self._gateway.listener.closed:
                    await self._check_key()
                    async for event in self._round(changes):
                        last = loop.time()
                        yield event
                    if loop.time() - last >= KEEP_ALIVE_S:
                        last = loop.time()
                        yield _comment("still here", self._known_until)
                    patience_s = self._patience_s(changes, last + KEEP_ALIVE_S - loop.time())
                    await first_of(changes.woken, gone, timeout_s=patience_s)
                    await sleep(GAP_S)
        except errors.GatewayError:  # the key, or the session, is no longer valid
            return
        except Exception as error:
            if not is_unavailable(error):
                raise
        finally:
            gone.cancel()

    async def _check_key(self) -> None:
        """Raises `AuthenticationFailed` when the key is no longer valid, and what the further check raises."""
        if self._caller is not None:
            self._caller = await self._gateway.authenticator.check(self._caller)
        now = self._gateway.clock()
        if self._check is not None and not timedelta() <= now - self._checked_at < timedelta(seconds=KEEP_ALIVE_S):
            self._checked_at = now
            await self._check()

    async def _resume(self, changes: Changes, resumed_at: datetime | None) -> AsyncIterator[bytes]:
        if resumed_at is None:
            return
        now = self._gateway.clock()
        if not -queries.LATE <= now - resumed_at <= queries.REMEMBERED:  # in the future: the clock was set back since
            yield self._reset(changes, now)
        else:
            self._known_until, changes.missed = min(resumed_at, now), True

    async def _round(self, changes: Changes) -> AsyncIterator[bytes]:
        """Send what is due now."""
        changes.woken.clear()
        now, is_current = self._gateway.clock(), self._gateway.listener.is_current
        self._known_until = min(self._known_until, now)  # the clock may have been set back
        if changes.missed or (not is_current and get_running_loop().time() - self._looked_at >= POLL_S):
            changes.missed = False
            await self._read_by_time(changes, now)
        elif is_current:
            self._known_until = max(self._known_until, now - timedelta(seconds=POLL_S))
        if changes.too_many:
            if _is_past(self._reset_at, now):
                yield self._reset(changes, now)
            return
        status, progress = changes.take()
        self._moved = self._moved or bool(status or progress)
        room = MAX_PENDING - len(self._progress)
        self._progress.update(dict.fromkeys(progress[:room]))
        async for event in self._videos(status, now):
            yield event
        if self._moved and (self._progress or self._crowded) and _is_past(self._counted_at, now):
            async for event in self._counts(now):
                yield event
        self._sent = {video_id: at for video_id, at in self._sent.items() if not _is_past(at, now)}
        due = [] if self._crowded else [video_id for video_id in self._progress if video_id not in self._sent]
        for video_id in due:
            del self._progress[video_id]
            self._sent[video_id] = now
        async for event in self._videos(due, now, name="video.progress"):
            yield event

    async def _read_by_time(self, changes: Changes, now: datetime) -> None:
        """Note what has changed since the last time at which nothing was missing."""
        self._looked_at = get_running_loop().time()
        async with self._gateway.db.reading() as connection:
            found = await queries.changed_since(
                connection, self._known_until, project_id=self._project_id, limit=MAX_MISSED + 1
            )
        self._known_until = now
        if len(found) > MAX_MISSED:
            changes.too_many, self._read = True, {}
            return
        before, self._read = self._read, found
        for video_id, mark in found.items():
            if before.get(video_id) != mark:
                same_state = video_id in before and before[video_id][:2] == mark[:2]
                changes.add(video_id, only_progress=same_state and mark[0] in _RUNNING)

    async def _counts(self, now: datetime) -> AsyncIterator[bytes]:
        self._counted_at, self._moved = now, False
        async with self._gateway.db.reading() as connection:
            counts = await queries.count_running(connection, project_id=self._project_id)
        self._crowded = sum(counts.values()) > MAX_SHOWN_RUNNING
        if self._crowded:
            self._progress.clear()
            yield _event("video.counts", None, counts)

    async def _videos(self, video_ids: list[str], now: datetime, name: str = "video.status") -> AsyncIterator[bytes]:
        """Read and send videos, oldest change first: a client that is cut off in between misses none."""
        changed = dict.fromkeys(video_ids, now)
        if len(video_ids) > READ_BATCH:
            async with self._gateway.db.reading() as connection:
                changed |= await queries.changed_at(connection, video_ids)
            video_ids = sorted(video_ids, key=changed.__getitem__)
        for start in range(0, len(video_ids), READ_BATCH):
            await self._check_key()  # a slow client takes long for those before
            batch, behind = video_ids[start : start + READ_BATCH], video_ids[start + READ_BATCH :]
            known_until = min(now, changed[behind[0]]) if behind else now  # those behind are not sent yet
            found = await self._gateway.changed_videos.read(batch, project_id=self._project_id)
            shown = await self._render([video for video in found if video.deleted_at is None])
            by_id = {video["id"]: video for video in shown}
            for video in found:
                self._progress.pop(video.id, None)
                changed_at = min(video.updated_at, known_until)
                if video.id in by_id:
                    yield _event("video.status" if video.status.ended else name, changed_at, by_id[video.id])
                else:
                    yield _event("video.deleted", changed_at, {"id": video.id})
            for missing in dict.fromkeys(batch).keys() - {video.id for video in found}:  # deleted long ago
                yield _event("video.deleted", known_until, {"id": missing})

    def _reset(self, changes: Changes, now: datetime) -> bytes:
        """Forget what is to be sent: the client reads it with its list."""
        changes.take()
        changes.too_many = False
        self._progress.clear()
        self._known_until = self._reset_at = now
        return _event("reset", now, {})

    def _patience_s(self, changes: Changes, longest_s: float) -> float:
        """Seconds after which there may be something to do though no notice arrives."""
        now = self._gateway.clock()
        moments = []
        if not self._gateway.listener.is_current:
            longest_s = min(longest_s, POLL_S)
        if self._caller is not None and self._caller.expires_at is not None:
            moments.append(self._caller.expires_at)
        if changes.too_many:
            moments.append(self._reset_at + PACE)
        if self._crowded and self._moved:
            moments.append(self._counted_at + PACE)
        elif self._progress:
            moments.append(min(self._sent.get(video_id, now) for video_id in self._progress) + PACE)
        return max(0.0, min([longest_s, *((moment - now).total_seconds() for moment in moments)]))


def _comment(text: str, known_until: datetime) -> bytes:
    """A comment with an id, from which a client goes on that has received no event since."""
    return f": {text}\nid: {event_id(known_until)}\n\n".encode()


def _event(name: str, at: datetime | None, data: Any) -> bytes:
    mark = "" if at is None else f"id: {event_id(at)}\n"
    return f"{mark}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _is_past(at: datetime, now: datetime) -> bool:
    """True once `PACE` has passed since `at`, and after the clock was set back."""
    return not timedelta() <= now - at < PACE


def event_id(at: datetime) -> int:
    """The id with which a client goes on that has everything up to this time."""
    return (at - _EPOCH) // timedelta(microseconds=1)
