"""The submit step: the only call that costs money; its outcome decides if it may be sent again.

Until `Begin` has returned, nothing was sent: whatever fails or stops this worker, the attempt stays `pending` and is
claimed again. After it, the attempt is `submitting`, and without an answer its outcome is unknown.
"""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from app import errors
from app.db.faults import is_unavailable, read_fault
from app.jobs import lifecycle
from app.jobs.claim import Claim, begin_submit
from app.jobs.context import StepContext, StepTooLong
from app.jobs.metrics import count_refusal
from app.jobs.restored import was_restored
from app.jobs.spans import facts_of
from app.media.store import StorageUnavailable
from app.providers.base import NotBegun, Provider, Task
from app.telemetry import traces
from app.telemetry.logs import log
from app.video import AttemptState as S

PREPARE_GAP_S = 5
STORAGE_GAP_S = 30
"""Delay after a failed read of an upload from the store."""


async def submit(context: StepContext, claim: Claim) -> None:
    """Send the task of a claimed attempt and record the outcome."""
    with traces.step("video.submit", claim.video.traceparent, **facts_of(claim), submits=claim.attempt.submits):
        await _submit(context, claim)


async def _submit(context: StepContext, claim: Claim) -> None:
    provider = context.provider_of(claim)
    if provider is None:
        await _refused(context, claim, context.not_configured(claim))
        return
    task = await _build_task_or_postpone(context, claim, provider)
    if task is None:
        return
    begin = Begin(context, claim, provider)
    try:
        try:
            submission = await context.bounded(claim, provider.send(replace(task, begin=begin)))
        finally:
            await begin.settled()
    except NotBegun as error:
        log.info("submit not sent", reason=str(error))
        traces.note(sent=False)
        await context.record(lifecycle.release, claim, now=context.after(PREPARE_GAP_S))
    except errors.UpstreamUnknown as error:
        log.warning("submit outcome unknown", error=error.message, body=error.body)
        if (provider.can_resubmit or provider.looks_up) and not _is_late(context, claim):
            await _submit_again_later(context, claim, error)
        else:
            await _lost(context, claim, error)
        await context.report_to_breaker(claim, error)
    except errors.UpstreamError as error:
        log.warning("submit refused", code=error.code, error=error.message, body=error.body)
        count_refusal(error)
        await _refused(context, claim, error)
        await context.report_to_breaker(claim, error)
    except errors.GatewayError as error:
        await _not_sent(context, claim, error)
    except StepTooLong as error:
        log.error("submit stopped", sent=claim.sent, reason=str(error))
        traces.fail("submit_stopped")
        if claim.sent:
            await _lost(context, claim, _unknown_outcome_error(claim))
        else:
            await context.record(lifecycle.release, claim, now=context.clock())
    else:
        gap = submission.poll_after_s or provider.poll_gap_s(0, context.settings.poll_interval_s)
        log.info("submitted", upstream_ref=submission.ref)
        traces.note(upstream_ref=submission.ref)
        now = context.clock()
        due_at = now + timedelta(seconds=gap)
        if not claim.sent:
            await begin.record_late()
        # Recorded first: without the upstream id, the paid task is lost.
        await context.record(lifecycle.accepted, claim, submission, due_at=due_at, now=now)
        await context.report_to_breaker(claim)


class Begin:
    """`Task.begin` of a claimed attempt: records the submit right before it is sent."""

    def __init__(self, context: StepContext, claim: Claim, provider: Provider) -> None:
        self._context = context
        self._claim = claim
        self._provider = provider
        self._recording: asyncio.Future[bool] | None = None

    async def __call__(self) -> None:
        """Raises `NotBegun` when the submit must not be sent."""
        claim = self._claim
        if self._context.clock() >= claim.video.deadline_at:
            raise NotBegun("the deadline of the job has passed")
        self._recording = asyncio.ensure_future(self._record())
        try:
            recorded = await asyncio.shield(self._recording)
        except Exception as error:
            fault = read_fault(error)
            raise NotBegun(fault.text if fault else f"it could not be recorded ({type(error).__name__})") from error
        if not recorded:
            raise NotBegun("the job was cancelled, or another worker has it")
        if claim.stopped:
            raise NotBegun("the worker stops")
        claim.sent = True

    async def settled(self) -> None:
        """Wait until the claim shows what is recorded: an answer may come, or a call be cancelled, meanwhile."""
        if self._recording is not None:
            await asyncio.wait({self._recording})

    async def record_late(self) -> None:
        """Record a submit that the upstream accepted before all of it was sent."""
        with suppress(Exception):  # else it is recorded with the upstream's id
            await self._record()

    async def _record(self) -> bool:
        provider, context = self._provider, self._context
        return await begin_submit(
            context.db,
            self._claim,
            base_url=provider.config.base_url,
            credential=provider.fingerprint,
            lease_s=context.settings.lease_s,
            now=context.clock(),
        )


