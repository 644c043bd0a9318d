"""The OpenAI dialect, filters of the list: their meaning, pages and sums, and what they refuse."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
import sqlalchemy as sa
from dialects.openai_wire import error_of
from harness import Running, StartGateway
from money import ADMIN, Operator, operator_of
from refusals import refused

from app.db.models import Video
from app.jobs.search import LOOKED_AT, SEARCHES_AT_ONCE, TIMEOUT_S
from app.telemetry.metrics import REGISTRY

pytestmark = pytest.mark.anyio

UNKNOWN_ID = "video_" + "0" * 26
CARD = "sandbox/testcard"
SHORT = {"seconds": 1, "size": "64x64"}


@pytest.fixture
async def operator(start_gateway: StartGateway) -> AsyncIterator[Operator]:
    options = {"prices": {CARD: 0.5}, "models": {"clip": {"routes": [CARD]}}}
    async with start_gateway(admin_key=ADMIN, **options) as gateway, operator_of(gateway) as operator:
        yield operator


async def page(client: httpx.AsyncClient, query: str = "", path: str = "/v1/videos") -> dict[str, Any]:
    response = await client.get(f"{path}?{query}")
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    found: dict[str, Any] = response.json()
    return found


async def ids_of(client: httpx.AsyncClient, query: str) -> list[str]:
    return [video["id"] for video in (await page(client, query))["data"]]


async def of_each_status(gateway: Running) -> dict[str, str]:
    """A video of each status, the oldest first."""
    done = (await gateway.create(**SHORT))["id"]
    await gateway.finish(done)
    failed = (await gateway.create(model="sandbox/fail", **SHORT))["id"]
    assert (await gateway.finish(failed))["error"]["code"] != "cancelled"
    cancelled = (await gateway.create(model="sandbox/slow", **SHORT))["id"]
    await gateway.client.delete(f"/v1/videos/{cancelled}")
    running = (await gateway.create(model="sandbox/slow", **SHORT))["id"]
    await gateway.worker.run_once()
    gateway.clock.advance(5)
    await gateway.worker.run_once()
    queued = (await gateway.create(model="sandbox/slow", **SHORT))["id"]
    found = {"completed": done, "failed": failed, "cancelled": cancelled, "in_progress": running, "queued": queued}
    for status, video_id in found.items():
        assert (await gateway.get(video_id))["status"] == status.replace("cancelled", "failed")
    return found


# Meaning


async def test_a_list_is_narrowed_to_a_status(gateway: Running) -> None:
    made = await of_each_status(gateway)
    for status in ("queued", "in_progress", "completed", "cancelled"):
        assert await ids_of(gateway.client, f"status={status}") == [made[status]]
    both = [made["cancelled"], made["failed"]]
    assert await ids_of(gateway.client, "status=failed") == both, "the video object says failed for both"
    assert await ids_of(gateway.client, "status=failed&order=asc") == both[::-1]
    assert await ids_of(gateway.client, "status=failed&model=sandbox/slow") == [made["cancelled"]]
    assert await ids_of(gateway.client, "status=completed&model=sandbox/slow") == []


async def test_a_list_is_narrowed_by_what_the_request_said(operator: Operator) -> None:
    gateway, client = operator.gateway, operator.gateway.client
    one = (await gateway.create(model="clip", user="jane", metadata={"order": "17", "shop": "a b"}))["id"]
    response = await client.post(
        "/v1/videos", json={"prompt": "100% of a_PAPER boat\\", "model": CARD}, headers={"x-app-id": "web"}
    )
    two = response.json()["id"]
    for query, expected in {
        "model=clip": [one],
        f"model={CARD}": [two],
        "model=CLIP": [],
        "user=jane": [one],
        "user=jan": [],
        "app=web": [two],
        "provider=sandbox": [two, one],
        "provider=openai": [],
        "metadata[order]=17": [one],
        "metadata%5Border%5D=17&metadata[shop]=a+b": [one],
        "metadata[order]=17&metadata[shop]=b": [],
        "metadata[none]=17": [],
        "q=paper+boat": [two, one],
        "q=PAPER": [two, one],
        "q=100%25": [two],
        "q=%25": [two],
        "q=_": [two],
        "q=a_paper": [two],
        "q=%5C": [two],
        "q=a%25boat": [],
        "q=x": [],
        "q=paper&model=clip&user=jane&status=queued": [one],
        "q=paper&model=clip&user=jane&status=failed": [],
    }.items():
        assert await ids_of(client, query) == expected, query
        assert await ids_of(gateway.bob, query) == [], "of another project"


async def test_a_list_is_narrowed_to_a_key(operator: Operator) -> None:
    first = await operator.key("first", project=None)
    second = await operator.key("second", project=first["project"])
    made = {}
    for key in (first, second):
        client = operator.user(key)
        made[key["id"]] = (await client.post("/v1/videos", json={"prompt": "a boat", "model": CARD})).json()["id"]
    for key_id, video_id in made.items():
        assert await ids_of(client, f"key={key_id}") == [video_id]
        assert await ids_of(client, f"key={key_id}&model={CARD}") == [video_id]
        assert await ids_of(client, f"key={key_id}&model=none") == []
        assert await ids_of(operator.gateway.client, f"key={key_id}") == [], "of another project"


async def test_both_times_are_included_as_seconds_and_as_iso_8601(gateway: Running) -> None:
    gateway.clock.advance(0.25)
    made = []
    for _ in range(3):
        made.append(await gateway.create(model="sandbox/slow"))
        gateway.clock.advance(60)
    old, middle, new = (video["id"] for video in made)
    at = made[1]["created_at"]
    exact = quote((await stored(gateway, middle)).created_at.isoformat())
    for query, expected in {
        f"created_after={at}": [new, middle],
        f"created_after={at + 1}": [new],
        f"created_before={at}": [middle, old],
        f"created_before={at - 1}": [old],
        f"created_after={at}&created_before={at}": [middle],
        f"created_after={at}.5": [new],
        f"created_after={exact}&created_before={exact}": [middle],
        "created_after=2000-01-01T00:00:00Z": [new, middle, old],
        "created_before=2000-01-01T00:00:00%2B02:00": [],
        "created_after=0": [new, middle, old],
    }.items():
        assert await ids_of(gateway.client, query) == expected, query


async def stored(gateway: Running, video_id: str) -> Video:
    async with gateway.gateway.db.transaction() as session:
        return await session.get_one(Video, video_id)


# Pages and sums


async def test_pages_of_a_narrowed_list_are_walked_in_both_orders(gateway: Running) -> None:
    made = []
    for number in range(7):
        made.append((await gateway.create(model="sandbox/slow"))["id"])
        gateway.clock.advance(number % 2)  # some were created in the same moment
    await gateway.client.delete(f"/v1/videos/{made[2]}")
    for order, expected in (("desc", made[::-1]), ("asc", made)):
        for query in ("model=sandbox/slow", "q=boat", "created_after=0&provider=sandbox"):
            walked: list[str] = []
            after = ""
            while True:
                body = await page(gateway.client, f"{query}&order={order}&limit=3{after}")
                walked += [video["id"] for video in body["data"]]
                if not body["has_more"]:
                    break
                after = f"&after={body['last_id']}"
            assert walked == expected


async def test_after_may_be_deleted_but_has_to_be_known_where_its_time_is_needed(gateway: Running) -> None:
    video = await gateway.create(**SHORT)
    other = (await gateway.create(**SHORT))["id"]
    await gateway.finish(other)
    assert (await gateway.client.delete(f"/v1/videos/{other}")).status_code == 200
    assert await ids_of(gateway.client, f"model={CARD}&after={other}") == [video["id"]]
    theirs = (await gateway.bob.post("/v1/videos", json={"prompt": "a"})).json()["id"]
    for unknown in (UNKNOWN_ID, theirs, "x", "%00", "a" * 5_000):
        message = refused(await gateway.client.get(f"/v1/videos?model=x&after={unknown}"), "after")
        assert "start again without after" in message
        assert (await gateway.client.get(f"/v1/videos?after={unknown}")).status_code == 200


async def test_the_sums_are_those_of_all_pages(operator: Operator) -> None:
    gateway = operator.gateway
    made = await of_each_status(gateway)
    assert (await page(gateway.client, "limit=1"))["data"][0]["id"] == made["queued"]
    assert "summary" not in await page(gateway.client)
    for query, expected in {
        "limit=1": (5, 1, 0.5),
        "limit=0": (5, 1, 0.5),
        "status=completed": (1, 1, 0.5),
        "status=failed&limit=1": (2, 0, 0),
        "status=in_progress": (1, 0, 0),
        "model=none": (0, 0, 0),
        "created_after=4000000000": (0, 0, 0),
    }.items():
        body = await page(gateway.client, f"{query}&summary=true")
        count, seconds, cost = expected
        assert body["summary"] == {"count": count, "seconds": seconds, "cost_usd": cost}, query
        assert "searched" not in body
    body = await page(gateway.client, "q=boat&status=completed&summary=true")
    searched = {"rows": 1, "complete": True}
    assert body["searched"] == searched
    assert body["summary"] == {"count": 1, "seconds": 1, "cost_usd": 0.5, "searched": searched}
    body = await page(gateway.client, "q=none&model=none&summary=true")
    assert (body["searched"], body["summary"]["count"]) == ({"rows": 0, "complete": True}, 0)


MANY = """
insert into videos (id, project_id, key_id, dialect, status, model, request, routes, outputs, warnings, progress,
  settlement, deadline_at, created_at, updated_at)
