"""Lumenfall's forms of a request to the OpenAI dialect: aliases of media, sizes, retention, the replay header."""

from datetime import timedelta
from typing import Any

import pytest
from dialects.openai_wire import MULTIPART, PNG, Upstream, error_of, form, part
from fakes.lumenfall import FakeLumenfall
from fakes.server import KEY, File, serve
from harness import Running, StartGateway

pytestmark = pytest.mark.anyio

PICTURE, CLIP = "https://images.example.com/a.png", "https://videos.example.com/a.mp4"
MOUNTS = pytest.mark.parametrize("mount", ["/v1", "/openai/v1"])


async def nothing_was_made(gateway: Running) -> bool:
    listed: list[Any] = (await gateway.client.get("/v1/videos")).json()["data"]
    return listed == []


# Media


@MOUNTS
async def test_the_image_to_video_sample_of_the_model_pages_is_read(up: Upstream, mount: str) -> None:
    body = {"prompt": "p", "image_url": PICTURE, "duration": "10", "aspect_ratio": "16:9"}
    sent = await up.sent(await up.client.post(f"{mount}/videos", json=body))
    assert sent == {
        "prompt": "p",
        "model": "sora-2",
        "seconds": "10",
        "aspect_ratio": "16:9",
        "input_reference": {"image_url": PICTURE},
    }


async def test_a_picture_may_be_a_file_in_the_alias(up: Upstream) -> None:
    body = form(part("prompt", "p"), part("image_url", PNG, filename="a.png"))
    sent = await up.sent(await up.client.post("/v1/videos", content=body, headers=MULTIPART))
    assert sent["input_reference"] == File.of("a.png", "image/png", PNG)


@pytest.mark.parametrize("name", ["reference_video", "input_video", "video_url"])
async def test_the_video_to_video_sample_of_the_model_pages_reaches_lumenfall(
    start_gateway: StartGateway, name: str
) -> None:
    fake = FakeLumenfall(polls_until_working=0, polls_until_done=0)
    async with serve(fake) as url:
        lumenfall = {"base_url": f"{url}/openai/v1", "api_key": KEY}
        async with start_gateway(providers={"lumenfall": lumenfall}) as gateway:
            body = {"model": "lumenfall/seedance-2.0", name: CLIP, "keep_audio": True, "aspect_ratio": "16:9"}
            video = await gateway.create(**body)
            assert (await gateway.finish(video["id"]))["status"] == "completed"
            [submit] = fake.submits
            assert {key: submit.json[key] for key in ("input_video", "keep_audio", "aspect_ratio")} == {
                "input_video": CLIP,
                "keep_audio": True,
                "aspect_ratio": "16:9",
            }
            assert "reference_video" not in submit.json
            assert "video_url" not in submit.json


async def test_an_uploaded_video_reaches_lumenfall_within_the_body(start_gateway: StartGateway) -> None:
    fake = FakeLumenfall(polls_until_working=0, polls_until_done=0)
    clip = b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(100)
    async with serve(fake) as url:
        lumenfall = {"base_url": f"{url}/openai/v1", "api_key": KEY}
        async with start_gateway(providers={"lumenfall": lumenfall}) as gateway:
            parts = form(
                part("prompt", "p"), part("model", "lumenfall/seedance"), part("input_video", clip, filename="a.mp4")
            )
            made = await gateway.client.post("/v1/videos", content=parts, headers=MULTIPART)
            assert made.status_code == 202, made.text
            assert (await gateway.finish(made.json()["id"]))["status"] == "completed"
            assert fake.submits[0].json["input_video"].startswith("data:video/mp4;base64,")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input_reference": PICTURE, "image_url": "https://images.example.com/b.png"}, "image_url"),
        ({"input_reference": [PICTURE, PICTURE], "image_url": PICTURE}, "image_url"),
        ({"reference_video": CLIP, "video_url": "https://videos.example.com/b.mp4"}, "video_url"),
        ({"input_video": CLIP, "video_url": "https://videos.example.com/b.mp4"}, "video_url"),
        ({"reference_video": CLIP, "input_video": {"url": f"{CLIP}?2"}}, "input_video"),
    ],
)
async def test_two_names_with_different_media_are_refused(gateway: Running, fields: dict[str, Any], param: str) -> None:
    error = error_of(await gateway.client.post("/v1/videos", json={"prompt": "p", **fields}), 400)
    assert (error["param"], error["code"]) == (param, "invalid_value")
    assert "contradict each other; send one of them" in error["message"]
    assert await nothing_was_made(gateway)


