"""Limits by address before a key is known: wrong API keys, and requests of any kind."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest
from harness import ALICE, ORIGIN, Running, StartGateway, statements
from money import ADMIN, operator_of
from pages import shape
from processes import until
from structlog.testing import capture_logs

from app import errors
from app.accounts.secrets import mint_key
from app.accounts.wrong_keys import group_of
from app.http.address_limit import MAX_ADDRESSES, AddressLimit

pytestmark = pytest.mark.anyio

MOST = 30
"""Wrong keys of one address in a minute that are a 401."""
PATHS = (
    "/v1/videos",
    "/openai/v1/videos",
    "/luma/generations/x",
    "/v2/generate/video/luma-ai/generations",
    "/v1/video/generations/x",
)
"""Paths of dialects whose errors have other shapes."""


@asynccontextmanager
async def client_at(gateway: Running, address: str = "192.0.2.1", key: str = "") -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(gateway.app, client=(address, 50_000))
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as client:
        yield client


async def ask(client: httpx.AsyncClient, key: str, path: str = "/v1/videos") -> httpx.Response:
    return await client.get(path, headers={"authorization": f"Bearer {key}"})


async def statuses(client: httpx.AsyncClient, keys: Iterator[str], times: int) -> list[int]:
    return [(await ask(client, next(keys))).status_code for _ in range(times)]


def guesses() -> Iterator[str]:
    """Well-formed keys that do not exist: each is looked for, since only the database knows."""
    while True:
        yield mint_key()


# Wrong keys


@pytest.mark.parametrize("path", PATHS)
async def test_an_address_that_guesses_gets_a_429_in_the_shape_of_the_dialect(gateway: Running, path: str) -> None:
    async with client_at(gateway) as client:
        answers = [await ask(client, "sk-wrong", path) for _ in range(MOST + 1)]
        assert {answer.status_code for answer in answers[:MOST]} == {401}
        refused = answers[MOST]
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
        assert "30 wrong keys came from this address within a minute" in refused.text
        assert shape(refused.json()) == shape(answers[0].json())
        gateway.clock.advance(60)
        assert (await ask(client, "sk-wrong", path)).status_code == 401


async def test_guesses_cost_no_query_and_right_keys_always_pass(start_gateway: StartGateway) -> None:
    async with (
        start_gateway(admin_key=ADMIN) as gateway,
        operator_of(gateway) as operator,
        client_at(gateway) as client,
    ):
        fresh = (await operator.key(name="never used here"))["key"]
        with capture_logs() as logs:
            assert await statuses(client, guesses(), MOST) == [401] * MOST
            with statements(gateway) as seen:
                assert await statuses(client, guesses(), 200) == [429] * 200
        assert len(seen) <= 1, seen
        assert "left(keys.hash" in str(seen)
        warnings = [entry for entry in logs if entry["log_level"] == "warning"]
        assert [(entry["event"], entry["address"]) for entry in warnings] == [("wrong API keys", "192.0.2.1")]
        for key in (ALICE, fresh, fresh):
            assert (await ask(client, key)).status_code == 200
        later = (await operator.key(name="made meanwhile"))["key"]

        async def is_known() -> bool | None:
            return (await ask(client, later)).status_code == 200 or None

        await until(is_known)
        assert await statuses(client, guesses(), 1) == [429]
        async with client_at(gateway, "192.0.2.2") as other:
            assert await statuses(other, guesses(), 1) == [401]


async def test_no_key_and_an_expired_one_are_no_guesses(start_gateway: StartGateway) -> None:
    async with (
        start_gateway(admin_key=ADMIN) as gateway,
        operator_of(gateway) as operator,
        client_at(gateway) as client,
    ):
        soon = gateway.clock.now + timedelta(minutes=1)
        expired = (await operator.key(expires_at=soon.isoformat()))["key"]
        gateway.clock.advance(120)
        for _ in range(MOST):
            assert (await client.get("/v1/videos")).json()["error"]["code"] == "missing_api_key"
            assert (await ask(client, expired)).json()["error"]["code"] == "expired_api_key"
        assert await statuses(client, guesses(), 1) == [401]


async def test_an_ipv6_network_is_one_address(gateway: Running) -> None:
    found = []
    for host in range(MOST + 2):
        async with client_at(gateway, f"2001:db8::{host:x}") as client:
            found += await statuses(client, iter(["sk-wrong"]), 1)
    assert found == [401] * MOST + [429] * 2
    async with client_at(gateway, "2001:db8:0:1::1") as client:
        assert await statuses(client, iter(["sk-wrong"]), 1) == [401]


def test_an_ipv4_address_at_an_ipv6_socket_is_itself() -> None:
    assert group_of("::ffff:192.0.2.7") == group_of("192.0.2.7") != group_of("::ffff:192.0.2.8")


# Requests of any kind


async def test_an_address_has_so_many_requests_a_minute(start_gateway: StartGateway) -> None:
    async with start_gateway(address_requests_per_minute=6, admin_key=ADMIN) as gateway:
        async with client_at(gateway, key=ALICE) as client:
            with capture_logs() as logs:
                assert [(await client.get("/v1/videos")).status_code for _ in range(8)] == [200] * 6 + [429] * 2
            lines = [entry["address"] for entry in logs if entry["event"] == "address limited"]
            assert lines == ["192.0.2.1"]
            with statements(gateway) as seen:
                refused = await client.post("/v1/videos", content=b"{" * 2**20, headers={"authorization": "Bearer x"})
            assert (refused.status_code, refused.headers["retry-after"], seen) == (429, "10", [])
            assert refused.json()["error"]["code"] == "too_many_requests_from_address"
            assert (await client.get("/luma/generations/x")).status_code == 429
            page = await client.get("/console/login", headers={"accept": "text/html"})
            assert (page.status_code, page.headers["content-type"][:9]) == (429, "text/html")
            for path in ("/healthz", "/readyz", "/metrics"):
                assert (await client.get(path)).status_code == 200
            admin = await client.get("/admin/v1/projects", headers={"authorization": f"Bearer {ADMIN}"})
            assert admin.status_code == 200
            gateway.clock.advance(10)
            assert [(await client.get("/v1/videos")).status_code for _ in range(2)] == [200, 429]
            gateway.clock.advance(3_600)
            assert [(await client.get("/v1/videos")).status_code for _ in range(7)] == [200] * 6 + [429]
            gateway.clock.advance(-3_600)
            assert (await client.get("/v1/videos")).status_code == 429
            gateway.clock.advance(10)
            assert (await client.get("/v1/videos")).status_code == 200, (
                "a clock that was set back locks out for no hour"
            )
        async with client_at(gateway, "192.0.2.2", ALICE) as other:
            assert (await other.get("/v1/videos")).status_code == 200


async def test_the_address_is_that_of_the_client_before_a_trusted_proxy(start_gateway: StartGateway) -> None:
    async with (
        start_gateway(address_requests_per_minute=1, trusted_proxies="10.0.0.0/8") as gateway,
        client_at(gateway, "10.0.0.1", ALICE) as client,
    ):
        sent = ("203.0.113.7", "203.0.113.8", "198.51.100.1, 203.0.113.7")
        answers = [await client.get("/v1/videos", headers={"x-forwarded-for": address}) for address in sent]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


async def test_only_so_many_addresses_are_remembered(gateway: Running) -> None:
    limit = AddressLimit(1)

    def take(address: str) -> None:
        limit.require({"path": "/v1/videos", "client": (address, 1), "app": gateway.app})

    take("first")
    with pytest.raises(errors.RateLimited):
        take("first")
    for number in range(MAX_ADDRESSES):
        take(f"other {number}")
    take("first")  # forgotten: it was not used for longer than twenty thousand others
