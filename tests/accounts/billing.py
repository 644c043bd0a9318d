"""Prices and requests of the tests about money."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from money import Operator

PRICE = 0.1
HELD = 400_000
"""Four seconds at that price."""
COST = 25_000
"""The fake's video is a quarter of a second long."""
Open = Callable[..., AbstractAsyncContextManager[Operator]]


async def create(admin: Operator, **fields: Any) -> str:
    video = await admin.gateway.create(**{"model": "up/sora-2", "seconds": "4", **fields})
    return str(video["id"])


async def shown(admin: Operator, video_id: str) -> dict[str, Any]:
    return await admin.ask("GET", f"videos/{video_id}")


async def asked(admin: Operator, key: dict[str, Any], **fields: Any) -> Any:
    async with admin.user(key) as client:
        body = {"prompt": "a paper boat", "model": "up/sora-2", "seconds": "4", **fields}
        return await client.post("/v1/videos", json=body)
