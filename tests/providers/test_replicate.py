"""Replicate: only what the provider contract suite and the recordings do not cover."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from contract.recorded import FOLDER
from contract.stage import NOW, read
from fakes.replicate import KLING, SEEDANCE, VERSION, FakeReplicate
from fakes.server import KEY, Answer, Fake, File, Reset, serve
from fakes.upstream import ask
from harness import Running, StartGateway

from app import errors
from app.media.uploads import Upload
from app.providers.base import ListedTask, Task
from app.providers.replicate import Replicate
from app.providers.replicate.inputs import ROWS
from app.video import Media, Operation, Status, VideoRequest

pytestmark = pytest.mark.anyio

PUBLIC = "https://gateway.example"
MODEL = f"replicate/{KLING}"
VEO, HAILUO, FLUX = "google/veo-3.1", "minimax/hailuo-2.3", "black-forest-labs/flux-3"
A, CLIP = Media(url="https://x.example/a.png"), Media(url="https://x.example/in.mp4")
CASES = json.loads((FOLDER / "replicate.json").read_text("utf-8"))["cases"]
VECTORS = [one for case in CASES if case["name"].endswith("webhook vectors") for one in case["sdk_reads"]]
STRICTER = (
    "unknown version only",
    "old timestamp with tolerance 300",
    "old timestamp, no tolerance given (default)",
)
"""Callbacks that are refused here, while one of the vendor's clients takes them."""
Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(start_gateway: StartGateway) -> Start:
    @asynccontextmanager
    async def started(fake: Fake, config: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[Running]:
        async with serve(fake) as url:
            providers = {"replicate": {"api_key": KEY, "base_url": f"{url}/v1", **(config or {})}}
            async with start_gateway(providers=providers, allow_networks=["127.0.0.0/8"], **settings) as running:
                yield running

    return started


@pytest.fixture
def fake() -> FakeReplicate:
    return FakeReplicate()


@pytest.fixture
async def gateway(fake: FakeReplicate, start: Start) -> AsyncIterator[Running]:
    async with start(fake) as running:
        yield running


@asynccontextmanager
async def provider_of(fake: Fake) -> AsyncIterator[Replicate]:
    async with serve(fake) as url:
        provider = Replicate("up", Replicate.Config(api_key=KEY, base_url=f"{url}/v1", timeout_s=5))
        yield provider
        await provider.aclose()


@pytest.fixture
async def provider(fake: FakeReplicate) -> AsyncIterator[Replicate]:
    async with provider_of(fake) as provider:
        yield provider


def task(**fields: Any) -> Task:
    return Task(**{"id": "attempt_1", "model": KLING, "request": ask(), "read": read, "now": NOW, **fields})


async def running(gateway: Running, fake: FakeReplicate, **fields: Any) -> tuple[str, str]:
    """Ids of a new video, here and there, once it is submitted."""
    video = await gateway.create(**{"model": MODEL, **fields})
    await gateway.worker.run_once()
    return video["id"], [*fake.jobs][-1]


def able_of(model: str, **fields: Any) -> Any:
    return Replicate("up", Replicate.Config(api_key=KEY)).capabilities_for(model, ask(**fields))


# What is sent


@pytest.mark.parametrize("model", sorted(ROWS))
async def test_every_model_gets_an_input_of_its_own_schema(
    provider: Replicate, fake: FakeReplicate, model: str
) -> None:
    """With nothing but what it needs, and with all that it takes at once: the fake refuses other fields and values."""
    row = ROWS[model]
    values: dict[str, Any] = {"negative_prompt": "blur", "seed": 1, "generate_audio": False, "loop": True}
    values |= {"expand_prompt": True, "first_frame": A, "last_frame": A, "reference_images": (A,)}
    values |= {"reference_video": CLIP}
    needed: dict[str, Any] = dict.fromkeys(row.required, A) | (
        {"operation": "edit", "source": CLIP} if row.edits_only else {}
    )
    able = row.capabilities_for(ask(**needed))
    longest = max(able.seconds) if able.seconds else None
    shape = {"resolution": (able.resolutions or [None])[-1], "aspect_ratio": (able.aspect_ratios or [None])[-1]}
    asked: list[dict[str, Any]] = [needed, {**values, **needed, **shape, "seconds": longest, "user": "u1", "n": 2}]
    for fields in asked:
        await provider.send(task(model=model, request=ask(**fields)))
    least, most = (call.json["input"] for call in fake.submits)
    assert least["prompt"] == "a paper boat"
    assert ("duration" in least) is bool(able.seconds)
    assert (row.resolution_field in least) is bool(row.words)
    assert [call.path for call in fake.submits] == [f"/v1/models/{model}/predictions"] * 2
    inputs = {name: field.removesuffix("[]") for name, field in row.inputs.items()}
    chosen = row.capabilities_for(ask(**{**values, **needed})).parameters
    assert {inputs[name] for name in chosen} <= most.keys()


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        (SEEDANCE, {"first_frame": "https://x.example/a.png", "reference_images": ["https://x.example/b.png"]}, None),
        (VEO, {"seconds": 5}, "seconds"),
        (KLING, {"draft": True}, "draft"),
        ("prunaai/p-video", {"draft": True}, "draft"),
        ("some-one/new-1", {"seconds": 5}, "seconds"),
        ("some-one/new-1", {"resolution": "720p"}, "resolution"),
        (f"{KLING}:{VERSION}", {"seconds": 5}, "seconds"),
        ("minimax/hailuo-2.3-fast", {}, "input_reference"),
    ],
)
async def test_what_a_model_cannot_express_is_refused(
    gateway: Running, fake: FakeReplicate, model: str, fields: dict[str, Any], param: str | None
) -> None:
    body = {"prompt": "a paper boat", "model": f"replicate/{model}", **fields}
    answer = await gateway.client.post("/v1/videos", json=body)
    assert answer.status_code == 400
    assert param is None or answer.json()["error"]["param"] == param
    assert fake.submits == []


