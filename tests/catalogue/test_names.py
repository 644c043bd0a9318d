"""Names that existing code uses: models that have ended, and aliases for them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from catalogue.conftest import Open
from fakes.ark import FakeArk
from fakes.fal import FakeFal
from fakes.server import Answer
from harness import Running, StartGateway, plain

pytestmark = pytest.mark.anyio


@pytest.fixture
async def alone(start_gateway: StartGateway) -> AsyncIterator[Running]:
    async with start_gateway() as gateway:
        yield gateway


@pytest.mark.parametrize("name", ["sora-2", "sora-2-pro"])
async def test_while_no_vendor_is_configured_the_sandbox_stands_in_and_says_so(alone: Running, name: str) -> None:
    video = await alone.create(model=name, seconds="4")
    assert (video["model"], video["provider"]) == (name, "sandbox")
    expected = f"no vendor is configured here: the sandbox makes a test card in place of {name}"
    assert video["warnings"] == [expected]


async def test_the_picture_names_the_model_that_the_sandbox_stands_in_for(alone: Running) -> None:
    files = []
    for model in ("sora-2", "sandbox/testcard", "testcard"):
        video = await alone.create(model=model, seconds="1", size="320x180")
        await alone.finish(video["id"])
        files.append((await alone.client.get(f"/v1/videos/{video['id']}/content")).content)
    assert files[1] == files[2] != files[0]


async def test_a_start_without_a_vendor_says_what_the_sandbox_stands_in_for(
    start_gateway: StartGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "the sandbox makes test cards"
    async with start_gateway():
        (line,) = (line for line in plain(capsys.readouterr().out).splitlines() if words in line)
    assert "in_place_of=['sora-2', 'sora-2-pro']" in line
    for settings in ({"providers": {"ark": {"api_key": "x"}}}, {"catalogue": False}):
        async with start_gateway(**settings):
            assert words not in capsys.readouterr().out


async def test_a_model_that_has_ended_names_the_lines_to_add(gateway: Running) -> None:
    refused = await gateway.client.post("/v1/videos", json={"prompt": "a", "model": "sora-2"})
    message = refused.json()["error"]["message"]
    assert refused.status_code == 404
    assert "has ended on 2026-09-24" in message
    assert "`video-gateway alias sora-2 " in message
    assert '[models."sora-2"], routes = ["' in message
    assert 'unsupported = "drop"' in message


@pytest.mark.parametrize("name", ["xai/grok-imagine-video", "mine"])
async def test_a_name_with_the_provider_is_that_provider_only_whatever_the_catalogue_calls_so(
    start_gateway: StartGateway, name: str
) -> None:
    xai, fal = {"xai": {"api_key": "x"}}, {"fal": {"api_key": "x"}}
    settings = {"models": {"mine": {"routes": ["xai/grok-imagine-video"]}}}
    body = {"model": name, "prompt": "a boat"}
    async with start_gateway(providers={**xai, **fal}, **settings) as gateway:
        shown = (await gateway.client.post("/v1/videos?dryRun=true", json=body)).json()
        assert [row["route"] for row in shown["routes"]] == ["xai/grok-imagine-video"], shown
        assert shown["cost_estimate"] == pytest.approx(8 * 0.05)  # the vendor's defaults, not the catalogue's
    async with start_gateway(providers=fal, **settings) as gateway:
        shown = (await gateway.client.post("/v1/videos?dryRun=true", json=body)).json()
        assert [row["route"] for row in shown["routes"]] == ["fal/xai/grok-imagine-video"], shown


async def test_an_alias_of_a_catalogue_model_brings_length_and_size_near(opened: Open, ark: FakeArk) -> None:
    aliases = {"sora-2": {"routes": ["seedance-2.0-fast"], "unsupported": "drop"}}
    async with opened(models=aliases) as gateway:
        fields: dict[str, Any] = {"seconds": "16", "size": "1792x1024", "seed": 7}
        video = await gateway.create(model="sora-2", **fields)
        assert (video["model"], video["seconds"], video["size"]) == ("sora-2", "15", "1280x720")
        words = " ".join(video["warnings"])
        assert "seconds became 15 instead of 16" in words
        assert "resolution became 720p instead of 1024p" in words
        assert "seed was left out" in words
        await gateway.finish(video["id"])
        sent = ark.submits[0].json
        assert (sent["duration"], sent["resolution"], sent["ratio"]) == (15, "720p", "16:9")


async def test_an_alias_that_drops_still_asks_the_cheapest_vendor_and_then_the_next(
    opened: Open, ark: FakeArk, fal: FakeFal
) -> None:
    aliases = {"sora-2": {"routes": ["seedance-2.0"], "unsupported": "drop"}}
    async with opened(models=aliases) as gateway:
        ark.script("submit", Answer(429))
        body = {"prompt": "a boat", "model": "sora-2", "seconds": "20", "negative_prompt": "rain"}
        estimate = (await gateway.client.post("/v1/videos?dryRun=true", json=body)).json()
        assert [row["route"].split("/")[0] for row in estimate["routes"] if row["kept"]] == ["ark", "fal"]
        video = await gateway.create(**body)
        assert (video["seconds"], video["size"]) == ("15", "1280x720"), "the nearest length, and the model's own size"
        assert len(video["warnings"]) == 2
        assert (await gateway.finish(video["id"]))["provider"] == "fal"
        assert (fal.submits[0].json["duration"], fal.submits[0].json["resolution"]) == ("15", "720p")


async def test_an_alias_that_drops_prefers_a_vendor_of_which_something_is_known(start_gateway: StartGateway) -> None:
    aliases = {"sora-2": {"routes": ["veo-3.1-fast"], "unsupported": "drop"}}
    providers = {"lumenfall": {"api_key": "x"}, "gemini": {"api_key": "y"}}
    async with start_gateway(models=aliases, providers=providers) as gateway:
        body = {"prompt": "a boat", "model": "sora-2", "seconds": "12", "size": "1280x720"}
        estimate = (await gateway.client.post("/v1/videos?dryRun=true", json=body)).json()
        assert (estimate["routes"][0]["route"].split("/")[0], estimate["cost_estimate"]) == ("gemini", 0.8)
        assert [row["route"].split("/")[0] for row in estimate["routes"]] == ["gemini", "lumenfall"]


async def test_a_limit_of_an_alias_holds_for_what_is_made_of_its_videos(opened: Open, ark: FakeArk) -> None:
    aliases = {"cheap": {"routes": ["sandbox/testcard"], "max_cost": 1}}
    async with opened(models=aliases, prices={"sandbox/testcard": 0.1}) as gateway:
        video = await gateway.create(model="cheap", seconds="4")
        await gateway.finish(video["id"])
        for path, body in (
            ("/v1/videos/extensions", {"video": {"id": video["id"]}, "seconds": "12"}),
            ("/v1/videos/extensions", {"video": {"id": video["id"]}, "seconds": "12", "model": "cheap"}),
        ):
            refused = await gateway.client.post(path, json={"prompt": "b", **body})
            assert (refused.status_code, refused.json()["error"]["code"]) == (402, "max_cost_exceeded"), refused.text


async def test_an_alias_never_drops_media(opened: Open) -> None:
    aliases = {"clip": {"routes": ["seedance-1.0-pro-fast"], "unsupported": "drop"}}
    providers = {"ark": {"api_key": "x"}}
    async with opened(models=aliases, providers=providers) as gateway:
        body = {"prompt": "a", "model": "clip", "input_reference": {"image_url": "https://x.example/a.png"}}
        last = {**body, "last_frame": "https://x.example/b.png"}
        refused = await gateway.client.post("/v1/videos", json=last)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "last_frame")


async def test_a_loop_ends_with_its_first_frame_where_a_model_makes_none(opened: Open, ark: FakeArk) -> None:
    picture = {"image_url": "https://x.example/a.png"}
    strict = {"strict": {"routes": ["seedance-2.0"]}}
    async with opened(models=strict) as gateway:
        video = await gateway.create(model="seedance-2.0", input_reference=picture, loop=True)
        assert video["warnings"] == ["the model makes no loops: the video ends with its first frame"]
        await gateway.worker.run_once()
        frames = [item["image_url"]["url"] for item in ark.submits[0].json["content"] if item["type"] == "image_url"]
        assert frames == [picture["image_url"]] * 2
        for body in ({"model": "strict", "input_reference": picture}, {"model": "seedance-2.0"}):
            refused = await gateway.client.post("/v1/videos", json={"prompt": "a", "loop": True, **body})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "loop")


@pytest.mark.parametrize(
    ("query", "there", "missing"),
    [
        ("", {"seedance-2.0", "veo-3.1"}, {"fal/bytedance/seedance-2.0", "sora-2"}),
        ("?all=true", {"seedance-2.0", "fal/bytedance/seedance-2.0"}, {"gen-4.5"}),
        ("?can=first_frame,audio", {"seedance-2.0"}, {"seedance-1.0-pro"}),
        ("?max_price=0.16", {"seedance-2.0"}, {"veo-3.1"}),
    ],
)
async def test_the_list_has_each_model_once_with_its_routes(
    gateway: Running, query: str, there: set[str], missing: set[str]
) -> None:
    listed = {model["id"]: model for model in (await gateway.client.get(f"/v1/models{query}")).json()["data"]}
    assert there <= listed.keys()
    assert not missing & listed.keys()
    found = listed["seedance-2.0"]
    assert (found["title"], found["status"]) == ("Seedance 2.0", "current")
    if not query:
        prices = {one["route"]: one["pricing"]["per_second"]["720p"] for one in found["served_by"]}
        assert prices == {"ark/dreamina-seedance-2-0-260128": 0.1512, "fal/bytedance/seedance-2.0": 0.3034}


async def test_a_filter_that_names_no_parameter_is_refused(gateway: Running) -> None:
    refused = await gateway.client.get("/v1/models?can=fly")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "can")