@pytest.mark.parametrize("proper", [PICTURE, {"image_url": PICTURE}, [{"image_url": PICTURE}], None, "", []])
async def test_the_same_picture_under_two_names_is_one(up: Upstream, proper: Any) -> None:
    body = {"prompt": "p", "input_reference": proper, "image_url": PICTURE}
    sent = await up.sent(await up.client.post("/v1/videos", json=body))
    assert sent["input_reference"] == {"image_url": PICTURE}


@pytest.mark.parametrize("value", ["a.png", 5, {"file_id": "file_1"}, [[]], "ftp://x.example/a.png", True])
@pytest.mark.parametrize("name", ["image_url", "video_url", "input_video"])
async def test_an_alias_that_names_no_medium_is_refused_under_its_own_name(
    gateway: Running, name: str, value: Any
) -> None:
    error = error_of(await gateway.client.post("/v1/videos", json={"prompt": "p", name: value}), 400)
    assert error["param"] == name
    assert await nothing_was_made(gateway)


# Sizes


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"size": "auto"}, {}),
        ({"size": "AUTO", "aspect_ratio": "auto", "resolution": " auto "}, {}),
        ({"size": "auto", "aspect_ratio": "9:16", "resolution": "720p"}, {"size": "720x1280"}),
        ({"size": "1280x720", "aspect_ratio": "auto", "resolution": "auto"}, {"size": "1280x720"}),
        ({"size": "1365x768"}, {"size": "1365x768"}),
        ({"resolution": "1K"}, {"resolution": "720p"}),
        ({"resolution": "2k"}, {"resolution": "1440p"}),
        ({"resolution": "4K", "aspect_ratio": "16:9"}, {"size": "3840x2160"}),
    ],
)
async def test_auto_and_tiers_are_read(up: Upstream, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    sent = await up.sent(await up.client.post("/v1/videos", json={"prompt": "p", **fields}))
    assert sent == {"prompt": "p", "model": "sora-2", **expected}


@pytest.mark.parametrize(
    ("beside", "ignored"),
    [
        ({"aspect_ratio": "1:1"}, ["aspect_ratio 1:1 was ignored: the size 1280x720 holds"]),
        ({"resolution": "1080p"}, ["resolution 1080p was ignored: the size 1280x720 holds"]),
        (
            {"aspect_ratio": "9:16", "resolution": "4K"},
            [
                "aspect_ratio 9:16 was ignored: the size 1280x720 holds",
                "resolution 4K was ignored: the size 1280x720 holds",
            ],
        ),
        ({"aspect_ratio": "16:9", "resolution": "720p"}, None),
    ],
)
async def test_a_size_in_pixels_holds_and_the_video_says_what_was_ignored(
    up: Upstream, beside: dict[str, Any], ignored: list[str] | None
) -> None:
    response = await up.client.post("/v1/videos", json={"prompt": "p", "size": "1280x720", **beside})
    assert await up.sent(response) == {"prompt": "p", "model": "sora-2", "size": "1280x720"}
    assert response.json().get("warnings") == ignored
    assert (await up.gateway.get(response.json()["id"])).get("warnings") == ignored
    estimate = await up.client.post("/v1/videos?dryRun=true", json={"prompt": "p", "size": "1280x720", **beside})
    assert estimate.json()["warnings"][: len(ignored or [])] == (ignored or [])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"size": "1280x720", "aspect_ratio": "wide"}, "aspect_ratio"),
        ({"size": "1280x720", "resolution": "3K"}, "resolution"),
        ({"size": "automatic"}, "size"),
        ({"size": ["auto"]}, "size"),
    ],
)
async def test_what_is_no_size_is_refused_also_beside_one(gateway: Running, fields: dict[str, Any], param: str) -> None:
    error = error_of(await gateway.client.post("/v1/videos", json={"prompt": "p", **fields}), 400)
    assert (error["param"], error["code"]) == (param, "invalid_value")
    assert await nothing_was_made(gateway)


# Retention


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (86_400, 86_400),
        ("86400", 86_400),
        ("90s", 90),
        ("30m", 1_800),
        ("1h", 3_600),
        ("7d", 7 * 86_400),
        ("30D", 30 * 86_400),
        ("2w", 14 * 86_400),
        ("P7D", 7 * 86_400),
        ("PT1H", 3_600),
        ("p1dt12h", 36 * 3_600),
        ("PT90.5S", 90),
    ],
)
async def test_files_are_kept_for_the_time_of_media_retention(up: Upstream, value: Any, seconds: int) -> None:
    done = await up.completed(media_retention=value)
    assert done["expires_at"] - done["completed_at"] == seconds
    up.gateway.clock.advance(seconds)
    assert (await up.gateway.get(done["id"]))["output"] is None


