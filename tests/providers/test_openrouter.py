"""OpenRouter: only what the provider contract suite and the recordings do not cover, beside its list of models."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from contract.recorded import FOLDER
from contract.stage import NOW, read
from fakes.openrouter import SEEDANCE, VEO, FakeOpenRouter
from fakes.server import KEY, Answer, Elsewhere, Fake, serve
from fakes.upstream import ask
from harness import Running, StartGateway

from app import errors
from app.media.uploads import Upload
from app.providers.base import Task
from app.providers.openrouter import OpenRouter
from app.video import Media, Output, Status

pytestmark = pytest.mark.anyio

PUBLIC = "https://gateway.example"
MODEL = f"openrouter/{VEO}"
PICTURE = {"image_url": "https://example.com/a.png"}
FLUX, ALEPH = "openrouter/black-forest-labs/flux-3-video", "openrouter/runway/aleph-2"
VECTORS = json.loads((FOLDER / "openrouter.json").read_text("utf-8"))["cases"][-1]["sdk_reads"]
Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(start_gateway: StartGateway) -> Start:
    @asynccontextmanager
    async def started(fake: Fake, config: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[Running]:
        async with serve(fake) as url:
            providers = {"openrouter": {"api_key": KEY, "base_url": f"{url}/api/v1", **(config or {})}}
            values = {"providers": providers, "allow_networks": ["127.0.0.0/8"], **settings}
            async with start_gateway(**values) as running:
                yield running

    return started


@pytest.fixture
def fake() -> FakeOpenRouter:
    return FakeOpenRouter()


@pytest.fixture
async def gateway(fake: FakeOpenRouter, start: Start) -> AsyncIterator[Running]:
    async with start(fake) as running:
        yield running


@asynccontextmanager
async def provider_of(fake: FakeOpenRouter, **config: Any) -> AsyncIterator[OpenRouter]:
    async with serve(fake) as url:
        provider = OpenRouter("up", OpenRouter.Config(api_key=KEY, base_url=f"{url}/api/v1", **config))
        yield provider
        await provider.aclose()


def task(**fields: Any) -> Task:
    return Task(**{"id": "attempt_1", "model": VEO, "request": ask(), "read": read, "now": NOW, **fields})


async def running(gateway: Running, fake: FakeOpenRouter, **fields: Any) -> tuple[str, str]:
    """Ids of a new video, here and there, once it is submitted."""
    video = await gateway.create(**{"model": MODEL, **fields})
    await gateway.worker.run_once()
    return video["id"], [*fake.jobs][-1]


async def list_read(gateway: Running) -> None:
    """Let the event loop run until the vendor's list has been read."""
    provider = gateway.gateway.providers["openrouter"]
    assert isinstance(provider, OpenRouter)
    provider.capabilities(VEO)
    async with asyncio.timeout(10):
        while True:
            if not provider._list.is_first_pending:
                return
            await asyncio.sleep(0.01)


# What is sent


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"duration": 6, "resolution": "720p", "aspect_ratio": "16:9", "generate_audio": True}),
        ({"size": "2160x3840", "seconds": 8}, {"resolution": "4K", "aspect_ratio": "9:16", "duration": 8}),
        ({"generate_audio": False}, {"generate_audio": False}),
        ({"input_reference": PICTURE}, {"resolution": "720p", "aspect_ratio": None}),
        ({"input_reference": PICTURE, "aspect_ratio": "9:16"}, {"aspect_ratio": "9:16"}),
        ({"model": "openrouter/minimax/hailuo-3"}, {"resolution": "2K", "duration": 5}),
        ({"model": "openrouter/minimax/hailuo-3-max"}, {"resolution": "768p", "generate_audio": None}),
        ({"model": "openrouter/x-ai/grok-imagine-video"}, {"generate_audio": None, "duration": 5}),
        ({"model": "openrouter/maker/new-1"}, {"duration": None, "resolution": None, "generate_audio": None}),
    ],
)
async def test_what_decides_on_the_price_is_always_sent(
    gateway: Running, fake: FakeOpenRouter, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    await list_read(gateway)
    await running(gateway, fake, **fields)
    (call,) = fake.submits
    assert {name: call.json.get(name) for name in expected} == expected
    assert "size" not in call.json
    assert len(fake.jobs) == 1


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        (VEO, {"seconds": 5}, "seconds"),
        (VEO, {"resolution": "480p"}, "resolution"),
        (VEO, {"aspect_ratio": "21:9"}, "aspect_ratio"),
        (VEO, {"negative_prompt": "people"}, "negative_prompt"),
        (VEO, {"reference_images": [PICTURE["image_url"]]}, "reference_images"),
        (VEO, {"duration_seconds": 60}, "duration_seconds"),
        (SEEDANCE, {"input_reference": PICTURE, "reference_images": [PICTURE["image_url"]]}, "reference_images"),
        ("maker/new-1", {"input_reference": PICTURE, "reference_images": [PICTURE["image_url"]]}, "reference_images"),
        ("minimax/hailuo-2.3", {"last_frame": PICTURE["image_url"]}, "last_frame"),
        ("minimax/hailuo-3-max", {"generate_audio": False}, "generate_audio"),
        ("x-ai/grok-imagine-video", {"seed": 1}, "seed"),
        ("runway/aleph-2", {}, None),
    ],
)
async def test_a_field_that_the_model_would_refuse_or_ignore_is_refused_before_it_is_sent(
    gateway: Running, fake: FakeOpenRouter, model: str, fields: dict[str, Any], param: str | None
) -> None:
    body = {"prompt": "a boat", "model": f"openrouter/{model}", **fields}
    answer = await gateway.client.post("/v1/videos", json=body)
    assert answer.status_code == 400, answer.text
    assert param is None or answer.json()["error"]["param"] == param
    assert fake.submits == []


async def test_the_makers_own_options_go_by_way_of_provider(gateway: Running, fake: FakeOpenRouter) -> None:
    options = {"options": {"google-vertex": {"parameters": {"negativePrompt": "people"}}}}
    await running(gateway, fake, provider=options)
    assert fake.submits[0].json["provider"] == options


async def test_uploads_beyond_the_limit_of_a_body_are_not_sent(fake: FakeOpenRouter) -> None:
    @asynccontextmanager
    async def large(media: Media) -> AsyncIterator[Upload]:
        async def chunks() -> AsyncIterator[bytes]:
            yield bytes(19 * 2**20)

        yield Upload("a.png", "image/png", 19 * 2**20, chunks())

    frames = ask(first_frame=Media(key="a"), last_frame=Media(key="b"))
    async with provider_of(fake) as provider:
        with pytest.raises(errors.UpstreamRejected, match="at most 50 MiB"):
            await provider.send(task(request=frames, read=large))
        assert fake.submits == []


async def test_a_video_goes_on_where_it_was_made(gateway: Running, fake: FakeOpenRouter) -> None:
    source, ref = await running(gateway, fake, model=FLUX, aspect_ratio="9:16")
    assert (await gateway.finish(source))["status"] == "completed"
    body = {"prompt": "by night", "model": FLUX, "seconds": "5", "video": {"id": source}}
    created = await gateway.client.post("/v1/videos/extensions", json=body)
    assert created.status_code == 202, created.text
    assert (await gateway.finish(created.json()["id"]))["status"] == "completed"
    sent = {"model": FLUX.removeprefix("openrouter/"), "prompt": "by night", "duration": 5, "generate_audio": True}
    assert fake.submits[1].json == {**sent, "previous_job_id": ref}
    assert created.json()["cost_estimate"] == pytest.approx(5 * 0.41)