@pytest.mark.parametrize(
    "name",
    [
        "kling",
        "a/b/c",
        "a/..",
        "../b",
        "a/b:latest",
        f"a/b:{VERSION}0",
        VERSION[1:],
        "a/b?x=1",
        "a/b#c",
        "ä/b",
        "a b/c",
    ],
)
async def test_a_name_that_is_none_here_is_unknown(gateway: Running, fake: FakeReplicate, name: str) -> None:
    body = {"prompt": "a paper boat", "model": f"replicate/{name}"}
    assert (await gateway.client.post("/v1/videos", json=body)).status_code in (400, 404)
    assert fake.submits == []


async def test_the_input_of_an_unknown_model_is_what_the_request_passes_on(
    gateway: Running, fake: FakeReplicate
) -> None:
    video_id, _ = await running(gateway, fake, model="replicate/some-one/new-1", num_frames=81, guide=2.5)
    (call,) = fake.submits
    assert call.json == {"input": {"prompt": "a paper boat", "num_frames": 81, "guide": 2.5}}
    assert (await gateway.finish(video_id))["status"] == "completed"


# Prices


@pytest.mark.parametrize(
    ("model", "fields", "prices"),
    [
        (SEEDANCE, {"reference_video": CLIP}, {"480p": 100_000, "720p": 220_000, "1080p": 550_000, "2160p": 1_250_000}),
        (SEEDANCE, {"reference_images": (A,)}, {"480p": 80_000, "720p": 180_000, "1080p": 450_000, "2160p": 1_000_000}),
        ("minimax/h3", {"reference_video": CLIP}, {}),
        ("kwaivgi/kling-v3-omni-video", {"reference_video": CLIP}, {}),
        ("kwaivgi/kling-v3-omni-video", {"operation": Operation.edit, "source": CLIP}, {}),
        ("kwaivgi/kling-o1", {"operation": Operation.edit, "source": CLIP}, {"720p": 126_000, "1080p": 168_000}),
        ("runwayml/aleph-2", {"operation": Operation.edit, "source": CLIP}, {"": 336_000}),
        ("xai/grok-imagine-video", {"operation": Operation.edit, "source": CLIP}, {"": 50_000}),
        ("xai/grok-imagine-video-1.5", {"first_frame": A}, {"": 80_000}),
        (HAILUO, {}, {"768p": 47_000, "1080p": 82_000}),
        (HAILUO, {"seconds": 10}, {}),
        ("lightricks/ltx-2.5-fast", {}, {}),
        ("some-one/new-1", {}, {}),
        (f"{KLING}:{VERSION}", {}, {}),
    ],
)
def test_the_input_decides_on_the_price(model: str, fields: dict[str, Any], prices: dict[str, int]) -> None:
    able = able_of(model, **fields)
    assert able.prices == prices
    assert not able.silent_prices


