"""Lumenfall's additions to the responses of the OpenAI dialect: routing in `metadata`, `url`, dry runs, cancels."""

import json
from typing import Any
from urllib.parse import unquote

import httpx
import psycopg
import pytest
import sqlalchemy as sa
from dialects.openai_wire import Upstream, error_of
from fakes.server import Answer
from harness import StartGateway, statements
from upstreams import Upstreams

pytestmark = pytest.mark.anyio

FULL = {"x-gateway-metadata": "full"}
FORMS = pytest.mark.parametrize(("mount", "headers"), [("/openai/v1", {}), ("/v1", FULL)])


def for_attempts(sent: list[str]) -> list[str]:
    """Those of the statements that read attempts."""
    return [statement for statement in sent if "FROM attempts" in statement]


# Routing in metadata


@FORMS
async def test_metadata_has_the_routing_beside_the_strings_of_the_caller(
    up: Upstream, mount: str, headers: dict[str, str]
) -> None:
    body = {"prompt": "p", "metadata": {"order": "17"}}
    made = await up.client.post(f"{mount}/videos", json=body, headers=headers)
    assert made.status_code == 202, made.text
    routing: dict[str, Any] = {
        "model": "up/sora-2",
        "executed_model": "up/sora-2",
        "provider": "up",
        "provider_name": "OpenAI-shaped servers",
        "upstream_id": None,
        "cost_estimate": None,
        "cost_currency": "USD",
        "attempts": [],
        "order": "17",
    }
    assert made.json()["metadata"] == routing
    video_id = made.json()["id"]
    await up.gateway.finish(video_id)
    [ref] = up.fake.jobs
    ended = {"provider": "up", "executed_model": "up/sora-2", "status": "succeeded", "upstream_id": ref}
    expected = {**routing, "upstream_id": ref, "attempts": [{**ended, "error_code": None}]}
    for path in (f"{mount}/videos/{video_id}", f"{mount}/videos/{video_id}?wait=5"):
        read = await up.client.get(path, headers=headers)
        assert read.json()["metadata"] == expected
    listed = await up.client.get(f"{mount}/videos", headers=headers)
    assert [video["metadata"] for video in listed.json()["data"]] == [expected]
    events = await up.client.get(f"{mount}/videos/{video_id}/events", headers=headers)
    data = [json.loads(line.removeprefix("data: ")) for line in events.text.splitlines() if line.startswith("data: ")]
    assert [video["metadata"] for video in data] == [expected] * 2


async def test_a_stream_ends_when_the_database_fails_between_its_two_queries(up: Upstream) -> None:
    video_id = (await up.client.post("/openai/v1/videos", json={"prompt": "p"})).json()["id"]
    await up.client.delete(f"/v1/videos/{video_id}")
    engine = up.gateway.gateway.db.engine
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    others = "datname = current_database() and pid <> pg_backend_pid()"

    def cut(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "FROM attempts" in statement:
            with psycopg.connect(url, autocommit=True) as other:
                other.execute(f"select pg_terminate_backend(pid, 5000) from pg_stat_activity where {others}".encode())

    sa.event.listen(engine.sync_engine, "before_cursor_execute", cut)
    try:
        cut_off = await up.client.get(f"/openai/v1/videos/{video_id}/events")
    finally:
        sa.event.remove(engine.sync_engine, "before_cursor_execute", cut)
    assert (cut_off.status_code, cut_off.text) == (200, "")
    assert "event: end" in (await up.client.get(f"/openai/v1/videos/{video_id}/events")).text


@pytest.mark.parametrize("headers", [{}, {"x-gateway-metadata": "none"}, {"x-gateway-metadata": ""}])
async def test_metadata_has_only_the_strings_of_the_caller_otherwise(up: Upstream, headers: dict[str, str]) -> None:
    made = await up.client.post("/v1/videos", json={"prompt": "p", "metadata": {"order": "17"}}, headers=headers)
    assert made.json()["metadata"] == {"order": "17"}
    for path in (f"/v1/videos/{made.json()['id']}", "/v1/videos"):
        read = (await up.client.get(path, headers=headers)).json()
        assert [video["metadata"] for video in read.get("data", [read])] == [{"order": "17"}]


async def test_a_key_of_the_caller_takes_precedence(up: Upstream) -> None:
    metadata = {"provider": "mine", "attempts": "three", "cost": "much"}
    made = await up.client.post("/openai/v1/videos", json={"prompt": "p", "metadata": metadata})
    shown = (await up.client.get(f"/openai/v1/videos/{made.json()['id']}")).json()["metadata"]
    assert shown.items() >= metadata.items()
    assert shown["executed_model"] == "up/sora-2"


async def test_the_cost_takes_the_place_of_the_estimate(start_gateway: StartGateway) -> None:
    settings = {"providers": {"sandbox": {"testcard_s": 0}}, "prices": {"sandbox/testcard": 0.05}}
    async with start_gateway(**settings) as gateway:
        made = await gateway.client.post("/openai/v1/videos", json={"prompt": "p", "seconds": 2, "size": "64x64"})
        metadata = made.json()["metadata"]
        assert metadata["cost_estimate"] == 0.1
        assert "cost" not in metadata
        await gateway.finish(made.json()["id"])
        metadata = (await gateway.client.get(f"/openai/v1/videos/{made.json()['id']}")).json()["metadata"]
        assert metadata["cost"] == 0.1
        assert "cost_estimate" not in metadata
        assert metadata["provider_name"] == "Sandbox"


async def test_attempts_show_a_fail_over(start_gateway: StartGateway, two: Upstreams) -> None:
    alias = {"routes": ["one/sora-2", "two/sora-2"]}
    async with start_gateway(providers=two.providers(), models={"boat": alias}) as gateway:
        two.fakes["one"].script("submit", Answer(503, {"error": {"message": "busy"}}))
        made = await gateway.client.post("/openai/v1/videos", json={"prompt": "p", "model": "boat"})
        assert made.headers["x-gateway-model"] == "one/sora-2"
        await gateway.finish(made.json()["id"])
        read = await gateway.client.get(f"/openai/v1/videos/{made.json()['id']}")
        metadata = read.json()["metadata"]
        assert (metadata["model"], metadata["executed_model"], metadata["provider"]) == ("boat", "two/sora-2", "two")
        tried = [(attempt["executed_model"], attempt["status"]) for attempt in metadata["attempts"]]
        assert tried == [("one/sora-2", "failed"), ("two/sora-2", "succeeded")]
        assert metadata["attempts"][0]["error_code"]
        assert metadata["upstream_id"] == metadata["attempts"][1]["upstream_id"] == next(iter(two.fakes["two"].jobs))
        assert read.headers["x-gateway-provider"] == "two"
        assert read.headers["x-gateway-model"] == "two/sora-2"


async def test_only_a_response_with_the_routing_reads_attempts(up: Upstream) -> None:
    for _ in range(3):
        video_id = (await up.gateway.create())["id"]
    with statements(up.gateway) as sent:
        await up.client.get(f"/v1/videos/{video_id}")
        await up.client.get("/v1/videos")
        await up.client.post("/openai/v1/videos", json={"prompt": "p"})
        assert for_attempts(sent) == []
        await up.client.get(f"/openai/v1/videos/{video_id}")
        assert len(for_attempts(sent)) == 1
        page = (await up.client.get("/openai/v1/videos")).json()["data"]
        assert (len(page), len(for_attempts(sent))) == (4, 2)
        assert (await up.client.get("/openai/v1/videos?limit=0")).json()["data"] == []
        assert len(for_attempts(sent)) == 2


async def test_the_last_attempts_are_shown_and_their_long_texts_not_read(up: Upstream) -> None:
    video_id = (await up.client.post("/openai/v1/videos", json={"prompt": "p"})).json()["id"]
    await up.gateway.finish(video_id)
    failed = "jsonb_build_object('id', 'att_' || n, 'state', 'failed', 'error_code', 'no_' || n)"
    later = (
        f"insert into attempts select (jsonb_populate_record(a, {failed})).* from attempts a, generate_series(10, 39) n"
    )
    async with up.gateway.gateway.db.transaction() as session:
        await session.execute(sa.text(later))
    with statements(up.gateway) as sent:
        metadata = (await up.client.get(f"/openai/v1/videos/{video_id}")).json()["metadata"]
    assert "error_body" not in for_attempts(sent)[0]
    assert metadata["upstream_id"] == next(iter(up.fake.jobs)), "of the attempt that made the video, however old"
    assert len(metadata["attempts"]) == 20
    assert {"no_21", "no_39"} < {attempt["error_code"] for attempt in metadata["attempts"]}


async def test_the_routing_of_another_project_is_not_shown(up: Upstream) -> None:
    video_id = (await up.gateway.create())["id"]
    error_of(await up.gateway.bob.get(f"/openai/v1/videos/{video_id}"), 404)
    assert (await up.gateway.bob.get("/openai/v1/videos")).json()["data"] == []


@pytest.mark.parametrize("name", ["żółw 🐢", "a\r\nx-evil: 1", "a/b:c@1", '"quoted"', "a\tb"])
async def test_a_models_name_cannot_break_the_header(up: Upstream, name: str) -> None:
    made = await up.client.post("/v1/videos", json={"prompt": "p", "model": f"up/{name}"})
    assert made.status_code == 202, made.text
    assert made.headers["x-gateway-model"].isascii()
    assert unquote(made.headers["x-gateway-model"]) == f"up/{name}"
    assert "x-evil" not in made.headers


# The address at the top


async def test_the_link_stands_at_the_top_once_the_video_is_completed(up: Upstream) -> None:
    made = await up.gateway.create()
    assert (made["url"], made["output"]) == (None, None)
    done = await up.gateway.finish(made["id"])
    assert done["url"] == done["output"]["url"]
    assert (await up.client.get(done["url"], headers={"authorization": ""})).content == up.fake.file
    up.gateway.clock.advance(up.gateway.gateway.settings.retention_s)
    assert (await up.gateway.get(made["id"]))["url"] is None


# Dry runs


async def estimate(client: httpx.AsyncClient, **fields: Any) -> tuple[dict[str, Any], str]:
    response = await client.post("/openai/v1/videos?dryRun=true", json={"prompt": "p", **fields})
    assert response.status_code == 200, response.text
    return response.json(), response.text


async def test_whole_numbers_of_a_dry_run_are_integers(start_gateway: StartGateway) -> None:
    async with start_gateway(prices={"up/sora-2": 0.04}, providers=OFFLINE) as gateway:
        body, text = await estimate(gateway.client, model="up/sora-2", seconds=5, n=2)
        assert body["total_cost_micros"] == 400_000
        assert '"quantity":10,"billable_quantity":10,"unit_price":0.04,"total_cost":400000' in text
        _, text = await estimate(gateway.client, model="up/sora-2", seconds=2.5)
        assert '"quantity":2.5,"billable_quantity":2.5' in text
        _, text = await estimate(gateway.client, model="up/sora-2", seconds=0.5)
        assert '"quantity":0.5,"billable_quantity":1,' in text


OFFLINE = {"up": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}}


@pytest.mark.parametrize(
    ("prices", "fields", "said"),
    [
        ({}, {"seconds": 4}, "up/wan: no price is known for it; the operator sets one under [prices]"),
        ({"up/wan": 0.04}, {}, "up/wan: the length of the video is not known; name its length, or a model with"),
        ({"up/wan": {"720p": 0.04}}, {"seconds": 4}, "up/wan: no price is known without a resolution; name a resol"),
        ({"up/wan": {"720p": 0.04}}, {"seconds": 4, "resolution": "1080p"}, "up/wan: no price is known for 1080p"),
    ],
)
async def test_a_dry_run_without_an_estimate_says_why(
    start_gateway: StartGateway, prices: dict[str, Any], fields: dict[str, Any], said: str
) -> None:
    async with start_gateway(prices=prices, providers=OFFLINE) as gateway:
        body, _ = await estimate(gateway.client, model="up/wan", **fields)
        [warning] = body.pop("warnings")
        assert warning.startswith(f"the cost cannot be estimated: {said}")
        assert body == {
            "estimated": True,
            "model": "up/wan",
            "provider": "up",
            "total_cost_micros": None,
            "currency": "USD",
            "components": [],
            "cost_estimate": None,
            "cost_at_most": None,
            "routes": [
                {
                    "route": "up/wan",
                    "cost_estimate": None,
                    "median_seconds": None,
                    "kept": True,
                    "reason": "number 1 as written",
                }
            ],
        }


# Cancels


async def test_a_second_cancel_within_an_hour_changes_nothing(up: Upstream) -> None:
    made = await up.client.post("/v1/videos", json={"prompt": "p"}, headers={"idempotency-key": "order-17"})
    video_id = made.json()["id"]
    path = f"/v1/videos/{video_id}"
    first = await up.client.delete(path)
    cancelled = await up.gateway.get(video_id)
    assert (cancelled["status"], cancelled["error"]["code"]) == ("failed", "cancelled")
    up.gateway.clock.advance(3_599)
    again = await up.client.delete(path)
    assert (again.status_code, again.json()) == (first.status_code, first.json()) == (200, again.json())
    assert await up.gateway.get(video_id) == cancelled
    replayed = await up.client.post("/v1/videos", json={"prompt": "p"}, headers={"idempotency-key": "order-17"})
    assert replayed.json()["id"] == video_id
    up.gateway.clock.advance(1)
    assert (await up.client.delete(path)).json() == first.json()
    error_of(await up.client.get(path), 404)
    error_of(await up.client.delete(path), 404)


async def test_cancels_are_counted_once(up: Upstream) -> None:
    async def cancelled_jobs() -> float:
        lines = (await up.client.get("/metrics")).text.splitlines()
        counts = [line for line in lines if line.startswith("gateway_jobs_total{") and 'status="cancelled"' in line]
        return sum(float(line.rpartition(" ")[2]) for line in counts)

    video_id = (await up.gateway.create())["id"]
    before = await cancelled_jobs()
    for _ in range(3):
        await up.client.delete(f"/v1/videos/{video_id}")
    assert await cancelled_jobs() == before + 1


async def test_a_video_that_the_upstream_cancelled_is_deleted_at_once(up: Upstream) -> None:
    video_id = (await up.gateway.create())["id"]
    await up.gateway.worker.run_once()
    [ref] = up.fake.jobs
    up.fake.script("poll", Answer(200, {"id": ref, "object": "video", "status": "cancelled"}))
    ended = await up.gateway.finish(video_id)
    assert ended["error"]["code"] == "cancelled"
    await up.client.delete(f"/v1/videos/{video_id}")
    error_of(await up.client.get(f"/v1/videos/{video_id}"), 404)