async def test_a_source_that_is_not_finished_there_is_a_refusal(gateway: Running, fake: FakeOpenRouter) -> None:
    source, ref = await running(gateway, fake, model=FLUX)
    assert (await gateway.finish(source))["status"] == "completed"
    fake.jobs[ref].status = fake.waiting
    body = {"prompt": "by night", "model": FLUX, "seconds": "5", "video": {"id": source}}
    created = await gateway.client.post("/v1/videos/extensions", json=body)
    ended = await gateway.finish(created.json()["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "upstream_rejected")
    assert "previous job is not completed" in ended["error"]["message"]
    assert len(fake.submits) == 2


async def test_what_was_made_elsewhere_cannot_go_on_here(fake: FakeOpenRouter) -> None:
    async with provider_of(fake) as provider:
        request = ask(operation="extend", source=Media(url="https://example.com/in.mp4"))
        with pytest.raises(errors.UpstreamRejected, match="a video it has made"):
            await provider.send(task(request=request))
    assert fake.submits == []


async def test_a_video_of_the_gateway_is_edited_at_a_signed_link(start: Start, fake: FakeOpenRouter) -> None:
    async with start(fake, public_url=PUBLIC) as gateway:
        source, _ = await running(gateway, fake)
        await gateway.finish(source)
        body = {"prompt": "by night", "model": ALEPH, "video": {"id": source}}
        created = await gateway.client.post("/v1/videos/edits", json=body)
        assert created.status_code == 202, created.text
        await gateway.worker.run_once()
        (part,) = fake.submits[1].json["input_references"]
        assert part["video_url"]["url"].startswith(f"{PUBLIC}/media/")
        assert fake.submits[1].json.keys() == {"model", "prompt", "input_references", "callback_url"}


# Polls, and where the file is


@pytest.mark.parametrize("url", ["https://evil.example/steal", "/api/v1/videos/another", "http://[::1", None, {}, 7])
async def test_a_task_is_polled_by_its_id_whatever_polling_url_says(
    gateway: Running, fake: FakeOpenRouter, url: Any
) -> None:
    fake.script("submit", Answer(202, {"id": "gen-vid-1", "status": "pending", "polling_url": url}, accepted=False))
    fake.job("gen-vid-1", {"model": VEO}).raw["polling_url"] = url
    video_id, _ = await running(gateway, fake)
    assert (await gateway.finish(video_id))["status"] == "completed"
    assert {call.path for call in fake.polls} == {"/api/v1/videos/gen-vid-1"}
    assert fake.calls["other"] == []


async def test_an_id_cannot_change_the_path(fake: FakeOpenRouter) -> None:
    async with provider_of(fake) as provider:
        for ref in ("../models", "a/../../key", "x?y=1#z"):
            with pytest.raises(errors.UpstreamGone):
                await provider.poll(task(ref=ref))
    assert {call.path.count("/") for call in fake.polls} == {4}
    assert (fake.calls["models"], fake.calls["other"]) == ([], [])


async def test_the_signed_copy_is_fetched_first_and_without_the_key(start: Start) -> None:
    fake = FakeOpenRouter(stored=True)
    async with start(fake) as gateway:
        video_id, ref = await running(gateway, fake)
        done = await gateway.finish(video_id)
        assert (done["status"], await stored(gateway, video_id)) == ("completed", fake.file)
        (call,) = fake.contents
        assert (call.path, call.query) == (f"/store/{ref}.mp4", "sig=1")
        assert "authorization" not in call.headers


async def stored(gateway: Running, video_id: str) -> bytes:
    return (await gateway.client.get(f"/v1/videos/{video_id}/content")).content


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_signed_copy_that_is_gone_is_replaced_by_the_content_call(start: Start, status: int) -> None:
    fake = FakeOpenRouter(stored=True)
    fake.script("content", Answer(status, "<Error><Code>AccessDenied</Code></Error>"))
    async with start(fake) as gateway:
        video_id, ref = await running(gateway, fake)
        assert (await gateway.finish(video_id))["status"] == "completed"
        signed, content = fake.contents
        assert "authorization" not in signed.headers
        assert (content.path, content.query) == (f"/api/v1/videos/{ref}/content", "index=0")
        assert content.headers["authorization"] == f"Bearer {KEY}"
        assert await stored(gateway, video_id) == fake.file


async def test_a_signed_link_that_has_expired_is_not_tried(fake: FakeOpenRouter) -> None:
    fake.stored = True
    async with provider_of(fake) as provider:
        sent = task(ref=(await provider.send(task())).ref)
        fake.finish(str(sent.ref))
        for expires_at, named in ((NOW.timestamp(), False), (NOW.timestamp() + 60, True), ("soon", True), (None, True)):
            fake.jobs[str(sent.ref)].raw["expires_at"] = expires_at
            progress = await provider.poll(sent)
            assert progress.status is Status.completed
            assert progress.output is not None
            assert (progress.output.url is not None) is named


async def test_an_address_that_an_operator_gave_is_the_only_one(fake: FakeOpenRouter) -> None:
    async with provider_of(fake) as provider:
        sent = task(ref=(await provider.send(task())).ref)
        fake.finish(str(sent.ref))
        elsewhere = provider.fetch(sent, Output(url=f"{provider.config.base_url}/nothing", direct=True))
        with pytest.raises(errors.UpstreamGone):
            async with elsewhere:
                pass
    assert fake.contents == []


@pytest.mark.parametrize(
    "raw",
    [
        {"unsigned_urls": []},
        {"unsigned_urls": None, "urls": None},
        {"unsigned_urls": "https://openrouter.ai/x", "urls": {}},
        {"unsigned_urls": [None, {"url": "x"}], "urls": [7, ["https://evil.example"]]},
        {"unsigned_urls": ["javascript:alert(1)"], "urls": ["file:///etc/passwd", "ftp://x"]},
    ],
)
async def test_completed_without_a_file_is_failed(gateway: Running, fake: FakeOpenRouter, raw: dict[str, Any]) -> None:
    video_id, ref = await running(gateway, fake)
    fake.finish(ref)
    fake.jobs[ref].raw |= raw
    ended = await gateway.finish(video_id)
    assert (ended["status"], ended["error"]["code"]) == ("failed", "no_output")
    assert fake.contents == []


async def test_the_key_stays_with_the_configured_host(gateway: Running, fake: FakeOpenRouter) -> None:
    elsewhere = Elsewhere()
    async with serve(elsewhere, host="127.0.0.2") as other:
        video_id, ref = await running(gateway, fake)
        fake.finish(ref)
        addresses = {"unsigned_urls": [f"{other}/steal"], "polling_url": f"{other}/steal", "urls": None}
        fake.jobs[ref].raw |= addresses
        assert (await gateway.finish(video_id))["status"] == "completed"
        assert elsewhere.calls == []
        second, ref = await running(gateway, fake)
        fake.finish(ref)
        fake.jobs[ref].raw["urls"] = [f"{other}/copy.mp4"]
        assert (await gateway.finish(second))["status"] == "completed"
        assert [("authorization" in call.headers, call.path) for call in elsewhere.calls] == [(False, "/copy.mp4")]


@pytest.mark.parametrize(("word", "code"), [("dead", "generation_failed"), ("expired", "expired")])
async def test_a_dead_task_has_ended(gateway: Running, fake: FakeOpenRouter, word: str, code: str) -> None:
    video_id, ref = await running(gateway, fake)
    fake.show(ref, word)
    ended = await gateway.finish(video_id)
    assert (ended["status"], ended["error"]["code"]) == ("failed", code)
    assert len(fake.polls) == 1


@pytest.mark.parametrize(
    "error", ["no", {"message": "no", "code": 502}, {"message": {"a": 1}}, [], 7, None, {"x": "y"}]
)
async def test_a_failure_of_any_shape_is_a_failure(gateway: Running, fake: FakeOpenRouter, error: Any) -> None:
    video_id, ref = await running(gateway, fake)
    fake.fail(ref)
    fake.jobs[ref].raw["error"] = error
    ended = await gateway.finish(video_id)
    assert (ended["status"], ended["error"]["code"]) == ("failed", "generation_failed")


@pytest.mark.parametrize(
    ("usage", "micros"),
    [
        ({"cost": 3.2, "is_byok": False}, 3_200_000),
        ({"cost": None, "is_byok": True}, None),
        ({"cost": -1}, None),
        ({"cost": "3.2"}, None),
        ([], None),
    ],
)
async def test_the_cost_that_the_vendor_reports_is_kept(
    gateway: Running, fake: FakeOpenRouter, usage: Any, micros: int | None
) -> None:
    video_id, ref = await running(gateway, fake)
    fake.finish(ref)
    fake.jobs[ref].raw["usage"] = usage
    await gateway.finish(video_id)
    (attempt,) = await gateway.attempts(video_id)
    assert attempt.reported_micros == micros


# Refusals


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (403, {"message": "flagged", "metadata": {"reasons": ["violence"]}}, errors.ContentPolicy),
        (403, {"message": "", "metadata": {"reasons": ["violence", 7]}}, errors.ContentPolicy),
        (403, {"message": "Key limit exceeded", "metadata": {"reasons": "x"}}, errors.UpstreamAccount),
        (403, {"message": "no", "metadata": {"reasons": []}}, errors.UpstreamAccount),
        (403, "no", errors.UpstreamAccount),
        (404, {"message": "No endpoints found for x"}, errors.UpstreamRejected),
        (499, {"message": "closed"}, errors.UpstreamUnknown),
        (503, {"message": "There is no available model provider that meets your needs"}, errors.UpstreamUnavailable),
        (503, {"message": "No available provider"}, errors.UpstreamUnavailable),
        (503, {"message": "Provider is overloaded"}, errors.UpstreamUnknown),
        (503, {"message": "connection to the provider lost"}, errors.UpstreamUnknown),
        (503, None, errors.UpstreamUnknown),
        (409, {"message": "busy"}, errors.UpstreamUnknown),
        (502, {"message": "provider failed"}, errors.UpstreamUnknown),
    ],
)
async def test_a_refusal_says_whether_anything_was_made(
    fake: FakeOpenRouter, status: int, error: Any, kind: type[errors.UpstreamError]
) -> None:
    async with provider_of(fake) as provider:
        fake.script("submit", Answer(status, {"error": error}))
        with pytest.raises(errors.UpstreamError) as caught:
            await provider.send(task())
    assert type(caught.value) is kind
    assert caught.value.upstream_status == status
    assert caught.value.message


