"""Uploads to an upstream, and the chunks of a file on disk."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Upload:
    """An uploaded file that is sent to an upstream."""

    filename: str
    content_type: str
    size: int
    chunks: AsyncIterator[bytes]


async def chunks_of(file: BinaryIO) -> AsyncIterator[bytes]:
    """The chunks of an open file, read in a thread."""
    while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield piece


async def file_chunks(path: Path) -> AsyncIterator[bytes]:
    """The chunks of a file on disk."""
    with path.open("rb") as file:
        async for piece in chunks_of(file):
            yield piece
