"""Requests of the tests about webhooks: register, read, cancel, verify."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fakes.receiver import Received
from fakes.server import serve
from harness import ALICE, Running
from openai import AsyncOpenAI

TYPES = ["video.completed", "video.failed", "video.cancelled"]
HOUR_S = 3_600


@asynccontextmanager
async def sdk_of(gateway: Running, key: str = ALICE, mount: str = "/v1") -> AsyncIterator[AsyncOpenAI]:
    async with serve(gateway.app) as url, AsyncOpenAI(base_url=url + mount, api_key=key, max_retries=0) as client:
        yield client


async def register(gateway: Running, url: str, types: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    body = {"name": "mine", "url": url, "event_types": types or TYPES, **fields}
    response = await gateway.client.post("/v1/webhook_endpoints", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def post(client: httpx.AsyncClient, path: str, status: int = 200, **body: Any) -> Any:
    response = await client.post(path, json=body)
    assert response.status_code == status, response.text
    return response.json()


async def get(gateway: Running, path: str) -> Any:
    response = await gateway.client.get(path)
    assert response.status_code == 200, response.text
    return response.json()


async def cancelled(gateway: Running, **fields: Any) -> str:
    """A video that ends at once; returns its id."""
    video = await gateway.create(model="sandbox/slow", **fields)
    assert (await gateway.client.delete(f"/v1/videos/{video['id']}")).status_code == 200
    return str(video["id"])


async def log_of(gateway: Running, endpoint: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await get(gateway, f"/v1/webhook_endpoints/{endpoint['id']}/deliveries"))["data"]
    return found


def verified(client: AsyncOpenAI, received: Received, secret: str) -> Any:
    return client.webhooks.unwrap(received.body, received.headers, secret=secret)


async def project_secret(gateway: Running) -> str:
    return str((await get(gateway, "/v1/webhooks/secret"))["key"])
