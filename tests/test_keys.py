"""Keys and their limits, through the front door: who gets in, how fast that ends, and what a key may do."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy as sa
from fakes.server import closed_port
from harness import ORIGIN, Running, StartGateway
from money import ADMIN, Operator, operator_of

from app.accounts import secrets
from app.settings import load

pytestmark = pytest.mark.anyio


@pytest.fixture
async def operator(start_gateway: StartGateway) -> AsyncIterator[Operator]:
    async with start_gateway(admin_key=ADMIN) as gateway, operator_of(gateway) as operator:
        yield operator


async def status(gateway: Running, key: str, path: str = "/v1/models") -> int:
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=gateway.client._transport, base_url=ORIGIN, headers=headers) as client:
        return (await client.get(path)).status_code


@contextmanager
def statements(gateway: Running) -> Iterator[list[str]]:
    """What is asked of the database meanwhile, but for the two statements that go round SQLAlchemy."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    engine = gateway.gateway.db.engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


async def until_status(gateway: Running, key: str, wanted: int, *, within_s: float = 1) -> None:
    """Ask until the answer has this status, which must not take longer than that."""
    async with asyncio.timeout(within_s):
        while await status(gateway, key) != wanted:  # noqa: ASYNC110  # another process has no event to give
            await asyncio.sleep(0.01)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # it is Postgres that is waited for
            await asyncio.sleep(0.01)


# Who gets in


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


async def test_someone_elses_key_sees_nothing_of_mine(operator: Operator) -> None:
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
            assert await status(operator.gateway, f"vgw_{number:049d}") == 401
    assert asked == [], "a key that was never made is known by its checksum"
    wrong = [secrets.mint_key() for _ in range(500)]
    with statements(operator.gateway) as asked:
        flood = [asyncio.create_task(status(operator.gateway, key)) for key in wrong]
        assert await status(operator.gateway, right) == 200
        assert sum(task.done() for task in flood) < 250, "it does not queue behind them"
        assert set(await asyncio.gather(*flood)) == {401}
        for key in wrong[-20:]:
            assert await status(operator.gateway, key) == 401
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


@pytest.mark.parametrize("trouble", ["nobody answers", "notices are swallowed"])
async def test_revoking_works_within_a_second_where_nobody_can_listen(
    operator: Operator, start_gateway: StartGateway, postgres: str, trouble: str
) -> None:
    """As behind a pooler in transaction mode, which takes the LISTEN and passes nothing on: notices stay within a
    database, so listening on another one does the same."""
    key = await operator.key()
    where = closed_port().replace("http", "postgresql", 1) + "/x" if trouble == "nobody answers" else postgres
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
        yield b'{"prompt": "x", "name": "x", "video": "https://films.example/1.mp4", '
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


# The server's own secrets


def test_what_another_container_is_just_writing_is_left_alone(tmp_path: Path) -> None:
    """On one volume at the first start; the other one thinks that it is this process."""
    settings = load(_env_file=None, data_dir=tmp_path)
    settings.secrets_dir.mkdir()
    theirs = settings.secrets_dir / f"api-key.{os.getpid()}"
    theirs.write_text("theirs")
    key, path = secrets.first_key(settings)
    assert (key, theirs.read_text()) == (path.read_text(), "theirs")
    assert sorted(settings.secrets_dir.iterdir()) == [path, theirs]


# The administration's own door


ADMIN_CALLS = [
    ("GET", "projects"),
    ("POST", "projects"),
    ("GET", "projects/proj_x"),
    ("PATCH", "projects/proj_x"),
    ("POST", "projects/proj_x/credits"),
    ("GET", "keys"),
    ("POST", "keys"),
    ("GET", "keys/key_x"),
    ("PATCH", "keys/key_x"),
    ("DELETE", "keys/key_x"),
    ("GET", "usage"),
    ("GET", "ledger"),
    ("GET", "repairs"),
    ("POST", "repairs/att_x"),
    ("GET", "videos/video_x"),
]


