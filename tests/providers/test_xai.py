"""xAI: only what the provider contract suite and the recordings do not cover."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from contract.stage import NOW, read
from fakes.recorded import recorded
from fakes.server import KEY, Answer, Fault, Reset, serve
from fakes.upstream import ask
from fakes.xai import EDITS, EXTENSIONS, FakeXAI
from harness import Running, StartGateway

from app import errors
from app.capabilities import fit
from app.providers.base import Task
from app.providers.xai import ANYTHING, MODELS, XAI
from app.video import Media, Operation, Status, VideoRequest

pytestmark = pytest.mark.anyio

OLD, NEW, LITE = "xai/grok-imagine-video", "xai/grok-imagine-video-1.5", "xai/grok-imagine-video-1.5-lite"
PICTURE = {"image_url": "https://example.com/a.png"}
PICTURES = ["https://example.com/a.png"]
INVALID = "Client specified an invalid argument"
TEAM = "16f2151a-40f4-4a80-8ad0-cae00c27e8dd"
NO_CREDIT = f"Your team {TEAM} has either used all available credits or reached its monthly spending limit."
ACCOUNT = "upstream_account_refused"
UNSAFE = f"Content violates usage guidelines. Team: {TEAM}, API key ID: {TEAM}, Failed check: SAFETY_CHECK_TYPE_X"


@pytest.fixture
def fake() -> FakeXAI:
    return FakeXAI()


@pytest.fixture
async def gateway(fake: FakeXAI, start_gateway: StartGateway) -> AsyncIterator[Running]:
    async with serve(fake) as url:
        providers = {"xai": {"api_key": KEY, "base_url": f"{url}/v1"}}
        async with start_gateway(providers=providers, allow_networks=["127.0.0.0/8"]) as running:
            yield running


@pytest.fixture
async def provider(fake: FakeXAI) -> AsyncIterator[XAI]:
    async with serve(fake) as url:
        provider = XAI("up", XAI.Config(api_key=KEY, base_url=f"{url}/v1", timeout_s=5))
        yield provider
        await provider.aclose()


def task(request: VideoRequest | None = None, model: str = "grok-imagine-video-1.5", **fields: Any) -> Task:
    return Task("attempt_1", model, request or ask(), read=read, now=NOW, **fields)


# 202 with nothing in it


async def test_a_task_that_waits_is_a_202_with_nothing_in_it(gateway: Running, fake: FakeXAI) -> None:
    fake.script("poll", *[Answer(202)] * 3, Answer(202, b" \n"), Answer(202, {"status": "pending"}), Answer(202, {}))
    video = await gateway.create(model=NEW)
    assert (await gateway.finish(video["id"], steps=60))["status"] == "completed"
    assert (len(fake.submits), len(fake.polls)) == (1, 9)


@pytest.mark.parametrize("body", [b"<html>accepted</html>", b"[]", b'{"status":', b"null"])
async def test_a_202_with_anything_else_is_no_verdict(provider: XAI, fake: FakeXAI, body: bytes) -> None:
    fake.script("poll", Answer(202, body))
    with pytest.raises(errors.UpstreamUnavailable):
        await provider.poll(task(ref="task-1"))


@pytest.mark.parametrize(
    "fault",
    [Answer(202), Answer(200, {"error": "queue full"}), Answer(503, {"error": {"message": "x"}}), Reset()],
    ids=["202", "200", "503", "reset"],
)
async def test_a_submit_without_an_id_is_never_sent_again(gateway: Running, fake: FakeXAI, fault: Fault) -> None:
    fake.script("submit", fault)
    video = await gateway.create(model=NEW)
    for _ in range(5):
        await gateway.worker.run_once()
        gateway.clock.advance(60)
    assert len(fake.submits) == 1
    [attempt] = await gateway.attempts(video["id"])
    assert attempt.state == "lost"


# Errors in three shapes


def shapes(status: int, message: str, code: str = INVALID) -> list[Answer]:
    """One error in each shape that is recorded."""
    openai = recorded("xai", "rest submit HTTP 400")
    openai["error"] |= {"message": message, "code": code}
    documents = (openai, {"code": code, "error": message}, {"error": message})
    return [Answer(status, document) for document in documents]


@pytest.mark.parametrize("shape", range(3), ids=["openai", "code_and_text", "text"])
@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, "duration must be between 1 and 15", "upstream_rejected"),
        (404, "The model grok-0 does not exist", "upstream_rejected"),
        (422, "unknown field", "upstream_rejected"),
        (401, "no key", ACCOUNT),
        (403, "x", ACCOUNT),
        (400, "Incorrect API key provided: xa***yz. You can obtain one.", ACCOUNT),
        (403, NO_CREDIT, "upstream_insufficient_credit"),
        (429, NO_CREDIT, "upstream_insufficient_credit"),
        (403, UNSAFE, "content_policy_violation"),
        (403, "Your team was suspended: moderation found violations of the usage guidelines", ACCOUNT),
        (403, "Blocked by the content policy of this network", ACCOUNT),
        (401, UNSAFE, ACCOUNT),
        (400, "Generated video rejected by content moderation.", "content_policy_violation"),
        (500, "Internal", "upstream_outcome_unknown"),
    ],
)
async def test_a_refused_submit_is_read_in_each_shape(
    gateway: Running, fake: FakeXAI, shape: int, status: int, message: str, code: str
) -> None:
    fake.script("submit", shapes(status, message)[shape])
    video = await gateway.create(model=NEW)
    ended = await gateway.finish(video["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", code)
    assert len(fake.submits) == 1
    assert TEAM not in str(ended)
    if code == "upstream_rejected":
        assert message in ended["error"]["message"]


@pytest.mark.parametrize("shape", range(3), ids=["openai", "code_and_text", "text"])
async def test_a_rate_limit_is_waited_for(gateway: Running, fake: FakeXAI, shape: int) -> None:
    fake.script("submit", shapes(429, "Too many requests", "Some resource has been exhausted")[shape])
    video = await gateway.create(model=NEW)
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert (len(fake.submits), len(fake.jobs)) == (2, 1)


async def test_a_plain_text_is_the_message_of_a_refusal_and_a_page_is_not(provider: XAI, fake: FakeXAI) -> None:
    text = recorded("xai", "rest submit HTTP 422")
    fake.script("submit", Answer(422, text, {"content-type": "text/plain; charset=utf-8"}), Answer(422, "<p>no</p>"))
    for message in (text, "up answered 422"):
        with pytest.raises(errors.UpstreamRejected) as caught:
            await provider.send(task())
        assert caught.value.message == message


@pytest.mark.parametrize(
    "document",
    [
        {"code": 7, "error": "x"},
        {"code": {"a": 1}, "error": ["x"]},
        {"error": {"message": {"deep": [1]}, "code": []}},
        {"error": {"message": None}},
        ["x"],
        "x",
        {"code": "\ud800\0", "error": "\ud800\0" * 1_000},
        {"code": "x" * 100_000, "error": None},
    ],
)
async def test_a_strange_refusal_is_a_refusal(provider: XAI, fake: FakeXAI, document: Any) -> None:
    fake.script("submit", Answer(400, document))
    with pytest.raises(errors.UpstreamRejected) as caught:
        await provider.send(task())
    assert len(caught.value.message) <= 500


async def test_no_client_sees_the_ids_of_the_account(provider: XAI, fake: FakeXAI) -> None:
    message = f"The model does not exist or your team {TEAM} does not have access to it."
    fake.script("submit", Answer(404, {"code": "Some requested entity was not found", "error": message}))
    with pytest.raises(errors.UpstreamRejected) as caught:
        await provider.send(task())
    assert caught.value.message == "The model does not exist or your does not have access to it."
    assert TEAM in str(caught.value.body)


# Errors of a poll


async def test_a_task_that_only_answers_400_is_given_up(gateway: Running, fake: FakeXAI) -> None:
    fake.script("poll", *[Answer(400, {"code": INVALID, "error": "invalid request"})] * 9)
    video = await gateway.create(model=NEW)
    assert (await gateway.finish(video["id"], steps=60))["status"] == "failed"
    assert (len(fake.submits), len(fake.polls)) == (1, 3)


@pytest.mark.parametrize("status", [401, 403, 422])
async def test_an_odd_refusal_of_a_poll_ends_no_task(gateway: Running, fake: FakeXAI, status: int) -> None:
    refusals = shapes(status, UNSAFE) + shapes(status, "Blocked by the content policy of this network")
    fake.script("poll", Answer(202), *refusals)
    video = await gateway.create(model=NEW)
    assert (await gateway.finish(video["id"], steps=60))["status"] == "completed"
    assert len(fake.submits) == 1


async def test_a_poll_that_is_refused_for_the_content_ends_the_task(gateway: Running, fake: FakeXAI) -> None:
    fake.script("poll", Answer(202), Answer(400, {"code": INVALID, "error": UNSAFE}))
    video = await gateway.create(model=NEW)
    ended = await gateway.finish(video["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "content_policy_violation")
    assert TEAM not in ended["error"]["message"]
    assert (len(fake.submits), len(fake.polls)) == (1, 2)


async def test_a_key_that_is_refused_by_a_400_ends_no_task(provider: XAI, fake: FakeXAI) -> None:
    fake.script("poll", *[Answer(400, {"code": INVALID, "error": "Incorrect API key provided: xa***yz."})] * 2)
    with pytest.raises(errors.UpstreamAccount):
        await provider.poll(task(ref="task-1"))
    with pytest.raises(errors.UpstreamAccount):
        await provider.check(NOW)


# A finished task, and its address


def done(**video: Any) -> dict[str, Any]:
    return {"status": "done", "video": {"duration": 6, **video}}


STORED = {"file_output": {"file_id": "f1", "public_url": "https://pub.example.com/a.mp4"}}


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (done(url="", respect_moderation=False), "content_policy_violation"),
        (done(respect_moderation=False), "content_policy_violation"),
        (done(url="https://v.example/x.mp4", respect_moderation=False), "content_policy_violation"),
        (done(url=""), "content_policy_violation"),
        (done(), "content_policy_violation"),
        (done(url="", respect_moderation=True), "no_output"),
        (done(url=None, respect_moderation=True), "no_output"),
        (done(url=["ftp://x"], respect_moderation=True), "no_output"),
        (done(url="", respect_moderation=True, file_output={"file_id": "f1", "public_url": ""}), "no_output"),
        (done(url="", respect_moderation=True, **STORED), "https://pub.example.com/a.mp4"),
        (done(**STORED), "https://pub.example.com/a.mp4"),
        (done(url="https://v.example/x.mp4", **STORED), "https://v.example/x.mp4"),
        (done(url="https://v.example/x.mp4", respect_moderation="no"), "https://v.example/x.mp4"),
        ({"status": "done"}, "no_output"),
        ({"status": "done", "video": None}, "no_output"),
        ({"status": "done", "video": []}, "no_output"),
        ({"status": "done", "video": "https://v.example/x.mp4"}, "https://v.example/x.mp4"),
        ({"video": {"url": "https://v.example/x.mp4"}}, "https://v.example/x.mp4"),
        ({"video": {"url": "", "respect_moderation": False}}, "content_policy_violation"),
        ({"status": "failed", "error": {"code": "invalid_argument", "message": "x"}}, "invalid_argument"),
        ({"status": "failed", "error": {"code": "x", "message": "Rejected by moderation"}}, "content_policy_violation"),
        ({"status": "failed", "error": {"code": 7, "message": ["m"]}}, "generation_failed"),
        ({"status": "failed", "error": "broken"}, "generation_failed"),
        ({"status": "expired", "error": {"code": "x"}}, "expired"),
        ({"status": "rejected", "error": {"code": "bad", "message": "x"}}, "bad"),
        ({"status": ["done"], **done(url="https://v.example/x.mp4"), "status ": 1}, "https://v.example/x.mp4"),
        ({"status": {"done": 1}}, "running"),
        ({"code": "x", "error": "y"}, "running"),
        ({}, "running"),
    ],
)
async def test_a_finished_task_has_a_file_or_the_reason_why_not(
    provider: XAI, fake: FakeXAI, document: dict[str, Any], found: str
) -> None:
    fake.script("poll", Answer(200, document))
    progress = await provider.poll(task(ref="task-1"))
    if progress.failure is not None:
        assert (progress.status, progress.output, progress.failure.code) == (Status.failed, None, found)
        assert progress.failure.message
    elif progress.output is not None:
        assert (progress.status, progress.output.url) == (Status.completed, found)
    else:
        assert (progress.status, found) == (Status.in_progress, "running")


async def test_a_moderated_video_says_so_to_its_client(gateway: Running, fake: FakeXAI) -> None:
    video = await gateway.create(model=NEW)
    await gateway.worker.run_once()
    fake.finish(next(iter(fake.jobs)))
    fake.jobs[next(iter(fake.jobs))].raw = recorded("xai", "rest poll done moderated", 1)
    ended = await gateway.finish(video["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "content_policy_violation")
    assert "moderation" in ended["error"]["message"]
    assert (len(fake.submits), fake.contents) == (1, [])


@pytest.mark.parametrize(
    ("value", "percent"),
    [(40, 40), (0, 0), (99.9, 99), (250, 100), (-1, 0), (True, None), ("40", None), (10**400, None), (None, None)],
)
async def test_a_progress_is_a_percentage(provider: XAI, fake: FakeXAI, value: Any, percent: int | None) -> None:
    fake.script("poll", Answer(200, {"status": "pending", "progress": value}))
    assert (await provider.poll(task(ref="task-1"))).progress == percent


# Prices and costs


@pytest.mark.parametrize(
    ("usage", "micros"),
    [
        ({"cost_in_usd_ticks": 8_400_000_000}, 840_000),
        ({"cost_in_usd_ticks": 0}, 0),
        ({"cost_in_usd_ticks": 12_345.0}, 1),
        ({"cost_in_usd_ticks": 10**16}, 10**12),
        ({"cost_in_usd_ticks": 10**16 + 1}, None),
        ({"cost_in_usd_ticks": 10**400}, None),
        ({"cost_in_usd_ticks": -1}, None),
        ({"cost_in_usd_ticks": True}, None),
        ({"cost_in_usd_ticks": "8400000000"}, None),
        ([], None),
        (None, None),
    ],
)
async def test_a_cost_in_ticks_is_read(provider: XAI, fake: FakeXAI, usage: Any, micros: int | None) -> None:
    for document in (done(url="https://v.example/x.mp4"), done(url="", respect_moderation=False)):
        fake.script("poll", Answer(200, {**document, "usage": usage}))
        assert (await provider.poll(task(ref="task-1"))).reported_micros == micros


async def test_a_cost_is_kept_with_the_attempt(gateway: Running, fake: FakeXAI) -> None:
    video = await gateway.create(model=NEW, seconds=6, resolution="720p")
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    [attempt] = await gateway.attempts(video["id"])
    assert attempt.reported_micros == 840_000
    assert video["cost_estimate"] == pytest.approx(0.84)


@pytest.mark.parametrize(
    ("model", "fields", "cost"),
    [
        (OLD, {}, 8 * 0.05),
        (OLD, {"seconds": 15, "resolution": "720p"}, 15 * 0.07),
        (OLD, {"reference_images": PICTURES * 7}, 8 * 0.05 + 7 * 0.002),
        (NEW, {}, 8 * 0.08),
        (NEW, {"resolution": "1080p", "seconds": 1}, 0.25),
        (NEW, {"input_reference": PICTURE, "last_frame": PICTURES[0]}, 8 * 0.08 + 2 * 0.01),
        (NEW, {"keyframes": [{"image": {"url": PICTURES[0]}, "timestamp_s": 1.5}]}, None),
        (LITE, {"seconds": 4, "resolution": "1080p"}, 4 * 0.14),
        ("xai/grok-imagine-video-1.5-2026-05-30", {"seconds": 2}, 2 * 0.08),
        ("xai/grok-imagine-video-2", {"seconds": 2}, None),
    ],
)
async def test_a_video_costs_what_was_sent(
    gateway: Running, fake: FakeXAI, model: str, fields: dict[str, Any], cost: float | None
) -> None:
    video = await gateway.create(model=model, **fields)
    assert video["cost_estimate"] == (None if cost is None else pytest.approx(cost, abs=1e-6))
    await gateway.worker.run_once()
    sent = fake.submits[0].json
    if cost is not None:
        assert (sent["duration"], sent["resolution"]) == (fields.get("seconds", 8), fields.get("resolution", "480p"))


# What is sent


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        (OLD, {"resolution": "1080p"}, "resolution"),
        (OLD, {"last_frame": PICTURES[0]}, "last_frame"),
        (OLD, {"generate_audio": False}, "generate_audio"),
        (OLD, {"keyframes": []}, "keyframes"),
        (OLD, {"reference_images": PICTURES * 8}, "reference_images"),
        (OLD, {"seconds": 16}, "seconds"),
        (OLD, {"aspect_ratio": "21:9"}, "aspect_ratio"),
        (OLD, {"seed": 7}, "seed"),
        (NEW, {"reference_images": PICTURES, "resolution": "1080p"}, "resolution"),
        (LITE, {"reference_images": PICTURES}, "reference_images"),
        (LITE, {"last_frame": PICTURES[0]}, "last_frame"),
        (NEW, {"storage_options": {"filename": "a.mp4"}}, "storage_options"),
        (NEW, {"storage_options": {"public_url": False}}, "storage_options"),
        ("xai/grok-imagine-video-2", {"storage_options": "mine"}, "storage_options"),
    ],
)
async def test_a_field_that_the_model_would_refuse_is_refused_before_it_is_sent(
    gateway: Running, fake: FakeXAI, model: str, fields: dict[str, Any], param: str
) -> None:
    answer = await gateway.client.post("/v1/videos", json={"prompt": "a boat", "model": model, **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert fake.submits == []


def test_another_name_of_a_model_is_that_model_and_a_newer_one_is_not_known() -> None:
    provider = XAI("up", XAI.Config(api_key=KEY))
    for name in ("grok-imagine-video-1.5-preview", "grok-imagine-video-1.5-2026-05-30"):
        assert provider.capabilities(name) is MODELS["grok-imagine-video-1.5"]
    for name in ("grok-imagine-video-2", "grok-imagine-video-1.5-turbo", "grok-imagine-video-1.5-lite-preview"):
        assert provider.capabilities(name) is ANYTHING


@pytest.mark.parametrize(("call", "path"), [("edits", EDITS), ("extensions", EXTENSIONS)])
async def test_a_video_of_this_gateway_is_named_by_a_link_of_it(
    fake: FakeXAI, start_gateway: StartGateway, call: str, path: str
) -> None:
    async with serve(fake) as url:
        providers = {"xai": {"api_key": KEY, "base_url": f"{url}/v1"}}
        options: dict[str, Any] = {"public_url": "https://gateway.example", "allow_networks": ["127.0.0.0/8"]}
        async with start_gateway(providers=providers, **options) as gateway:
            first = await gateway.create(model=OLD, seconds=4, size="1280x720")
            await gateway.finish(first["id"])
            length = {"seconds": "4"} if call == "extensions" else {}
            body = {"prompt": "at night", "model": OLD, "video": {"id": first["id"]}, **length}
            made = await gateway.client.post(f"/v1/videos/{call}", json=body)
            assert made.status_code == 202, made.text
            assert made.json()["cost_estimate"] is None
            assert (await gateway.finish(made.json()["id"]))["status"] == "completed"
            sent = fake.submits[-1]
            assert sent.path == path
            assert sent.json.keys() == {"model", "prompt", "video"} | ({"duration"} if length else set())
            link = sent.json["video"]["url"].removeprefix("https://gateway.example")
            played = await gateway.bob.get(link, headers={"authorization": ""})
            assert played.content == fake.file


@pytest.mark.parametrize(
    ("call", "model", "fields", "reason"),
    [
        ("edits", OLD, {"generate_audio": "false"}, "generate_audio"),
        ("extensions", OLD, {"seconds": "4", "keyframes": "[]"}, "keyframes"),
        ("extensions", OLD, {"seconds": "12"}, "2 to 10"),
        ("edits", NEW, {}, "cannot edit"),
        ("extensions", LITE, {"seconds": "4"}, "cannot extend"),
    ],
)
async def test_an_edit_or_an_extension_that_would_be_refused_is_not_sent(
    fake: FakeXAI, start_gateway: StartGateway, call: str, model: str, fields: dict[str, Any], reason: str
) -> None:
    async with serve(fake) as url:
        providers = {"xai": {"api_key": KEY, "base_url": f"{url}/v1"}}
        async with start_gateway(providers=providers, public_url="https://gateway.example") as gateway:
            form, file = {"prompt": "at night", "model": model, **fields}, ("a.mp4", fake.file, "video/mp4")
            answer = await gateway.client.post(f"/v1/videos/{call}", data=form, files={"video": file})
    assert answer.status_code == 400, answer.text
    assert reason in answer.text
    assert fake.submits == []


@pytest.mark.parametrize("operation", [Operation.edit, Operation.extend])
def test_a_video_made_of_another_has_the_shape_of_that(operation: Operation) -> None:
    provider = XAI("up", XAI.Config(api_key=KEY))
    request = ask(operation=operation, source=Media(url="https://x.example/in.mp4"), aspect_ratio="16:9", seconds=20)
    able = provider.capabilities_for("grok-imagine-video", request)
    assert able is not None
    assert set(fit(request, able, can_link=True).problems) == {"seconds", "aspect_ratio"}


async def test_a_stored_video_without_a_public_address_is_not_sent(provider: XAI, fake: FakeXAI) -> None:
    for model in ("grok-imagine-video", "grok-imagine-video-2"):
        for operation in (Operation.generate, Operation.edit):
            request = ask(operation=operation, source=Media(url=PICTURES[0]), extra={"storage_options": {}})
            with pytest.raises(errors.UpstreamRejected, match="public_url"):
                await provider.send(task(request, model))
    assert fake.submits == []
    stored = {"filename": "a.mp4", "public_url": {"expires_after": 60}}
    await provider.send(task(ask(extra={"storage_options": stored})))
    assert fake.submits[0].json["storage_options"] == stored


async def test_a_video_without_an_address_is_not_sent(provider: XAI, fake: FakeXAI) -> None:
    for operation in (Operation.edit, Operation.extend):
        request = ask(operation=operation, source=Media(key="clip"))
        with pytest.raises(errors.UpstreamRejected, match="GATEWAY_PUBLIC_URL"):
            await provider.send(task(request, "grok-imagine-video"))
    assert fake.submits == []


async def test_the_fake_refuses_what_the_vendor_does(provider: XAI, fake: FakeXAI) -> None:
    """So that a request in the wrong shape would be noticed."""
    path = "/videos/generations"
    text = {"model": "grok-imagine-video", "prompt": "x"}
    for body in (
        {**text, "size": "1280x720"},
        {**text, "duration": "8"},
        {**text, "last_frame": {"url": "https://x.example/a.png"}},
        {"model": "grok-imagine-video"},
    ):
        with pytest.raises(errors.UpstreamRejected):
            await provider.call("check", "POST", path, json=body)
    with pytest.raises(errors.UpstreamRejected, match="deserialize"):
        await provider.call("check", "POST", path, json=[])
    assert fake.jobs == {}
