"""The delivery worker: claims due deliveries and sends them; runs beside the job worker."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

import structlog

from app.db.database import Database
from app.db.faults import is_unavailable
from app.db.models import Delivery
from app.settings import Settings
from app.telemetry import traces
from app.telemetry.logs import log
from app.telemetry.metrics import WEBHOOKS
from app.webhooks import events
from app.webhooks.deliveries import (
    address_of,
    claim_deliveries,
    record_try,
)
from app.webhooks.sender import (
    Answer,
    Sender,
)

RECORD_PATIENCE_S = 30
NO_ANSWER = "no_answer"

QUEUE_SHARE = 5
"""Divisor: one queue key gets at most a fifth of the slots, so a receiver that hangs never takes all of them."""


class DeliveryWorker:
    """Claims due deliveries and sends them, up to `webhook_concurrency`."""

    def __init__(
        self,
        *,
        db: Database,
        settings: Settings,
        sender: Sender,
        clock: Callable[[], datetime],
        wake: Callable[[], None],
    ) -> None:
        self._db = db
        self._sender = sender
        self._clock = clock
        self._wake = wake
        self._limit = settings.webhook_concurrency
        self._lease_s = settings.webhook_timeout_s + settings.lease_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._saturated = False

    async def start_due(self) -> bool:
        """Claim due deliveries for the free slots and start them; False if none was due."""
        slots = self._limit - len(self._tasks)
        if slots <= 0:
            return False
        share = max(1, self._limit // QUEUE_SHARE)
        async with self._db.reading() as connection:
            claimed = await claim_deliveries(connection, slots, share=share, lease_s=self._lease_s, now=self._clock())
            addressed = [(delivery, *await address_of(connection, delivery, self._clock())) for delivery in claimed]
        self._saturated = bool(claimed)
        for delivery, url, secrets in addressed:
            task = asyncio.create_task(self._run(delivery, url, secrets))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        return bool(claimed)

    async def finish(self) -> None:
        """Wait for the deliveries under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def drain(self, grace_s: float) -> None:
        """Wait up to `grace_s`, then cancel the rest; they come due again when their lease ends."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        left = set(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._saturated:  # a delivery may wait for this slot or this queue key
            self._wake()

    async def _run(self, delivery: Delivery, url: str | None, secrets: Sequence[str]) -> None:
        with structlog.contextvars.bound_contextvars(video=delivery.video_id, delivery=delivery.id), _span(delivery):
            try:
                if url is None:
                    answer = Answer(None, 0, error="the endpoint is disabled, so nothing was sent")
                else:
                    answer = await self._sender.deliver(delivery, secrets, url)
                outcome = await self._record(delivery, answer)
            except Exception as error:
                log_error = log.warning if is_unavailable(error) else log.exception
                log_error("webhook delivery not recorded, retried after its lease")
                traces.fail("not_recorded")
                return
            _note_answer(url, answer, outcome)
            if outcome is None:
                log.warning("webhook delivery claimed elsewhere or deleted")
                return
            WEBHOOKS.labels(outcome).inc()
            facts = {"to": events.queue_key_of(url) if url else None, "status": answer.status, "ms": answer.duration_ms}
            if answer.error is None:
                log.info("webhook delivered", **facts)
            else:
                log.warning("webhook not delivered", outcome=outcome, error=answer.error, **facts)

    async def _record(self, delivery: Delivery, answer: Answer) -> str | None:
        return await self._db.persist(
            lambda session: record_try(session, delivery, answer, now=self._clock()), patience_s=RECORD_PATIENCE_S
        )


def _span(delivery: Delivery) -> AbstractContextManager[None]:
    """The span of one try."""
    return traces.outbound(
        "webhook.deliver",
        delivery.traceparent,
        video=delivery.video_id,
        delivery=delivery.id,
        endpoint=delivery.endpoint_id,
        event=delivery.event_type,
        earlier_tries=delivery.tries,
    )


def _note_answer(url: str | None, answer: Answer, outcome: str | None) -> None:
    """Write the outcome of a try to its span; of the address only the host."""
    if traces.are_on():
        traces.note(method="POST", host=traces.host_of(url), status_code=answer.status, outcome=outcome)
        if answer.error is not None:
            traces.fail(str(answer.status or NO_ANSWER))