@pytest.mark.parametrize(("method", "path"), ADMIN_CALLS)
async def test_admin_calls_with_a_normal_key(operator: Operator, method: str, path: str) -> None:
    for client in (operator.gateway.client, operator.gateway.bob):
        refused = await client.request(method, f"/admin/v1/{path}", json={"name": "mine"})
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
    assert await status(operator.gateway, ADMIN) == 401, "nor does the admin key make videos"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *((f"keys?project={nul}", 400) for nul in ("%00", "proj_%00x")),
        *((f"ledger?{name}=%00", 400) for name in ("project", "video", "after")),
        ("usage?project=%00", 400),
        *((f"{name}/%00", 404) for name in ("projects", "keys", "videos")),
    ],
)
async def test_what_a_database_cannot_be_asked_for(operator: Operator, path: str, status: int) -> None:
    answer = await operator.client.get(f"/admin/v1/{path}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, "invalid_request_error")


def test_every_admin_route_is_in_that_list(gateway_routes: set[tuple[str, str]]) -> None:
    named = {(method, re.sub(r"/\w+_x", "/{}", path)) for method, path in ADMIN_CALLS}
    assert gateway_routes == named


@pytest.fixture
def gateway_routes() -> set[tuple[str, str]]:
    from app.main import create_app
    from app.settings import load

    paths = create_app(load(_env_file=None, api_keys=["x"])).openapi()["paths"]
    return {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path.removeprefix("/admin/v1/")))
        for path, methods in paths.items()
        if path.startswith("/admin/v1/")
        for method in methods
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "two\nlines"}, "name"),
        ({"name": "\x1b[31mred"}, "name"),
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "zero\u200bwidth"}, "name"),
        ({}, "name"),
        ({"name": "x", "project": "nobody's"}, "project"),
        ({"name": "x", "models": []}, "models"),
        ({"name": "x", "models": ["a\x00b"]}, "models"),
        ({"name": "x", "requests_per_minute": 0}, "requests_per_minute"),
        ({"name": "x", "concurrent_jobs": -1}, "concurrent_jobs"),
        ({"name": "x", "concurrent_jobs": 10**9}, "concurrent_jobs"),
        ({"name": "x", "monthly_budget_usd": -1}, "monthly_budget_usd"),
        ({"name": "x", "monthly_budget_usd": 1e-7}, "monthly_budget_usd"),
        ({"name": "x", "monthly_budget_usd": 1e15}, "monthly_budget_usd"),
        ({"name": "x", "monthly_budget_usd": True}, "monthly_budget_usd"),
        ({"name": "x", "expires_at": "2027-01-01T00:00:00"}, "expires_at"),
        ({"name": "x", "expires_at": "tomorrow"}, "expires_at"),
        ({"name": "x", "expires_at": "9999-12-31T23:59:59-12:00"}, "expires_at"),
        ({"name": "x", "expires_at": "0001-01-01T00:00:00+12:00"}, "expires_at"),
        ({"name": "x", "expires_at": "9999-12-31T23:59:59Z"}, "expires_at"),
        ({"name": "x", "colour": "red"}, "colour"),
    ],
)
async def test_keys_that_cannot_be(operator: Operator, body: dict[str, Any], param: str) -> None:
    before = (await operator.ask("GET", "projects"))["data"]
    refused = await operator.client.post("/admin/v1/keys", json=body)
    assert refused.status_code in (400, 404), refused.text
    assert refused.json()["error"]["param"] == param
    assert (await operator.ask("GET", "keys"))["data"] == []
    assert (await operator.ask("GET", "projects"))["data"] == before, "nothing is left half made"


async def test_changing_a_key_changes_what_is_named(operator: Operator) -> None:
    limits = {"models": ["lumen/*"], "requests_per_minute": 5, "concurrent_jobs": 2, "monthly_budget_usd": 12.5}
    key = await operator.key("web", **limits)
    changed = await operator.ask("PATCH", f"keys/{key['id']}", name="shop", concurrent_jobs=None)
    assert changed == {**{k: v for k, v in key.items() if k != "key"}, "name": "shop", "concurrent_jobs": None}
    project = await operator.ask("PATCH", f"projects/{key['project']}", name="Shop", monthly_budget_usd=3)
    assert (project["name"], project["monthly_budget_usd"], project["available_usd"]) == ("Shop", 3, 3)
    assert await operator.ask("GET", f"projects/{key['project']}") == project
    assert project in (await operator.ask("GET", "projects"))["data"]
    await operator.ask("GET", "projects/nobody", status=404)
    await operator.ask("PATCH", "keys/key_[/x]", status=404)


# What a key may ask for


async def test_a_key_may_use_the_models_it_may(start_gateway: StartGateway) -> None:
    models = {"film": {"routes": ["sandbox/testcard"]}, "slow": {"routes": ["sandbox/slow"]}}
    async with start_gateway(admin_key=ADMIN, models=models) as gateway, operator_of(gateway) as operator:
        key = await operator.key(models=["film", "sandbox/f*"])
        async with operator.user(key) as client:

            async def create(model: str | None, path: str = "/v1/videos") -> httpx.Response:
                return await client.post(path, json={"prompt": "x", **({"model": model} if model else {})})

            for model, allowed in (
                ("film", True),
                ("sandbox/fail", True),
                ("fail", True),  # the bare name leads to sandbox/fail
                ("slow", False),
                ("sandbox/testcard", False),
                (None, False),  # the default model
            ):
                answer = await create(model)
                assert answer.status_code == (202 if allowed else 403), model
            assert answer.json()["error"] == {
                "message": "this key may not use the model 'sandbox/testcard'; GET /v1/models lists those it may",
                "type": "permission_error",
                "param": "model",
                "code": "model_not_allowed",
            }
            assert (await create("sandbox/slow", "/v1/video/generations")).json() == {
                "error": "this key may not use the model 'sandbox/slow'; GET /v1/models lists those it may"
            }
            assert (await client.post("/v1/videos?dryRun=true", json={"prompt": "x"})).status_code == 403
            listed = {model["id"] for model in (await client.get("/v1/models")).json()["data"]}
            assert listed == {"film", "sandbox/fail"}
            assert (await client.get("/v1/models/film")).status_code == 200
            assert (await client.get("/v1/models/sandbox/slow")).status_code == 403

            made = (await create("film")).json()
            for _ in range(8):
                gateway.clock.advance(5)
                await gateway.worker.run_once()
            remixed = await client.post(f"/v1/videos/{made['id']}/remix", json={"prompt": "y"})
            assert (remixed.status_code, remixed.json()["model"]) == (202, "film"), "by the name it was allowed by"
            edited = await client.post(
                "/v1/videos/edits", json={"prompt": "y", "video": {"id": made["id"]}, "model": "sandbox/slow"}
            )
            assert edited.status_code == 403


