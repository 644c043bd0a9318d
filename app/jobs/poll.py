"""The poll step, for one task or many; and the watch over tasks whose job has already ended."""

from dataclasses import replace
from typing import Any

import structlog

from app import errors
from app.db.models import NO_FILE
from app.jobs import lifecycle
from app.jobs.claim import Claim
from app.jobs.context import StepContext, StepTooLong
from app.jobs.metrics import count_refusal, log_fields
from app.jobs.restored import was_restored
from app.jobs.spans import facts_of
from app.providers.base import Provider, Task
from app.telemetry import traces
from app.telemetry.logs import log
from app.video import AttemptState as S
from app.video import Failure, Output, Progress, Status

ABANDONED_GAP_S = 60
UNKNOWN_TASK_GAP_S = 30
"""Least time between two answers "unknown task": during a deployment a vendor may not find a task for a while."""


async def poll(context: StepContext, claim: Claim) -> None:
    """Poll one task and record the answer."""
    provider = context.provider_of(claim)
    if provider is None:
        await _poll_later(context, claim, context.not_configured(claim))
        return
    try:
        task = await context.build_task(claim)
        answer: Progress | errors.UpstreamError = await context.bounded(claim, provider.poll(task))
    except errors.UpstreamError as error:
        answer = error
    except StepTooLong as error:
        answer = _too_long(provider, error)
    await _record_answer(context, claim, provider, answer)
    await context.report_to_breaker(claim, answer)


async def poll_many(context: StepContext, claims: list[Claim]) -> None:
    """Poll tasks of one provider in one request and record each answer."""
    provider = context.providers[claims[0].attempt.provider]
    tasks = [await context.build_task(claim) for claim in claims]
    answers: dict[str, Progress | errors.UpstreamError]
    try:
        limit_s = provider.config.timeout_s
        answers = await context.bounded(claims[0], provider.poll_many(tasks), limit_s=limit_s)
        await context.report_to_breaker(claims[0])
    except StepTooLong as error:
        answers = dict.fromkeys((claim.attempt.id for claim in claims), _too_long(provider, error))
    except errors.UpstreamError as error:
        await context.report_to_breaker(claims[0], error)
        if isinstance(error, errors.UpstreamRejected | errors.UpstreamGone):  # one bad task may fail the whole request
            for claim in claims:
                await poll(context, claim)
            return
        answers = dict.fromkeys((claim.attempt.id for claim in claims), error)
    missing = errors.UpstreamGone("the answer does not contain the task", provider=provider.name)
    for claim in claims:
        fields = {**log_fields(claim.video), "attempt": claim.attempt.id}
        with structlog.contextvars.bound_contextvars(**fields), traces.joined(claim.video.traceparent):
            await _record_answer(context, claim, provider, answers.get(claim.attempt.id, missing))


async def watch_abandoned(context: StepContext, claim: Claim) -> None:
    """Cancel a task whose job has already ended, or wait for its end.

    Polled before it is cancelled: a finished task is charged even if the cancel succeeds.
    """
    provider = context.provider_of(claim)
    ended: tuple[S, str] | None = None
    values: dict[str, Any] = {"consecutive_failures": 0}
    reported_micros = None
    try:
        if provider is None:
            raise context.not_configured(claim)
        task = await context.build_task(claim)
        progress = await context.bounded(claim, provider.poll(task))
        if progress.status is Status.completed:
            ended = S.succeeded, "late success"
            reported_micros = progress.reported_micros
        elif progress.status is Status.failed:
            ended = S.failed, "no late success"
            reported_micros = progress.reported_micros
        elif not claim.attempt.cancel_tried and await _cancel(context, claim, replace(task, status=progress.status)):
            ended = S.cancelled, "stopped"
        else:
            values["cancel_tried"] = True
    except StepTooLong as error:
        log.error("watch stopped", reason=str(error))
    except errors.UpstreamError as error:
        if isinstance(error, errors.UpstreamGone):  # may be found again later, see UNKNOWN_TASK_GAP_S
            values["consecutive_failures"] = claim.attempt.consecutive_failures + 1
        if values["consecutive_failures"] >= lifecycle.MAX_CONSECUTIVE_FAILURES:
            ended = S.failed, "the task is unknown"  # not the upstream's text: the ledger keeps its notes for ever
    if ended is None and context.is_late_watch_over(claim):
        ended = S.failed, "no late success"
    if ended is not None:
        to, note = ended
        now = context.clock()
        await context.record(lifecycle.ended_late, claim, to, note=note, reported_micros=reported_micros, now=now)
        context.polls.end(claim, code=None if to is S.succeeded else note.replace(" ", "_"), at=now)
    else:
        await context.record(lifecycle.snooze, claim, due_at=context.after(ABANDONED_GAP_S), **values)