@pytest.mark.parametrize(
    "value",
    ["forever", "1 month", "", "h", "-1h", "1.5h", "P", "-P7D", "PT", "P" * 200, "7 days", "١h", True, [1], {}],
)
async def test_an_unknown_word_for_the_retention_is_refused_with_the_forms(gateway: Running, value: Any) -> None:
    error = error_of(await gateway.client.post("/v1/videos", json={"prompt": "p", "media_retention": value}), 400)
    assert (error["param"], error["code"]) == ("media_retention", "invalid_value")
    for known in ("86400", "30m", "12h", "7d", "P7D"):
        assert known in error["message"]
    assert await nothing_was_made(gateway)


@pytest.mark.parametrize("value", [59, "59s", "PT59S", "3651d", "9999999999w", "P11Y", "P99999999D", 1e300])
async def test_a_retention_out_of_range_is_refused(gateway: Running, value: Any) -> None:
    error = error_of(await gateway.client.post("/v1/videos", json={"prompt": "p", "media_retention": value}), 400)
    assert (error["param"], error["code"]) == ("media_retention", "invalid_value")
    assert await nothing_was_made(gateway)


async def test_a_link_lives_no_longer_than_the_file(up: Upstream) -> None:
    done = await up.completed(media_retention="10m", n=2)
    assert done["expires_at"] - done["completed_at"] == timedelta(minutes=10).total_seconds()
    assert done["output"]["expires_at"] == done["expires_at"]
    assert [file["expires_at"] for file in done["output"]["files"]] == [done["expires_at"]] * 2


async def test_the_end_of_a_link_is_shown_beside_the_end_of_the_file(up: Upstream) -> None:
    done = await up.completed()
    settings = up.gateway.gateway.settings
    assert done["output"]["expires_at"] == int(up.gateway.clock().timestamp()) + settings.media_url_ttl_s
    assert f"exp={done['output']['expires_at']}&" in done["output"]["url"]
    assert done["expires_at"] - done["completed_at"] == settings.retention_s
    up.gateway.clock.advance(100)
    again = await up.gateway.get(done["id"])
    assert again["output"]["expires_at"] == done["output"]["expires_at"] + 100
    assert again["expires_at"] == done["expires_at"]


# The replay header

CREATES: dict[str, dict[str, Any]] = {
    "videos": {},
    "videos?dryRun=true": {},
    "videos/edits": {"video": {"id": "SOURCE"}},
    "videos/extensions": {"video": {"id": "SOURCE"}, "seconds": 4},
    "videos/SOURCE/remix": {},
}


@MOUNTS
@pytest.mark.parametrize("call", CREATES)
async def test_a_call_that_would_be_free_at_lumenfall_is_refused(up: Upstream, mount: str, call: str) -> None:
    source = (await up.completed())["id"]
    made = len(up.fake.submits)
    body = {"prompt": "p", **CREATES[call]}
    if "video" in body:
        body["video"] = {"id": source}
    path = f"{mount}/{call.replace('SOURCE', source)}"
    for headers in (
        {"X-Lumenfall-Replay": "mock"},
        {"X-Lumenfall-Replay": "replay-or-mock"},
        {"X-Lumenfall-Replay": "replay"},
        {"X-Lumenfall-Replay": ""},
        {"X-Lumenfall-Replay-Recording": "rec_1"},
    ):
        error = error_of(await up.client.post(path, json=body, headers=headers), 400)
        assert (error["code"], error["param"]) == ("unsupported_header", next(iter(headers)).lower())
        assert "leave the header out or send `x-lumenfall-replay: off`" in error["message"]
    doubled = [("x-lumenfall-replay", "off"), ("x-lumenfall-replay", "mock")]
    error_of(await up.client.post(path, json=body, headers=doubled), 400)
    await up.gateway.worker.run_once()
    assert len(up.fake.submits) == made
    assert len((await up.client.get("/v1/videos")).json()["data"]) == 1
    passed = await up.client.post(path, json=body, headers={"X-Lumenfall-Replay": "Off"})
    assert passed.status_code in (200, 202), passed.text


async def test_no_character_is_made_for_a_replay(up: Upstream) -> None:
    body = form(part("name", "Ada"), part("video", b"\0\0\0\x18ftypisom", filename="a.mp4"))
    headers = {**MULTIPART, "x-lumenfall-replay": "mock"}
    error = error_of(await up.client.post("/v1/videos/characters", content=body, headers=headers), 400)
    assert error["code"] == "unsupported_header"
    assert up.fake.calls.get("character", []) == []
