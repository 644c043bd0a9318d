"""Executes the next step of claimed attempts: submit, poll, download, or watch an abandoned task.

`lifecycle.py` turns answers into states; `worker.py` claims attempts and renews leases.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

import structlog

from app.db.faults import is_unavailable
from app.jobs import download, lifecycle, poll, purge, submit
from app.jobs.claim import Claim
from app.jobs.context import StepContext
from app.jobs.metrics import expect_end, log_fields
from app.telemetry import traces
from app.telemetry.logs import log
from app.video import AttemptState as S


class Executor:
    """Runs batches of claims; one batch is one call to an upstream."""

    def __init__(self, context: StepContext) -> None:
        self._context = context

    def batches(self, claimed: Sequence[Claim]) -> list[list[Claim]]:
        """Group the polls of providers that report many tasks in one request; every other claim is its own batch."""
        batches: list[list[Claim]] = []
        by_provider: dict[str, list[Claim]] = defaultdict(list)
        for claim in claimed:
            provider = self._context.provider_of(claim)
            if provider is None or provider.polls_at_once == 1 or not self._is_plain_poll(claim):
                batches.append([claim])
            else:
                by_provider[provider.name].append(claim)
        for name, polls in by_provider.items():
            size = self._context.providers[name].polls_at_once
            batches += [polls[start : start + size] for start in range(0, len(polls), size)]
        return batches

    def _is_plain_poll(self, claim: Claim) -> bool:
        return claim.was is S.running and not claim.video.status.ended and not self._is_overdue(claim)

    def _is_overdue(self, claim: Claim) -> bool:
        return self._context.clock() >= claim.video.deadline_at

    async def run(self, batch: list[Claim]) -> None:
        """Run one step for a batch. Never raises: an attempt whose step failed comes due again with its lease."""
        for claim in batch:
            expect_end(claim.video, claim.attempt)
        if len(batch) > 1:
            with structlog.contextvars.bound_contextvars(provider=batch[0].attempt.provider):
                try:
                    await poll.poll_many(self._context, batch)
                except Exception as error:
                    if not is_unavailable(error):
                        log.exception("batch poll failed", attempts=len(batch))
            return
        claim = batch[0]
        fields = {**log_fields(claim.video), "attempt": claim.attempt.id, "provider": claim.attempt.provider}
        with structlog.contextvars.bound_contextvars(**fields), traces.joined(claim.video.traceparent):
            try:
                await self._step(claim)
            except Exception as error:
                # Nothing was recorded: the attempt keeps its state and comes due again when the lease ends.
                if not is_unavailable(error):
                    log.exception("step failed", state=str(claim.attempt.state))
                await self._fail_if_overdue(claim)

    async def _step(self, claim: Claim) -> None:
        context, ended, overdue = self._context, claim.video.status.ended, self._is_overdue(claim)
        match claim.was:
            case S.submitting:
                await submit.rescue(context, claim)
            case S.pending if overdue or ended:
                await context.end(lifecycle.expired, claim, now=context.clock())
            case S.pending:
                await submit.submit(context, claim)
            case S.running if ended:
                await poll.watch_abandoned(context, claim)
            case S.running if overdue:
                await context.end(lifecycle.expired, claim, now=context.clock())
            case S.running:
                await poll.poll(context, claim)
            case _ if ended:
                note = "finished upstream"
                await context.record(lifecycle.ended_late, claim, S.succeeded, note=note, now=context.clock())
                await purge.delete_stray_files(claim, context.db, context.store)
            case _:
                await download.download(context, claim)

    async def _fail_if_overdue(self, claim: Claim) -> None:
        """End an attempt whose step failed after its deadline, so that it is not repeated for ever."""
        context = self._context
        if claim.was not in (S.running, S.storing) or not self._is_overdue(claim):
            return
        with suppress(Exception):
            if not claim.video.status.ended:
                await context.fail(claim, "internal_error", "The gateway failed at this job; see its log.")
            elif context.is_late_watch_over(claim):
                note = "the gateway failed"
                await context.record(lifecycle.ended_late, claim, S.failed, note=note, now=context.clock())
