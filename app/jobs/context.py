"""Shared context of all steps of a worker, and functions that record a result."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from app import errors
from app.db.database import Database
from app.db.models import Video
from app.jobs import lifecycle, purge
from app.jobs.breaker import Breaker
from app.jobs.claim import Claim
from app.jobs.metrics import count_ended
from app.jobs.spans import Polls
from app.jobs.task import build_task
from app.media.signed_links import SignedLinks
from app.media.store import Store
from app.providers.base import Provider, Task
from app.setting_types import ModelSettings
from app.settings import Settings
from app.telemetry import traces
from app.telemetry.logs import log
from app.video import AttemptState as S
from app.video import Failure

RECORD_PATIENCE_S = 600
"""Longest time that a result is kept while the database is unavailable."""
DEADLINE_MARGIN_S = 30
CANCEL_S = 1
"""Time that a call may take to end when it is cancelled; then it is left alone."""

P = ParamSpec("P")
T = TypeVar("T")


class StepTooLong(Exception):
    """A call of an adapter was cancelled because it did not end in time."""


class StepContext:
    """Connections and settings of a worker; no state of a job.

    A step calls the upstream outside any transaction, then records the answer in one transaction (`record`).
    """

    def __init__(
        self,
        *,
        db: Database,
        settings: Settings,
        providers: Mapping[str, Provider],
        store: Store,
        links: SignedLinks,
        clock: Callable[[], datetime],
        wake: Callable[[], None],
        margin_s: float = DEADLINE_MARGIN_S,
    ) -> None:
        self.db = db
        self.settings = settings
        self.providers = providers
        self.store = store
        self.links = links
        self.clock = clock
        self.wake = wake
        """Called when another step is due at once."""
        self.margin_s = margin_s
        """Time that a call to an upstream may take beyond its own limit and the job's deadline."""
        self.breaker = Breaker(db, clock)
        self.polls = Polls()

    # The claim

    def provider_of(self, claim: Claim) -> Provider | None:
        """Return the attempt's provider; None when it was removed or its base URL has changed since the submit."""
        provider = self.providers.get(claim.attempt.provider)
        if provider is None:
            return None
        pinned = claim.attempt.base_url if claim.was is not S.pending else None  # of an earlier, refused submit
        return provider if pinned in (None, provider.config.base_url) else None

    def not_configured(self, claim: Claim) -> errors.UpstreamUnavailable:
        return errors.UpstreamUnavailable(
            f"the provider {claim.attempt.provider} is not configured as it was when the job was sent",
            provider=claim.attempt.provider,
        )

    def alias_of(self, claim: Claim) -> ModelSettings | None:
        return self.settings.models.get(claim.video.model)

    def is_late_watch_over(self, claim: Claim) -> bool:
        """True when the task of an ended job is no longer watched."""
        return self.clock() >= (claim.video.ended_at or self.clock()) + timedelta(seconds=self.settings.late_watch_s)

    async def build_task(self, claim: Claim) -> Task:
        """Build the `Task` of a claimed attempt. Raises `NotFound` for a character that was deleted."""
        provider = self.providers[claim.attempt.provider]
        return await build_task(claim, provider, db=self.db, store=self.store, links=self.links, now=self.clock())

    # Times

    async def bounded(self, claim: Claim, call: Coroutine[Any, Any, T], *, limit_s: float | None = None) -> T:
        """Return the result of a call of an adapter, which is cancelled when it takes longer than `limit_s` and a
        margin, whatever the adapter does. Default: until the job's deadline. Raises `StepTooLong`."""
        if limit_s is None:
            left_s = 0.0 if claim.video.status.ended else (claim.video.deadline_at - self.clock()).total_seconds()
            provider = self.providers[claim.attempt.provider]
            limit_s = max(left_s, provider.config.timeout_s)
        limit_s += self.margin_s
        task = asyncio.ensure_future(call)
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # this may not wait for its end
        try:
            await asyncio.wait({task}, timeout=limit_s)
            if not task.done():
                raise StepTooLong(f"not ended after {limit_s:g} s")
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=CANCEL_S)

    def after(self, seconds: float) -> datetime:
        """The time in `seconds` from now, with 10 % jitter, so that many jobs do not come due at once."""
        return self.clock() + timedelta(seconds=seconds * random.uniform(0.9, 1.1))  # noqa: S311

    def backoff_s(self, tries: int, error: errors.UpstreamError) -> float:
        """Seconds until the next try: `retry-after` of the upstream, else exponential up to a minute."""
        return max(1.0, error.retry_after_s) if error.retry_after_s is not None else min(60.0, 2.0 ** min(tries, 6))

    # Results

    async def record(
        self, write: Callable[Concatenate[AsyncSession, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `write` in one transaction, repeated while the database is unavailable, so that the upstream's answer is
        not lost."""
        return await self.db.persist(lambda session: write(session, *args, **kwargs), patience_s=RECORD_PATIENCE_S)

    async def end(
        self, write: Callable[Concatenate[AsyncSession, P], Awaitable[Video | None]], *args: P.args, **kwargs: P.kwargs
    ) -> Video | None:
        """`record` a result that may end the video; if it did, count it and delete its uploads."""
        video = await self.record(write, *args, **kwargs)
        self.wake()
        if video is not None and video.status.ended:
            count_ended(video)
            if f"uploads/{video.id}/" in json.dumps(video.request):
                await self._delete_uploads(video.id)
        return video

    async def fail(self, claim: Claim, code: str, message: str, body: str | None = None) -> None:
        """End an attempt as failed, and delete its files."""
        failure = Failure(code=code, message=message)
        traces.fail(code)
        await self.end(lifecycle.failed, claim, failure, body=body, now=self.clock())
        if claim.was in (S.running, S.storing):
            await purge.delete_stray_files(claim, self.db, self.store)

    async def report_to_breaker(self, claim: Claim, answer: object = None) -> None:
        """Report the call's outcome to the circuit breaker: only connection errors, 5xx and missing answers count. To a
        poll only connection errors do: all else may concern only that task. Never raises."""
        name, project_id = claim.attempt.provider, claim.attempt.project_id
        unreachable = isinstance(answer, errors.UpstreamUnreachable)
        polling = claim.was is S.running
        if polling and isinstance(answer, errors.UpstreamError) and not unreachable:
            return
        looked_up = claim.was is S.submitting and not claim.sent
        if looked_up and not isinstance(answer, errors.UpstreamUnavailable):  # a free call says nothing about submits
            return
        try:
            if isinstance(answer, errors.UpstreamUnavailable | errors.UpstreamUnknown):
                await self.breaker.record_failure(name, project_id, unreachable=unreachable)
            else:
                await self.breaker.record_success(name, project_id)
        except Exception as error:
            log.warning("circuit breaker not updated", error=type(error).__name__)

    async def _delete_uploads(self, video_id: str) -> None:
        try:
            async with self.db.reading() as connection:
                needed = await purge.needing_uploads(connection, [video_id])
            if not needed:
                await self.store.delete_prefix(f"uploads/{video_id}/")
        except errors.GatewayError as error:
            log.warning("uploads not deleted", video=video_id, error=error.message)
