"""The `openai` package drives the gateway through its public API; only `base_url` and `api_key` are ours."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from fakes.openai import FakeOpenAI
from fakes.server import KEY, File, sample_mp4, serve
from harness import ALICE, BOB, Clock, RealClock, Running, StartGateway
from openai import AsyncOpenAI, OpenAI
from samples import Samples

from app.capabilities import OPTIONAL_PARAMETERS

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
QUICK: Any = {"poll_interval_ms": 20}


@pytest.fixture
def clock() -> Clock:
    """The SDK waits in real time, so the gateway's time has to pass too."""
    return RealClock()


@dataclass
class Sdk:
    client: AsyncOpenAI
    gateway: Running
    upstream: FakeOpenAI
    url: str

    def other(self, **options: Any) -> AsyncOpenAI:
        return self.client.with_options(**options)

    async def finished(self, **fields: Any) -> Any:
        asked = {"model": "up/sora-2", "prompt": "a paper boat", **fields}
        video = await self.client.videos.create_and_poll(**asked, **QUICK)
        assert video.status == "completed", video
        return video


@asynccontextmanager
async def opened(start_gateway: StartGateway, **settings: Any) -> AsyncIterator[Sdk]:
    upstream = FakeOpenAI(polls_until_working=0, polls_until_done=0)
    async with serve(upstream) as upstream_url:
        up = {"kind": "openai", "base_url": f"{upstream_url}/v1", "api_key": KEY}
        values = {
            "run_worker": True,
            "worker_tick_s": 0.02,
            "poll_interval_s": 0.02,
            "providers": {"up": up, "sandbox": {"testcard_s": 0, "slow_s": 600}},
            "default_model": "sandbox/testcard",
            **settings,
        }
        async with (
            start_gateway(**values) as gateway,
            serve(gateway.app) as url,
            AsyncOpenAI(base_url=f"{url}/v1", api_key=ALICE) as client,
        ):
            yield Sdk(client, gateway, upstream, url)


@pytest.fixture
async def sdk(start_gateway: StartGateway) -> AsyncIterator[Sdk]:
    async with opened(start_gateway) as found:
        yield found


@pytest.mark.parametrize("mount", ["/v1", "/openai/v1"])
async def test_a_video_goes_through_its_whole_life(sdk: Sdk, mount: str) -> None:
    client = sdk.other(base_url=sdk.url + mount)
    created = await client.videos.create(prompt="a paper boat", seconds="1", size="320x240")  # type: ignore[arg-type]  # any size goes
    assert (created.object, created.status, created.progress) == ("video", "queued", 0)
    assert (created.model, created.seconds, created.size) == ("sandbox/testcard", "1", "320x240")
    assert (created.prompt, created.error, created.remixed_from_video_id) == ("a paper boat", None, None)
    assert created.completed_at is None

    done = await client.videos.poll(created.id, **QUICK)
    assert (done.status, done.progress, done.error) == ("completed", 100, None)
    assert done.completed_at is not None
    assert done.expires_at is not None
    assert (await client.videos.retrieve(created.id)).id == created.id

    video_file = await (await client.videos.download_content(created.id)).aread()
    assert video_file[4:8] == b"ftyp"
    thumbnail = await client.videos.download_content(created.id, variant="thumbnail")
    assert (await thumbnail.aread())[8:12] == b"WEBP"
    sheet = await client.videos.download_content(created.id, variant="spritesheet")
    assert (await sheet.aread())[:3] == b"\xff\xd8\xff"

    deleted = await client.videos.delete(created.id)
    assert deleted.to_dict() == {"id": created.id, "object": "video.deleted", "deleted": True}
    with pytest.raises(openai.NotFoundError):
        await client.videos.retrieve(created.id)


@pytest.mark.parametrize("given", ["bytes", "path", "tuple", "file"])
async def test_create_takes_a_first_frame(sdk: Sdk, tmp_path: Path, given: str) -> None:
    path = tmp_path / "frame.png"
    path.write_bytes(PNG)
    named = io.BytesIO(PNG)
    named.name = "frame.png"
    reference: Any = {"bytes": PNG, "path": path, "tuple": ("frame.png", PNG, "image/png"), "file": named}[given]
    await sdk.finished(input_reference=reference)
    name = "upload" if given == "bytes" else "frame.png"
    sent = dict(sdk.upstream.submits[-1].form or [])["input_reference"]
    assert sent == File.of(name, "image/png", PNG)


