"""Runway: only what the provider contract suite and the recordings do not cover."""

import base64
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest
from contract.stage import NOW
from fakes.runway import FakeRunway
from fakes.server import KEY, Answer, Call, Elsewhere, Fault, File, Reset, serve
from fakes.upstream import ask
from harness import ORIGIN, Running, StartGateway
from money import ADMIN, operator_of

from app import errors
from app.media.uploads import Upload
from app.providers.base import Outbound, Task
from app.providers.runway import Runway, endpoints
from app.providers.runway.storage import MAX_BYTES
from app.video import Media, Operation, Status

pytestmark = pytest.mark.anyio

GEN, TURBO, VEO, ALEPH = "runway/gen4.5", "runway/gen4_turbo", "runway/veo3.1", "runway/aleph2"
SEEDANCE, SEEDANCE_25, HAILUO, OMNI = "runway/seedance2", "runway/seedance2_5", "runway/hailuo3", "runway/klingO3_pro"
URL = "https://example.com/a.png"
PICTURE = {"image_url": URL}
CLIP = "https://example.com/in.mp4"


@pytest.fixture
def fake() -> FakeRunway:
    return FakeRunway()


@pytest.fixture
async def gateway(fake: FakeRunway, start_gateway: StartGateway) -> AsyncIterator[Running]:
    async with serve(fake) as url:
        providers = {"runway": {"api_key": KEY, "base_url": f"{url}/v1"}}
        settings = {"allow_networks": ["127.0.0.0/8"], "public_url": ORIGIN, "admin_key": ADMIN}
        async with start_gateway(providers=providers, **settings) as running:
            yield running


@asynccontextmanager
async def provider_at(url: str, *, allow: bool = True, **config: Any) -> AsyncIterator[Runway]:
    values = {"api_key": KEY, "base_url": url, "timeout_s": 5, **config}
    provider = Runway("runway", Runway.Config(**values), Outbound((ip_network("127.0.0.0/8"),) if allow else ()))
    try:
        yield provider
    finally:
        await provider.aclose()


def task_of(size: int = 100, **fields: Any) -> Task:
    """A task with an upload of so many bytes as first frame."""

    @asynccontextmanager
    async def read(media: Media) -> AsyncIterator[Upload]:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, size, 2**20):
                yield bytes(min(2**20, size - start))

        yield Upload("boat.png", "image/png", size, chunks())

    request = ask(first_frame=Media(key="boat"), aspect_ratio="16:9")
    return Task(**{"id": "attempt_1", "model": "gen4.5", "request": request, "read": read, "now": NOW, **fields})


async def sent(gateway: Running, fake: FakeRunway, **fields: Any) -> Call:
    """The paid request of a new video, which the fake has taken."""
    await gateway.create(**fields)
    await gateway.worker.run_once()
    assert len(fake.jobs) == len(fake.submits)
    return fake.submits[-1]


async def edited(gateway: Running, fake: FakeRunway, path: str = "edits", **fields: Any) -> Call:
    """The paid request of a video that is made from one of the gateway."""
    source = await gateway.create(model=GEN)
    assert (await gateway.finish(source["id"]))["status"] == "completed"
    body = {"prompt": "make it snow", "video": {"id": source["id"]}, **fields}
    answer = await gateway.client.post(f"/v1/videos/{path}", json=body)
    assert answer.status_code == 202, answer.text
    await gateway.worker.run_once()
    assert len(fake.jobs) == len(fake.submits) == 2
    return fake.submits[-1]


# Endpoints, and the names of fields by model


@pytest.mark.parametrize(
    ("model", "fields", "path"),
    [
        (GEN, {}, "text_to_video"),
        (GEN, {"input_reference": PICTURE}, "image_to_video"),
        (TURBO, {"input_reference": PICTURE}, "image_to_video"),
        (SEEDANCE, {"reference_images": [URL]}, "text_to_video"),
        (OMNI, {"input_reference": PICTURE, "reference_images": [URL]}, "image_to_video"),
        (VEO, {"input_reference": PICTURE, "last_frame": URL}, "image_to_video"),
    ],
)
async def test_the_kind_of_input_decides_on_the_path(
    gateway: Running, fake: FakeRunway, model: str, fields: dict[str, Any], path: str
) -> None:
    call = await sent(gateway, fake, model=model, **fields)
    assert (call.path, call.headers["x-runway-version"]) == (f"/v1/{path}", "2024-11-06")


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (ALEPH, "videoUri"),
        ("runway/gemini_omni_flash", "videoUri"),
        ("runway/gemini_omni_flash_1.1", "videoUri"),
        ("runway/kling_4", "videoUri"),
        (SEEDANCE, "promptVideo"),
        (SEEDANCE_25, "promptVideo"),
        (HAILUO, "promptVideo"),
        (OMNI, "promptVideo"),
    ],
)
async def test_the_model_decides_on_the_field_for_a_video(
    gateway: Running, fake: FakeRunway, model: str, field: str
) -> None:
    call = await edited(gateway, fake, model=model)
    assert call.path == "/v1/video_to_video"
    assert call.json[field].startswith(f"{ORIGIN}/")  # a signed link


