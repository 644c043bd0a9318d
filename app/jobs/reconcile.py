"""Lost attempts, whose submit has an unknown outcome. Part of the state machine, see `lifecycle.py`.

A late answer resumes the attempt. Otherwise an operator checks the vendor's console and decides; until then, or until
`late_watch_s` has passed, its money stays held:

    confirm    the task exists: resume it under the upstream's id for it
    resubmit   it does not exist: submit once more
    give up    it does not exist and is not wanted any more: refund

And tasks that the upstream finished, and whose file could not be had: their attempt failed and is refunded. An operator
who finds the file has it fetched, which is not charged again.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from httpx import InvalidURL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import aliased

from app import errors, ids, net
from app.accounts import audit, ledger
from app.accounts.audit import Actor
from app.db import rows
from app.db.database import Database
from app.db.models import LIVE, NO_FILE, Attempt, Video
from app.jobs.claim import Claim
from app.jobs.metrics import log_fields
from app.jobs.task import build_task
from app.jobs.transitions import add_attempt, lock_video
from app.media.signed_links import SignedLinks
from app.media.store import Store
from app.providers.answers import address
from app.providers.base import Provider
from app.telemetry.logs import log
from app.video import AttemptState as S
from app.video import Output, Settlement, Status

MAX_LISTED = 1_000
NO_FILE_LISTED = timedelta(days=30)
"""Age up to which attempts without a file are listed."""
WITHOUT_FILE = (Attempt.state == S.failed, Attempt.error_code.in_(NO_FILE))


# Late answers


async def record_late_answer(session: AsyncSession, claim: Claim, values: dict[str, Any], now: datetime) -> bool:
    """Record the answer to a submit that was already recorded as lost. True when the task was resumed at once.

    While another attempt makes the same output, the id is only stored; `resume_lost` resumes the task afterwards."""
    if await _resume(session, claim.attempt, now, **values):
        log.warning("lost attempt resumed by late answer", attempt=claim.attempt.id)
        return True
    lost = sa.update(Attempt).where(Attempt.id == claim.attempt.id, Attempt.state == S.lost)
    await session.execute(lost.values(upstream_ref=values["upstream_ref"]))
    log.error("late answer stored for later", upstream_ref=values["upstream_ref"], attempt=claim.attempt.id)
    return False


async def resume_lost(session: AsyncSession, *, now: datetime) -> Attempt | None:
    """Resume one lost attempt whose upstream id became known, unless another attempt is making the same output. Its
    cost is settled when it ends, whatever the status of the job."""
    other = aliased(Attempt)
    same = (other.video_id == Attempt.video_id, other.output_index == Attempt.output_index)
    found = await session.scalar(
        sa.select(Attempt)
        .where(Attempt.state == S.lost, Attempt.upstream_ref.is_not(None))
        .where(Attempt.settlement.in_((Settlement.held, Settlement.moved)))
        .where(~sa.exists().where(*same, other.state.in_(LIVE)))
        .order_by(Attempt.ended_at)
        .limit(1)
    )
    return found if found is not None and await _resume(session, found, now) else None


# Decisions of an operator


async def list_undecided(connection: AsyncConnection, *, attempt_id: str | None = None) -> list[tuple[Attempt, Video]]:
    """Read the lost attempts that wait for a decision, or only `attempt_id`, with their videos; oldest first."""
    query = rows.select(Attempt).where(*ledger.UNKNOWN).order_by(Attempt.ended_at, Attempt.id).limit(MAX_LISTED)
    if attempt_id is not None:
        query = query.where(Attempt.id == attempt_id)
    return await _with_videos(connection, query)


async def count_undecided(connection: AsyncConnection) -> int:
    """Count the lost attempts that wait for a decision."""
    return await connection.scalar(sa.select(sa.func.count()).select_from(Attempt).where(*ledger.UNKNOWN)) or 0


async def list_without_file(connection: AsyncConnection, *, now: datetime) -> list[tuple[Attempt, Video]]:
    """Read the attempts whose finished file could not be had and whose job can run again, newest first."""
    query = (
        rows.select(Attempt)
        .where(*WITHOUT_FILE, Attempt.ended_at >= now - NO_FILE_LISTED)
        .order_by(Attempt.ended_at.desc(), Attempt.id)
        .limit(MAX_LISTED)
    )
    found = await _with_videos(connection, query)
    return [(attempt, video) for attempt, video in found if not video.status.ended or _may_run_again(video)]


async def _with_videos(connection: AsyncConnection, query: sa.Select[Any]) -> list[tuple[Attempt, Video]]:
    attempts = await rows.all_of(Attempt, connection, query)
    wanted = rows.select(Video).where(Video.id.in_({attempt.video_id for attempt in attempts}))
    videos = {video.id: video for video in await rows.all_of(Video, connection, wanted)}
    return [(attempt, videos[attempt.video_id]) for attempt in attempts if attempt.video_id in videos]


async def confirm_by_operator(
    attempt_id: str,
    upstream_ref: str | None,
    *,
    db: Database,
    providers: Mapping[str, Provider],
    store: Store,
    links: SignedLinks,
    deadline_s: float,
    actor: Actor,
    now: datetime,
) -> None:
    """Resume a lost attempt whose task exists. `upstream_ref` is from the vendor's console; None: from a late answer.
    The upstream is polled first.

    Raises `NotFound`, `InvalidRequest` for a reference that the upstream does not know, `UpstreamError` when it cannot
    be polled, `Conflict` for the task of another attempt.
    """
    async with db.reading() as connection:
        found = await list_undecided(connection, attempt_id=attempt_id) if ids.is_id(attempt_id, "att") else []
    if not found:
        raise _not_undecided(attempt_id)
    attempt, video = found[0]
    ref = upstream_ref or attempt.upstream_ref
    if not ref:
        raise errors.InvalidRequest(
            f"upstream_ref is required: the id that {attempt.provider} has for the task. Look in its console for "
            f"a task of about {attempt.submitted_at:%Y-%m-%d %H:%M:%S} UTC",
            param="upstream_ref",
            code="missing_parameter",
        )
    provider = providers.get(attempt.provider)
    if provider is None:
        raise errors.InvalidRequest(f"the provider {attempt.provider} is not configured here, so it cannot be polled")
    async with db.reading() as connection:
        same = (Attempt.provider == attempt.provider, Attempt.upstream_ref == ref, Attempt.id != attempt.id)
        other = await connection.scalar(sa.select(Attempt.video_id).where(*same).limit(1))
    if other is not None:
        raise errors.Conflict(f"the task {ref!r:.120} belongs to the video {other}; this attempt has another one")
    claim = Claim(rows.replace(attempt, upstream_ref=ref), video, S.lost)
    try:
        await provider.poll(await build_task(claim, provider, db=db, store=store, links=links, now=now))
    except (errors.UpstreamGone, errors.UpstreamRejected) as error:
        raise errors.InvalidRequest(
            f"{attempt.provider} does not know a task {ref!r:.120}: {error.message}", param="upstream_ref"
        ) from None
    pinned = {"upstream_ref": ref, "base_url": provider.config.base_url, "credential": provider.fingerprint}
    async with db.transaction() as session:
        video, attempt = await _lock(session, attempt_id)
        await _confirm(session, video, attempt, pinned, now + timedelta(seconds=deadline_s), now)
        await _record(session, actor, "find", attempt, {"upstream_ref": net.redact_urls(ref)}, now)
    log.warning("lost task confirmed by operator", attempt=attempt_id, **log_fields(video), upstream_ref=ref)


async def _confirm(
    session: AsyncSession, video: Video, attempt: Attempt, pinned: dict[str, str], deadline_at: datetime, now: datetime
) -> None:
    """Resume an attempt with the upstream id, base URL and credential in `pinned`; a job that failed runs again."""
    if await is_being_made(session, attempt):
        raise errors.Conflict("another attempt is making this output; decide when it has ended")
    if not await _resume(session, attempt, now, **pinned):
        raise errors.Conflict("another operator has just decided on this attempt", code="already_decided")
    if _may_run_again(video):
        await _reopen(session, video, Status.in_progress, deadline_at, now)


async def resubmit_by_operator(
    db: Database, attempt_id: str, *, deadline_s: float, actor: Actor, now: datetime
) -> None:
    """Submit a lost attempt once more, because it was never accepted; a job that failed runs again.

    Raises `NotFound`, `Conflict` when the job completed or was cancelled, deleted or purged, or the output is being
    made.
    """
    async with db.transaction() as session:
        video, attempt = await _lock(session, attempt_id)
        if video.status.ended and not _may_run_again(video):
            raise errors.Conflict("a completed, cancelled, deleted or purged job cannot run again; use fail or find")
        if await is_being_made(session, attempt):
            raise errors.Conflict("another attempt is making this output; use fail or find")
        if video.status.ended:
            await _reopen(session, video, Status.queued, now + timedelta(seconds=deadline_s), now)
        await add_attempt(session, video, attempt, attempt.route_index, now)
        await ledger.transfer_hold(session, attempt)
        await _record(session, actor, "resubmit", attempt, {"settlement": str(Settlement.moved)}, now)
    log.warning("lost attempt resubmitted by operator", attempt=attempt_id, **log_fields(video))


async def give_up_by_operator(db: Database, attempt_id: str, *, actor: Actor, now: datetime) -> None:
    """Refund a lost attempt; the job stays as it ended. Raises `NotFound`."""
    async with db.transaction() as session:
        video, attempt = await _lock(session, attempt_id)
        await ledger.refund(session, video, attempt, now=now, note="not accepted, decided by operator")
        await _record(session, actor, "fail", attempt, {"settlement": str(Settlement.refunded)}, now)
    log.warning("lost attempt given up by operator", attempt=attempt_id, **log_fields(video))


async def fetch_by_operator(
    attempt_id: str,
    url: str,
    *,
    db: Database,
    providers: Mapping[str, Provider],
    allow: Collection[net.Network],
    deadline_s: float,
    actor: Actor,
    now: datetime,
) -> None:
    """Fetch the file of a finished task from `url`; a job that failed runs again. Nothing is charged: it was refunded.

    The key is sent to the provider's own origin only. Raises `NotFound`, `InvalidRequest` for a URL that cannot be
    fetched, `Conflict` when the attempt has no file to fetch, the job has ended otherwise, or the output exists.
    """
    async with db.transaction() as session:
        video, attempt = await _lock(session, attempt_id, *WITHOUT_FILE)
        if video.status.ended and not _may_run_again(video):
            raise errors.Conflict("a completed, cancelled, deleted or purged job cannot run again")
        made = any(output["index"] == attempt.output_index for output in video.outputs)
        if made or await is_being_made(session, attempt):
            raise errors.Conflict("another attempt has made this output or is making it")
        provider = providers.get(attempt.provider)
        if provider is None:
            raise errors.InvalidRequest(f"the provider {attempt.provider} is not configured here")
        target = _checked(url, provider, allow)
        await ledger.hold(session, video, attempt, now=now, note="its file is fetched by operator")
        values = {
            "output": Output(url=target, direct=True, authenticated=True).model_dump(mode="json"),
            "free": True,
            "base_url": provider.config.base_url,
            "credential": provider.fingerprint,
            "due_at": now,
            "consecutive_failures": 0,
            **dict.fromkeys(("ended_at", "lease", "error_code", "error_message", "error_body")),
        }
        await session.execute(sa.update(Attempt).where(Attempt.id == attempt.id).values({"state": S.storing, **values}))
        if video.status.ended:
            await _reopen(session, video, Status.in_progress, now + timedelta(seconds=deadline_s), now)
        await _record(session, actor, "fetch", attempt, {"host": address(None, target).host}, now)
    log.warning("file address given by operator", attempt=attempt_id, **log_fields(video))


async def _record(
    session: AsyncSession, actor: Actor, action: str, attempt: Attempt, after: dict[str, Any], now: datetime
) -> None:
    """Write the audit entry of a decision. Of an address only the host: its path and query may hold a token."""
    after = {"video": attempt.video_id, **after}
    project_id = attempt.project_id
    await audit.record(session, actor, f"repair.{action}", attempt.id, project_id=project_id, after=after, now=now)


def _checked(url: str, provider: Provider, allow: Collection[net.Network]) -> str:
    """The URL without blanks around it. Raises `InvalidRequest` unless it is http(s), and for a private address; names
    are checked when they are resolved, and the provider's own host is configured."""
    text = url.strip()
    try:
        target = address(None, text)
        home = address(None, provider.config.base_url).host if provider.config.base_url else None
    except (InvalidURL, ValueError):
        raise errors.InvalidRequest("url: expected an http(s) URL", param="url") from None
    if target.scheme not in ("http", "https") or not target.host:
        raise errors.InvalidRequest("url: expected an http(s) URL", param="url")
    if target.host != home and net.is_private(target.host, allow):
        raise errors.PrivateAddress("url")
    return text


