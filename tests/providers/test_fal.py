"""fal: the choice of an endpoint by a request; the wire is in the contract suite and the recordings."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakes.fal import FakeFal
from fakes.server import KEY, serve
from harness import Running, StartGateway

from app.providers.fal import endpoints
from app.video import Operation

pytestmark = pytest.mark.anyio

FIRST, LAST = "https://x.example/a.png", "https://x.example/z.png"


@pytest.fixture
def fake() -> FakeFal:
    return FakeFal()


@pytest.fixture
async def gateway(fake: FakeFal, start_gateway: StartGateway) -> AsyncIterator[Running]:
    async with serve(fake) as url:
        providers = {"fal": {"api_key": KEY, "base_url": url}}
        async with start_gateway(providers=providers, allow_networks=["127.0.0.0/8"]) as running:
            yield running


@pytest.mark.parametrize(
    ("fields", "path", "sent"),
    [
        ({"seconds": 8}, "fal-ai/veo3.1", {"duration": "8s", "resolution": "720p", "aspect_ratio": "16:9"}),
        (
            {"input_reference": FIRST},
            "fal-ai/veo3.1/image-to-video",
            {"image_url": FIRST, "duration": "8s", "resolution": "720p"},
        ),
        (
            {"input_reference": FIRST, "last_frame": LAST},
            "fal-ai/veo3.1/first-last-frame-to-video",
            {"first_frame_url": FIRST, "last_frame_url": LAST, "duration": "8s", "resolution": "720p"},
        ),
        (
            {"reference_images": [FIRST, LAST]},
            "fal-ai/veo3.1/reference-to-video",
            {"image_urls": [FIRST, LAST], "duration": "8s", "resolution": "720p", "aspect_ratio": "16:9"},
        ),
    ],
)
async def test_a_family_uses_the_endpoint_for_what_the_request_has(
    gateway: Running, fake: FakeFal, fields: dict[str, Any], path: str, sent: dict[str, Any]
) -> None:
    video = await gateway.create(model="fal/fal-ai/veo3.1", **fields)
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    [submit] = fake.submits
    assert submit.path == f"/{path}"
    assert submit.json == {"prompt": "a paper boat", **sent}


@pytest.mark.parametrize(
    ("model", "fields", "path", "sent"),
    [
        (
            "alibaba/wan-3.0",
            {"seconds": 30, "resolution": "480p", "generate_audio": False},
            "text-to-video",
            {"duration": 30, "resolution": "480p", "audio": False},
        ),
        (
            "alibaba/wan-3.0-prime",
            {"input_reference": FIRST, "last_frame": LAST, "aspect_ratio": "9:16"},
            "image-to-video",
            {
                "start_image_url": FIRST,
                "end_image_url": LAST,
                "duration": 5,
                "resolution": "1080p",
                "aspect_ratio": "9:16",
            },
        ),
        (
            "alibaba/happy-horse/v1.1",
            {"reference_images": [FIRST, LAST], "seed": 7},
            "reference-to-video",
            {"image_urls": [FIRST, LAST], "duration": 5, "aspect_ratio": "16:9", "seed": 7},
        ),
        (
            "alibaba/happy-horse",
            {"input_reference": FIRST, "seconds": 3},
            "image-to-video",
            {"image_url": FIRST, "duration": 3, "resolution": "1080p"},
        ),
        (
            "fal-ai/kling-video/v3/turbo/pro",
            {"input_reference": FIRST, "seconds": 12},
            "image-to-video",
            {"image_url": FIRST, "duration": "12"},
        ),
        (
            "fal-ai/kling-video/o3/standard",
            {"reference_images": [FIRST, LAST], "seconds": 4},
            "reference-to-video",
            {"image_urls": [FIRST, LAST], "duration": "4", "aspect_ratio": "16:9"},
        ),
        (
            "google/gemini-omni-flash/v1.1",
            {"input_reference": FIRST, "last_frame": LAST, "resolution": "2160p"},
            "image-to-video",
            {
                "image_url": FIRST,
                "end_image_url": LAST,
                "duration": 8,
                "resolution": "4k",
                "aspect_ratio": "16:9",
            },
        ),
        (
            "bytedance/seedance-2.0/fast",
            {"input_reference": FIRST, "last_frame": LAST, "bitrate_mode": "high"},
            "image-to-video",
            {
                "image_url": FIRST,
                "end_image_url": LAST,
                "duration": "5",
                "resolution": "720p",
                "bitrate_mode": "high",
            },
        ),
        (
            "bytedance/seedance-2.0/mini",
            {"reference_images": [FIRST], "seconds": 4, "resolution": "480p"},
            "reference-to-video",
            {"image_urls": [FIRST], "duration": "4", "resolution": "480p", "aspect_ratio": "16:9"},
        ),
        (
            "blackforestlabs/flux-3",
            {"input_reference": FIRST, "last_frame": LAST, "seconds": 20, "aspect_ratio": "2:1"},
            "first-last-frame-to-video",
            {
                "start_image_url": FIRST,
                "end_image_url": LAST,
                "duration": 20,
                "resolution": "720p",
                "aspect_ratio": "2:1",
            },
        ),
        ("blackforestlabs/flux-3", {}, "text-to-video", {"duration": 5, "resolution": "720p"}),
        (
            "fal-ai/kling-video/v3/4k",
            {"input_reference": FIRST, "resolution": "2160p", "generate_audio": False},
            "image-to-video",
            {"start_image_url": FIRST, "duration": "5", "generate_audio": False},
        ),
        (
            "fal-ai/kling-video/o3/4k",
            {"reference_images": [FIRST, LAST], "seconds": 15},
            "reference-to-video",
            {"image_urls": [FIRST, LAST], "duration": "15", "aspect_ratio": "16:9"},
        ),
        (
            "kling/v4",
            {"input_reference": FIRST, "last_frame": LAST, "seconds": 30},
            "image-to-video",
            {"start_image_url": FIRST, "end_image_url": LAST, "duration": 30, "resolution": "720p"},
        ),
        (
            "luma/agent/ray/v3.2",
            {"seconds": 10, "resolution": "1080p", "aspect_ratio": "3:4"},
            "text-to-video",
            {"duration": "10s", "resolution": "1080p", "aspect_ratio": "3:4"},
        ),
        (
            "minimax/h3-max",
            {"reference_images": [FIRST], "seconds": 15, "resolution": "1080p"},
            "reference-to-video",
            {
                "reference_image_urls": [FIRST],
                "duration": 15,
                "resolution": "1080P",
                "prompt_expansion_mode": "balanced",
            },
        ),
        (
            "minimax/h3-max-turbo",
            {"last_frame": LAST, "prompt_expansion_mode": "disabled"},
            "image-to-video",
            {"end_image_url": LAST, "duration": 5, "resolution": "768P", "prompt_expansion_mode": "disabled"},
        ),
        (
            "xai/grok-imagine-video/v1.5",
            {"reference_images": [FIRST, LAST], "resolution": "720p"},
            "reference-to-video",
            {"reference_image_urls": [FIRST, LAST], "duration": 8, "resolution": "720p", "aspect_ratio": "16:9"},
        ),
        (
            "xai/grok-imagine-video/v1.5/lite",
            {"seconds": 1, "resolution": "1080p", "aspect_ratio": "2:3"},
            "text-to-video",
            {"duration": 1, "resolution": "1080p", "aspect_ratio": "2:3"},
        ),
    ],
)
async def test_each_newer_family_gets_its_own_fields(
    gateway: Running, fake: FakeFal, model: str, fields: dict[str, Any], path: str, sent: dict[str, Any]
) -> None:
    await gateway.create(model=f"fal/{model}", **fields)
    await gateway.worker.run_once()
    [submit] = fake.submits
    assert submit.path == f"/{model}/{path}"
    assert submit.json == {"prompt": "a paper boat", **sent}


@pytest.mark.parametrize(
    ("model", "seconds", "cost"),
    [("alibaba/wan-3.0", 31, 5 * 0.1), ("google/gemini-omni-flash/v1.1", 2, 5 * 0.1)],
)
async def test_a_length_is_one_of_the_whole_numbers_that_the_family_takes(
    gateway: Running, model: str, seconds: int, cost: float
) -> None:
    body = {"prompt": "a paper boat", "model": f"fal/{model}", "resolution": "720p"}
    for wrong in (seconds, 5.5):
        refused = await gateway.client.post("/v1/videos", json={**body, "seconds": wrong})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "seconds")
    made = await gateway.create(model=f"fal/{model}", resolution="720p", seconds=5)
    assert made["cost_estimate"] == pytest.approx(cost)


@pytest.mark.parametrize(
    ("tier", "seconds", "wrong", "resolution"), [("fast", 20, (7, 22), "1440p"), ("pro", 10, (7, 12), "1080p")]
)
async def test_a_length_of_a_list_of_numbers_is_sent_as_a_number(
    gateway: Running, fake: FakeFal, tier: str, seconds: int, wrong: tuple[int, ...], resolution: str
) -> None:
    model = f"fal/lightricks/ltx-2.5/text-to-video/{tier}"
    for other in wrong:
        body = {"prompt": "a paper boat", "model": model, "seconds": other}
        refused = await gateway.client.post("/v1/videos", json=body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "seconds")
    await gateway.create(model=model, seconds=seconds, resolution=resolution, fps=24)
    await gateway.create(model=model)
    await gateway.worker.run_once()
    sent = sorted((submit.json for submit in fake.submits), key=lambda body: -body["duration"])
    shape = {"prompt": "a paper boat", "aspect_ratio": "16:9"}
    assert sent == [
        {**shape, "duration": seconds, "resolution": resolution, "fps": 24},
        {**shape, "duration": 6, "resolution": "1080p"},
    ]


@pytest.mark.parametrize(
    ("model", "fields", "cost"),
    [
        ("xai/grok-imagine-video/v1.5", {"seconds": 5, "resolution": "720p"}, 0.7),
        ("xai/grok-imagine-video/v1.5", {"seconds": 5, "input_reference": FIRST, "resolution": "1080p"}, 1.26),
        ("xai/grok-imagine-video/v1.5", {"seconds": 5, "reference_images": [FIRST] * 3, "resolution": "480p"}, 0.43),
        ("luma/agent/ray/v3.2", {"seconds": 5, "resolution": "720p"}, 1.0),
        ("luma/agent/ray/v3.2", {"seconds": 5, "input_reference": FIRST, "resolution": "720p"}, 0.3),
        ("fal-ai/kling-video/v3/4k", {"seconds": 5}, 2.1),
        ("bytedance/seedance-2.0/fast", {"seconds": 5, "resolution": "480p"}, None),
    ],
)
async def test_a_price_is_that_of_the_endpoint_and_its_pictures(
    gateway: Running, model: str, fields: dict[str, Any], cost: float | None
) -> None:
    video = await gateway.create(model=f"fal/{model}", **fields)
    assert video["cost_estimate"] == (None if cost is None else pytest.approx(cost))


@pytest.mark.parametrize(
    ("model", "path", "sent"),
    [
        ("luma/agent/ray/v3.2", "video-to-video", {"duration": "5s", "resolution": "540p"}),
        ("kling/v4", "video-to-video/edit", {"resolution": "720p"}),
    ],
)
async def test_a_family_edits_by_the_endpoint_that_takes_a_video(
    gateway: Running, fake: FakeFal, model: str, path: str, sent: dict[str, Any]
) -> None:
    form = {"prompt": "at night", "model": f"fal/{model}"}
    edit = await gateway.client.post("/v1/videos/edits", data=form, files={"video": ("a.mp4", fake.file, "video/mp4")})
    assert edit.status_code == 202, edit.text
    await gateway.worker.run_once()
    [submit] = fake.submits
    assert submit.path == f"/{model}/{path}"
    assert submit.json.pop("video_url").startswith("data:video/mp4;base64,")
    assert submit.json == {"prompt": "at night", **sent}


async def test_a_video_to_look_at_is_no_video_to_edit() -> None:
    known = endpoints.known_endpoints()
    able = known["fal-ai/kling-video/o3/pro/video-to-video/reference"].capabilities
    assert able.operations == {Operation.generate}
    assert "reference_video" in able.parameters


async def test_a_price_for_any_resolution_is_that_of_an_endpoint_without_one(gateway: Running) -> None:
    made = await gateway.create(model="fal/fal-ai/kling-video/v3/turbo/standard", seconds=5)
    assert made["cost_estimate"] == pytest.approx(5 * 0.112)


async def test_an_endpoint_is_used_as_it_is_named(gateway: Running, fake: FakeFal) -> None:
    model = "fal/fal-ai/sora-2/text-to-video/pro"
    await gateway.create(model=model, size="1920x1080", seconds=12)
    await gateway.worker.run_once()
    assert fake.submits[0].path == "/fal-ai/sora-2/text-to-video/pro"
    assert fake.submits[0].json == {
        "prompt": "a paper boat",
        "duration": "12",
        "resolution": "1080p",
        "aspect_ratio": "16:9",
    }
    body = {"prompt": "a paper boat", "model": model, "input_reference": FIRST}
    refused = await gateway.client.post("/v1/videos", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "input_reference"


async def test_an_endpoint_that_animates_a_picture_needs_one(gateway: Running, fake: FakeFal) -> None:
    body = {"prompt": "a paper boat", "model": "fal/fal-ai/sora-2/image-to-video"}
    refused = await gateway.client.post("/v1/videos", json=body)
    assert refused.status_code == 400
    assert "needs input_reference: it makes nothing without one" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param"), [({"seconds": 7}, "seconds"), ({"resolution": "480p"}, "resolution"), ({"loop": True}, "loop")]
)
async def test_a_value_that_no_endpoint_of_the_family_has_is_refused(
    gateway: Running, fields: dict[str, Any], param: str
) -> None:
    body = {"prompt": "a paper boat", "model": "fal/fal-ai/veo3.1", **fields}
    refused = await gateway.client.post("/v1/videos", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


async def test_an_unknown_endpoint_gets_the_prompt_and_the_vendors_own_fields(gateway: Running, fake: FakeFal) -> None:
    model = "fal/acme/dream-9/text-to-video"
    video = await gateway.create(model=model, motion=0.5)
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert fake.submits[0].json == {"prompt": "a paper boat", "motion": 0.5}
    assert fake.polls[0].path.startswith("/acme/dream-9/requests/")
    refused = await gateway.client.post("/v1/videos", json={"prompt": "a", "model": model, "seconds": 5})
    assert refused.json()["error"]["param"] == "seconds"


@pytest.mark.parametrize("model", ["fal/one", "fal/../admin/x", "fal/a/./b", "fal/a/b?c", "fal/a//b", "fal/a/b c"])
async def test_a_name_that_is_no_path_of_an_endpoint_is_no_model(gateway: Running, model: str) -> None:
    refused = await gateway.client.post("/v1/videos", json={"prompt": "a boat", "model": model})
    assert refused.status_code == 404


async def test_families_are_listed_with_their_capabilities_and_prices(gateway: Running) -> None:
    listed = {model["id"]: model for model in (await gateway.client.get("/v1/models?all=true")).json()["data"]}
    assert endpoints.families() is endpoints.families(), "read at each step of a job"
    found = listed["fal/bytedance/seedance-2.0"]
    assert found["capabilities"]["parameters"] == [
        "first_frame",
        "generate_audio",
        "last_frame",
        "reference_images",
        "reference_video",
        "seed",
    ]
    assert found["pricing"]["per_second"]["720p"] == 0.3034
    assert listed["fal/fal-ai/veo3.1"]["capabilities"]["operations"] == ["extend", "generate"]
    video = await gateway.create(model="fal/bytedance/seedance-2.0", seconds=5, resolution="720p")
    assert video["cost_estimate"] == pytest.approx(1.517)


async def test_a_resolution_without_a_price_of_its_own_has_none(gateway: Running) -> None:
    frames = {"input_reference": {"image_url": "https://x.example/a.png"}, "last_frame": "https://x.example/b.png"}
    for model, fields in (
        ("fal-ai/veo3.1", {**frames, "resolution": "4k"}),
        ("fal-ai/minimax/hailuo-02/standard", {**frames, "resolution": "512p"}),
    ):
        video = await gateway.create(model=f"fal/{model}", seconds=8 if "veo" in model else 6, **fields)
        assert video["cost_estimate"] is None


@pytest.mark.parametrize(
    ("fields", "cost"),
    [({}, 3.2), ({"generate_audio": False}, 1.6), ({"resolution": "1080p", "seconds": 4}, 1.6)],
)
async def test_a_price_is_that_of_what_is_sent(gateway: Running, fields: dict[str, Any], cost: float) -> None:
    """The default length and resolution are sent, so they count."""
    video = await gateway.create(model="fal/fal-ai/veo3.1", **fields)
    assert video["cost_estimate"] == pytest.approx(cost)


async def test_a_video_of_this_gateway_is_edited_at_a_link_of_it(fake: FakeFal, start_gateway: StartGateway) -> None:
    async with serve(fake) as url:
        providers = {"fal": {"api_key": KEY, "base_url": url}}
        options: dict[str, Any] = {"public_url": "https://gateway.example", "allow_networks": ["127.0.0.0/8"]}
        async with start_gateway(providers=providers, **options) as gateway:
            first = await gateway.create(model="fal/bytedance/seedance-2.0")
            await gateway.finish(first["id"])
            body = {"prompt": "at night", "model": "fal/fal-ai/wan/v2.7/edit-video", "video": {"id": first["id"]}}
            edit = await gateway.client.post("/v1/videos/edits", json=body)
            assert edit.status_code == 202, edit.text
            assert (await gateway.finish(edit.json()["id"]))["status"] == "completed"
            link = fake.submits[-1].json["video_url"]
            played = await gateway.bob.get(link.removeprefix("https://gateway.example"), headers={"authorization": ""})
            assert played.content == fake.file