def test_sound_has_a_price_where_the_vendor_says_so() -> None:
    assert able_of(KLING).silent_prices == {"720p": 168_000, "1080p": 224_000, "2160p": 420_000}
    assert able_of(VEO).silent_prices == {"": 200_000}
    assert able_of(FLUX).silent_prices == {}


@pytest.mark.parametrize(
    ("fields", "micros"),
    [
        ({}, 1_260_000),
        ({"generate_audio": False, "seconds": 10, "resolution": "1080p"}, 2_240_000),
        ({"model": f"replicate/{HAILUO}"}, 282_000),
        ({"model": f"replicate/{HAILUO}", "seconds": 10}, None),
        ({"model": "replicate/some-one/new-1"}, None),
    ],
)
async def test_a_request_is_quoted_as_it_is_sent(gateway: Running, fields: dict[str, Any], micros: int | None) -> None:
    body = {"prompt": "a paper boat", "model": MODEL, **fields}
    answer = await gateway.client.post("/v1/videos?dryRun=true", json=body)
    assert answer.status_code == 200
    assert answer.json()["total_cost_micros"] == micros


# States


@pytest.mark.parametrize(
    ("shown", "url"),
    [
        ({"output": {"thumbnail": "https://x.example/t.png", "video": "https://x.example/v.mp4"}}, None),
        ({"output": ["https://x.example/v.mp4", "https://x.example/w.mp4"]}, None),
        ({"output": {"mask": "https://x.example/m", "upscaled_clip": "https://x.example/v.mp4"}}, None),
        ({"output": "https://x.example/v.mp4", "logs": "https://x.example/logs.mp4"}, None),
        ({"output": None, "input": {"start_image": "https://x.example/a.mp4"}}, "none"),
        ({"output": [None, {"a": 1}]}, "none"),
        ({"output": {"clip": ["v.mp4"], "note": "see v.mp4"}}, "none"),
        ({"output": 5}, "none"),
    ],
)
async def test_the_file_is_the_video_of_the_output(
    provider: Replicate, fake: FakeReplicate, shown: dict[str, Any], url: str | None
) -> None:
    made = await provider.send(task())
    fake.finish(made.ref)
    shown.setdefault("urls", {})
    fake.jobs[made.ref].raw |= shown
    found = await provider.poll(task(ref=made.ref))
    if url == "none":
        assert found.status is Status.failed
        assert found.failure is not None
        assert found.failure.code == "no_output"
    else:
        assert found.output is not None
        assert found.output.url == "https://x.example/v.mp4"
        assert not found.output.authenticated


async def test_a_file_that_the_vendor_has_deleted_is_named_so(gateway: Running, fake: FakeReplicate) -> None:
    video_id, ref = await running(gateway, fake)
    fake.finish(ref)
    fake.jobs[ref].raw |= {"output": None, "input": {}, "data_removed": True}
    ended = await gateway.finish(video_id)
    assert ended["status"] == "failed"
    assert ended["error"]["code"] == "no_output"
    assert "keeps for an hour" in ended["error"]["message"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("E005", "content_policy_violation"),
        ("The input or output was flagged as sensitive. (E005)", "content_policy_violation"),
        ("CUDA out of memory", "generation_failed"),
        ("E0051 is another", "generation_failed"),
        ({"detail": ["E005"]}, "content_policy_violation"),
        (None, "generation_failed"),
        (["x"] * 3, "generation_failed"),
    ],
)
async def test_a_failure_has_the_words_of_the_vendor(
    provider: Replicate, fake: FakeReplicate, error: Any, code: str
) -> None:
    made = await provider.send(task())
    fake.fail(made.ref)
    fake.jobs[made.ref].raw["error"] = error
    found = await provider.poll(task(ref=made.ref))
    assert found.failure is not None
    assert found.failure.code == code
    assert found.reported_micros is None


# Cancels


async def test_a_waiting_prediction_is_aborted_and_free(gateway: Running, fake: FakeReplicate) -> None:
    video_id, ref = await running(gateway, fake)
    assert (await gateway.client.delete(f"/v1/videos/{video_id}")).status_code == 200
    await gateway.worker.run_once()
    assert [call.path for call in fake.deletes] == [f"/v1/predictions/{ref}/cancel"]
    assert fake.jobs[ref].status == "aborted"
    (attempt,) = await gateway.attempts(video_id)
    assert (attempt.state, attempt.settlement, attempt.cost_micros) == ("cancelled", "refunded", None)


