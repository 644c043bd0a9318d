"""Candidates of lost submits: tasks that an upstream lists and no attempt has. Only an operator takes one as found: an
account may be shared with other software, and its list shows no prompt."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from app import errors
from app.db.database import Database
from app.db.models import Attempt
from app.providers.base import ListedTask, Provider

NEAR = timedelta(seconds=60)
"""Distance between the submit and the creation of a candidate, by two clocks."""
MAX_PAGES = 5
MAX_CANDIDATES = 20
LIMIT_S = 20
"""Time limit for the lists of one provider."""


async def find_candidates(
    attempts: Sequence[Attempt], *, db: Database, providers: Mapping[str, Provider]
) -> dict[str, list[ListedTask] | None]:
    """Ask the upstreams of lost attempts for their tasks; returns the candidates of each attempt by its id: the one
    that has this id as its own, then the nearest. None: this upstream has no list, or it could not be read back to the
    submit."""
    by_provider: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        by_provider.setdefault(attempt.provider, []).append(attempt)
    asked = [_of_provider(providers.get(name), found, db, providers) for name, found in by_provider.items()]
    answers = await asyncio.gather(*asked)
    return {attempt_id: tasks for answer in answers for attempt_id, tasks in answer.items()}


async def _of_provider(
    provider: Provider | None, attempts: Sequence[Attempt], db: Database, providers: Mapping[str, Provider]
) -> dict[str, list[ListedTask] | None]:
    nothing: dict[str, list[ListedTask] | None] = dict.fromkeys(attempt.id for attempt in attempts)
    if provider is None:
        return nothing
    listed_ones = [attempt for attempt in attempts if provider.lists(attempt.upstream_model)]
    submits = {attempt.id: attempt.submitted_at for attempt in listed_ones if attempt.submitted_at is not None}
    if not submits:
        return nothing
    try:
        async with asyncio.timeout(LIMIT_S):
            listed, complete_from = await _read_list(provider, since=min(submits.values()) - NEAR)
    except (errors.UpstreamError, TimeoutError):
        return nothing
    same_account = [name for name, other in providers.items() if other.fingerprint == provider.fingerprint]
    async with db.reading() as connection:
        refs = [task.ref for task in listed]
        query = sa.select(Attempt.upstream_ref).where(
            Attempt.provider.in_(same_account), Attempt.upstream_ref.in_(refs)
        )
        known = set(await connection.scalars(query))
    free = [task for task in listed if task.ref not in known]
    complete = {attempt_id: at for attempt_id, at in submits.items() if at - NEAR >= complete_from}
    return nothing | {attempt_id: _near(free, at, attempt_id) for attempt_id, at in complete.items()}


async def _read_list(provider: Provider, *, since: datetime) -> tuple[list[ListedTask], datetime]:
    """Read the tasks that were created from `since` on, from a few pages at most; returns the time from which the list
    is complete as well."""
    found: list[ListedTask] = []
    page = None
    for _ in range(MAX_PAGES):
        tasks, page = await provider.list_tasks(page)
        found += tasks
        if page is None or any(task.created_at < since for task in tasks):
            return found, since
    return found, max((task.created_at for task in found[-1:]), default=datetime.max.replace(tzinfo=UTC))


def _near(tasks: Sequence[ListedTask], at: datetime, attempt_id: str) -> list[ListedTask]:
    """The tasks of that minute; one with the own id of anything but the attempt is another's."""
    near = [task for task in tasks if abs(task.created_at - at) <= NEAR and task.own_id in (None, "", attempt_id)]
    return sorted(near, key=lambda task: (task.own_id != attempt_id, abs(task.created_at - at)))[:MAX_CANDIDATES]
