"""Pictures of a stored video file: thumbnail and sprite sheet, made on first request and stored beside it.

A failure is stored beside it, too, so that no process runs ffmpeg a second time on a file of which it can make none.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from app.media import ffmpeg, frames
from app.media.frames import NoPicture
from app.media.store import MissingFile, Store
from app.media.turns import Shared
from app.media.uploads import file_chunks
from app.telemetry.logs import log

Variant = Literal["thumbnail", "spritesheet"]

VARIANTS: dict[Variant, tuple[str, str]] = {
    "thumbnail": ("thumbnail.webp", "image/webp"),
    "spritesheet": ("spritesheet.jpg", "image/jpeg"),
}

MAX_WAITING = 50
"""Pictures of one project that wait for their turn in this process."""
AGAIN_AFTER = timedelta(hours=24)
"""Time after which a picture is tried again whose failure may have been the machine's."""
MAX_MARKER_BYTES = 4_096


class Picture(NamedTuple):
    """A stored picture."""

    key: str
    size: int
    """In bytes."""
    content_type: str


class Failed(BaseModel):
    """The marker of a picture that could not be made: the object `<key of the video file>.<variant>.failed`."""

    code: str
    message: str
    at: datetime
    final: bool
    """False when it is to be tried again after a day."""
    ffmpeg: str
    """Version of the program that failed: another one tries again."""


async def make_variant(
    store: Store,
    key: str,
    kind: Variant,
    *,
    duration_s: float | None,
    project_id: str,
    timeout_s: float,
    now: datetime,
) -> Picture:
    """Return a picture of the video file, made on first request and stored beside it.

    Concurrent requests share the work. Raises `MissingFile`, `StorageUnavailable`, `FfmpegFailed`, and `RateLimited`
    when too many pictures of the project are waiting.
    """
    suffix, content_type = VARIANTS[kind]
    target = f"{key}.{suffix}"
    size = await _stored_size(store, target, kind)
    if size is None:
        await _raise_remembered(store, key, kind, now)
        making = store.making.get(target)
        if making is None or making.ended:

            async def work(shared: Shared) -> None:
                try:
                    async with ffmpeg.turns().of(project_id, what="pictures", max_waiting=MAX_WAITING):
                        shared.begun = True
                        await _make(store, key, kind, target, duration_s, timeout_s, now)
                finally:
                    if store.making.get(target) is shared:
                        del store.making[target]

            making = store.making[target] = Shared(work)
        await making.wait()
        size = await store.stat(target)
        if size is None:
            raise MissingFile(target)
    return Picture(target, size, content_type)


async def _make(
    store: Store, key: str, kind: Variant, target: str, duration_s: float | None, timeout_s: float, now: datetime
) -> None:
    make = frames.thumbnail if kind == "thumbnail" else frames.spritesheet
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder:
        picture = Path(folder) / "picture"
        try:
            async with store.as_file(key) as video_file:
                await make(video_file, picture, duration_s=duration_s, timeout_s=timeout_s)
        except NoPicture as failure:
            log.warning("picture not made", key=target, reason=failure.message)
            await _remember(store, key, kind, failure, now)
            await _delete_if_orphaned(store, key, _marker(key, kind))
            raise
        await store.put(target, file_chunks(picture), max_bytes=64 * 2**20, content_type=VARIANTS[kind][1])
    await _delete_if_orphaned(store, key, target)


async def _delete_if_orphaned(store: Store, key: str, beside: str) -> None:
    """Raise `MissingFile` if the video file was deleted meanwhile, with all files beside it but this one."""
    if await store.stat(key) is None:
        await store.delete([beside])
        raise MissingFile(key)


async def _stored_size(store: Store, target: str, kind: Variant) -> int | None:
    """Size of the stored picture; None if there is none, or only the rubbish that earlier releases stored."""
    size = await store.stat(target)
    if size is None:
        return None
    try:
        head = await store.read(target, 0, min(size, 16))
    except MissingFile:
        return None
    if frames.is_webp(head, size) if kind == "thumbnail" else head.startswith(frames.JPEG_HEAD):
        return size
    log.warning("stored picture unreadable, made again", key=target, size=size)
    await store.delete([target])
    return None


def _marker(key: str, kind: Variant) -> str:
    return f"{key}.{kind}.failed"


async def _raise_remembered(store: Store, key: str, kind: Variant, now: datetime) -> None:
    """Raise `NoPicture` again if an earlier request has found out that there can be none."""
    try:
        found = Failed.model_validate_json(await store.read(_marker(key, kind), 0, MAX_MARKER_BYTES))
    except (MissingFile, ValidationError):
        return
    program = await asyncio.to_thread(ffmpeg.program)
    if found.ffmpeg == program.version and (found.final or now < found.at + AGAIN_AFTER):
        raise NoPicture(found.message, final=found.final)


async def _remember(store: Store, key: str, kind: Variant, failure: NoPicture, now: datetime) -> None:
    program = await asyncio.to_thread(ffmpeg.program)
    failed = Failed(code=failure.code, message=failure.message, at=now, final=failure.final, ffmpeg=program.version)

    async def content() -> AsyncIterator[bytes]:
        yield failed.model_dump_json().encode()

    await store.put(_marker(key, kind), content(), max_bytes=MAX_MARKER_BYTES, content_type="application/json")
