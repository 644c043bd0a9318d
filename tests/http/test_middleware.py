"""The ASGI middleware: paths without a route, declared lengths and endless bodies."""

from collections.abc import AsyncIterator

import pytest
from harness import Running, StartGateway

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "path",
    [
        *("/healthz/", "/metrics/", "/docs/", "/admin/v1/videos/", "/no/such/", "/media/x/0.mp4/", "/callbacks/x/y/"),
        *("/v1/no/such/", "/luma/no/such/", "/v2/"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_slash_at_the_end_is_not_redirected(gateway: Running, method: str, path: str) -> None:
    answer = await gateway.client.request(method, path, json={} if method == "POST" else None)
    assert answer.status_code in (404, 405)
    assert "location" not in answer.headers
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_a_declared_length_that_is_too_much_is_refused_before_an_answer_begins(
    gateway: Running, method: str
) -> None:
    video = await gateway.create()
    length = {"content-length": str(gateway.gateway.settings.max_body_mb * 2**20 + 1)}
    for path in (f"/v1/videos/{video['id']}/events", f"/v1/videos/{video['id']}"):
        answer = await gateway.client.request(method, path, headers=length)
        assert answer.status_code == 413
    assert (await gateway.get(video["id"]))["status"] == "queued"


async def test_an_endless_body_does_not_break_an_answer_that_waits(start_gateway: StartGateway) -> None:
    async def content() -> AsyncIterator[bytes]:
        for _ in range(32):
            yield bytes(2**16)

    async with start_gateway(max_body_mb=1) as gateway:
        video = await gateway.create()
        answer = await gateway.client.request("GET", f"/v1/videos/{video['id']}?wait=60", content=content())
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")