async def rescue(context: StepContext, claim: Claim) -> None:
    """Handle a submit of a worker that died, or with an unknown outcome: looked up if the provider can, also when the
    video has ended, since the task may run and cost; sent again only if the provider makes one task per id, with the
    same credential and before the deadline; else lost. After a restore another route may have made it already."""
    provider = context.provider_of(claim)
    in_time = not claim.video.status.ended and context.clock() < claim.video.deadline_at
    same_account = provider is not None and claim.attempt.credential in (None, provider.fingerprint)
    resubmits = provider is not None and provider.can_resubmit and same_account and in_time
    if resubmits and len(claim.video.routes) > 1:
        resubmits = not await was_restored(context.db, claim.video)
    if resubmits or (provider is not None and provider.looks_up):
        await submit(context, claim)
    else:
        await _lost(context, claim, _unknown_outcome_error(claim))


async def _build_task_or_postpone(context: StepContext, claim: Claim, provider: Provider) -> Task | None:
    """Build the task; None when the attempt was postponed or ended instead. After an error here nothing was sent."""
    looks_up = provider.looks_up and claim.was is S.submitting
    try:
        wait_s = 0 if looks_up else await context.breaker.seconds_until_retry(provider.name, claim.attempt.project_id)
        if wait_s:
            await _refused(context, claim, _circuit_open_error(claim, provider, wait_s))
            return None
        return await context.build_task(claim)
    except errors.GatewayError as error:
        await _not_sent(context, claim, error)
    except Exception as error:
        if claim.was is not S.pending:
            raise
        if not is_unavailable(error):
            log.exception("submit not prepared, postponed")
        await context.record(lifecycle.release, claim, now=context.after(PREPARE_GAP_S))
    return None


async def _not_sent(context: StepContext, claim: Claim, error: errors.GatewayError) -> None:
    """Record that the task could not be built or read. An earlier submit of the same attempt may have been accepted."""
    traces.fail(error.code)
    if claim.sent:
        await _lost(context, claim, _unknown_outcome_error(claim))
    elif isinstance(error, StorageUnavailable):  # a fault of the gateway: the job must not fail
        log.error("upload not readable, submit postponed", error=error.message)
        await context.record(lifecycle.release, claim, now=context.after(STORAGE_GAP_S))
    elif claim.was is S.submitting:
        await _lost(context, claim, _unknown_outcome_error(claim))
    else:
        await context.fail(claim, error.code, error.message)


async def _submit_again_later(context: StepContext, claim: Claim, error: errors.UpstreamError) -> None:
    """Postpone a submit with the same id, which makes no second task: the attempt stays `submitting` until `rescue`, at
    the latest at the deadline; of a video that has ended, a look-up may come after it."""
    traces.fail(error.code)
    due_at = context.after(context.backoff_s(claim.attempt.submits, error))
    due_at = due_at if claim.video.status.ended else min(due_at, claim.video.deadline_at)
    await context.record(lifecycle.snooze, claim, due_at=due_at, submits=claim.attempt.submits + 1)


def _is_late(context: StepContext, claim: Claim) -> bool:
    """True if the video has to end now; one that has ended already may be looked up for longer."""
    return not claim.video.status.ended and context.clock() >= claim.video.deadline_at


async def _refused(context: StepContext, claim: Claim, error: errors.UpstreamError) -> None:
    traces.fail(error.code)
    if claim.was is S.submitting:  # this call was refused; an earlier one may have been accepted
        if error.next_candidate and not _is_late(context, claim):
            await _submit_again_later(context, claim, error)
        else:
            await _lost(context, claim, _unknown_outcome_error(claim))
        return
    due_at = context.after(context.backoff_s(claim.attempt.submits, error))
    await context.end(lifecycle.refused, claim, error, due_at=due_at, now=context.clock())


async def _lost(context: StepContext, claim: Claim, error: errors.UpstreamUnknown) -> None:
    traces.fail(error.code)
    alias = context.alias_of(claim)
    resubmit = alias is not None and alias.on_unknown == "resubmit" and not await was_restored(context.db, claim.video)
    again_at = context.after(context.backoff_s(claim.attempt.submits, error)) if resubmit else None
    await context.end(lifecycle.lost, claim, error, again_at=again_at, now=context.clock())


def _unknown_outcome_error(claim: Claim) -> errors.UpstreamUnknown:
    return errors.UpstreamUnknown(
        f"It is not known whether {claim.attempt.provider} accepted the job: the answer to the submit was lost. "
        "It was not sent again, so that it is not paid twice.",
        provider=claim.attempt.provider,
    )


def _circuit_open_error(claim: Claim, provider: Provider, wait_s: float) -> errors.UpstreamUnavailable:
    message = claim.attempt.error_message or f"{provider.name} failed several times in a row; submits to it are paused"
    return errors.UpstreamUnavailable(message, provider=provider.name, retry_after_s=wait_s)