async def test_create_takes_all_parameters_by_extra_body(sdk: Sdk) -> None:
    extra = {
        "input_reference": {"image_url": "https://images.example.com/a.png"},
        "metadata": {"order": "17"},
        "generate_audio": True,
        "loop": False,
        "seed": 7,
        "style": "noir",
    }
    video = await sdk.finished(seconds="8", size="1280x720", extra_body=extra)
    assert video.metadata == {"order": "17"}
    assert sdk.upstream.submits[-1].json == {
        "prompt": "a paper boat",
        "model": "sora-2",
        "seconds": "8",
        "size": "1280x720",
        "input_reference": {"image_url": "https://images.example.com/a.png"},
        "generate_audio": True,
        "loop": False,
        "seed": 7,
        "style": "noir",
    }


async def test_a_json_body_is_known_by_its_header(sdk: Sdk) -> None:
    headers = {"Content-Type": "application/json"}
    video = await sdk.client.videos.create(
        prompt="x", model="sandbox/slow", seconds="8", extra_headers=headers, extra_body={"metadata": {"k": "v"}}
    )
    assert video.seconds == "8"
    assert video.model_extra is not None
    assert (video.model_extra["output"], video.model_extra["metadata"]) == (None, {"k": "v"})


async def test_create_and_poll_ends_with_a_failed_video(sdk: Sdk) -> None:
    video = await sdk.client.videos.create_and_poll(prompt="x", model="sandbox/fail", **QUICK)
    assert video.status == "failed"
    assert video.error is not None
    assert video.error.code == "sandbox_failure"


async def test_the_gateway_says_how_often_to_poll(sdk: Sdk) -> None:
    video = await sdk.client.videos.create(prompt="x", model="sandbox/slow")
    raw = await sdk.client.videos.with_raw_response.retrieve(video.id)
    assert int(raw.headers["openai-poll-after-ms"]) > 0


async def test_the_list_is_paged_by_the_sdk(sdk: Sdk) -> None:
    made = [(await sdk.client.videos.create(prompt=f"{i}", model="sandbox/slow")).id for i in range(5)]
    assert [video.id async for video in sdk.client.videos.list(limit=2)] == made[::-1]
    assert [video.id async for video in sdk.client.videos.list(limit=2, order="asc")] == made
    assert [video.id async for video in sdk.client.videos.list(limit=2, order="asc", after=made[2])] == made[3:]
    page = await sdk.client.videos.list(limit=3)
    assert (page.first_id, page.last_id, page.has_more) == (made[4], made[2], True)  # type: ignore[attr-defined]  # not declared there
    assert [video.id async for video in sdk.other(api_key=BOB).videos.list()] == []


async def test_delete_cancels_a_running_video(sdk: Sdk) -> None:
    video = await sdk.client.videos.create(prompt="x", model="sandbox/slow")
    assert (await sdk.client.videos.delete(video.id)).deleted
    found = await sdk.client.videos.retrieve(video.id)
    assert found.status == "failed"
    assert found.error is not None
    assert found.error.code == "cancelled"


async def test_remix_edit_and_extend_make_new_videos(sdk: Sdk) -> None:
    source = await sdk.finished(seconds="4", size="1280x720")
    first = next(iter(sdk.upstream.jobs))
    remix = await sdk.client.videos.remix(source.id, prompt="at night")
    assert (remix.remixed_from_video_id, remix.model, remix.prompt) == (source.id, "up/sora-2", "at night")
    # The SDK takes no {"id": ...} as `video` (it raises before it sends), so the id goes by extra_body.
    unsent: Any = openai.omit
    by_id = {"video": {"id": source.id}}
    edit = await sdk.client.videos.edit(prompt="in snow", video=unsent, extra_body=by_id)
    extended = await sdk.client.videos.extend(prompt="and on", seconds="8", video=unsent, extra_body=by_id)
    assert (edit.remixed_from_video_id, edit.model) == (source.id, "up/sora-2")
    for video in (remix, edit, extended):
        assert (await sdk.client.videos.poll(video.id, **QUICK)).status == "completed"
    calls = {call.path: call.json for call in sdk.upstream.submits[1:]}
    assert calls[f"/v1/videos/{first}/remix"]["prompt"] == "at night"
    assert calls["/v1/videos/edits"]["video"] == {"id": first}
    assert calls["/v1/videos/extensions"]["seconds"] == "8"