async def test_a_broken_connection_while_polling_is_no_verdict(fake: FakeOpenRouter) -> None:
    async with provider_of(fake) as provider:
        sent = task(ref=(await provider.send(task())).ref)
        fake.script("poll", Answer(499, {"error": {"message": "closed"}}))
        with pytest.raises(errors.UpstreamUnavailable):
            await provider.poll(sent)
        assert (await provider.poll(sent)).status is Status.queued


# Callbacks


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["case"])
async def test_a_callback_is_judged_by_the_published_rule(vector: dict[str, Any]) -> None:
    provider = OpenRouter("up", OpenRouter.Config(api_key=KEY, webhook_secret=vector["secret"]))
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    late = 301 if "301 s" in vector["case"] else 0
    now = datetime.fromtimestamp(1_795_600_800 + late, UTC)
    valid = provider.is_callback(headers, vector["body"].encode(), secret="x", now=now)
    assert valid is (vector["verdict"] == "valid")
    await provider.aclose()


@pytest.mark.parametrize("given", ["", "t=,v1=", "v1=00", "t=1795600800", "t=x,v1=" + "0" * 64, "t=" + "9" * 400, "é"])
async def test_a_signature_of_another_shape_is_none(given: str) -> None:
    provider = OpenRouter("up", OpenRouter.Config(api_key=KEY, webhook_secret="s"))
    assert provider.is_callback({"x-openrouter-signature": given}, b"{}", secret="x", now=NOW) is False
    await provider.aclose()


@pytest.mark.parametrize("secret", [None, "or-secret-1"])
async def test_a_callback_means_poll_now(start: Start, fake: FakeOpenRouter, secret: str | None) -> None:
    async with start(fake, {"webhook_secret": secret} if secret else {}, public_url=PUBLIC) as gateway:
        video_id, ref = await running(gateway, fake)
        callback = urlsplit(fake.submits[0].json["callback_url"]).path
        fake.finish(ref)
        event = {"type": "video.generation.failed", "data": {"id": ref, "status": "failed"}}
        answer = await gateway.client.post(callback, json=event)
        assert answer.status_code == (200 if secret is None else 401)
        await gateway.worker.run_once()
        assert len(fake.polls) == (1 if secret is None else 0)
        assert (await gateway.finish(video_id))["status"] == "completed"
