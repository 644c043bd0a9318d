"""The Lumen dialect: two names for each input, sizes, lengths, defaults, and what a model does not have."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from dialects.case import PICTURE_URL, DialectCase, Inputs, has_picture, openai_message, vendor_case
from dialects.vendors import LUMEN, asked, fresh, stored
from fakes.gptge import FakeGptGe
from fakes.lumen import FakeLumen
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import Running, StartGateway

from app.video import VideoRequest

pytestmark = pytest.mark.anyio

INPUTS = Inputs(
    prompt="prompt",
    structured=("first_frame_url", {"url": PICTURE_URL}),
    keyed={"first_frame_url[url]": PICTURE_URL},
    read=has_picture,
    picture=lambda value: {"image_url": value},
    picture_param="image_url",
    picture_part="image_url",
)
CASES: dict[str, DialectCase] = {"/v1/videos/generations/": vendor_case(LUMEN, openai_message, inputs=INPUTS)}


async def test_lumen_has_two_names_for_each_input(gateway: Running) -> None:
    first = {
        "image_url": "https://example.com/1.png",
        "last_image_url": "https://example.com/2.png",
        "reference_image_urls": ["https://example.com/3.png", "https://example.com/4.png"],
        "reference_video_url": "https://example.com/5.mp4",
    }
    other = {
        "first_frame_url": "https://example.com/6.png",
        "last_frame_url": "https://example.com/7.png",
        "reference_images": ["https://example.com/8.png"],
        "video_url": "https://example.com/9.mp4",
    }

    def urls(request: VideoRequest) -> list[str | None]:
        assert request.first_frame
        assert request.last_frame
        assert request.reference_video
        pictures = [request.first_frame, request.last_frame, *request.reference_images, request.reference_video]
        return [picture.url for picture in pictures]

    by_number = "https://example.com/{}".format
    assert urls(await asked(gateway, LUMEN, fresh(**first))) == [
        by_number(name) for name in ("1.png", "2.png", "3.png", "4.png", "5.mp4")
    ]
    second = [by_number(name) for name in ("6.png", "7.png", "8.png", "9.mp4")]
    assert urls(await asked(gateway, LUMEN, fresh(**other))) == second
    assert urls(await asked(gateway, LUMEN, fresh(**dict.fromkeys(first, ""), **other))) == second
    both = await asked(gateway, LUMEN, fresh(**other, **first))
    assert urls(both) == urls(await asked(gateway, LUMEN, fresh(**first)))


async def test_lumen_sizes_lengths_and_sound_are_read(gateway: Running) -> None:
    body = fresh(resolution="1080p", aspect_ratio="9:16", duration="5", generate_audio=False)
    request = await asked(gateway, LUMEN, body)
    assert (request.size, request.seconds, request.generate_audio) == ("1080x1920", 5, False)


# Defaults


async def test_lumens_defaults_are_sent_where_the_model_has_them(start_gateway: StartGateway) -> None:
    fake = FakeLumen()
    async with serve(fake) as url:
        up = {"kind": "lumen", "base_url": url, "api_key": KEY}
        async with start_gateway(providers={"up": up}) as gateway:
            for given in ({}, {"duration": 4, "generate_audio": False}):
                request = await asked(gateway, LUMEN, {"model": "up/seedance-2", "prompt": "a boat", **given})
                assert (request.seconds, request.generate_audio) == (given.get("duration", 5), not given)
                await gateway.worker.run_once()
    assert [call.json for call in fake.submits] == [
        {
            "model": "seedance-2",
            "prompt": "a boat",
            "resolution": "720p",
            "aspect_ratio": "16:9",
            "duration": duration,
            "generate_audio": sound,
        }
        for duration, sound in ((5, True), (4, False))
    ]


async def test_lumens_defaults_are_not_sent_where_a_route_lacks_them_or_is_unknown(start_gateway: StartGateway) -> None:
    async with serve(FakeOpenAI()) as url:
        providers = {
            "fixed": {"kind": "gptge", "base_url": url, "api_key": KEY},
            "up": {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY},
        }
        models = {"clip": {"routes": ["sandbox/testcard", "fixed/luma"]}}
        async with start_gateway(providers=providers, models=models) as gateway:
            unknown = await asked(gateway, LUMEN, fresh(model="up/sora-2"))
            assert (unknown.seconds, unknown.generate_audio) == (None, True)
            for model in ("clip", "fixed/luma"):
                request = await asked(gateway, LUMEN, fresh(model=model))
                assert (request.seconds, request.generate_audio) == (None, None)
            known = await asked(gateway, LUMEN, fresh())
            assert (known.seconds, known.generate_audio) == (5, True)


async def test_media_may_also_be_files(gateway: Running) -> None:
    picture = ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(64), "image/png")
    response = await gateway.client.post(LUMEN, data=fresh(), files={"image_url": picture})
    request = await stored(gateway, response.json()["id"])
    assert request.first_frame is not None
    assert request.first_frame.content_type == "image/png"


async def test_content_that_the_upstream_blocks_fails_the_job(start_gateway: StartGateway) -> None:
    """The vendor refuses the create; here it has been answered before the upstream is asked."""
    fake = FakeLumen()
    fake.script("submit", fake.refusal(400, "content blocked", "invalid_request", {}))
    async with serve(fake) as url:
        up = {"kind": "lumen", "base_url": url, "api_key": KEY}
        async with start_gateway(providers={"up": up}) as gateway:
            created = await gateway.client.post(LUMEN, json=fresh(model="up/seedance-2"))
            assert created.status_code == 200
            await gateway.worker.run_once()
            shown = (await gateway.client.get(f"{LUMEN}/{created.json()['id']}")).json()
            assert (await gateway.get(shown["id"]))["error"]["code"] == "content_policy_violation"
    assert (shown["status"], shown["error"]["message"]) == ("failed", "content blocked")


# Parameters that a model does not have


@pytest.fixture
async def luma() -> AsyncIterator[tuple[FakeGptGe, dict[str, Any]]]:
    """An upstream without lengths, resolutions and sound, and its settings."""
    fake = FakeGptGe(polls_until_working=0, polls_until_done=0)
    async with serve(fake) as url:
        yield fake, {"up": {"kind": "gptge", "base_url": url, "api_key": KEY}}


async def test_parameters_that_the_model_does_not_have_are_left_out_with_a_warning(
    start_gateway: StartGateway, luma: tuple[FakeGptGe, dict[str, Any]]
) -> None:
    fake, providers = luma
    body = {"duration": 5, "resolution": "720p", "aspect_ratio": "16:9", "generate_audio": False, "camera": "pan"}
    async with start_gateway(providers=providers) as gateway:
        created = await gateway.client.post(LUMEN, json=fresh(model="up/luma", **body))
        assert created.status_code == 200, created.text
        assert "warnings" not in created.json()
        await gateway.worker.run_once()
        shown = (await gateway.client.get(f"{LUMEN}/{created.json()['id']}")).json()
        assert shown["warnings"] == (await gateway.get(shown["id"]))["warnings"]
        silent = await gateway.client.post(LUMEN, json=fresh())
        assert "warnings" not in (await gateway.client.get(f"{LUMEN}/{silent.json()['id']}")).json()
    assert shown["warnings"] == [
        "duration was left out: up/luma: its length cannot be chosen",
        "resolution was left out: up/luma: its resolution cannot be chosen, only the aspect_ratio",
        "generate_audio was left out: up/luma: it has no such parameter",
        "camera was left out: up/luma: it has no such parameter",
    ]
    assert fake.submits[0].json == {"user_prompt": "a paper boat", "aspect_ratio": "16:9"}


@pytest.mark.parametrize("field", ["reference_video_url", "video_url", "reference_image_urls", "reference_images"])
async def test_media_that_the_model_cannot_use_are_refused(
    start_gateway: StartGateway, luma: tuple[FakeGptGe, dict[str, Any]], field: str
) -> None:
    medium = "https://example.com/a"
    async with start_gateway(providers=luma[1]) as gateway:
        body = fresh(model="up/luma", duration=5, **{field: medium if "video" in field else [medium]})
        response = await gateway.client.post(LUMEN, json=body)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == field
        assert response.json()["error"]["message"] == f"up/luma cannot express {field}: it has no such parameter"
        assert (await gateway.client.get("/v1/videos")).json()["data"] == []


@pytest.mark.parametrize(
    ("model", "given", "param", "why"),
    [
        ("lunos/google/veo-3.0-generate-preview", {"aspect_ratio": "9:16"}, "aspect_ratio", "it makes 16:9"),
        (
            "lunos/google/veo-3.0-generate-preview",
            {"aspect_ratio": "9:16", "resolution": "720p"},
            "aspect_ratio",
            "it makes 16:9; its resolution cannot be chosen, only the aspect_ratio",
        ),
        ("lumen/veo-3-1", {"resolution": "4k"}, "resolution", "it makes 480p, 720p, 1080p"),
        ("lumen/veo-3-1", {"resolution": "4k", "aspect_ratio": "16:9"}, "resolution", "it makes 480p, 720p, 1080p"),
    ],
)
async def test_a_ratio_or_resolution_that_the_model_lacks_is_refused(
    start_gateway: StartGateway, model: str, given: dict[str, str], param: str, why: str
) -> None:
    """The model has the parameter, so another value would make another video, which is paid for."""
    up = {"base_url": "http://127.0.0.1:9", "api_key": KEY}
    async with start_gateway(providers={"lunos": up, "lumen": up}) as gateway:
        response = await gateway.client.post(LUMEN, json=fresh(model=model, **given))
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert (error["param"], error["message"]) == (param, f"{model} cannot express {param}: {why}")
        assert (await gateway.client.get("/v1/videos")).json()["data"] == []


async def test_many_unknown_fields_make_few_warnings(
    start_gateway: StartGateway, luma: tuple[FakeGptGe, dict[str, Any]]
) -> None:
    async with start_gateway(providers=luma[1]) as gateway:
        fields = {f"field_{number}": number for number in range(1_000)}
        created = await gateway.client.post(LUMEN, json=fresh(model="up/luma", **fields))
        shown = (await gateway.client.get(f"{LUMEN}/{created.json()['id']}")).json()
    assert len(shown["warnings"]) == 20
    assert shown["warnings"][-1] == "981 more parameters were left out"


async def test_a_length_that_the_model_lacks_is_a_404(gateway: Running) -> None:
    response = await gateway.client.post(LUMEN, json=fresh(duration=61))
    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": "sandbox/testcard cannot express duration: it makes whole seconds from 1 to 60",
        "type": "invalid_request_error",
        "param": "duration",
        "code": "model_not_found",
    }
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []
