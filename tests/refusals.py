"""Checks of a refused request, shared by several folders."""

from typing import Any

import httpx
from harness import Running


def refused(response: httpx.Response, param: str | None, status: int = 400) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["param"] == param
    return str(error["message"])


async def refused_create(gateway: Running, param: str | None, **fields: Any) -> None:
    refused(await gateway.client.post("/v1/videos", json={"prompt": "a boat", **fields}), param)
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []
