"""A model of the catalogue as clients ask for it: the cheapest vendor first, the next one after a certain refusal."""

from typing import Any

import pytest
from catalogue.conftest import Open
from fakes.ark import FakeArk
from fakes.fal import FakeFal
from fakes.server import KEY, Answer, Reset, closed_port, serve
from harness import ALICE, Running, StartGateway
from money import ADMIN, operator_of
from openai import AsyncOpenAI

pytestmark = pytest.mark.anyio
ARK, FAL = "ark/dreamina-seedance-2-0-260128", "fal/bytedance/seedance-2.0"


async def test_the_cheapest_vendor_makes_it_with_the_defaults_of_the_model(
    gateway: Running, ark: FakeArk, fal: FakeFal
) -> None:
    video = await gateway.create(model="Seedance-2")
    assert (video["model"], video["cost_estimate"]) == ("Seedance-2", pytest.approx(5 * 0.1512))
    assert (video["seconds"], video["size"]) == ("5", "1280x720")
    done = await gateway.finish(video["id"])
    assert (done["status"], f"{done['provider']}/{done['upstream_model']}") == ("completed", ARK)
    sent = ark.submits[0].json
    assert (sent["duration"], sent["resolution"], sent["ratio"]) == (5, "720p", "16:9")
    assert fal.submits == []


@pytest.mark.parametrize("refusal", [Answer(429), Answer(401)])
async def test_the_next_vendor_makes_the_same_after_a_certain_refusal(
    gateway: Running, ark: FakeArk, fal: FakeFal, refusal: Answer
) -> None:
    ark.script("submit", refusal)
    video = await gateway.create(model="seedance-2.0", seconds="6")
    done = await gateway.finish(video["id"])
    assert (done["status"], done["provider"]) == ("completed", "fal")
    assert len(ark.submits) == len(fal.submits) == 1
    assert (fal.submits[0].json["duration"], fal.submits[0].json["resolution"]) == ("6", "720p")


async def test_the_sdk_of_openai_gets_its_video_while_the_cheapest_vendor_is_down(opened: Open, fal: FakeFal) -> None:
    async with serve(fal) as url:
        dead = {"api_key": KEY, "base_url": f"{closed_port()}/api/v3"}
        providers = {"ark": dead, "fal": {"api_key": KEY, "base_url": url}}
        async with (
            opened(providers=providers) as gateway,
            serve(gateway.app) as own,
            AsyncOpenAI(base_url=f"{own}/v1", api_key=ALICE) as sdk,
        ):
            video = await sdk.videos.create(model="seedance-2.0", prompt="a boat")
            assert (await gateway.finish(video.id))["provider"] == "fal"


FRAME = {"image_url": "https://x.example/a.png"}


@pytest.mark.parametrize(
    ("name", "fields", "path", "cost"),
    [
        ("ltx-2.5-pro", {}, "lightricks/ltx-2.5/text-to-video/pro", 6 * 0.12),
        ("ltx-2.5-fast", {"input_reference": FRAME}, "lightricks/ltx-2.5/image-to-video/fast", 6 * 0.09),
        ("kling-3.0", {"resolution": "2160p"}, "fal-ai/kling-video/v3/4k/text-to-video", 5 * 0.42),
        ("minimax-h3-max-turbo", {"input_reference": FRAME}, "minimax/h3-max-turbo/image-to-video", 5 * 0.04),
    ],
)
async def test_a_model_is_made_by_the_endpoint_for_its_input(
    gateway: Running, fal: FakeFal, name: str, fields: dict[str, Any], path: str, cost: float
) -> None:
    video = await gateway.create(model=name, **fields)
    assert video["cost_estimate"] == pytest.approx(cost)
    await gateway.worker.run_once()
    assert [submit.path for submit in fal.submits] == [f"/{path}"]


@pytest.mark.parametrize(("fields", "mode"), [({}, "t2v"), ({"input_reference": FRAME}, "i2v")])
async def test_a_vendor_with_two_names_for_a_model_gets_the_one_for_its_input(
    gateway: Running, ark: FakeArk, fields: dict[str, Any], mode: str
) -> None:
    await gateway.create(model="seedance-1.0-lite", **fields)
    await gateway.worker.run_once()
    assert [submit.json["model"] for submit in ark.submits] == [f"seedance-1-0-lite-{mode}-250428"]


async def test_an_unknown_outcome_never_goes_to_the_next_vendor(gateway: Running, ark: FakeArk, fal: FakeFal) -> None:
    ark.script("submit", Reset())
    video = await gateway.create(model="seedance-2.0")
    ended = await gateway.finish(video["id"])
    assert ended["error"]["code"] == "upstream_outcome_unknown"
    assert fal.submits == []


async def test_a_failure_after_acceptance_stays_with_its_vendor(gateway: Running, ark: FakeArk, fal: FakeFal) -> None:
    video = await gateway.create(model="seedance-2.0")
    await gateway.worker.run_once()
    ark.fail(next(iter(ark.jobs)), "InternalServiceError", "try again")
    assert (await gateway.finish(video["id"]))["status"] == "failed"
    assert fal.submits == []


@pytest.mark.parametrize(
    ("wishes", "first"),
    [
        ({}, ARK),
        ({"routing": "order"}, ARK),
        ({"routing": "fastest"}, ARK),
        ({"routing": "cheapest", "generate_audio": False}, ARK),
        ({"n": 1}, ARK),
        ({"n": 4}, ARK),
        ({"resolution": "1080p"}, ARK),
        ({"max_cost": 2}, ARK),
    ],
)
async def test_an_estimate_shows_the_table_of_routes_and_what_is_reserved(
    opened: Open, wishes: dict[str, Any], first: str
) -> None:
    async with opened(admin_key=ADMIN) as gateway, operator_of(gateway) as admin:
        body = {"prompt": "a boat", "model": "seedance-2.0", "n": 2, **wishes}
        estimate = (await gateway.client.post("/v1/videos?dryRun=true", json=body)).json()
        assert estimate["routes"][0]["route"] == first
        kept = [row for row in estimate["routes"] if row["kept"]]
        assert estimate["cost_estimate"] == kept[0]["cost_estimate"]
        assert estimate["cost_at_most"] == max(row["cost_estimate"] for row in kept)
        video = await gateway.create(**body)
        assert await admin.ledger(video["id"]) == [("reserve", -round(estimate["cost_at_most"] * 1_000_000))]
        shown = await admin.ask("GET", f"videos/{video['id']}")
        assert shown["choices"] == estimate["routes"]


async def test_the_hold_is_the_dearest_kept_route_in_every_order(opened: Open) -> None:
    async with opened(admin_key=ADMIN) as gateway, operator_of(gateway) as admin:
        for number in range(8):
            body = {"prompt": "a boat", "model": "seedance-2.0", "n": 1 + number % 4, "routing": "weighted"}
            video = await gateway.create(**body)
            shown = await admin.ask("GET", f"videos/{video['id']}")
            kept = [row for row in shown["choices"] if row["kept"]]
            dearest = round(max(row["cost_estimate"] for row in kept) * 1_000_000)
            assert await admin.ledger(video["id"]) == [("reserve", -dearest)]
            assert {row["route"] for row in kept} == {ARK, FAL}


async def test_a_vendor_that_costs_far_more_is_passed_over(opened: Open, ark: FakeArk, fal: FakeFal) -> None:
    async with opened(fallback_price_factor=2) as gateway:
        ark.script("submit", *[Answer(503)] * 5)
        body = {"prompt": "a boat", "model": "seedance-2.0"}
        estimate = (await gateway.client.post("/v1/videos?dryRun=true", json=body)).json()
        assert [(row["route"], row["kept"]) for row in estimate["routes"]] == [(ARK, True), (FAL, False)]
        assert estimate["routes"][1]["reason"] == "dearer than 2 times the cheapest route"
        video = await gateway.create(model="seedance-2.0")
        assert (await gateway.finish(video["id"]))["provider"] == "ark"
        assert fal.submits == []


async def test_a_limit_of_the_request_is_kept_by_each_route(gateway: Running, fal: FakeFal) -> None:
    body = {"prompt": "a boat", "model": "seedance-2.0", "max_cost": 0.8}
    estimate = (await gateway.client.post("/v1/videos?dryRun=true", json=body)).json()
    assert [(row["route"], row["reason"]) for row in estimate["routes"]] == [
        (ARK, "costs $0.756"),
        (FAL, "dearer than max_cost"),
    ]
    refused = await gateway.client.post("/v1/videos", json={**body, "max_cost": 0.5})
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "max_cost_exceeded")
    by_header = {"x-gateway-max-cost": "0.5"}
    refused = await gateway.client.post("/v1/videos", json={"prompt": "a", "model": "seedance-2.0"}, headers=by_header)
    assert refused.status_code == 402
    wrong_ones: list[Any] = [-1, "much", [], True, 0.1234567]
    for wrong in wrong_ones:
        refused = await gateway.client.post("/v1/videos", json={**body, "max_cost": wrong})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max_cost"), wrong


async def test_wishes_are_no_part_of_what_an_idempotency_key_stands_for(gateway: Running) -> None:
    body = {"prompt": "a boat", "model": "seedance-2.0"}
    key = {"idempotency-key": "k-1"}
    first = await gateway.client.post("/v1/videos", json=body, headers=key)
    again = await gateway.client.post("/v1/videos", json={**body, "routing": "order", "max_cost": 3}, headers=key)
    assert again.json()["id"] == first.json()["id"]
    for wishes in ({"max_cost": 0.01}, {"routing": "order", "max_cost": 0}):
        again = await gateway.client.post("/v1/videos", json={**body, **wishes}, headers=key)
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"]), "though it would be refused now"
    other = await gateway.client.post("/v1/videos", json={**body, "prompt": "another", "max_cost": 0}, headers=key)
    assert other.status_code == 409


async def test_a_model_that_no_vendor_here_serves_says_who_does(gateway: Running) -> None:
    for name, words in (
        ("gen-4.5", "is served by runway, openrouter, replicate, and none of these is configured here."),
        ("veo-3", "Veo 3 has ended on 2026-06-30. Its successor is veo-3.1."),
        ("seedance-3.0", "did you mean"),
    ):
        refused = await gateway.client.post("/v1/videos", json={"prompt": "a", "model": name})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert words in refused.json()["error"]["message"]


async def test_a_route_of_a_vendor_that_has_ended_it_is_none(start_gateway: StartGateway) -> None:
    async with start_gateway(providers={"gemini": {"api_key": "x"}, "fal": {"api_key": "y"}}) as gateway:
        body = {"prompt": "a", "model": "gemini-omni-1.1-flash"}
        for days, vendors in ((0, {"gemini", "fal"}), (30, {"fal"})):
            gateway.clock.advance(days * 86_400)
            estimate = (await gateway.client.post("/v1/videos?dryRun=true", json=body)).json()
            assert {row["route"].split("/")[0] for row in estimate["routes"]} == vendors


async def test_without_the_catalogue_its_names_are_unknown(opened: Open) -> None:
    async with opened(catalogue=False) as gateway:
        refused = await gateway.client.post("/v1/videos", json={"prompt": "a", "model": "seedance-2.0"})
        assert refused.status_code == 404
        listed = (await gateway.client.get("/v1/models")).json()["data"]
        assert "fal/bytedance/seedance-2.0" in [model["id"] for model in listed]