async def test_a_prediction_that_began_to_run_is_charged_its_list_price(gateway: Running, fake: FakeReplicate) -> None:
    fake.runs_at_once = True
    video_id, ref = await running(gateway, fake, seconds=10, resolution="1080p", generate_audio=False)
    await gateway.client.delete(f"/v1/videos/{video_id}")
    for _ in range(3):
        await gateway.worker.run_once()
        gateway.clock.advance(60)
    assert fake.jobs[ref].status == "canceled"
    (attempt,) = await gateway.attempts(video_id)
    assert (attempt.settlement, attempt.cost_micros) == ("settled", 2_240_000)


async def test_a_running_prediction_is_not_stopped_and_is_charged_at_its_end(
    gateway: Running, fake: FakeReplicate
) -> None:
    video_id, ref = await running(gateway, fake)
    fake.show(ref, "processing")
    await gateway.client.delete(f"/v1/videos/{video_id}")
    for word in ("processing", "succeeded"):
        fake.show(ref, word)
        await gateway.worker.run_once()
        gateway.clock.advance(60)
    await gateway.worker.run_once()
    assert fake.deletes == []
    (attempt,) = await gateway.attempts(video_id)
    assert (attempt.settlement, attempt.cost_micros) == ("settled", 1_260_000)


async def test_a_running_prediction_that_is_billed_by_its_time_is_stopped(
    gateway: Running, fake: FakeReplicate
) -> None:
    video_id, ref = await running(gateway, fake, model="replicate/some-one/new-1")
    fake.show(ref, "processing")
    await gateway.client.delete(f"/v1/videos/{video_id}")
    for _ in range(3):
        await gateway.worker.run_once()
        gateway.clock.advance(60)
    assert [call.path for call in fake.deletes] == [f"/v1/predictions/{ref}/cancel"]
    assert fake.jobs[ref].status == "canceled"
    (attempt,) = await gateway.attempts(video_id)
    assert (attempt.state, attempt.settlement) == ("failed", "refunded")


async def test_a_cancel_that_finds_nothing_stops_nothing(gateway: Running, fake: FakeReplicate) -> None:
    video_id, ref = await running(gateway, fake)
    await gateway.client.delete(f"/v1/videos/{video_id}")
    fake.script("cancel", Answer(404, {"detail": "The requested resource could not be found."}))
    await gateway.worker.run_once()
    fake.finish(ref)
    for _ in range(2):
        gateway.clock.advance(60)
        await gateway.worker.run_once()
    (attempt,) = await gateway.attempts(video_id)
    assert (attempt.settlement, attempt.cost_micros) == ("settled", 1_260_000)


@pytest.mark.parametrize("document", [{}, {"status": "canceled"}, {"status": "processing"}, {"status": ["aborted"]}])
async def test_only_an_aborted_prediction_has_certainly_stopped(
    provider: Replicate, fake: FakeReplicate, document: dict[str, Any]
) -> None:
    made = await provider.send(task())
    fake.script("cancel", Answer(200, document))
    assert await provider.cancel(task(ref=made.ref)) is False


async def test_a_canceled_edit_is_charged_by_the_length_of_its_source(provider: Replicate, fake: FakeReplicate) -> None:
    source = Media(video_id="video_1", seconds=4)
    edit = task(
        model="runwayml/aleph-2",
        request=ask(operation=Operation.edit, source=source),
        link=lambda media: "https://gateway.example/v.mp4",
    )
    made = await provider.send(edit)
    fake.show(made.ref, "canceled")
    assert (await provider.poll(replace(edit, ref=made.ref))).reported_micros == 4 * 336_000


async def test_a_canceled_prediction_without_known_price_reports_none(provider: Replicate, fake: FakeReplicate) -> None:
    made = await provider.send(task(model="some-one/new-1"))
    fake.show(made.ref, "canceled")
    found = await provider.poll(task(model="some-one/new-1", ref=made.ref))
    assert (found.status, found.reported_micros) == (Status.failed, None)


# Uploads


def long_upload(size: int) -> Any:
    @asynccontextmanager
    async def opened(media: Media) -> AsyncIterator[Upload]:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, size, 2**16):
                yield bytes(min(2**16, size - start))

        yield Upload("a.png", "image/png", size, chunks())

    return opened


