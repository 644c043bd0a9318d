"""Finished films: brought into the store, and cleared out of it where no row has them."""

from typing import Any

from app import errors
from app.db.database import Database
from app.jobs import videos
from app.jobs.claim import Claim
from app.media import mp4
from app.media.store import IncompleteFile, StorageUnavailable, Store, probe
from app.providers.base import Provider, Task
from app.telemetry import log
from app.video import Output

TEXT_TYPES = ("text/", "application/json", "application/xml")


async def bring(
    claim: Claim, provider: Provider, task: Task, store: Store, key: str, *, max_bytes: int
) -> dict[str, Any]:
    """Store the file of a finished task under `key` and describe it, as `jobs.stored` wants it.

    Raises what `Provider.fetch` does, `PayloadTooLarge`, `StorageUnavailable`.
    """
    output = Output.model_validate(claim.attempt.output)
    async with provider.fetch(task, output) as download:
        declared = (download.content_type or "").partition(";")[0].strip().lower()
        likely = declared if mp4.VIDEO_TYPE.fullmatch(declared) else "video/mp4"
        try:
            stored = await store.put(
                key, download.chunks, max_bytes=max_bytes, expected_size=download.size, content_type=likely
            )
        except IncompleteFile as error:
            raise errors.UpstreamUnavailable(error.message, provider=provider.name) from error
    content_type = mp4.sniff(stored.head)
    if content_type is None and (declared.startswith(TEXT_TYPES) or mp4.is_text(stored.head)):
        await store.delete([key])
        raise errors.UpstreamUnavailable(f"{provider.name} sent a text for a film", provider=provider.name)
    film = await probe(store, key, stored.size)
    return {
        "index": claim.attempt.output_index,
        "key": key,
        "size": stored.size,
        "sha256": stored.sha256,
        "content_type": content_type or likely,
        "width": film.width if film else None,
        "height": film.height if film else None,
        "duration_s": film.duration_s if film else None,
    }


async def tidy(claim: Claim, db: Database, store: Store, key: str | None = None) -> None:
    """Delete what an attempt that has ended left in its folder and no row has: files of workers that died before they
    could say what they had stored. Of one that has not ended, since another worker has it by now, only our own `key`.
    """
    async with db.reading() as connection:
        ended, kept = await videos.files_of(connection, claim.attempt.id)
    try:
        if ended:
            await store.delete_prefix(claim.folder, but=kept)
        elif key is not None and key not in kept:
            await store.delete([key])
    except StorageUnavailable as error:
        log.warning("files that no video has stay behind", folder=claim.folder, error=error.message)