async def test_an_uploaded_video_is_edited_and_extended(sdk: Sdk) -> None:
    video_file = ("mine.mp4", sample_mp4(), "video/mp4")
    model = {"model": "up/sora-2"}
    edit = await sdk.client.videos.edit(prompt="in snow", video=video_file, extra_body=model)
    extended = await sdk.client.videos.extend(prompt="and on", seconds="8", video=video_file, extra_body=model)
    for video in (edit, extended):
        assert (await sdk.client.videos.poll(video.id, **QUICK)).status == "completed"
    sent = {call.path: call.fields for call in sdk.upstream.submits}
    expected = File.of("mine.mp4", "video/mp4", sample_mp4())
    assert sent["/v1/videos/edits"] == {"prompt": "in snow", "model": "sora-2", "video": expected}
    assert sent["/v1/videos/extensions"] == {
        "prompt": "and on",
        "model": "sora-2",
        "seconds": "8",
        "video": expected,
    }


async def test_only_finished_videos_can_be_worked_on(sdk: Sdk) -> None:
    video = await sdk.client.videos.create(prompt="x", model="sandbox/slow")
    with pytest.raises(openai.BadRequestError, match="must be completed"):
        await sdk.client.videos.remix(video.id, prompt="y")


async def test_a_character_is_created_read_and_used_by_one_project_only(start_gateway: StartGateway) -> None:
    async with opened(start_gateway, default_model=None) as sdk:
        made = await sdk.client.videos.create_character(name="Ada", video=("ada.mp4", sample_mp4(), "video/mp4"))
        assert made.name == "Ada"
        assert made.id is not None
        assert (await sdk.client.videos.get_character(made.id)).to_dict() == made.to_dict()
        with pytest.raises(openai.NotFoundError):
            await sdk.other(api_key=BOB).videos.get_character(made.id)
        await sdk.finished(extra_body={"characters": [{"id": made.id}]})
        assert sdk.upstream.submits[-1].json["characters"] == [{"id": "char_1"}]
        with pytest.raises(openai.NotFoundError):
            await sdk.other(api_key=BOB).videos.create(
                prompt="x", model="up/sora-2", extra_body={"characters": [{"id": made.id}]}
            )


async def test_characters_need_a_provider_that_makes_them(sdk: Sdk) -> None:
    with pytest.raises(openai.BadRequestError, match="the provider sandbox cannot make characters") as caught:
        await sdk.client.videos.create_character(name="Ada", video=sample_mp4())
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "model")


async def test_a_character_refused_upstream_is_a_400(start_gateway: StartGateway) -> None:
    async with opened(start_gateway, default_model=None) as sdk:
        sdk.upstream.script("character", sdk.upstream.refusal(400, "No face in this video", "no_face"))
        with pytest.raises(openai.BadRequestError, match="No face in this video"):
            await sdk.client.videos.create_character(name="Ada", video=sample_mp4())
        assert len(sdk.upstream.calls["character"]) == 1


async def test_models_are_listed_with_capabilities_and_prices(sdk: Sdk) -> None:
    models = [model.id async for model in sdk.client.models.list()]
    assert {"sandbox/testcard", "sandbox/slow"} <= set(models)
    model = await sdk.client.models.retrieve("sandbox/testcard")
    capabilities = {
        "seconds": {"minimum": 1.0, "maximum": 60.0, "whole": True},
        "default_seconds": 4.0,
        "sizes": None,
        "aspect_ratios": None,
        "resolutions": None,
        "parameters": sorted(OPTIONAL_PARAMETERS),
        "media": ["upload", "url"],
        "operations": ["edit", "extend", "generate", "prepend", "remix"],
        "n": {"minimum": 1, "maximum": 4},
        "passes_unknown_fields": True,
    }
    pricing = {"currency": "USD", "per_second": {"any": 0.0}}
    assert model.to_dict() == {
        "id": "sandbox/testcard",
        "object": "model",
        "created": 0,
        "owned_by": "sandbox",
        "title": None,
        "status": None,
        "routes": ["sandbox/testcard"],
        "capabilities": capabilities,
        "pricing": pricing,
        "served_by": [
            {
                "route": "sandbox/testcard",
                "capabilities": capabilities,
                "pricing": pricing,
                "median_seconds": None,
                "tried_live": "2026-11-26",
            }
        ],
    }
    with pytest.raises(openai.NotFoundError, match="sandbox/testcard"):
        await sdk.client.models.retrieve("sandbox/tescard")