select 'video_' || lpad(n::text, 26, '0'), %(project)s, 'k', 'openai', 'queued', 'm',
  jsonb_build_object('prompt', case n when 7 then 'a needle' else 'hay' end), '["sandbox/testcard"]', '[]', '[]', 0,
  'refunded', now(), to_timestamp(n), now()
from generate_series(1, %(rows)s::int) as n
"""


async def test_a_search_ends_after_20000_videos_and_goes_on(operator: Operator, database_url: str) -> None:
    gateway, rows = operator.gateway, LOOKED_AT + 50
    project = (await stored(gateway, (await gateway.create())["id"])).project_id
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(MANY, {"project": project, "rows": rows})
    for client, path, query in (
        (gateway.client, "/v1/videos", "q=NEEDLE&model=m"),
        (operator.client, "/admin/v1/videos", f"q=needle&model=m&project={project}"),
    ):
        body = await page(client, f"{query}&summary=true", path)
        assert (body["data"], body["has_more"], body["searched"]) == ([], True, {"rows": LOOKED_AT, "complete": False})
        assert body["last_id"] == f"video_{51:026}"
        assert body["summary"] == {"count": 0, "seconds": 0, "cost_usd": 0, "searched": body["searched"]}
        rest = await page(client, f"{query}&after={body['last_id']}", path)
        assert [video["id"] for video in rest["data"]] == [f"video_{7:026}"]
        assert (rest["has_more"], rest["searched"]) == (False, {"rows": 50, "complete": True})
        first = await page(client, f"{query}&order=asc&limit=1", path)
        assert [video["id"] for video in first["data"]] == [f"video_{7:026}"]
        assert (first["has_more"], first["last_id"]) == (True, f"video_{LOOKED_AT:026}")
    everywhere = await page(operator.client, "q=needle&status=queued&created_before=100", "/admin/v1/videos")
    assert everywhere["last_id"] == f"video_{52:026}", "of all projects the ids decide, and the first video counts"
    rest = await page(operator.client, f"q=needle&after={everywhere['last_id']}", "/admin/v1/videos")
    assert [video["id"] for video in rest["data"]] == [f"video_{7:026}"]


@pytest.mark.slow
async def test_a_search_that_takes_too_long_says_how_to_narrow_it(gateway: Running, database_url: str) -> None:
    faults = partial(REGISTRY.get_sample_value, "gateway_database_errors_total", {"kind": "cancelled"})
    before = faults()
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("lock table videos in access exclusive mode")
        error = error_of(await gateway.client.get("/v1/videos?q=boat"), 400)
    assert error["code"] == "search_too_slow"
    assert faults() == before, "no client can make the database look broken"
    assert f"longer than {TIMEOUT_S} s; narrow it" in error["message"]
    assert await ids_of(gateway.client, "q=boat") == []


async def test_a_search_beyond_three_of_a_project_is_refused_and_lists_go_on(
    gateway: Running, database_url: str
) -> None:
    one = (await gateway.create())["id"]
    async with await psycopg.AsyncConnection.connect(database_url) as connection, asyncio.TaskGroup() as group:
        await connection.execute("lock table videos in access exclusive mode")
        queries = ("q=boat", "summary=true", "user=jane", "provider=sandbox")
        tasks = [group.create_task(gateway.client.get(f"/v1/videos?{query}")) for query in queries]
        done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert len(waiting) == SEARCHES_AT_ONCE
        await connection.rollback()
    (refusal,) = [task.result() for task in done]
    assert error_of(refusal, 429)["code"] == "too_many_searches"
    assert {task.result().status_code for task in waiting} == {200}
    assert await ids_of(gateway.client, "q=boat") == [one]


# Refusals


@pytest.mark.parametrize(
    ("query", "near"),
    [
        ("statuss=x", "status"),
        ("Model=x", "model"),
        ("created_afer=1", "created_after"),
        ("metadata=x", "metadata"),
    ],
)
async def test_an_unknown_parameter_is_refused_with_the_nearest(gateway: Running, query: str, near: str) -> None:
    for mount in ("/v1", "/openai/v1"):
        error = error_of(await gateway.client.get(f"{mount}/videos?limit=1&{query}"), 400)
        assert (error["param"], error["code"]) == (query.partition("=")[0], "unknown_parameter")
        assert f"did you mean {near}" in error["message"]


async def test_a_parameter_like_no_other_is_refused_with_all_names(gateway: Running) -> None:
    error = error_of(await gateway.client.get("/v1/videos?zzz=1"), 400)
    assert "there are after, limit, order, status" in error["message"]
    assert "project" not in error["message"]
    assert error_of(await gateway.client.get("/v1/videos?project=x"), 400)["code"] == "unknown_parameter"


async def test_parameters_that_clients_add_to_every_call_are_ignored(gateway: Running) -> None:
    made = (await gateway.create())["id"]
    assert await ids_of(gateway.client, "api-version=preview&custom_llm_provider=openai&limit=2&order=asc") == [made]


async def test_a_list_without_filters_is_in_the_order_of_the_ids(gateway: Running) -> None:
    made = [(await gateway.create(model="sandbox/slow"))["id"] for _ in range(3)]
    async with gateway.gateway.db.transaction() as session:
        await session.execute(sa.update(Video).where(Video.id == made[0]).values(created_at=gateway.clock()))
    assert await ids_of(gateway.client, "") == made[::-1]