@pytest.mark.parametrize(("model", "seconds"), [(SEEDANCE_25, 7), ("runway/gemini_omni_flash_1.1", 7)])
async def test_an_extension_has_a_mode_and_the_shape_of_its_source(
    gateway: Running, fake: FakeRunway, model: str, seconds: int
) -> None:
    body = (await edited(gateway, fake, "extensions", model=model, seconds=str(seconds))).json
    assert (body["mode"], body["duration"], "ratio" in body) == ("extend", seconds, False)


async def test_a_model_without_a_mode_extends_nothing(gateway: Running, fake: FakeRunway) -> None:
    source = await gateway.create(model=GEN)
    assert (await gateway.finish(source["id"]))["status"] == "completed"
    body = {"prompt": "go on", "model": SEEDANCE, "video": {"id": source["id"]}, "seconds": "5"}
    assert (await gateway.client.post("/v1/videos/extensions", json=body)).status_code == 400
    assert len(fake.submits) == 1


@pytest.mark.parametrize(
    ("given", "duration"),
    [({"seconds": 7}, 7), ({"source": Media(video_id="video_1", seconds=8.2)}, 8), ({}, 5)],
)
async def test_an_edit_is_as_long_as_its_source(fake: FakeRunway, given: dict[str, Any], duration: int) -> None:
    request = ask(operation=Operation.edit, **{"source": Media(url=CLIP), **given})
    able = endpoints.capabilities_for("seedance2", request)
    assert able.default_seconds == (8 if "source" in given else 5)
    async with serve(fake) as url, provider_at(url) as provider:
        await provider.send(task_of(model="seedance2", request=request, link=lambda media: media.url or CLIP))
    assert fake.submits[0].json["duration"] == duration


async def test_a_video_to_edit_needs_an_address(fake: FakeRunway) -> None:
    async with serve(fake) as url, provider_at(url) as provider:
        request = ask(operation=Operation.edit, source=Media(video_id="video_1"))
        with pytest.raises(errors.UpstreamRejected, match="GATEWAY_PUBLIC_URL"):
            await provider.send(task_of(model="aleph2", request=request, link=lambda media: None))
    assert fake.submits == []


async def test_a_draft_is_enhanced_without_any_other_field(gateway: Running, fake: FakeRunway) -> None:
    draft = await sent(gateway, fake, model=SEEDANCE_25, draft=True, resolution="480p")
    assert (draft.json["draft"], draft.json["ratio"]) == (True, "854:480")
    (ref,) = fake.jobs
    body = (await sent(gateway, fake, model=SEEDANCE_25, draftTaskId=ref, resolution="1080p")).json
    assert body == {"model": "seedance2_5", "draftTaskId": ref}


async def test_a_model_that_is_not_in_the_table_gets_the_commonest_fields(gateway: Running, fake: FakeRunway) -> None:
    await gateway.create(model="runway/gen5", size="1280x720", seconds=6, input_reference=PICTURE, motion="high")
    await gateway.worker.run_once()
    (call,) = fake.submits
    shape = {"ratio": "1280:720", "duration": 6, "motion": "high"}
    assert call.path == "/v1/image_to_video"
    assert call.json == {"model": "gen5", "promptText": "a paper boat", "promptImage": URL, **shape}


# Formats


@pytest.mark.parametrize("model", endpoints.FACTS)
def test_every_format_of_a_model_has_a_ratio_and_a_resolution_of_its_own(model: str) -> None:
    for endpoint in endpoints.of(model):
        pixels = [option for option in endpoint.options("ratio") if endpoints.PIXELS.fullmatch(option)]
        assert sorted(endpoint.formats.values()) == sorted(pixels)
        assert len(pixels) in (0, len(endpoint.ratios) * len({tier for _, tier in endpoint.formats}))


