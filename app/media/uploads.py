"""An uploaded file on its way to an upstream."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Upload:
    """An uploaded file on its way to an upstream."""

    filename: str
    content_type: str
    size: int
    chunks: AsyncIterator[bytes]
