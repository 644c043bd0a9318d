"""Creates a job in one INSERT: video, attempts and ledger reservation; returns the existing job for a repeated
idempotency key. Triggers (`app/db/functions/`) refuse a job beyond a limit, and nothing is written.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.types.json import Jsonb

from app import errors, ids
from app.accounts import ledger, pricing
from app.accounts.auth import Caller
from app.accounts.pricing import Quote
from app.db import rows
from app.db.database import Database
from app.db.models import Video
from app.jobs.metrics import count_created
from app.jobs.plan import Plan
from app.video import Settlement, Status

NOT_COVERED, TOO_MANY_JOBS = "VG402", "VG429"
"""SQLSTATEs that the triggers raise."""
CONCURRENCY_RETRY_S = 10
FOLD_S = 120
"""Seconds after a create in which its retry returns the same job."""
RETRIED = "retry "
"""Mark before the hash of a job that a retry made."""
_LOCK = sa.text("select pg_advisory_xact_lock(hashtextextended('gateway create ' || cast(:same as text), 0))")
MAX_REQUEST_BYTES = 256 * 2**10
"""Limit of the stored request as JSON; the fields together may have more, since each has its own limit."""


@dataclass(frozen=True)
class Created:
    video: Video
    replayed: bool
    """True when the idempotency key was used before; nothing was created."""


@dataclass(frozen=True)
class Idempotency:
    """A reason for a create to return the job of an earlier request."""

    key: str | None
    """The client's key; None: it sent none, and retries are folded (docs/decisions/0036-folded-retries.md)."""
    fingerprint: str
    """Hash of the request."""
    arrived_at: datetime
    is_retry: bool = False
    """True if the client's library says that it sends the request once more."""

    @property
    def stored_hash(self) -> str:
        """The hash as it is stored; of a job that a retry made, with a mark by which the first try finds it."""
        return f"{RETRIED}{self.fingerprint}" if self.is_retry else self.fingerprint


EMPTY: dict[str, Any] = dict.fromkeys(Video.__table__.columns.keys())

CREATE = (
    b"""
with video as (
  insert into videos (
    id, project_id, key_id, dialect, request_id, traceparent, status, progress, model, request, routes, choices,
    outputs, warnings, cost_estimate_micros, prices, hold_micros, longest_s, settlement, source_video_id,
    idempotency_key, idempotency_hash, created_at, updated_at, deadline_at
  ) values (
    %(id)s, %(project_id)s, %(key_id)s, %(dialect)s, %(request_id)s, %(traceparent)s, 'queued', 0, %(model)s,
    %(request)s, %(routes)s, %(choices)s, '[]', %(warnings)s, %(cost_estimate_micros)s, %(prices)s, %(hold_micros)s,
    %(longest_s)s, 'held', %(source_video_id)s, %(idempotency_key)s, %(idempotency_hash)s, %(now)s, %(now)s,
    %(deadline_at)s
  )
  on conflict (project_id, idempotency_key) where idempotency_key is not null do nothing
  returning id
), reserved as ("""
    + ledger.RESERVE
    + b"""
)
insert into attempts (
  id, video_id, project_id, output_index, route_index, state, settlement, provider, upstream_model, progress, due_at,
  submits, polls, consecutive_failures, cancel_tried, created_at
)
select
  attempt.id, video.id, %(project_id)s, attempt.number - 1, 0, 'pending', 'held', %(provider)s, %(upstream_model)s, 0,
  %(now)s, 0, 0, 0, false, %(now)s
from video, unnest(%(attempts)s::text[]) with ordinality as attempt (id, number)
returning video_id
"""
)


@dataclass(frozen=True)
class NewJob:
    """Input of `enqueue`: all that is written when a job is created."""

    video_id: str
    caller: Caller
    dialect: str
    model: str
    """As the client named it."""
    plan: Plan
    quote: Quote
    deadline_s: float
    request_id: str
    """Id of the request that creates it."""
    traceparent: str | None = None
    """The span of that request."""
    idempotency: Idempotency | None = None

    def parameters(self, now: datetime) -> dict[str, Any]:
        """Column values of the row in `videos`."""
        request = self.plan.request
        return {
            "id": self.video_id,
            "project_id": self.caller.project_id,
            "key_id": self.caller.key_id,
            "dialect": self.dialect,
            "request_id": self.request_id,
            "traceparent": self.traceparent,
            "model": self.model,
            "request": request.model_dump(mode="json", exclude_none=True),
            "routes": [route.name for route in self.plan.routes],
            "choices": [choice.stored for choice in self.plan.choices if len(self.plan.choices) > 1],
            "warnings": list(self.plan.warnings),
            "cost_estimate_micros": self.quote.estimate_micros,
            "prices": self.quote.prices,
            "hold_micros": self.quote.hold_micros,
            "longest_s": self.quote.longest_s,
            "source_video_id": request.source.video_id if request.source else None,
            "idempotency_key": self.idempotency and self.idempotency.key,
            "idempotency_hash": self.idempotency and self.idempotency.stored_hash,
            "deadline_at": now + timedelta(seconds=self.deadline_s),
        }


