"""Builds the `Task` that a provider receives: the request fitted to its model, and references to sources."""

from datetime import datetime
from functools import partial

from app.capabilities import Capabilities, fit
from app.db.database import Database
from app.jobs import videos
from app.jobs.claim import Claim
from app.media.signed_links import SignedLinks
from app.media.store import Store, open_upload
from app.providers.base import Provider, Task
from app.video import AttemptState, Operation


async def build_task(
    claim: Claim, provider: Provider, *, db: Database, store: Store, links: SignedLinks, now: datetime
) -> Task:
    """Build the `Task` of a claimed attempt. Raises `NotFound` for a character that was deleted."""
    attempt = claim.attempt
    able = provider.capabilities_for(attempt.upstream_model, claim.request) or Capabilities()
    submitting = claim.was in (AttemptState.pending, AttemptState.submitting)
    return Task(
        id=attempt.id,
        model=attempt.upstream_model,
        request=fit(claim.request, able, can_link=True).request,
        read=partial(open_upload, store),
        link=links.for_upstream,
        callback_url=links.callback(attempt.id),
        callback_secret=links.callback_token(attempt.id),
        now=now,
        ref=attempt.upstream_ref,
        submitted_at=attempt.submitted_at,
        in_doubt=claim.was is AttemptState.submitting,
        source_ref=await _source_ref(claim, db) if submitting else None,
        character_refs=await _character_refs(claim, db) if submitting else (),
    )


async def _source_ref(claim: Claim, db: Database) -> str | None:
    """The id of the task that made the source, at the same provider; None when another provider made it."""
    source = claim.request.source
    if claim.request.operation is Operation.generate or source is None or source.video_id is None:
        return None
    async with db.reading() as connection:
        made_by = await videos.get_source_attempt(connection, source.video_id)
    return made_by.upstream_ref if made_by and made_by.provider == claim.attempt.provider else None


async def _character_refs(claim: Claim, db: Database) -> tuple[str, ...]:
    found = []
    for character in claim.request.characters:
        async with db.reading() as connection:
            found.append(
                (await videos.get_character(connection, character, project_id=claim.video.project_id)).upstream_ref
            )
    return tuple(found)