async def _cancel(context: StepContext, claim: Claim, task: Task) -> bool:
    """Ask the upstream to stop a task; True if it has."""
    with traces.step("video.cancel", claim.video.traceparent, **facts_of(claim)):
        stopped = await context.bounded(claim, context.providers[claim.attempt.provider].cancel(task))
        traces.note(stopped=stopped)
        return stopped


async def _record_answer(
    context: StepContext, claim: Claim, provider: Provider, answer: Progress | errors.UpstreamError
) -> None:
    context.polls.note(claim, answer, at=context.clock())
    if isinstance(answer, errors.UpstreamGone):
        await _count_unknown_task(context, claim, answer)
        return
    if isinstance(answer, errors.UpstreamError):
        await _poll_later(context, claim, answer)
        return
    now = context.clock()
    if answer.status is Status.completed:
        await context.record(lifecycle.done, claim, answer, answer.output or Output(), now=now)
        context.polls.end(claim, at=now)
        context.wake()
    elif answer.status is Status.failed:
        failure = answer.failure or Failure(code="generation_failed", message="The generation failed.")
        log.warning("generation failed upstream", code=failure.code, error=failure.message)
        retry = await _may_retry(context, claim, failure)
        context.polls.end(claim, code=failure.code, at=now)
        await context.end(lifecycle.failed, claim, failure, retry=retry, body=failure.body, now=now)
    else:
        gap_s = provider.poll_gap_s(claim.attempt.polls, context.settings.poll_interval_s)
        due_at = context.after(max(gap_s, answer.poll_after_s or 0))
        await context.record(lifecycle.progressed, claim, answer, due_at=due_at, now=now)


def _too_long(provider: Provider, error: StepTooLong) -> errors.UpstreamUnavailable:
    return errors.UpstreamUnavailable(f"{provider.name} was given up: {error}", provider=provider.name)


async def _may_retry(context: StepContext, claim: Claim, failure: Failure) -> bool:
    """Return True if the next route is tried; after a restore it may have been tried already."""
    alias = context.alias_of(claim)
    caused_by_client = failure.code in (errors.ContentPolicy.default_code, errors.UpstreamRejected.default_code)
    # A finished task without a file was paid for: the operator may still find the file.
    wanted = alias is not None and alias.retry_failed and not caused_by_client and failure.code not in NO_FILE
    return wanted and not claim.on_last_route and not await was_restored(context.db, claim.video)


async def _poll_later(context: StepContext, claim: Claim, error: errors.UpstreamError) -> None:
    """Postpone after a failed poll, which does not fail the job."""
    log.warning("poll failed, repeated later", code=error.code, error=error.message, body=error.body)
    count_refusal(error)
    due_at = min(context.after(context.backoff_s(claim.attempt.polls + 1, error)), claim.video.deadline_at)
    values = {"consecutive_failures": 0, "error_code": error.code, "error_message": error.message}
    await context.record(lifecycle.snooze, claim, due_at=due_at, **values)


async def _count_unknown_task(context: StepContext, claim: Claim, error: errors.UpstreamError) -> None:
    failures = claim.attempt.consecutive_failures + 1
    if failures >= lifecycle.MAX_CONSECUTIVE_FAILURES:
        message = f"{claim.attempt.provider} no longer knows the task: {error.message}"
        context.polls.end(claim, code="upstream_task_gone", at=context.clock())
        await context.fail(claim, "upstream_task_gone", message, error.body)
        return
    due_at = context.after(max(UNKNOWN_TASK_GAP_S, context.backoff_s(failures, error)))
    await context.record(lifecycle.snooze, claim, due_at=due_at, consecutive_failures=failures)