async def test_a_long_upload_goes_to_the_store_first(provider: Replicate, fake: FakeReplicate) -> None:
    request = ask(first_frame=Media(key="cat"))
    await provider.send(task(request=request, read=long_upload(1_000_001)))
    (call,) = fake.calls["upload"]
    assert call.form == [("content", File.of("a.png", "image/png", bytes(1_000_001)))]
    assert fake.submits[0].json["input"]["start_image"] == f"{call.origin}/v1/files/f1"
    await provider.send(task(request=request, read=long_upload(1_000_000)))
    assert fake.submits[1].json["input"]["start_image"].startswith("data:image/png;base64,AAAA")
    assert len(fake.calls["upload"]) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(200, {}), errors.UpstreamUnavailable),
        (Answer(200, {"urls": []}), errors.UpstreamUnavailable),
        (Answer(200, {"urls": {"get": "ftp://x"}}), errors.UpstreamUnavailable),
        (Answer(200, {"urls": {"get": "https://x.example/" + "a" * 9_000}}), errors.UpstreamUnavailable),
        (Answer(200, {"urls": {"get": "https://x.example/\ud800"}}), errors.UpstreamUnavailable),
        (Answer(404, {}), errors.UpstreamUnavailable),
        (Answer(422, {}), errors.UpstreamUnavailable),
        (Answer(500, {}), errors.UpstreamUnavailable),
        (Answer(401, {}), errors.UpstreamAccount),
        (Answer(413, {"detail": "too large"}), errors.UpstreamRejected),
        (Reset(accepted=False), errors.UpstreamUnavailable),
    ],
)
async def test_a_store_that_fails_costs_nothing(
    provider: Replicate, fake: FakeReplicate, answer: Any, expected: type[errors.UpstreamError]
) -> None:
    fake.script("upload", answer)
    with pytest.raises(expected):
        await provider.send(task(request=ask(first_frame=Media(key="cat")), read=long_upload(1_000_001)))
    assert fake.submits == []


async def test_an_upload_beyond_the_limit_of_the_store_is_refused_unread(
    provider: Replicate, fake: FakeReplicate
) -> None:
    with pytest.raises(errors.UpstreamRejected, match="100 MiB"):
        await provider.send(task(request=ask(first_frame=Media(key="cat")), read=long_upload(100 * 2**20 + 1)))
    assert fake.calls["upload"] == []


@pytest.mark.parametrize("public_url", [None, PUBLIC])
async def test_a_video_of_the_gateway_is_edited_at_a_link(
    start: Start, fake: FakeReplicate, public_url: str | None
) -> None:
    async with start(fake, **({"public_url": public_url} if public_url else {})) as gateway:
        video_id, _ = await running(gateway, fake)
        await gateway.finish(video_id)
        body = {"prompt": "make it snow", "model": "replicate/runwayml/aleph-2", "video": {"id": video_id}}
        answer = await gateway.client.post("/v1/videos/edits", json=body)
        await gateway.worker.run_once()
        if public_url is None:
            assert answer.status_code == 400 or (await gateway.finish(answer.json()["id"]))["status"] == "failed"
            assert len(fake.submits) == 1
        else:
            given = fake.submits[1].json["input"]
            assert given.keys() == {"prompt", "video"}
            assert given["video"].startswith(f"{PUBLIC}/")


# The list of predictions


async def test_the_list_is_read_page_by_page(provider: Replicate, fake: FakeReplicate) -> None:
    fake.page = 2
    made = [(await provider.send(task())).ref for _ in range(3)]
    for ref in made:
        fake.jobs[ref].raw["created_at"] = "2026-11-21T12:00:00.000Z"
    first, page = await provider.list_tasks(None)
    assert page == "2"
    last, end = await provider.list_tasks(page)
    assert end is None
    assert first == [ListedTask(ref, NOW, KLING, "starting") for ref in (made[2], made[1])]
    assert [one.ref for one in last] == [made[0]]
    assert [call.query for call in fake.calls["list"]] == ["", "cursor=2"]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"results": {}},
        {"results": [None]},
        {"results": [{"id": "a", "created_at": "2026-11-21T12:00:00"}]},
        {"results": [{"id": "a", "created_at": "9" * 400}]},
        {"results": [{"id": "a", "created_at": 5}]},
        {"results": [{"id": "/" * 600, "created_at": "2026-11-21T12:00:00Z"}]},
        {"results": [], "next": 5},
        {"results": [], "next": "x"},
        {"results": [], "next": "http://[?cursor=a"},
        {"results": [], "next": "?cursor=" + "a" * 600},
        {"results": [], "next": "/x?cursor=\ud800"},
        {"results": [], "next": "/x?cursor=here"},
    ],
)
async def test_a_list_that_cannot_be_read_does_not_seem_complete(
    provider: Replicate, fake: FakeReplicate, document: dict[str, Any]
) -> None:
    fake.script("list", Answer(200, json.dumps(document).encode()))
    with pytest.raises(errors.UpstreamUnavailable):
        await provider.list_tasks("here")


