"""Authentication by API key: storage as a hash, expiry, revocation, and projects apart from each other."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from ipaddress import IPv4Network

import httpx
import psycopg
import pytest
from fakes.server import closed_port
from harness import ORIGIN, Running, StartGateway, statements
from money import Operator, status

from app.accounts import secrets
from app.accounts.auth import static_project_id

pytestmark = pytest.mark.anyio


async def until_status(gateway: Running, key: str, wanted: int, *, within_s: float = 1) -> None:
    """Ask until the answer has this status, which must not take longer than that."""
    async with asyncio.timeout(within_s):
        while await status(gateway, key) != wanted:  # noqa: ASYNC110  # another process has no event to give
            await asyncio.sleep(0.01)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # it is Postgres that is waited for
            await asyncio.sleep(0.01)


ADDRESSES = map(str, IPv4Network("198.18.0.0/15"))


async def status_elsewhere(gateway: Running, key: str) -> int:
    """The status of a request with this key from an address of its own."""
    transport = httpx.ASGITransport(gateway.app, client=(next(ADDRESSES), 50_000))
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        return (await client.get("/v1/videos", headers={"authorization": f"Bearer {key}"})).status_code


async def test_a_key_is_shown_once_and_stored_as_a_hash(operator: Operator, database_url: str) -> None:
    made = await operator.key("web shop")
    assert re.fullmatch(r"vgw_[A-Za-z0-9_-]{49}", made["key"])
    assert secrets.is_well_formed(made["key"])
    assert made["ends_in"] == made["key"][-4:]
    shown = await operator.ask("GET", f"keys/{made['id']}")
    assert shown == {name: value for name, value in made.items() if name != "key"}
    assert shown in (await operator.ask("GET", "keys"))["data"]
    assert await status(operator.gateway, made["key"]) == 200
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        rows = await (await connection.execute("select keys::text from keys")).fetchall()
        assert made["key"] not in str(rows)


@pytest.mark.parametrize("flaw", ["mistyped", "cut", "lower case", "foreign", "none", "longer", "blank", "not ascii"])
async def test_wrong_keys_are_refused_in_the_same_words(operator: Operator, flaw: str) -> None:
    good = (await operator.key())["key"]
    wrong = {
        "mistyped": good[:10] + ("a" if good[10] != "a" else "b") + good[11:],
        "cut": good[:-1],
        "lower case": good.lower() if good.lower() != good else good.upper(),
        "foreign": secrets.mint_key(),
        "none": "sk-anything",
        "longer": good * 100,
        "blank": good[:20] + " " + good[20:],
        "not ascii": good[:-1] + "é",
    }[flaw]
    headers = {b"authorization": f"Bearer {wrong}".encode()}
    refused = await operator.gateway.client.get("/v1/models", headers=headers)
    assert refused.status_code == 401
    assert refused.json()["error"] == {
        "message": "the API key is not valid; check it, or make a new one with `video-gateway keys create NAME`",
        "type": "authentication_error",
        "param": None,
        "code": "invalid_api_key",
    }


async def test_another_projects_key_sees_nothing_of_mine(operator: Operator) -> None:
    mine = await operator.gateway.create()
    other = await operator.key()
    async with operator.user(other) as client:
        assert (await client.get("/v1/videos")).json()["data"] == []
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/content"), ("POST", "/remix"), ("GET", "/events")):
            answer = await client.request(method, f"/v1/videos/{mine['id']}{path}", json={"prompt": "x"})
            assert answer.status_code == 404, (method, path)


async def test_keys_of_one_project_share_its_videos(operator: Operator) -> None:
    first = await operator.key("first")
    second = await operator.key("second", project=first["project"])
    by_name = await operator.key("third", project="first")
    assert first["project"] == second["project"] == by_name["project"]
    async with operator.user(first) as client:
        made = (await client.post("/v1/videos", json={"prompt": "x"})).json()
    async with operator.user(second) as client:
        assert (await client.get(f"/v1/videos/{made['id']}")).status_code == 200


async def test_an_expired_key_says_so(operator: Operator) -> None:
    at = operator.gateway.clock.now + timedelta(minutes=5)
    key = await operator.key(expires_at=at.isoformat())
    assert await status(operator.gateway, key["key"]) == 200
    operator.gateway.clock.advance(301)
    headers = {"authorization": f"Bearer {key['key']}"}
    refused = await operator.gateway.client.get("/v1/models", headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "expired_api_key")
    assert f"expired at {at:%Y-%m-%d %H:%M} UTC" in refused.json()["error"]["message"]
    await operator.ask("PATCH", f"keys/{key['id']}", expires_at=None)
    await until_status(operator.gateway, key["key"], 200)


async def test_a_known_key_costs_no_query(operator: Operator) -> None:
    key = (await operator.key())["key"]
    await until(lambda: operator.gateway.gateway.listener.is_current)
    assert await status(operator.gateway, key) == 200
    with statements(operator.gateway) as asked:
        for _ in range(50):
            assert await status(operator.gateway, key) == 200
    assert len(asked) <= 1, "one when the listener was late on a busy machine"


async def test_a_thousand_wrong_keys_do_not_slow_right_ones(operator: Operator) -> None:
    right = (await operator.key())["key"]
    await until(lambda: operator.gateway.gateway.listener.is_current)
    assert await status(operator.gateway, right) == 200
    with statements(operator.gateway) as asked:
        for number in range(500):
            assert await status_elsewhere(operator.gateway, f"vgw_{number:049d}") == 401
    assert asked == [], "a key that was never made is known by its checksum"
    wrong = [secrets.mint_key() for _ in range(500)]
    with statements(operator.gateway) as asked:
        flood = [asyncio.create_task(status_elsewhere(operator.gateway, key)) for key in wrong]
        assert await status(operator.gateway, right) == 200
        assert sum(task.done() for task in flood) < 250, "it does not queue behind them"
        assert set(await asyncio.gather(*flood)) == {401}
        for key in wrong[-20:]:
            assert await status_elsewhere(operator.gateway, key) == 401
    assert len(asked) <= 550, "asked once for each, and not again right away"


async def test_revoking_works_at_once_on_another_process(operator: Operator, start_gateway: StartGateway) -> None:
    key = await operator.key()
    async with start_gateway() as other:
        await until(lambda: other.gateway.listener.is_current)
        assert await status(other, key["key"]) == 200
        revoked = await operator.ask("DELETE", f"keys/{key['id']}")
        assert revoked["revoked_at"] is not None
        await until_status(other, key["key"], 401)
    assert await status(operator.gateway, key["key"]) == 401
    assert (await operator.ask("DELETE", f"keys/{key['id']}"))["revoked_at"] == revoked["revoked_at"]


@pytest.mark.parametrize("trouble", ["no server", "notices are swallowed"])
async def test_revoking_works_within_a_second_without_notifications(
    operator: Operator, start_gateway: StartGateway, postgres: str, trouble: str
) -> None:
    """As behind a pooler in transaction mode, which takes the LISTEN and passes nothing on: notices stay within a
    database, so listening on another one does the same."""
    key = await operator.key()
    where = closed_port().replace("http", "postgresql", 1) + "/x" if trouble == "no server" else postgres
    async with start_gateway(database_listen_url=where) as deaf:
        assert await status(deaf, key["key"]) == 200
        video = await deaf.create()
        held = asyncio.create_task(deaf.client.get(f"/v1/videos/{video['id']}?wait=60"))
        await until(lambda: deaf.gateway.listener.waiters == 1)
        await operator.ask("DELETE", f"keys/{key['id']}")
        await until_status(deaf, key["key"], 401)
        assert not deaf.gateway.listener.is_current
        await deaf.client.delete(f"/v1/videos/{video['id']}")
        assert (await held).json()["status"] == "failed", "who waits looks for himself now and then"


async def test_a_revoked_key_waits_no_longer(operator: Operator) -> None:
    key = await operator.key()
    listener = operator.gateway.gateway.listener
    async with operator.user(key) as client:
        video = (await client.post("/v1/videos", json={"prompt": "x"})).json()
        held = asyncio.create_task(client.get(f"/v1/videos/{video['id']}?wait=60"))
        stream = asyncio.create_task(client.get(f"/v1/videos/{video['id']}/events"))
        await until(lambda: listener.waiters == 2)
        await operator.ask("DELETE", f"keys/{key['id']}")
        assert (await held).status_code == 401
        assert (await stream).text.count("event: ") == 1
    assert listener.waiters == 0


@pytest.mark.parametrize(
    "path",
    [
        "/v1/videos",
        "/v1/videos/generations",
        "/v1/videos/characters",
        "/v1/webhook_endpoints",
        "/v1/webhook_endpoints/whe_x",
        "/v1/webhook_endpoints/whe_x/rotate_secret",
        "/v1/webhook_endpoints/whe_x/test",
    ],
)
async def test_a_body_that_takes_longer_than_its_key_makes_nothing(operator: Operator, path: str) -> None:
    key = await operator.key()
    begun, revoked = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        begun.set()
        yield b'{"prompt": "x", "name": "x", "video": "https://videos.example/1.mp4", '
        yield b'"url": "https://hooks.example/", "event_types": ["video.completed"], "event_type": "video.completed", '
        await revoked.wait()
        yield b'"model": "sandbox/testcard"}'

    async with operator.user(key) as client:
        headers = {"content-type": "application/json"}
        sending = asyncio.create_task(client.post(path, content=body(), headers=headers))
        await begun.wait()
        await until(lambda: bool(operator.gateway.gateway.authenticator._known))
        await operator.ask("DELETE", f"keys/{key['id']}")
        await until_status(operator.gateway, key["key"], 401)
        revoked.set()
        refused = await sending
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert (await operator.usage()) == []


async def test_a_key_may_hold_so_many_requests(start_gateway: StartGateway) -> None:
    async with start_gateway(max_waiting=2) as gateway:
        video = await gateway.create()
        held = [asyncio.create_task(gateway.client.get(f"/v1/videos/{video['id']}?wait=60")) for _ in range(2)]
        await until(lambda: gateway.gateway.listener.waiters == 2)
        refused = await gateway.client.get(f"/v1/videos/{video['id']}?wait=60")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_waiting")
        assert (await gateway.client.get(f"/v1/videos/{video['id']}")).status_code == 200
        await gateway.client.delete(f"/v1/videos/{video['id']}")
        assert [(await answer).json()["status"] for answer in held] == ["failed", "failed"]


def test_the_project_of_a_static_key_never_changes() -> None:
    """Its id is stored with every video of that key: another salt or another hash would take them all away."""
    assert static_project_id("sk-alice-0123456789") == "static_e875cdaf7e0290d8"
