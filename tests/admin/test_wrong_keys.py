"""Wrong keys of the operator: a brake for each address and one warning, while the right key always works."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx
import pytest
from harness import ORIGIN, Running, StartGateway
from money import ADMIN
from pydantic import SecretStr
from structlog.testing import capture_logs

from app import errors
from app.accounts.operator_keys import OperatorKeys
from app.accounts.wrong_keys import MAX_ADDRESSES

pytestmark = pytest.mark.anyio

METRICS = "sk-metrics"
PATHS = {"/admin/v1/projects": ADMIN, "/metrics": METRICS}


@asynccontextmanager
async def client_at(gateway: Running, address: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(gateway.app, client=(address, 50_000))
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        yield client


async def statuses(client: httpx.AsyncClient, path: str, key: str, times: int) -> list[int]:
    headers = {"authorization": f"Bearer {key}"}
    return [(await client.get(path, headers=headers)).status_code for _ in range(times)]


@pytest.mark.parametrize("path", PATHS)
async def test_an_address_that_guesses_is_slowed_down(start_gateway: StartGateway, path: str) -> None:
    right = PATHS[path]
    async with (
        start_gateway(admin_key=ADMIN, metrics_key=METRICS) as gateway,
        client_at(gateway, "192.0.2.1") as client,
    ):
        with capture_logs() as logs:
            assert await statuses(client, path, "wrong", 300) == [401] * 10 + [429] * 290
        warnings = [entry for entry in logs if entry["log_level"] == "warning"]
        assert [(entry["event"], entry["address"]) for entry in warnings] == [("wrong operator keys", "192.0.2.1")]
        single = [entry["address"] for entry in logs if entry["event"] == "wrong operator key"]
        assert single == ["192.0.2.1"] * 10, "a slow guesser is seen, and a fast one does not fill the log"
        assert await statuses(client, path, right, 2) == [200, 200]
        gateway.clock.advance(45)
        refused = await client.get(path, headers={"authorization": "Bearer wrong"})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "15")
        assert "10 wrong keys came from this address within a minute" in refused.json()["error"]["message"]
        async with client_at(gateway, "192.0.2.2") as other:
            assert await statuses(other, path, "wrong", 1) == [401]
        gateway.clock.advance(15)
        with capture_logs() as logs:
            assert await statuses(client, path, "wrong", 12) == [401] * 10 + [429] * 2
        assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == ["wrong operator keys"]
        gateway.clock.advance(-3_600)
        assert await statuses(client, path, "wrong", 1) == [401], "a clock that was set back blocks nothing"


async def test_a_request_without_a_key_is_no_guess(start_gateway: StartGateway) -> None:
    async with start_gateway(admin_key=ADMIN) as gateway, client_at(gateway, "192.0.2.1") as client:
        assert {(await client.get("/admin/v1/projects")).status_code for _ in range(20)} == {401}
        assert await statuses(client, "/admin/v1/projects", "wrong", 1) == [401]


async def test_an_ipv6_network_is_one_address(start_gateway: StartGateway) -> None:
    async with start_gateway(admin_key=ADMIN) as gateway:
        found = []
        for host in range(12):
            async with client_at(gateway, f"2001:db8::{host:x}") as client:
                found += await statuses(client, "/admin/v1/projects", "wrong", 1)
        assert found == [401] * 10 + [429] * 2
        async with client_at(gateway, "2001:db8:0:1::1") as client:
            assert await statuses(client, "/admin/v1/projects", "wrong", 1) == [401]


def test_only_the_latest_addresses_are_remembered() -> None:
    keys, right, now = OperatorKeys(), SecretStr("right"), datetime.now(UTC)

    def refusal(address: str) -> type[Exception]:
        with pytest.raises(errors.GatewayError) as refused:
            keys.require({"admin": right}, "Bearer wrong", what="admin", address=address, now=now)
        return refused.type

    assert {refusal("first") for _ in range(11)} == {errors.AuthenticationFailed, errors.RateLimited}
    for number in range(MAX_ADDRESSES - 1):
        refusal(f"other {number}")
    assert refusal("first") is errors.RateLimited
    refusal("one more")
    assert refusal("first") is errors.AuthenticationFailed, "forgotten: the oldest of a thousand and one"
