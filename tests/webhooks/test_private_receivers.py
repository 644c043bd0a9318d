"""Webhook URLs that lead to private addresses."""

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fakes.receiver import Receiver
from harness import StartGateway
from names import resolve_names
from webhooks.registration import cancelled, log_of, post, register

pytestmark = pytest.mark.anyio


INWARD = [
    "127.0.0.1",
    "::1",
    "::ffff:127.0.0.1",
    "169.254.169.254",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b::7f00:1",
    "10.0.0.1",
    "192.168.1.1",
    "fd00::1",
    "0.0.0.0",
]
"""Addresses to which the names `inward-N.example.com` lead."""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that lead to private addresses."""
    known = {f"inward-{number}.example.com": [address] for number, address in enumerate(INWARD)}
    resolve_names(monkeypatch, known)
    return list(known)


@pytest.mark.parametrize("way", ["endpoint", "request", "test"])
async def test_nothing_is_sent_to_private_addresses(
    start_gateway: StartGateway, receiver: Receiver, hook: str, names: list[str], way: str
) -> None:
    port = httpx.URL(hook).port
    async with start_gateway(allow_networks=[]) as gateway:
        for name in names:
            url = f"http://{name}:{port}/"
            if way == "test":
                endpoint = await register(gateway, url)
                path = f"/v1/webhook_endpoints/{endpoint['id']}/test"
                said = (await post(gateway.client, path, 400, event_type="video.failed"))["error"]["message"]
                assert "is not a public address, so nothing was sent" in said, url
            elif way == "endpoint":
                await register(gateway, url)
            else:
                await cancelled(gateway, webhook_url=url)
        if way == "test":
            return
        if way == "endpoint":
            await cancelled(gateway)
        await gateway.worker.run_once()
        async with gateway.gateway.db.transaction() as session:
            query = "select state, error, status from deliveries join delivery_tries on delivery_id = deliveries.id"
            tries = (await session.execute(sa.text(query))).all()
    assert len(tries) == len(names)
    for state, error, status in tries:
        assert (state, status) == ("pending", None)  # tried again: a name may lead elsewhere by then
        assert "is not a public address, so nothing was sent" in error
    assert receiver.received == []


async def test_a_name_that_changes_its_address_after_the_check_is_not_reached(
    start_gateway: StartGateway, receiver: Receiver, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first lookup of the name gives an allowed address, the next one a private address."""
    inside: list[object] = []
    really, asked = socket.getaddrinfo, 0

    def rebinding(host: Any, port: Any, *given: Any, **options: Any) -> Any:
        nonlocal asked
        if host != "rebind.example.com" or options.get("flags") == socket.AI_NUMERICHOST:
            return really(host, port, *given, **options)
        asked += 1
        address = "127.0.0.1" if asked % 2 else "127.0.0.3"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    port = httpx.URL(hook).port
    async with AsyncExitStack() as stack:
        server = await asyncio.start_server(lambda *connection: inside.append(connection), "127.0.0.3", port)
        await stack.enter_async_context(server)
        gateway = await stack.enter_async_context(start_gateway(allow_networks=["127.0.0.1/32"]))
        endpoint = await register(gateway, f"http://rebind.example.com:{port}/")
        await cancelled(gateway)
        await gateway.worker.run_once()
        assert (asked, len(receiver.received), len(inside)) == (1, 1, 0)
        assert receiver.received[0].headers["host"] == f"rebind.example.com:{port}"
        await cancelled(gateway)
        await gateway.worker.run_once()
        (refused, _) = await log_of(gateway, endpoint)
        assert "rebind.example.com is not a public address" in refused["tries"][0]["error"]
        assert (asked, len(receiver.received), len(inside)) == (2, 1, 0)