async def enqueue(db: Database, job: NewJob, *, now: datetime) -> Created:
    """Create a job in one statement: a row in `videos`, a pending attempt for each of its `n` outputs, and the ledger
    reservation.

    Raises `InvalidRequest` for a request that is too large to be stored, `InsufficientFunds` or `RateLimited` when a
    limit of the key or project does not cover it, `Conflict` when the project used the idempotency key for another
    request. Nothing is written then.
    """
    idempotency = job.idempotency
    values = job.parameters(now)
    request_json = _request_json(values["request"])
    route, request = job.plan.routes[0], job.plan.request
    parameters = {
        **{name: Jsonb(value) if isinstance(value, dict | list) else value for name, value in values.items()},
        "request": Jsonb(values["request"], dumps=lambda _: request_json),
        "provider": route.provider.name,
        "upstream_model": route.model,
        "attempts": [ids.new("att") for _ in range(request.n)],
        "now": now,
        **ledger.reserve_parameters(job.quote, request, now),
    }
    try:
        if idempotency is not None and idempotency.key is None:
            existing = await _fold(db, job, idempotency, parameters)
        else:
            written = await db.one(CREATE, parameters)
            existing = None if written or not idempotency else await find_replay(db, job.caller.project_id, idempotency)
            if not written and existing is None:
                raise errors.ServiceUnavailable(
                    "the video of this idempotency key was just deleted; send the request again"
                )
    except (psycopg.Error, sa.exc.DBAPIError) as error:
        raise _refusal(error, route.name) from None
    if existing is not None:
        return Created(existing, replayed=True)
    count_created(route.provider.name, route.model)
    fresh = {
        "status": Status.queued,
        "progress": 0,
        "outputs": [],
        "settlement": Settlement.held,
        "created_at": now,
        "updated_at": now,
    }
    return Created(rows.read_only(Video, EMPTY | values | fresh), replayed=False)


def _request_json(request: dict[str, Any]) -> str:
    """Encode the request as it is stored. Raises `InvalidRequest`."""
    text = json.dumps(request)
    if len(text) > MAX_REQUEST_BYTES and len(json.dumps(request, ensure_ascii=False).encode()) > MAX_REQUEST_BYTES:
        raise errors.InvalidRequest(
            f"the request has more than {MAX_REQUEST_BYTES // 2**10} KiB as JSON, without its files; shorten the "
            "prompt, the metadata, the addresses or the fields that only the vendor knows",
            code="request_too_large",
        )
    return text


async def _fold(db: Database, job: NewJob, idempotency: Idempotency, parameters: dict[str, Any]) -> Video | None:
    """Create the job, or return the one of the same request: for a retry, one of the last `FOLD_S` seconds; for a first
    try, one that its retry has made since it arrived.

    Equal requests of a key take turns, so that the second one sees the row of the first.
    """
    caller, same = job.caller, f"{job.caller.key_id} {idempotency.fingerprint}"
    retried, since = f"{RETRIED}{idempotency.fingerprint}", idempotency.arrived_at
    if idempotency.is_retry:
        hashes, since = [idempotency.fingerprint, retried], since - timedelta(seconds=FOLD_S)
    else:
        hashes = [retried]
    query = sa.select(Video).where(
        Video.project_id == caller.project_id,
        Video.key_id == caller.key_id,
        Video.idempotency_key.is_(None),
        Video.idempotency_hash.in_(hashes),
        Video.created_at >= since,
        Video.deleted_at.is_(None),
    )
    if idempotency.is_retry:  # after a cancellation the client wants another video
        query = query.where(Video.error_code.is_distinct_from("cancelled"))
    async with db.transaction() as session:
        await session.execute(_LOCK, {"same": same})
        existing = await session.scalar(query.order_by(Video.created_at.desc(), Video.id.desc()).limit(1))
        if existing is None:
            connection = await session.connection()
            await connection.exec_driver_sql(CREATE.decode(), parameters)
    return existing


async def find_replay(db: Database, project_id: str, idempotency: Idempotency) -> Video | None:
    """Read the video of an idempotency key; None without one. Raises `Conflict` if it was made by another request."""
    if idempotency.key is None:
        return None
    async with db.transaction() as session:
        video = await session.scalar(
            sa.select(Video).where(Video.project_id == project_id, Video.idempotency_key == idempotency.key)
        )
    if video is not None and video.idempotency_hash != idempotency.fingerprint:
        raise errors.Conflict(
            "this idempotency key was used for another request; use a new key for a new request",
            code="idempotency_key_reused",
            param="idempotency_key",
        )
    return video


def _refusal(raised: psycopg.Error | sa.exc.DBAPIError, route: str) -> Exception:
    """Translate the error of a trigger into a client error; any other error is returned unchanged."""
    error = raised.orig if isinstance(raised, sa.exc.DBAPIError) else raised
    if not isinstance(error, psycopg.Error) or error.sqlstate not in (NOT_COVERED, TOO_MANY_JOBS):
        return raised
    detail = json.loads(error.diag.message_detail or "{}")
    if error.sqlstate == TOO_MANY_JOBS:
        refusal = errors.RateLimited(
            f"this key may have {detail['allowed']} running jobs at once; wait for one to end, or cancel one",
            retry_after_s=CONCURRENCY_RETRY_S,
            code="concurrent_jobs_exceeded",
        )
        refusal.headers["x-ratelimit-limit-concurrent-jobs"] = str(detail["allowed"])
        refusal.headers["x-ratelimit-remaining-concurrent-jobs"] = "0"
        return refusal
    if detail["what"] == "price":
        return pricing.no_price(route)
    needed, left = pricing.format_usd(detail["needed_micros"]), pricing.format_usd(max(0, detail["left_micros"]))
    if detail["what"] == "balance":
        return errors.InsufficientFunds(
            f"this needs {needed} and the balance is {left}; ask the operator of this gateway to top it up",
            code="insufficient_balance",
        )
    scope = "key" if detail["what"] == "key" else "project"
    return errors.InsufficientFunds(
        f"this needs {needed} and {left} is left of the {scope}'s monthly budget of "
        f"{pricing.format_usd(detail['budget_micros'])}; it resets on the first of the month, UTC",
        code="budget_exceeded",
    )