async def _lock(session: AsyncSession, attempt_id: str, *which: sa.ColumnElement[bool]) -> tuple[Video, Attempt]:
    """Lock an attempt that waits for a decision, by default an undecided one, and its video; the video first, as
    everywhere, against deadlocks. Raises `NotFound`; with `which`, `Conflict` for an attempt that does not match."""
    if not ids.is_id(attempt_id, "att"):
        raise _not_undecided(attempt_id)
    video = await session.scalar(
        sa.select(Video)
        .where(Video.id.in_(sa.select(Attempt.video_id).where(Attempt.id == attempt_id)))
        .with_for_update()
    )
    attempt = await session.scalar(
        sa.select(Attempt).where(Attempt.id == attempt_id, *(which or ledger.UNKNOWN)).with_for_update()
    )
    if video is not None and attempt is None and which:
        raise errors.Conflict(
            "this attempt does not wait for its file: another operator has just decided on it, or its outcome is "
            "unknown and the task has to be found first",
            code="already_decided",
        )
    if video is None or attempt is None:
        raise _not_undecided(attempt_id)
    return video, attempt


def _not_undecided(attempt_id: str) -> errors.NotFound:
    return errors.NotFound(
        f"no attempt {attempt_id!r:.80} waits for a decision; GET /admin/v1/repairs lists those that do"
    )