@pytest.mark.parametrize(
    ("model", "fields", "shape"),
    [
        (GEN, {}, {"ratio": "1280:720"}),
        (GEN, {"size": "720x1280"}, {"ratio": "720:1280"}),
        (VEO, {"aspect_ratio": "9:16", "resolution": "1080p"}, {"ratio": "1080:1920"}),
        (SEEDANCE, {"aspect_ratio": "16:9", "resolution": "480p"}, {"ratio": "864:496"}),
        (SEEDANCE, {"aspect_ratio": "21:9", "resolution": "4k"}, {"ratio": "3840:1646"}),
        (SEEDANCE, {"size": "960x960"}, {"ratio": "960:960"}),
        (SEEDANCE, {"size": "1470x630"}, {"ratio": "1470:630"}),
        (SEEDANCE_25, {"aspect_ratio": "16:9", "resolution": "480p"}, {"ratio": "854:480"}),
        (SEEDANCE, {"input_reference": PICTURE}, {}),
        (SEEDANCE, {"input_reference": PICTURE, "resolution": "1080p"}, {"ratio": "1920:1080"}),
        (GEN, {"input_reference": PICTURE}, {"ratio": "1280:720"}),
        (GEN, {"input_reference": PICTURE, "aspect_ratio": "3:4"}, {"ratio": "832:1104"}),
        ("runway/wan3", {"input_reference": PICTURE, "resolution": "1080p"}, {"ratio": "auto_1080p"}),
        ("runway/wan3", {"size": "832x480"}, {"ratio": "832:480"}),
        ("runway/kling_4", {"input_reference": PICTURE}, {"ratio": "auto_720p"}),
        ("runway/kling3.0_4k", {}, {"ratio": "3840:2160"}),
        ("runway/kling2.5_turbo_pro", {"input_reference": PICTURE}, {}),
        (HAILUO, {"resolution": "720p", "aspect_ratio": "16:9"}, {"resolution": "768p", "ratio": "16:9"}),
        (HAILUO, {"resolution": "2k"}, {"resolution": "2k", "ratio": "16:9"}),
        (HAILUO, {"input_reference": PICTURE}, {"resolution": "768p"}),
        ("runway/h3_max", {"resolution": "480p"}, {"resolution": "480p"}),
        ("runway/happyhorse_1_0", {"input_reference": PICTURE, "resolution": "1080p"}, {"resolution": "1080p"}),
        ("runway/grok_imagine_1_5_lite", {"aspect_ratio": "3:2", "resolution": "480p"}, {"ratio": "720:480"}),
    ],
)
async def test_a_format_is_in_the_models_own_words(
    gateway: Running, fake: FakeRunway, model: str, fields: dict[str, Any], shape: dict[str, str]
) -> None:
    body = (await sent(gateway, fake, model=model, **fields)).json
    assert {name: body[name] for name in ("ratio", "resolution") if name in body} == shape


@pytest.mark.parametrize(
    ("model", "width", "height", "ratio"),
    [(GEN, 720, 1280, "720:1280"), (GEN, 900, 1200, "832:1104"), (SEEDANCE, 1000, 1000, "960:960")],
)
async def test_an_uploaded_frame_decides_on_the_ratio(
    gateway: Running, fake: FakeRunway, model: str, width: int, height: int, ratio: str
) -> None:
    url = f"data:image/png;base64,{base64.b64encode(png(width, height)).decode()}"
    assert (await sent(gateway, fake, model=model, input_reference=url)).json["ratio"] == ratio


