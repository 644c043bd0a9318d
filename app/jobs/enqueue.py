"""How a job comes in: one statement that writes the video, its attempts and what is reserved for it, or finds the one
that is there already. What a limit does not cover is refused by the triggers of migration 0003, and nothing is written.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.types.json import Jsonb

from app import errors, ids
from app.accounts import ledger as usage
from app.accounts import pricing as prices
from app.accounts.auth import Caller
from app.accounts.pricing import Quote
from app.db import rows
from app.db.database import Database
from app.db.models import Video
from app.video import Settlement, Status, VideoRequest

NOT_COVERED, TOO_MANY_JOBS = "VG402", "VG429"
"""What the triggers raise."""
CONCURRENCY_RETRY_S = 10


@dataclass(frozen=True)
class Created:
    video: Video
    replayed: bool
    """True when the idempotency key was seen before; nothing was created."""


EMPTY: dict[str, Any] = dict.fromkeys(Video.__table__.columns.keys())

CREATE = b"""
with video as (
  insert into videos (
    id, owner, key_id, dialect, status, progress, model, request, routes, outputs, warnings, cost_estimate_micros,
    prices, hold_micros, settlement, source_video_id, idempotency_key, idempotency_hash, created_at, updated_at,
    deadline_at
  ) values (
    %(id)s, %(owner)s, %(key_id)s, %(dialect)s, 'queued', 0, %(model)s, %(request)s, %(routes)s, '[]', %(warnings)s,
    %(cost_estimate_micros)s, %(prices)s, %(hold_micros)s, 'held', %(source_video_id)s, %(idempotency_key)s,
    %(idempotency_hash)s, %(now)s, %(now)s, %(deadline_at)s
  )
  on conflict (owner, idempotency_key) where idempotency_key is not null do nothing
  returning id
), reserved as (
  insert into ledger (
    id, owner, kind, amount_micros, key_id, video_id, model, provider, upstream_model, app, end_user, day, created_at
  )
  select
    %(entry)s, %(owner)s, 'reserve', %(reserve)s, %(key_id)s, video.id, %(model)s, %(provider)s, %(upstream_model)s,
    %(app)s, %(user)s, %(day)s, %(now)s
  from video
)
insert into attempts (
  id, video_id, owner, output_index, route_index, state, settlement, provider, upstream_model, progress, due_at,
  submits, polls, strikes, cancel_tried, created_at
)
select
  attempt.id, video.id, %(owner)s, attempt.number - 1, 0, 'pending', 'held', %(provider)s, %(upstream_model)s, 0,
  %(now)s, 0, 0, 0, false, %(now)s
from video, unnest(%(attempts)s::text[]) with ordinality as attempt (id, number)
returning video_id
"""


async def create(
    db: Database,
    request: VideoRequest,
    *,
    video_id: str,
    caller: Caller,
    dialect: str,
    shown_model: str,
    routes: Sequence[str],
    quote: Quote,
    warnings: Sequence[str] = (),
    idempotency_key: str | None = None,
    idempotency_hash: str | None = None,
    deadline_s: float,
    now: datetime,
) -> Created:
    """Write the job, in one statement: a row in `videos`, a pending attempt for each of its `n` outputs, and what is
    reserved for them.

    Raises `InsufficientFunds` and `RateLimited` where a limit of the key or its project does not cover it, `Conflict`
    when the owner used the idempotency key for another request. Nothing is written then.
    """
    provider, _, upstream_model = routes[0].partition("/")
    values: dict[str, Any] = {
        "id": video_id,
        "owner": caller.owner,
        "key_id": caller.key_id,
        "dialect": dialect,
        "model": shown_model,
        "request": request.model_dump(mode="json", exclude_none=True),
        "routes": list(routes),
        "warnings": list(warnings),
        "cost_estimate_micros": quote.estimate_micros,
        "prices": quote.prices,
        "hold_micros": quote.hold_micros,
        "source_video_id": request.source.video_id if request.source else None,
        "idempotency_key": idempotency_key,
        "idempotency_hash": idempotency_hash,
        "deadline_at": now + timedelta(seconds=deadline_s),
    }
    parameters = {
        **{name: Jsonb(value) if isinstance(value, dict | list) else value for name, value in values.items()},
        "provider": provider,
        "upstream_model": upstream_model,
        "attempts": [ids.new("att") for _ in range(request.n)],
        "entry": ids.new("txn"),
        "reserve": None if quote.hold_micros is None else -quote.hold_micros * request.n,
        "app": request.app,
        "user": request.user,
        "day": usage.day_of(now),
        "now": now,
    }
    try:
        written = await db.one(CREATE, parameters)
    except psycopg.Error as error:
        raise _refusal(error, routes[0]) from None
    if written is None:
        return await _replay(db, caller.owner, str(idempotency_key), idempotency_hash)
    fresh = {
        "status": Status.queued,
        "progress": 0,
        "outputs": [],
        "settlement": Settlement.held,
        "created_at": now,
        "updated_at": now,
    }
    return Created(rows.read_only(Video, EMPTY | values | fresh), replayed=False)


async def _replay(db: Database, owner: str, key: str, hashed: str | None) -> Created:
    async with db.transaction() as session:
        video = await session.scalar(sa.select(Video).where(Video.owner == owner, Video.idempotency_key == key))
    if video is None:  # deleted in between
        raise errors.ServiceUnavailable("the video of this idempotency key was just deleted; send the request again")
    if video.idempotency_hash != hashed:
        raise errors.Conflict(
            "this idempotency key was used for another request; use a new key for a new request",
            code="idempotency_key_reused",
            param="idempotency_key",
        )
    return Created(video, replayed=True)


def _refusal(error: psycopg.Error, route: str) -> Exception:
    """What a trigger said, in words; any other error as it is."""
    if error.sqlstate not in (NOT_COVERED, TOO_MANY_JOBS):
        return error
    told = json.loads(error.diag.message_detail or "{}")
    if error.sqlstate == TOO_MANY_JOBS:
        refused = errors.RateLimited(
            f"this key may have {told['allowed']} jobs under way at once; wait for one to end, or cancel one",
            retry_after_s=CONCURRENCY_RETRY_S,
            code="concurrent_jobs_exceeded",
        )
        refused.headers["x-ratelimit-limit-concurrent-jobs"] = str(told["allowed"])
        refused.headers["x-ratelimit-remaining-concurrent-jobs"] = "0"
        return refused
    if told["what"] == "price":
        return prices.no_price(route)
    needed, left = prices.format_usd(told["needed_micros"]), prices.format_usd(max(0, told["left_micros"]))
    if told["what"] == "balance":
        return errors.InsufficientFunds(
            f"this needs {needed} and the balance is {left}; ask the operator of this gateway to top it up",
            code="insufficient_balance",
        )
    whose = "key" if told["what"] == "key" else "project"
    return errors.InsufficientFunds(
        f"this needs {needed} and {left} is left of the {whose}'s monthly budget of "
        f"{prices.format_usd(told['budget_micros'])}; it starts anew on the first of the month, UTC",
        code="budget_exceeded",
    )