async def test_strict_validation_takes_our_objects(sdk: Sdk, samples: Samples) -> None:
    sdk.upstream.file = samples("hd.mp4")  # of a size that the SDK knows
    strict = AsyncOpenAI(base_url=f"{sdk.url}/v1", api_key=ALICE, _strict_response_validation=True)
    async with strict:
        video = await strict.videos.create_and_poll(
            prompt="x", model="up/sora-2", seconds="4", size="1280x720", **QUICK
        )
        assert video.status == "completed"
        assert [found.id async for found in strict.videos.list()] == [video.id]
        remix = await strict.videos.remix(video.id, prompt="y")
        await strict.videos.poll(remix.id, **QUICK)
        assert (await strict.videos.delete(video.id)).deleted
        failed = await strict.videos.create_and_poll(prompt="x", model="sandbox/fail", **QUICK)
        assert failed.status == "failed"
        assert [model.id async for model in strict.models.list()]


async def test_errors_are_the_sdks_own_classes(sdk: Sdk) -> None:
    videos = sdk.client.videos
    with pytest.raises(openai.AuthenticationError) as unknown_key:
        await sdk.other(api_key="sk-unknown").videos.list()
    assert unknown_key.value.code == "invalid_api_key"
    with pytest.raises(openai.BadRequestError) as bad:
        await videos.create(prompt="x", seconds="abc")  # type: ignore[arg-type]  # wrong on purpose
    assert (bad.value.param, bad.value.code, bad.value.type) == ("seconds", "invalid_value", "invalid_request_error")
    assert bad.value.request_id is not None
    assert bad.value.request_id.startswith("req_")
    with pytest.raises(openai.NotFoundError) as model:
        await videos.create(prompt="x", model="sandbox/tescard")
    assert (model.value.code, model.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        await videos.retrieve("video_unknown")


async def test_a_conflict_is_not_tried_again(sdk: Sdk) -> None:
    video = await sdk.client.videos.create(prompt="x", model="sandbox/slow")
    retries: list[str] = []

    async def note(request: Any) -> None:
        retries.append(request.headers["x-stainless-retry-count"])

    sdk.client._client.event_hooks["request"].append(note)
    with pytest.raises(openai.ConflictError) as conflict:
        await sdk.client.videos.download_content(video.id)
    assert conflict.value.code == "video_not_ready"
    assert retries == ["0"]


async def test_request_id_is_exposed(sdk: Sdk) -> None:
    video = await sdk.client.videos.create(prompt="x", model="sandbox/slow")
    assert video._request_id is not None
    assert video._request_id.startswith("req_")


async def test_an_idempotency_key_makes_a_repeated_create_harmless(sdk: Sdk) -> None:
    headers = {"Idempotency-Key": "order-17"}
    first = await sdk.client.videos.create(prompt="x", model="sandbox/slow", extra_headers=headers)
    again = await sdk.client.videos.create(prompt="x", model="sandbox/slow", extra_headers=headers)
    assert again.id == first.id
    assert [video.id async for video in sdk.client.videos.list()] == [first.id]


async def test_the_synchronous_client_makes_a_video(sdk: Sdk) -> None:
    def make() -> tuple[str, bytes]:
        with OpenAI(base_url=f"{sdk.url}/v1", api_key=ALICE) as client:
            video = client.videos.create_and_poll(prompt="x", model="up/sora-2", input_reference=PNG, **QUICK)
            return video.status, client.videos.download_content(video.id).read()

    status, video_file = await asyncio.to_thread(make)
    assert status == "completed"
    assert hashlib.sha256(video_file).digest() == hashlib.sha256(sdk.upstream.file).digest()