def png(width: int, height: int) -> bytes:
    """A black picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes((width + 1) * height))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("model", "first", "value"),
    [
        (GEN, PICTURE, URL),
        ("runway/kling_4", PICTURE, URL),
        (SEEDANCE, PICTURE, [{"uri": URL, "position": "first"}]),
        (HAILUO, PICTURE, [{"uri": URL, "position": "first"}]),
    ],
)
async def test_a_picture_is_a_first_frame_and_no_reference(
    gateway: Running, fake: FakeRunway, model: str, first: Any, value: Any
) -> None:
    assert (await sent(gateway, fake, model=model, input_reference=first)).json["promptImage"] == value


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        (TURBO, {}, "input_reference"),
        (GEN, {"seconds": 11}, "seconds"),
        (GEN, {"resolution": "1080p"}, "resolution"),
        (GEN, {"aspect_ratio": "4:3"}, "aspect_ratio"),
        (GEN, {"input_reference": PICTURE, "last_frame": URL}, "last_frame"),
        (GEN, {"generate_audio": True}, "generate_audio"),
        (VEO, {"seconds": 5}, "seconds"),
        (SEEDANCE, {"reference_images": [URL] * 10}, "reference_images"),
        (SEEDANCE, {"input_reference": PICTURE, "reference_images": [URL]}, "reference_images"),
        (OMNI, {"reference_images": [URL]}, "reference_images"),
        ("runway/grok_imagine_1_5", {"reference_images": [URL], "resolution": "1080p"}, "resolution"),
        (SEEDANCE_25, {"keyframes": []}, "keyframes"),
    ],
)
async def test_a_field_that_the_endpoint_would_refuse_is_refused_before_it_is_sent(
    gateway: Running, fake: FakeRunway, model: str, fields: dict[str, Any], param: str
) -> None:
    answer = await gateway.client.post("/v1/videos", json={"prompt": "a boat", "model": model, **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert fake.submits == []


# Money


@pytest.mark.parametrize(
    ("model", "fields", "cost"),
    [
        (GEN, {}, 5 * 0.12),
        (VEO, {}, 8 * 0.4),
        (VEO, {"generate_audio": False, "seconds": 4}, 4 * 0.2),
        (SEEDANCE, {"size": "2206x946"}, 5 * 0.4),
        (SEEDANCE, {"input_reference": PICTURE}, 5 * 0.36),
        ("runway/seedance2_mini", {"seconds": 2}, 0.64),
        (SEEDANCE_25, {"seconds": 2}, 0.8),
        (SEEDANCE_25, {"reference_video": CLIP}, None),
        (SEEDANCE_25, {"draft": True}, None),
        (SEEDANCE_25, {"draft": False}, 5 * 0.3),
        (GEN, {"outputFormat": "hdr10"}, None),
        (GEN, {"outputFormat": "mp4"}, 5 * 0.12),
        (HAILUO, {"resolution": "2k"}, 5 * 0.15),
        ("runway/kling_4", {}, None),
    ],
)
async def test_a_video_costs_what_was_sent(
    gateway: Running, model: str, fields: dict[str, Any], cost: float | None
) -> None:
    video = await gateway.create(model=model, **fields)
    assert video["cost_estimate"] == (None if cost is None else pytest.approx(cost, abs=1e-6))


async def test_sound_is_always_said_where_it_has_a_price(gateway: Running, fake: FakeRunway) -> None:
    assert (await sent(gateway, fake, model=VEO)).json["audio"] is True
    assert (await sent(gateway, fake, model=VEO, generate_audio=False)).json["audio"] is False
    assert "audio" not in (await sent(gateway, fake, model=SEEDANCE)).json


async def test_credits_are_kept_as_dollars(gateway: Running) -> None:
    async with operator_of(gateway) as operator:
        video = await gateway.create(model=GEN)
        assert (await gateway.finish(video["id"]))["status"] == "completed"
        [row] = (await operator.ask("GET", "usage"))["data"]
    assert row["reported_usd"] == 0.6


@pytest.mark.parametrize(
    "cost", [None, 7, "60", {}, {"credits": "60"}, {"credits": True}, {"credits": -1}, {"credits": 1e300}]
)
async def test_a_cost_that_is_none_is_not_kept(fake: FakeRunway, cost: Any) -> None:
    async with serve(fake) as url, provider_at(url) as provider:
        ref = (await provider.send(task_of())).ref
        fake.finish(ref)
        fake.jobs[ref].raw["cost"] = cost
        progress = await provider.poll(task_of(ref=ref))
    assert (progress.status, progress.reported_micros) == (Status.completed, None)


# States


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ("SAFETY.INPUT.TEXT", "content_policy_violation"),
        ("SAFETY.OUTPUT.VIDEO", "content_policy_violation"),
        ("INPUT_PREPROCESSING.SAFETY.TEXT", "content_policy_violation"),
        ("THIRD_PARTY.SAFETY", "content_policy_violation"),
        ("INPUT_PREPROCESSING.INTERNAL", "generation_failed"),
        ("INTERNAL.BAD_OUTPUT.CODE01", "generation_failed"),
        ("INTERNAL", "generation_failed"),
        ("ASSET.INVALID", "upstream_rejected"),
        ("NEW.CODE", "NEW.CODE"),
        (7, "generation_failed"),
    ],
)
async def test_a_failure_has_the_gateways_code(gateway: Running, fake: FakeRunway, code: Any, kept: str) -> None:
    video = await gateway.create(model=GEN)
    await gateway.worker.run_once()
    (ref,) = fake.jobs
    fake.fail(ref, code, "it did not work")
    ended = await gateway.finish(video["id"])
    assert (ended["status"], ended["error"]["code"], ended["error"]["message"]) == ("failed", kept, "it did not work")


@pytest.mark.parametrize(("value", "percent"), [(0.42, 42), (1, 100), (7, 100), (-1, 0), ("0.4", None), (True, None)])
async def test_progress_is_a_share_of_one(fake: FakeRunway, value: Any, percent: int | None) -> None:
    async with serve(fake) as url, provider_at(url) as provider:
        ref = (await provider.send(task_of())).ref
        fake.show(ref, "RUNNING")
        fake.jobs[ref].raw["progress"] = value
        assert (await provider.poll(task_of(ref=ref))).progress == percent


async def test_a_throttled_task_waits_and_a_cancelled_one_has_failed(gateway: Running, fake: FakeRunway) -> None:
    video = await gateway.create(model=GEN)
    await gateway.worker.run_once()
    (ref,) = fake.jobs
    fake.show(ref, "THROTTLED")
    gateway.clock.advance(60)
    await gateway.worker.run_once()
    assert (await gateway.client.get(f"/v1/videos/{video['id']}")).json()["status"] == "queued"
    fake.show(ref, "CANCELLED")
    ended = await gateway.finish(video["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "cancelled")


@pytest.mark.parametrize("interval", [None, 1, 20])
async def test_a_task_is_polled_at_most_every_five_seconds(
    start_gateway: StartGateway, fake: FakeRunway, interval: float | None
) -> None:
    times: list[float] = []
    async with serve(fake) as url:
        providers = {"runway": {"api_key": KEY, "base_url": url, "poll_interval_s": interval}}
        async with start_gateway(providers=providers) as gateway:
            await gateway.create(model=GEN)
            await gateway.worker.run_once()
            (ref,) = fake.jobs
            fake.show(ref, "RUNNING")
            for second in range(90):
                before = len(fake.polls)
                await gateway.worker.run_once()
                times += [second] * (len(fake.polls) - before)
                gateway.clock.advance(1)
    gaps = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
    assert len(gaps) >= 4
    assert min(gaps) >= 5


# Uploads


async def test_a_long_upload_goes_to_the_store_and_the_key_does_not(fake: FakeRunway) -> None:
    size = 5 * 2**20
    async with serve(fake) as url, provider_at(url) as provider:
        await provider.send(task_of(size))
        await provider.send(task_of(3_700_000))
    ticket, form = fake.calls["upload"]
    assert (ticket.json, ticket.headers["authorization"]) == (
        {"filename": "boat.png", "type": "ephemeral"},
        f"Bearer {KEY}",
    )
    assert KEY not in str(form.headers)
    fields = [("key", "k1"), ("policy", "p"), ("x-amz-signature", "s")]
    assert form.form == [*fields, ("file", File.of("boat.png", "image/png", bytes(size)))]
    first, second = (call.json["promptImage"] for call in fake.submits)
    assert first == "runway://k1"
    assert second.startswith("data:image/png;base64,")
    assert len(second) <= 5_000_000


async def test_an_upload_that_is_too_long_is_refused_before_it_is_sent(fake: FakeRunway) -> None:
    async with serve(fake) as url, provider_at(url) as provider:
        with pytest.raises(errors.UpstreamRejected, match="at most 200 MiB"):
            await provider.send(task_of(MAX_BYTES + 1))
    assert (fake.calls["upload"], fake.submits) == ([], [])


TICKET: dict[str, Any] = {"uploadUrl": "https://x.example/b", "fields": {"key": "k1"}, "runwayUri": "runway://k1"}


@pytest.mark.parametrize(
    "answer",
    [
        *[Answer(200, {**TICKET, "uploadUrl": value}) for value in (None, 7, "/b", "ftp://x.example/b", "http://[::1")],
        *[Answer(200, {**TICKET, "uploadUrl": "https://x.example/" + "a" * 10_000})],
        *[Answer(200, {**TICKET, "runwayUri": value}) for value in (None, ["runway://k1"], "https://evil.example/x")],
        *[Answer(200, {**TICKET, "fields": value}) for value in (None, 7, {"a": 1}, {"a": "x" * 10_000})],
        Answer(200, {**TICKET, "fields": {str(number): "x" for number in range(100)}}),
        Answer(200, {**TICKET, "fields": {"a": "\ud800"}}),
        Answer(200, []),
        Answer(200, "<html>"),
        Answer(404, {"error": "Not found"}),
        Answer(500, {"error": "Internal"}),
        Reset(),
    ],
)
async def test_an_unusable_answer_of_the_store_sends_nothing(fake: FakeRunway, answer: Fault) -> None:
    async with serve(fake) as url, provider_at(url) as provider:
        fake.script("upload", answer)
        with pytest.raises(errors.UpstreamUnavailable):
            await provider.send(task_of(4 * 2**20))
        assert (len(fake.calls["upload"]), fake.submits) == (1, [])
        assert (await provider.send(task_of(4 * 2**20))).ref in fake.jobs


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Answer(403, "<Error><Code>AccessDenied</Code></Error>"), errors.UpstreamUnavailable),
        (Answer(307, headers={"location": "/x"}), errors.UpstreamUnavailable),
        (Reset(), errors.UpstreamUnavailable),
        (Answer(400, "<Error><Code>EntityTooLarge</Code></Error>"), errors.UpstreamRejected),
    ],
)
async def test_a_file_that_the_store_does_not_take_sends_nothing(
    fake: FakeRunway, fault: Fault, kind: type[Exception]
) -> None:
    async with serve(fake) as url, provider_at(url) as provider:
        fake.script("upload", Answer(200, {**TICKET, "uploadUrl": f"{url}/bucket"}), fault)
        with pytest.raises(kind, match="the storage of runway did not take an upload"):
            await provider.send(task_of(4 * 2**20))
    assert (len(fake.calls["upload"]), fake.submits) == (2, [])


async def test_a_file_is_not_sent_into_a_private_network(fake: FakeRunway) -> None:
    elsewhere = Elsewhere()
    async with serve(fake) as url, serve(elsewhere) as other, provider_at(url, allow=False) as provider:
        fake.script("upload", Answer(200, {**TICKET, "uploadUrl": f"{other}/b"}))
        with pytest.raises(errors.UpstreamUnavailable, match="private network"):
            await provider.send(task_of(4 * 2**20))
    assert (elsewhere.calls, fake.submits) == ([], [])


# Errors


@pytest.mark.parametrize(
    ("issues", "message"),
    [
        ([{"path": ["ratio"], "message": "Invalid"}, {"path": [], "message": "no"}], "failed: ratio Invalid; no"),
        ([{"path": ["a", 0], "message": "Invalid"}, 7, {"message": 7}, {}], "failed: a.0 Invalid"),
        ([], "failed"),
        ("nonsense", "failed"),
        ({"path": "x"}, "failed"),
    ],
)
async def test_a_refused_body_is_explained(fake: FakeRunway, issues: Any, message: str) -> None:
    async with serve(fake) as url, provider_at(url) as provider:
        fake.script("submit", Answer(400, {"error": "failed", "issues": issues}))
        with pytest.raises(errors.UpstreamRejected) as caught:
            await provider.send(task_of())
    assert caught.value.message == message


@pytest.mark.parametrize("output", [None, [], "", {}, [7], [["https://x.example/a.mp4"]], ["https://x.example/a.png"]])
async def test_a_success_without_a_video_has_failed(fake: FakeRunway, output: Any) -> None:
    async with serve(fake) as url, provider_at(url) as provider:
        ref = (await provider.send(task_of())).ref
        fake.finish(ref)
        fake.jobs[ref].raw["output"] = output
        failure = (await provider.poll(task_of(ref=ref))).failure
    assert failure is not None
    assert failure.code == "no_output"


async def test_the_address_of_a_file_is_signed_anew_at_each_read(gateway: Running, fake: FakeRunway) -> None:
    fake.script("content", Answer(403, "<Error><Message>Request has expired</Message></Error>"))
    video = await gateway.create(model=GEN)
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    first, second = (call.query for call in fake.contents)
    assert first != second
    assert all("authorization" not in call.headers for call in fake.contents)
