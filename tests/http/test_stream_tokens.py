"""Tokens for the event stream of a project: what they open, for how long, and where they never appear."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fakes.server import serve
from harness import ALICE, BOB, StartGateway, plain
from money import ADMIN, Operator, operator_of
from refusals import refused
from streams import following

from app.accounts.stream_tokens import StreamTokens

pytestmark = pytest.mark.anyio

PAGE = "https://app.example.com"


@pytest.fixture
async def operator(start_gateway: StartGateway) -> AsyncIterator[Operator]:
    async with start_gateway(admin_key=ADMIN, cors_origins=[PAGE]) as gateway, operator_of(gateway) as operator:
        yield operator


async def minted(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.post("/v1/events/token")
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    found: dict[str, Any] = answer.json()
    assert found["token"].startswith("evt_")
    return found


async def test_a_token_opens_the_stream_of_its_project_for_five_minutes(operator: Operator) -> None:
    gateway = operator.gateway
    key = await operator.key()
    async with serve(gateway.app) as url, operator.user(key) as user:
        for client, secret in ((gateway.client, ALICE), (user, key["key"])):
            made = await minted(client)
            assert made["expires_at"] == int(gateway.clock().timestamp()) + 300
            assert secret not in made["token"]
            path = f"/v1/events?token={made['token']}"
            async with following(url, path, key=None) as stream:
                assert stream.response.headers["cache-control"] == "no-store"
                assert stream.response.headers["referrer-policy"] == "no-referrer"
                await gateway.bob.post("/v1/videos", json={"prompt": "x"})
                video = (await client.post("/v1/videos", json={"prompt": "x"})).json()
                await stream.has("video.status", video["id"])
                assert len(stream.events) == 1
                gateway.clock.advance(301)
                refused(await gateway.client.get(path), None, 401)
                later = (await client.post("/v1/videos", json={"prompt": "x"})).json()
                await stream.has("video.status", later["id"])


async def test_a_token_opens_nothing_else(operator: Operator) -> None:
    gateway = operator.gateway
    video = await gateway.create()
    token = (await minted(gateway.client))["token"]
    transport = gateway.client._transport
    async with httpx.AsyncClient(transport=transport, base_url=gateway.client.base_url) as client:
        for path in ("/v1/videos", f"/v1/videos/{video['id']}", f"/v1/videos/{video['id']}/events", "/admin/v1/events"):
            for headers in ({"authorization": f"Bearer {token}"}, {"x-api-key": token}, {}):
                answer = await client.get(path, params={"token": token}, headers=headers)
                refused(answer, None, 401)
        refused(await client.get("/v1/events", headers={"authorization": f"Bearer {token}"}), None, 401)
        refused(await client.post("/v1/videos", params={"token": token}, json={"prompt": "x"}), None, 401)
        refused(await client.post("/v1/events/token", params={"token": token}), None, 401)
        refused(await client.post("/v1/events/token"), None, 401)
        refused(await client.get("/v1/events"), None, 401)


async def test_a_changed_or_foreign_token_is_refused(operator: Operator) -> None:
    gateway = operator.gateway
    token = (await minted(gateway.client))["token"]
    expires, key_id, signature = token.split(".")
    his = (await minted(gateway.bob))["token"].split(".")
    foreign = StreamTokens(b"the secret of another gateway").mint(key_id, now=gateway.clock())[0]
    wrong = (
        f"evt_9{expires[5:]}.{key_id}.{signature}",
        f"{expires}.{his[1]}.{signature}",
        f"{expires}.{key_id}.{signature[:-1]}",
        f"{expires}.{key_id}.{'A' * 43}",
        f"{expires}.key_\u00e9.{signature}",
        f"evt_{'9' * 40}.{key_id}.{signature}",
        *("", "evt_", "evt_..", "\x00", "x" * 5_000, foreign, ALICE, BOB),
    )
    for attempt in wrong:
        refused(await gateway.client.get("/v1/events", params={"token": attempt}), None, 401)


async def test_a_token_ends_with_its_key(operator: Operator) -> None:
    key = await operator.key()
    async with serve(operator.gateway.app) as url, operator.user(key) as user:
        token = (await minted(user))["token"]
        async with following(url, f"/v1/events?token={token}", key=None) as stream:
            await operator.ask("DELETE", f"keys/{key['id']}")
            await stream.end()
        refused(await operator.gateway.client.get("/v1/events", params={"token": token}), None, 401)


async def test_a_token_counts_against_the_rate_of_its_key(operator: Operator) -> None:
    key = await operator.key(requests_per_minute=2)
    async with serve(operator.gateway.app) as url, operator.user(key) as user:
        path = f"/v1/events?token={(await minted(user))['token']}"
        async with following(url, path, key=None) as stream:
            assert stream.response.headers["x-ratelimit-remaining-requests"] == "0"
        refused(await operator.gateway.client.get(path), None, 429)


async def test_a_page_of_an_allowed_origin_may_open_the_stream(operator: Operator) -> None:
    token = (await minted(operator.gateway.client))["token"]
    async with serve(operator.gateway.app) as url:
        path = f"/v1/events?token={token}"
        for origin, allowed in ((PAGE, PAGE), ("https://evil.example.com", None)):
            async with following(url, path, key=None, origin=origin) as stream:
                assert stream.response.headers.get("access-control-allow-origin") == allowed
    answer = await operator.gateway.client.get("/v1/events?token=x", headers={"origin": PAGE})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, PAGE)


async def test_no_log_line_has_a_token(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    gateway = operator.gateway
    token = (await minted(gateway.client))["token"]
    path = f"/v1/events?token={token}"
    async with serve(gateway.app) as url, following(url, path, key=None):
        pass
    gateway.clock.advance(301)
    refused(await gateway.client.get(path), None, 401)
    refused(await gateway.client.get(f"/v1/videos?token={token}", headers={"authorization": "Bearer x"}), None, 401)
    gateway.clock.advance(-301)
    key = await operator.key()
    async with operator.user(key) as user:
        of_key = (await minted(user))["token"]
    for rename in ("keys rename to keys_away", "keys_away rename to keys"):
        async with gateway.gateway.db.transaction() as session:
            await session.execute(sa.text(f"alter table {rename}"))
        if "to keys_away" in rename:
            broken = await gateway.client.get(f"/v1/events?token={of_key}")
    assert broken.status_code == 500
    said = "".join(plain(text) for text in capsys.readouterr())
    assert "path=/v1/events " in said
    for secret in (token, of_key):
        assert secret not in said
        assert secret.split(".")[2] not in said