# Inside one transaction


async def is_being_made(session: AsyncSession, attempt: Attempt) -> bool:
    """True when another attempt is making the same output."""
    return await _is_another(session, attempt, Attempt.state.in_(LIVE))


async def was_lost_before(session: AsyncSession, attempt: Attempt) -> bool:
    """True when another attempt for the same output was lost."""
    return await _is_another(session, attempt, Attempt.state == S.lost)


async def _is_another(session: AsyncSession, attempt: Attempt, which: sa.ColumnElement[bool]) -> bool:
    same = (Attempt.video_id == attempt.video_id, Attempt.output_index == attempt.output_index)
    return bool(await session.scalar(sa.select(sa.exists().where(*same, Attempt.id != attempt.id, which))))


def _may_run_again(video: Video) -> bool:
    is_there = video.deleted_at is None and video.purged_at is None
    return video.status is Status.failed and video.error_code != "cancelled" and is_there


async def _reopen(session: AsyncSession, video: Video, status: Status, deadline_at: datetime, now: datetime) -> None:
    """Run a failed job again; its next end sends webhooks again."""
    video.status, video.error_code, video.error_message, video.ended_at = status, None, None, None
    video.deadline_at, video.updated_at = max(deadline_at, video.deadline_at), now
    await session.flush()


async def _resume(session: AsyncSession, lost: Attempt, now: datetime, **values: Any) -> bool:
    """Resume the task of a lost attempt, unless its output is being made; a refunded hold is created again."""
    video = await lock_video(session, lost.video_id)
    attempt = await session.get(Attempt, lost.id, with_for_update=True, populate_existing=True)
    if video is None or attempt is None or attempt.state is not S.lost or await is_being_made(session, attempt):
        return False
    if video.purged_at is not None:
        video.purge_due_at = now  # it may write error texts again
    if attempt.settlement is not Settlement.held:
        await ledger.hold(session, video, attempt, now=now, note="the task was found after its hold was refunded")
    accepted = {"due_at": now, "accepted_at": now, "error_code": None, "error_message": None, "error_body": None}
    running = {"state": S.running, "lease": None, "ended_at": None}
    await session.execute(sa.update(Attempt).where(Attempt.id == lost.id).values({**accepted, **values, **running}))
    return True
