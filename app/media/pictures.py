"""Pictures of a stored video file: thumbnail and sprite sheet, made on first request and stored beside it."""

import asyncio
import tempfile
from pathlib import Path
from typing import Literal

from app.media import ffmpeg
from app.media.store import MissingFile, Store
from app.media.uploads import file_chunks

Variant = Literal["thumbnail", "spritesheet"]


VARIANTS: dict[Variant, tuple[str, str]] = {
    "thumbnail": ("thumbnail.webp", "image/webp"),
    "spritesheet": ("spritesheet.jpg", "image/jpeg"),
}


async def make_variant(
    store: Store, key: str, kind: Variant, duration_s: float | None, timeout_s: float
) -> tuple[str, str]:
    """Return key and content type of a picture of the video file, made on first request and stored beside it.

    Raises `MissingFile`, `StorageUnavailable`, `FfmpegFailed`.
    """
    suffix, content_type = VARIANTS[kind]
    target = f"{key}.{suffix}"
    if await store.stat(target) is None:
        task = store.making.get(target)
        if task is None:
            task = store.making[target] = asyncio.create_task(_make(store, key, kind, target, duration_s, timeout_s))
            task.add_done_callback(lambda done: (store.making.pop(target, None), done.cancelled() or done.exception()))
        await asyncio.shield(task)
    return target, content_type


async def _make(store: Store, key: str, kind: Variant, target: str, duration_s: float | None, timeout_s: float) -> None:
    make = ffmpeg.thumbnail if kind == "thumbnail" else ffmpeg.spritesheet
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder:
        picture = Path(folder) / "picture"
        async with store.as_file(key) as video_file:
            await make(video_file, picture, duration_s=duration_s, timeout_s=timeout_s)
        await store.put(target, file_chunks(picture), max_bytes=64 * 2**20, content_type=VARIANTS[kind][1])
    if await store.stat(key) is None:  # deleted meanwhile, with all files beside it
        await store.delete([target])
        raise MissingFile(key)