async def test_of_the_address_of_the_next_page_only_the_cursor_is_used(
    provider: Replicate, fake: FakeReplicate
) -> None:
    page = {"results": [], "next": "https://elsewhere.example/v2?cursor=a%26b%2F..&limit=9"}
    fake.script("list", *[Answer(200, page)] * 2)
    assert await provider.list_tasks(None) == ([], "a&b/..")
    with pytest.raises(errors.UpstreamUnavailable):
        await provider.list_tasks("a&b/..")
    assert (fake.calls["list"][1].path, fake.calls["list"][1].query) == ("/v1/predictions", "cursor=a%26b%2F..")


# Errors


@pytest.mark.parametrize(
    ("detail", "headers", "wait_s"),
    [
        ("Your rate limit resets in ~12s.", {}, 12),
        ("Your rate limit for creating predictions is reduced. Your rate limit resets in 3s.", {}, 3),
        ("Your rate limit resets in ~12s.", {"retry-after": "5"}, 5),
        ("Reduced until you add a payment method at /account/billing. Your rate limit resets in ~30s.", {}, 30),
        ("throttled", {}, None),
        ("resets in ~" + "9" * 400 + "s", {}, None),
    ],
)
async def test_the_time_to_wait_is_read_from_the_text(
    provider: Replicate, fake: FakeReplicate, detail: str, headers: dict[str, str], wait_s: float | None
) -> None:
    fake.script("submit", fake.refusal(429, detail, headers=headers))
    with pytest.raises(errors.UpstreamRateLimited) as caught:
        await provider.send(task())
    assert caught.value.retry_after_s == wait_s


async def test_a_503_does_not_say_that_nothing_was_made(gateway: Running, fake: FakeReplicate) -> None:
    fake.script("submit", fake.refusal(503, "Service unavailable", headers={"retry-after": "1"}))
    await gateway.create(model=MODEL)
    for _ in range(3):
        await gateway.worker.run_once()
        gateway.clock.advance(60)
    assert len(fake.submits) == 1


# Callbacks


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["case"])
async def test_a_callback_is_judged_as_the_vendors_clients_do(vector: dict[str, Any]) -> None:
    provider = Replicate("up", Replicate.Config(api_key=KEY, webhook_secret=vector["secret"]))
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    now = datetime.fromtimestamp(1_795_600_800, UTC)
    valid = provider.is_callback(headers, vector["body"].encode(), secret="x", now=now)
    assert valid is (vector["verdict"] == "valid" and vector["case"] not in STRICTER)
    await provider.aclose()


@pytest.mark.parametrize("secret", [None, "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="])
async def test_a_callback_means_poll_now(start: Start, fake: FakeReplicate, secret: str | None) -> None:
    async with start(fake, {"webhook_secret": secret} if secret else {}, public_url=PUBLIC) as gateway:
        video_id, ref = await running(gateway, fake)
        assert fake.submits[0].json["webhook_events_filter"] == ["completed"]
        callback = urlsplit(fake.submits[0].json["webhook"]).path
        fake.finish(ref)
        answer: httpx.Response = await gateway.client.post(callback, json={"id": ref, "status": "failed"})
        assert answer.status_code == (200 if secret is None else 401)
        await gateway.worker.run_once()
        assert len(fake.polls) == (1 if secret is None else 0)
        assert (await gateway.finish(video_id))["status"] == "completed"


@pytest.mark.parametrize("secret", ["plain", "whsec_", "whsec_é", "whsec_a"])
def test_a_secret_that_makes_no_key_is_refused_at_the_start(secret: str) -> None:
    with pytest.raises(ValueError, match="webhook_secret"):
        Replicate.Config(api_key=KEY, webhook_secret=secret)


def test_a_request_of_the_table_is_complete() -> None:
    """Names of the table are parameters of the gateway."""
    for row in ROWS.values():
        assert set(row.inputs) <= VideoRequest.model_fields.keys()
        assert not set(row.own) & set(row.inputs.values())