async def test_requests_per_minute_are_counted_over_all_processes(
    operator: Operator, start_gateway: StartGateway
) -> None:
    key = await operator.key(requests_per_minute=6)
    headers = {"authorization": f"Bearer {key['key']}"}
    async with start_gateway() as other:
        seen = []
        for number in range(6):
            gateway = (operator.gateway, other)[number % 2]
            answer = await gateway.client.get("/v1/models", headers=headers)
            assert answer.status_code == 200
            seen.append(
                {name: answer.headers[f"x-ratelimit-{name}-requests"] for name in ("limit", "remaining", "reset")}
            )
        assert seen[0] == {"limit": "6", "remaining": "5", "reset": "10s"}
        assert seen[5] == {"limit": "6", "remaining": "0", "reset": "60s"}
        refused = await other.client.get("/v1/models", headers=headers)
    assert refused.status_code == 429
    assert {name: refused.headers.get(name) for name in ("retry-after", "retry-after-ms")} == {
        "retry-after": "10",
        "retry-after-ms": "10000",
    }
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert await status(operator.gateway, key["key"]) == 429
    operator.gateway.clock.advance(10)
    assert await status(operator.gateway, key["key"]) == 200
    assert await status(operator.gateway, key["key"]) == 429
    answer = await operator.gateway.client.get("/v1/models")
    assert "x-ratelimit-limit-requests" not in answer.headers, "a key without a limit is not told of one"


async def test_simultaneous_requests_are_counted_each(operator: Operator) -> None:
    key = await operator.key(requests_per_minute=7)
    answers = await asyncio.gather(*(status(operator.gateway, key["key"]) for _ in range(30)))
    assert sorted(answers) == [200] * 7 + [429] * 23


async def test_a_refused_create_leaves_nothing(operator: Operator) -> None:
    key = await operator.key(requests_per_minute=1)
    async with operator.user(key) as client:
        assert (await client.get("/v1/models")).status_code == 200
        for path in ("/v1/videos", "/v1/video/generations", "/luma/generations"):
            assert (await client.post(path, json={"prompt": "x"})).status_code == 429
        operator.gateway.clock.advance(60)
        assert (await client.get("/v1/videos")).json()["data"] == []


async def test_a_clock_that_jumps_locks_nobody_out(operator: Operator) -> None:
    key = await operator.key(requests_per_minute=2)
    codes = []
    for jump in (0, 0, 0, 86_400, -86_400, 0, -5_000, 0, 30):
        operator.gateway.clock.advance(jump)
        codes.append(await status(operator.gateway, key["key"]))
    assert codes == [200, 200, 429, 200, 200, 429, 429, 429, 200]


async def test_machines_whose_clocks_differ_count_together(operator: Operator) -> None:
    """One is a minute and a half ahead of the other, and a client asks them in turn."""
    key = await operator.key(requests_per_minute=2)
    codes = []
    for jump in (0, 90, -90, 90, -90, 90, -90, 630):
        operator.gateway.clock.advance(jump)
        codes.append(await status(operator.gateway, key["key"]))
    assert codes == [200, 200, 200, 429, 429, 429, 429, 200]


async def test_concurrent_jobs_are_counted_over_all_processes(operator: Operator, start_gateway: StartGateway) -> None:
    key = await operator.key(concurrent_jobs=3)
    headers = {"authorization": f"Bearer {key['key']}"}
    body = {"prompt": "x", "model": "sandbox/testcard"}
    async with start_gateway() as other:
        answers = await asyncio.gather(
            *(
                gateway.client.post("/v1/videos", json=body, headers=headers)
                for gateway in (operator.gateway, other) * 6
            )
        )
    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [429] * 9
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "concurrent_jobs_exceeded"
    assert refused.headers["retry-after"] == "10"
    assert refused.headers["x-ratelimit-limit-concurrent-jobs"] == "3"
    assert refused.headers["x-ratelimit-remaining-concurrent-jobs"] == "0"
    made = next(answer for answer in answers if answer.status_code == 202).json()
    async with operator.user(key) as client:
        assert (await client.post("/v1/videos", json=body)).status_code == 429
        await client.delete(f"/v1/videos/{made['id']}")
        assert (await client.post("/v1/videos", json=body)).status_code == 202
        assert (await client.post("/v1/videos", json=body)).status_code == 429
    for _ in range(8):
        operator.gateway.clock.advance(5)
        await operator.gateway.worker.run_once()
    async with operator.user(key) as client:
        assert (await client.post("/v1/videos", json=body)).status_code == 202, "all others have ended"
