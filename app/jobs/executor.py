"""One attempt's next step: submit, poll, fetch, or see to what was abandoned.

A step is: call the upstream (outside any transaction), record what it said (one transaction). What it means is decided
in `jobs.py`; what was claimed and when is `worker.py`'s business.
"""

import json
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, TypeVar

import structlog

from app import errors
from app.db.database import Database
from app.db.models import Video
from app.jobs import download as films
from app.jobs import lifecycle as jobs
from app.jobs import videos
from app.jobs.breaker import Breaker
from app.jobs.claim import Claim
from app.jobs.metrics import count_ended
from app.jobs.task import task_of
from app.media.signed_links import SignedLinks
from app.media.store import StorageUnavailable, Store
from app.providers.base import Provider, Task
from app.settings import Settings
from app.telemetry import log
from app.video import AttemptState as S
from app.video import Failure, Output, Progress, Status

RECORD_PATIENCE_S = 600
"""How long a result that the database would not take is offered again."""
ABANDONED_GAP_S = 60
STRIKE_GAP_S = 30
"""Between two answers that a task is unknown: a vendor that is just deploying knows it again after a while."""
STORE_TRIES = 8

T = TypeVar("T")


class Steps:
    """What a worker does with a claim; holds connections, nothing about any job."""

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
    ) -> None:
        self._db = db
        self._settings = settings
        self._providers = providers
        self._store = store
        self._links = links
        self._breaker = Breaker(db, clock)
        self._clock = clock
        self._wake = wake
        """Called when another step is due at once."""

    def batches(self, claimed: Sequence[Claim]) -> list[list[Claim]]:
        """What is done together: polls of a provider that answers for many tasks at once, all else one by one."""
        alone: list[list[Claim]] = []
        together: dict[str, list[Claim]] = defaultdict(list)
        for claim in claimed:
            provider = self._provider_of(claim)
            if provider is None or provider.polls_at_once == 1 or not self._is_plain_poll(claim):
                alone.append([claim])
            else:
                together[provider.name].append(claim)
        for name, polls in together.items():
            size = self._providers[name].polls_at_once
            alone += [polls[start : start + size] for start in range(0, len(polls), size)]
        return alone

    def _is_plain_poll(self, claim: Claim) -> bool:
        return claim.was is S.running and not claim.video.status.ended and self._clock() < claim.video.deadline_at

    async def run(self, batch: list[Claim]) -> None:
        """Do the next thing for attempts in hand. Never raises: what fails comes due again with the lease."""
        if len(batch) > 1:
            with structlog.contextvars.bound_contextvars(provider=batch[0].attempt.provider):
                try:
                    await self._poll_many(batch)
                except Exception:
                    log.exception("a poll of many failed", attempts=len(batch))
            return
        claim = batch[0]
        with structlog.contextvars.bound_contextvars(
            video=claim.video.id, attempt=claim.attempt.id, provider=claim.attempt.provider
        ):
            try:
                await self._step(claim)
            except Exception:
                # Nothing was recorded: the attempt keeps its state and comes due again when the lease ends.
                log.exception("a step failed", state=str(claim.attempt.state))
                await self._give_up(claim)

    async def _give_up(self, claim: Claim) -> None:
        """What goes wrong every time must not go on for ever: past its deadline such an attempt has failed."""
        now = self._clock()
        if claim.was not in (S.running, S.storing) or now < claim.video.deadline_at:
            return
        with suppress(Exception):
            if not claim.video.status.ended:
                await self._fail(claim, "internal_error", "The gateway failed at this job; its log says why.")
            elif self._watched_long_enough(claim, now):
                await self._record(lambda s: jobs.ended_late(s, claim, S.failed, note="the gateway failed", now=now))

    def _watched_long_enough(self, claim: Claim, now: datetime) -> bool:
        return now >= (claim.video.ended_at or now) + timedelta(seconds=self._settings.late_watch_s)

    async def _step(self, claim: Claim) -> None:
        ended = claim.video.status.ended
        overdue = self._clock() >= claim.video.deadline_at
        match claim.was:
            case S.submitting:
                await self._rescue(claim)
            case S.pending if overdue or ended:
                await self._expire(claim)
            case S.pending:
                await self._submit(claim)
            case S.running if ended:
                await self._abandon(claim)
            case S.running if overdue:
                await self._expire(claim)
            case S.running:
                await self._poll(claim)
            case _ if ended:
                await self._record(
                    lambda s: jobs.ended_late(s, claim, S.succeeded, note="finished upstream", now=self._clock())
                )
                await films.tidy(claim, self._db, self._store)
            case _:
                await self._fetch(claim)

    async def _rescue(self, claim: Claim) -> None:
        """A submit was begun and nobody knows how it ended: sent again only where the same id certainly makes one task,
        with the same account, and in time."""
        provider = self._provider_of(claim)
        in_time = not claim.video.status.ended and self._clock() < claim.video.deadline_at
        same_account = provider is not None and claim.attempt.credential in (None, provider.fingerprint)
        if provider is not None and provider.can_resubmit and same_account and in_time:
            await self._submit(claim)
        else:
            await self._lost(claim, self._nobody_knows(claim))

    async def _submit(self, claim: Claim) -> None:
        provider = self._provider_of(claim)
        if provider is None:
            await self._refused(claim, self._not_configured(claim))
            return
        task = await self._prepared(claim, provider)
        if task is None:
            return
        try:
            submission = await provider.submit(task)
        except errors.UpstreamUnknown as error:
            log.warning("submit outcome unknown", error=error.message, body=error.body)
            if provider.can_resubmit:
                await self._submit_again_later(claim, error)
            else:
                await self._lost(claim, error)
            await self._heard(provider, error)
        except errors.UpstreamError as error:
            log.warning("submit refused", code=error.code, error=error.message, body=error.body)
            await self._refused(claim, error)
            await self._heard(provider, error)
        except errors.GatewayError as error:
            await self._not_sent(claim, error)
        else:
            gap = submission.poll_after_s or provider.poll_gap_s(0, self._settings.poll_interval_s)
            log.info("submitted", upstream_ref=submission.ref)
            now = self._clock()
            await self._record(  # before anything else: this reference is what was paid for
                lambda s: jobs.accepted(s, claim, submission, due_at=now + timedelta(seconds=gap), now=now)
            )
            await self._heard(provider)

    async def _prepared(self, claim: Claim, provider: Provider) -> Task | None:
        """What is sent, or None when nothing is sent now; whatever goes wrong here, nothing has been."""
        try:
            closed_for_s = await self._breaker.closed_for(provider.name)
            if closed_for_s:
                await self._refused(claim, self._resting(provider, closed_for_s, claim.attempt.error_message))
                return None
            return await self._task(claim)
        except errors.GatewayError as error:
            await self._not_sent(claim, error)
        except Exception:
            if claim.was is not S.pending:
                raise
            log.exception("a submit could not be prepared; it is tried again")
            await self._record(lambda s: jobs.release(s, claim, now=self._after(5)))
        return None

    async def _not_sent(self, claim: Claim, error: errors.GatewayError) -> None:
        """It could not be put together; a submit begun before may have been taken all the same."""
        if isinstance(error, StorageUnavailable):  # our own trouble: never the job's fault
            log.error("the store does not give the upload; it is sent later", error=error.message)
            await self._record(lambda s: jobs.release(s, claim, now=self._after(30)))
        elif claim.was is S.submitting:
            await self._lost(claim, self._nobody_knows(claim))
        else:
            await self._fail(claim, error.code, error.message)

    async def _submit_again_later(self, claim: Claim, error: errors.UpstreamError) -> None:
        """The same id again, so no second task: the attempt stays `submitting`, and is rescued when it is due."""
        due_at = min(self._after(self._backoff_s(claim.attempt.submits, error)), claim.video.deadline_at)
        submits = claim.attempt.submits + 1
        await self._record(lambda s: jobs.snooze(s, claim, due_at=due_at, submits=submits))

    async def _refused(self, claim: Claim, error: errors.UpstreamError) -> None:
        if claim.was is S.submitting:  # this call was refused; an earlier one may have been taken
            if error.next_candidate:
                await self._submit_again_later(claim, error)
            else:
                await self._lost(claim, self._nobody_knows(claim))
            return
        due_at = self._after(self._backoff_s(claim.attempt.submits, error))
        await self._end(lambda s: jobs.refused(s, claim, error, due_at=due_at, now=self._clock()))

    async def _lost(self, claim: Claim, error: errors.UpstreamUnknown) -> None:
        alias, tries = self._settings.models.get(claim.video.model), claim.attempt.submits
        twice = alias is not None and alias.on_unknown == "resubmit"
        again_at = self._after(self._backoff_s(tries, error)) if twice else None
        await self._end(lambda s: jobs.lost(s, claim, error, again_at=again_at, now=self._clock()))

    def _nobody_knows(self, claim: Claim) -> errors.UpstreamUnknown:
        return errors.UpstreamUnknown(
            f"nobody knows whether {claim.attempt.provider} took the job: the submit was begun and its end is not "
            "known. It was not sent again, so that it is not paid twice.",
            provider=claim.attempt.provider,
        )

    async def _poll(self, claim: Claim) -> None:
        provider = self._provider_of(claim)
        if provider is None:
            await self._poll_later(claim, self._not_configured(claim))
            return
        try:
            answer: Progress | errors.UpstreamError = await provider.poll(await self._task(claim))
        except errors.UpstreamError as error:
            answer = error
        await self._polled(claim, provider, answer)
        await self._heard(provider, answer, polling=True)

    async def _poll_many(self, claims: list[Claim]) -> None:
        provider = self._providers[claims[0].attempt.provider]
        tasks = [await self._task(claim) for claim in claims]
        answers: dict[str, Progress | errors.UpstreamError]
        try:
            answers = await provider.poll_many(tasks)
            await self._heard(provider)
        except errors.UpstreamError as error:
            await self._heard(provider, error, polling=True)
            if isinstance(error, errors.UpstreamRejected | errors.UpstreamGone):  # one of them may spoil it for all
                for claim in claims:
                    await self._poll(claim)
                return
            answers = dict.fromkeys((claim.attempt.id for claim in claims), error)
        missing = errors.UpstreamGone("the answer leaves the task out", provider=provider.name)
        for claim in claims:
            with structlog.contextvars.bound_contextvars(video=claim.video.id, attempt=claim.attempt.id):
                await self._polled(claim, provider, answers.get(claim.attempt.id, missing))

    async def _polled(self, claim: Claim, provider: Provider, progress: Progress | errors.UpstreamError) -> None:
        if isinstance(progress, errors.UpstreamGone):
            await self._strike(claim, progress)
            return
        if isinstance(progress, errors.UpstreamError):
            await self._poll_later(claim, progress)
            return
        now = self._clock()
        if progress.status is Status.completed:
            await self._record(lambda s: jobs.done(s, claim, progress, progress.output or Output(), now=now))
            self._wake()
        elif progress.status is Status.failed:
            failure = progress.failure or Failure(code="generation_failed", message="The generation failed.")
            log.warning("generation failed upstream", code=failure.code, error=failure.message)
            await self._end(lambda s: jobs.failed(s, claim, failure, retry=self._may_retry(claim, failure), now=now))
        else:
            due_at = self._after(self._poll_gap_s(claim, provider, progress.poll_after_s))
            await self._record(lambda s: jobs.progressed(s, claim, progress, due_at=due_at, now=now))

    async def _heard(self, provider: Provider, answer: object = None, *, polling: bool = False) -> None:
        """Let the breaker know: it counts only what says that the provider is down, not what it says about a task. A
        poll that is answered with an error may be about its one task. Never raises: it is never worth a result."""
        down = isinstance(answer, errors.UpstreamUnavailable | errors.UpstreamUnknown)
        if polling and isinstance(answer, errors.UpstreamError) and answer.upstream_status is not None:
            return
        try:
            await (self._breaker.failed(provider.name) if down else self._breaker.succeeded(provider.name))
        except Exception as error:
            log.warning("the breaker could not be told", error=type(error).__name__)

    def _resting(self, provider: Provider, seconds: float, last: str | None) -> errors.UpstreamUnavailable:
        said = last or f"{provider.name} failed several times in a row and is left alone for a while"
        return errors.UpstreamUnavailable(said, provider=provider.name, retry_after_s=seconds)

    def _may_retry(self, claim: Claim, failure: Failure) -> bool:
        alias = self._settings.models.get(claim.video.model)
        clients_doing = failure.code in (errors.ContentPolicy.default_code, errors.UpstreamRejected.default_code)
        return alias is not None and alias.retry_failed and not clients_doing

    async def _poll_later(self, claim: Claim, error: errors.UpstreamError) -> None:
        """A poll that errs is no verdict on the job."""
        log.warning("poll failed; asked again later", code=error.code, error=error.message, body=error.body)
        due_at = min(self._after(self._backoff_s(claim.attempt.polls + 1, error)), claim.video.deadline_at)
        values = {"strikes": 0, "error_code": error.code, "error_message": error.message}
        await self._record(lambda s: jobs.snooze(s, claim, due_at=due_at, **values))

    async def _strike(self, claim: Claim, error: errors.UpstreamError) -> None:
        strikes = claim.attempt.strikes + 1
        if strikes >= jobs.MAX_STRIKES:
            message = f"{claim.attempt.provider} no longer knows the task: {error.message}"
            await self._fail(claim, "upstream_task_gone", message, error.body)
            return
        due_at = self._after(max(STRIKE_GAP_S, self._backoff_s(strikes, error)))
        await self._record(lambda s: jobs.snooze(s, claim, due_at=due_at, strikes=strikes))

    async def _expire(self, claim: Claim) -> None:
        await self._end(lambda s: jobs.expired(s, claim, now=self._clock()))

    async def _abandon(self, claim: Claim) -> None:
        """The job has ended, the upstream's task has not: look how far it is, ask it to stop, else watch for its end.
        Looked at first: a task that is finished has its price, and may well be "cancelled" all the same."""
        provider = self._provider_of(claim)
        now = self._clock()
        ended: tuple[S, str] | None = None
        news: dict[str, Any] = {"strikes": 0}
        try:
            if provider is None:
                raise self._not_configured(claim)
            task = await self._task(claim)
            progress = await provider.poll(task)
            if progress.status is Status.completed:
                ended = S.succeeded, "late success"
            elif progress.status is Status.failed:
                ended = S.failed, "no late success"
            elif not claim.attempt.cancel_tried and await provider.cancel(task):
                ended = S.cancelled, "stopped"
            else:
                news["cancel_tried"] = True
        except errors.UpstreamError as error:
            if isinstance(error, errors.UpstreamGone):  # may know it again after a while, as any other task
                news["strikes"] = claim.attempt.strikes + 1
            if news["strikes"] >= jobs.MAX_STRIKES:
                ended = S.failed, error.message
        if ended is None and self._watched_long_enough(claim, now):
            ended = S.failed, "no late success"
        if ended is not None:
            to, note = ended
            await self._record(lambda s: jobs.ended_late(s, claim, to, note=note, now=now))
        else:
            due_at = self._after(ABANDONED_GAP_S)
            await self._record(lambda s: jobs.snooze(s, claim, due_at=due_at, **news))

    async def _fetch(self, claim: Claim) -> None:
        """Bring the finished file into our store."""
        provider = self._provider_of(claim)
        # The lease is part of the key: whoever lost it may delete what it stored, and never another worker's file.
        key = f"{claim.folder}{(claim.attempt.lease or '')[-10:]}.mp4"
        try:
            if provider is None:
                raise self._not_configured(claim)
            await self._store.stat(key)  # raises where there is nowhere to put it, before the upstream sends it
            limit = self._settings.max_file_mb * 2**20
            output = await films.bring(claim, provider, await self._task(claim), self._store, key, max_bytes=limit)
        except errors.UpstreamFailed as error:
            await self._fail(claim, error.code, error.message, error.body)
            return
        except errors.UpstreamGone as error:
            if claim.attempt.strikes + 1 >= jobs.MAX_STRIKES:
                await self._fail(claim, "output_gone", f"the finished file is gone: {error.message}", error.body)
            else:
                due_at = self._after(self._backoff_s(claim.attempt.strikes + 1, error))
                await self._record(lambda s: jobs.ask_again(s, claim, due_at=due_at))
            return
        except errors.UpstreamError as error:
            await self._fetch_later(claim, error)
            return
        except errors.PayloadTooLarge as error:
            await self._fail(claim, "output_too_large", error.message, None)
            return
        except StorageUnavailable as error:  # our own trouble: never the job's fault
            log.error("the store does not take the file; it is fetched again later", error=error.message)
            await self._record(lambda s: jobs.release(s, claim, now=self._after(30)))
            return
        now = self._clock()
        retention_s = claim.request.retention_s or self._settings.retention_s
        expires_at = now + timedelta(seconds=retention_s) if retention_s else None
        await self._end(lambda s: jobs.stored(s, claim, output, expires_at=expires_at, now=now))
        await films.tidy(claim, self._db, self._store, key)

    async def _fetch_later(self, claim: Claim, error: errors.UpstreamError) -> None:
        strikes = claim.attempt.strikes + 1
        log.warning("the finished file could not be fetched", strikes=strikes, error=error.message, body=error.body)
        if strikes >= STORE_TRIES and self._clock() >= claim.video.deadline_at:
            message = f"the finished file could not be fetched: {error.message}"
            await self._fail(claim, "output_unavailable", message, error.body)
            return
        due_at = self._after(self._backoff_s(strikes, error))
        await self._record(lambda s: jobs.snooze(s, claim, due_at=due_at, strikes=strikes))

    async def _fail(self, claim: Claim, code: str, message: str, body: str | None = None) -> None:
        failure = Failure(code=code, message=message)
        await self._end(lambda s: jobs.failed(s, claim, failure, body=body, now=self._clock()))
        if claim.was in (S.running, S.storing):
            await films.tidy(claim, self._db, self._store)

    # What the steps use

    def _provider_of(self, claim: Claim) -> Provider | None:
        """The provider as it was when the attempt was sent; none when it was taken out or points elsewhere now."""
        provider = self._providers.get(claim.attempt.provider)
        if provider is None:
            return None
        pinned = claim.attempt.base_url
        return provider if pinned in (None, provider.config.base_url) else None

    def _not_configured(self, claim: Claim) -> errors.UpstreamUnavailable:
        return errors.UpstreamUnavailable(
            f"the provider {claim.attempt.provider} is not configured as it was when the job was sent",
            provider=claim.attempt.provider,
        )

    async def _task(self, claim: Claim) -> Task:
        provider = self._providers[claim.attempt.provider]
        return await task_of(claim, provider, db=self._db, store=self._store, links=self._links, now=self._clock())

    async def _record(self, write: Callable[..., Awaitable[T]]) -> T:
        """One transaction, offered again while the database is away: what an upstream said must not be forgotten."""
        return await self._db.persist(write, patience_s=RECORD_PATIENCE_S)

    async def _end(self, write: Callable[..., Awaitable[Video | None]]) -> Video | None:
        """Record something that may end the video; count it when it did."""
        video = await self._record(write)
        self._wake()
        if video is not None and video.status.ended:
            count_ended(video, self._providers)
            if f"uploads/{video.id}/" in json.dumps(video.request):
                await self._forget_uploads(video.id)
            log.info("video ended", status=str(video.status), code=video.error_code)
        return video

    async def _forget_uploads(self, video_id: str) -> None:
        try:
            async with self._db.reading() as connection:
                needed = await videos.needing_uploads(connection, [video_id])
            if not needed:
                await self._store.delete_prefix(f"uploads/{video_id}/")
        except errors.GatewayError as error:
            log.warning("uploads stay behind", video=video_id, error=error.message)

    def _after(self, seconds: float) -> datetime:
        """That much later, give or take a tenth: many jobs must not come due in one moment."""
        return self._clock() + timedelta(seconds=seconds * random.uniform(0.9, 1.1))  # noqa: S311

    def _backoff_s(self, tries: int, error: errors.UpstreamError) -> float:
        return max(1.0, error.retry_after_s) if error.retry_after_s is not None else min(60.0, 2.0 ** min(tries, 6))

    def _poll_gap_s(self, claim: Claim, provider: Provider, asked_s: float | None) -> float:
        return max(provider.poll_gap_s(claim.attempt.polls, self._settings.poll_interval_s), asked_s or 0)
