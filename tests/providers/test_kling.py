"""Kling: only what the provider contract suite and the recordings do not cover."""

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from contract.stage import NOW, read
from fakes.kling import ACCESS_KEY, SECRET_KEY, FakeKling, FakeKlingV1
from fakes.recorded import FOLDER
from fakes.server import KEY, Answer, Fault, Reset, serve
from fakes.upstream import ask
from harness import Running, StartGateway
from pydantic import ValidationError
from structlog.testing import capture_logs

from app import errors
from app.providers.base import Task
from app.providers.kling import Kling, v1, v2
from app.providers.kling.adapter import LISTED_AFTER_S, LOOK_AGAIN_S, LOOKED_FOR_S, POLLS_AT_ONCE
from app.video import Progress, Status

pytestmark = pytest.mark.anyio

RECORDED: dict[str, Any] = json.loads((FOLDER / "kling.json").read_text("utf-8"))
PAIR = {"api": "v1", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
PICTURE = {"image_url": "https://x.example/a.png"}
CLIP = {"video_url": "https://x.example/a.mp4"}


@pytest.fixture
def fake() -> FakeKling:
    return FakeKling()


@pytest.fixture
async def gateway(fake: FakeKling, start_gateway: StartGateway) -> AsyncIterator[Running]:
    async with serve(fake) as url:
        providers = {"kling": {"api_key": KEY, "base_url": url}}
        async with start_gateway(providers=providers, allow_networks=["127.0.0.0/8"]) as running:
            yield running


@pytest.fixture
async def kling(fake: FakeKling) -> AsyncIterator[Kling]:
    async with serve(fake) as url:
        provider = Kling("up", Kling.Config(api_key=KEY, base_url=url))
        yield provider
        await provider.aclose()


def task(**fields: Any) -> Task:
    values = {"id": "attempt_1", "model": "kling-3.0", "request": ask(), "read": read, "now": NOW}
    return Task(**{**values, **fields})


# Keys


def test_a_token_is_that_of_the_vendors_own_client() -> None:
    vector = RECORDED["jwt_vector"]
    assert v1.token(vector["access_key"], vector["secret_key"], vector["now"]) == vector["token"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"access_key": "a", "secret_key": "b"}, "refused by API 2.0"),
        ({"api": "v1", "access_key": "a"}, "either API_KEY, or ACCESS_KEY and SECRET_KEY together"),
        ({"api": "v1", "secret_key": "b", "api_key": "c"}, "either API_KEY, or ACCESS_KEY and SECRET_KEY together"),
        ({**PAIR, "api_key": "c"}, "either API_KEY, or ACCESS_KEY and SECRET_KEY together"),
        ({**PAIR, "secret_key": "$KLING_SECRET_KEY"}, "was not replaced by the key"),
        ({}, "api_key\n  Field required"),
        ({"api_key": "a", "api": "v2"}, "'2.0' or 'v1'"),
        *(
            ({"api_key": "a", "webhook_secret": secret}, "expected whsec_ and base 64")
            for secret in ("whsec_!", "whsec_", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", "")
        ),
        ({"api_key": "a", "webhook_secret": "${KLING_WEBHOOK_SECRET}"}, "was not replaced by the key"),
    ],
)
def test_settings_that_cannot_work_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Kling.Config.model_validate(config)
    assert said in str(caught.value)


def test_the_version_may_be_a_number_in_the_settings_file() -> None:
    assert Kling.Config.model_validate({"api_key": "a", "api": 2.0}).api == "2.0"


async def test_a_pair_of_keys_makes_a_video_by_v1_and_is_never_shown(start_gateway: StartGateway) -> None:
    fake = FakeKlingV1()
    fake.script("poll", Answer(400, {"code": 1201, "message": f"no: {ACCESS_KEY}, {SECRET_KEY}"}))
    async with serve(fake) as url:
        with capture_logs() as logs:
            async with start_gateway(providers={"kling": {**PAIR, "base_url": url}}) as gateway:
                video = await gateway.create(model="kling/kling-2.6", input_reference=PICTURE)
                done = await gateway.finish(video["id"])
                token = fake.submits[0].headers["authorization"].removeprefix("Bearer ")
                assert token.count(".") == 2
                fake.script("submit", Answer(400, {"code": 1201, "message": f"bad token {token}"}))
                wrong = await gateway.finish((await gateway.create(model="kling/kling-3.0"))["id"])
    assert (done["status"], wrong["status"]) == ("completed", "failed")
    assert "bad token [key]" in wrong["error"]["message"]
    assert {call.path for call in fake.polls} == {f"/v1/videos/image2video/{next(iter(fake.jobs))}"}
    assert [secret for secret in (ACCESS_KEY, SECRET_KEY, token) if secret in f"{logs}{wrong}"] == []


@pytest.mark.parametrize(
    ("config", "said"),
    [({}, "an API key, not an access key"), ({**PAIR, "secret_key": "another"}, "refuses the gateway's credentials")],
)
async def test_a_refused_key_is_explained(fake: FakeKling, config: dict[str, Any], said: str) -> None:
    async with serve(fake) as url:
        provider = Kling("up", Kling.Config(**{"base_url": url, **(config or {"api_key": "a.b.c"})}))
        with pytest.raises(errors.UpstreamAccount, match=said):
            await provider.check(NOW)
        await provider.aclose()


# Requests


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        ("kling-3.0", {"last_frame": PICTURE}, "input_reference"),
        ("kling-3.0", {"size": "1280x720", "input_reference": PICTURE}, "size"),
        ("kling-3.0", {"elements": [{"element_id": "1"}]}, "elements"),
        ("kling-3.0", {"seed": 7}, "seed"),
        ("kling-3.0", {"resolution": "480p"}, "resolution"),
        ("kling-3.0-turbo", {"input_reference": PICTURE, "last_frame": PICTURE}, "last_frame"),
        ("kling-3.0-turbo", {"generate_audio": False}, "generate_audio"),
        ("kling-3.0-turbo", {"multi_shot": False}, "multi_shot"),
        ("kling-3.0-turbo", {"resolution": "4k"}, "resolution"),
        ("kling-2.6", {"resolution": "720p", "generate_audio": True}, "resolution"),
        ("kling-2.6", {"seconds": "7"}, "seconds"),
        ("kling-2.5-turbo", {"resolution": "720p", "input_reference": PICTURE, "last_frame": PICTURE}, "resolution"),
        ("kling-o1", {"seconds": "7"}, "seconds"),
        ("kling-3.0-omni", {"reference_images": [PICTURE] * 8}, "reference_images"),
        (
            "kling-3.0-omni",
            {"reference_images": [PICTURE] * 5, "reference_video": CLIP},
            "reference_images",
        ),
    ],
)
async def test_what_a_model_would_ignore_or_refuse_is_refused_before_it_is_sent(
    gateway: Running, fake: FakeKling, model: str, fields: dict[str, Any], param: str
) -> None:
    refused = await gateway.client.post("/v1/videos", json={"prompt": "a boat", "model": f"kling/{model}", **fields})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert fake.submits == []


@pytest.mark.parametrize(
    ("model", "name", "value", "said"),
    [
        ("kling-3.0-omni", "elements", ["321"], "expected a list"),
        ("kling-3.0-omni", "elements", "321", "expected a list"),
        ("kling-3.0-omni", "elements", [{"id": "a"}], "expected a list"),
        ("kling-4.0-omni", "elements", {}, "expected a list"),
        ("kling-4.0", "elements", [{"element_id": "321"}], "beside a first frame only"),
        ("kling-3.0", "multi_shot", "yes", "expected true or false"),
        ("kling-3.0", "multi_shot", 1, "expected true or false"),
        ("kling-3.0", "multi_shot", [], "expected true or false"),
        ("kling-4.0", "multi_shot", "no", "expected true or false"),
    ],
)
async def test_a_malformed_field_of_the_vendor_is_refused_at_create(
    gateway: Running, fake: FakeKling, model: str, name: str, value: Any, said: str
) -> None:
    asked = {"prompt": "a boat", "model": f"kling/{model}", name: value}
    refused = await gateway.client.post("/v1/videos", json=asked)
    error = refused.json()["error"]
    assert (refused.status_code, error["param"], fake.submits) == (400, name, [])
    assert said in error["message"]


@pytest.mark.parametrize("value", ["yes", 1, None])
async def test_several_shots_are_made_for_true_only(value: Any) -> None:
    """Also where a request was stored before its fields were checked."""
    for fake, api in ((FakeKling(), "2.0"), (FakeKlingV1(), "v1")):
        async with serve(fake) as url:
            provider = Kling("up", Kling.Config(api_key=KEY, base_url=url, api=api))
            with suppress(errors.UpstreamRejected):
                await provider.send(task(request=ask(extra={"multi_shot": value})))
            sent = [call.json.get("settings", call.json)["multi_shot"] for call in fake.submits]
            assert sent == ([] if api == "2.0" else [False])
            await provider.send(task(request=ask(extra={"multi_shot": True}), id="attempt_2"))
            assert fake.submits[-1].json.get("settings", fake.submits[-1].json)["multi_shot"] is True
            await provider.aclose()


async def test_several_shots_of_v1_are_asked_for_by_true_or_false(start_gateway: StartGateway) -> None:
    async with serve(FakeKlingV1()) as url:
        config = {"api_key": KEY, "base_url": url, "api": "v1"}
        async with start_gateway(providers={"kling": config}) as gateway:
            asked = {"prompt": "a boat", "model": "kling/kling-3.0", "multi_shot": "yes"}
            refused = await gateway.client.post("/v1/videos", json=asked)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "multi_shot")


# Refusals


@pytest.mark.parametrize("status", [429, 200])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1100, errors.UpstreamAccount),
        (1101, errors.UpstreamCredit),
        (1102, errors.UpstreamCredit),
        (1302, errors.UpstreamRateLimited),
        (1303, errors.UpstreamRateLimited),
        (1304, errors.UpstreamAccount),
    ],
)
async def test_the_code_decides_what_a_429_is(
    fake: FakeKling, kling: Kling, status: int, code: int, kind: type[errors.UpstreamError]
) -> None:
    fake.script("submit", Answer(status, {"code": code, "message": "no", "request_id": "r"}))
    with pytest.raises(errors.UpstreamError) as caught:
        await kling.send(task())
    assert (type(caught.value), caught.value.upstream_status) == (kind, status)
    assert len(fake.submits) == 1


@pytest.mark.parametrize("code", [5000, 5001, 7, -1, "1201x", None, [], "x" * 9_000])
async def test_a_code_that_is_no_refusal_is_an_unknown_outcome(fake: FakeKling, kling: Kling, code: Any) -> None:
    fake.script("submit", Answer(200, {"code": code, "message": "no"}))
    with pytest.raises(errors.UpstreamUnknown):
        await kling.send(task())


async def test_an_empty_account_fails_and_a_busy_one_waits(gateway: Running, fake: FakeKling) -> None:
    fake.script("submit", fake.refusal(429, "Account in arrears", "1101"))
    poor = await gateway.finish((await gateway.create(model="kling/kling-3.0"))["id"])
    assert (poor["status"], len(fake.submits)) == ("failed", 1)
    fake.script("submit", fake.refusal(429, "parallel task over resource pack limit", "1303"))
    busy = await gateway.finish((await gateway.create(model="kling/kling-3.0"))["id"])
    assert (busy["status"], len(fake.submits), len(fake.jobs)) == ("completed", 3, 1)


# Lost answers


async def worked(gateway: Running, seconds: float) -> None:
    gateway.clock.advance(seconds)
    await gateway.worker.run_once()


async def test_a_lost_answer_is_found_by_the_attempts_id(gateway: Running, fake: FakeKling) -> None:
    fake.script("submit", Reset())
    video = await gateway.create(model="kling/kling-3.0")
    await gateway.worker.run_once()
    (ref,) = fake.jobs
    fake.unlisted.add(ref)
    for _ in range(3):
        await worked(gateway, 2 * LOOK_AGAIN_S)
        assert (await gateway.get(video["id"]))["status"] in ("queued", "in_progress")
    fake.unlisted.clear()
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    (attempt,) = await gateway.attempts(video["id"])
    assert (len(fake.submits), list(fake.jobs), attempt.upstream_ref) == (1, [ref], ref)
    asked = [parse_qs(call.query) for call in fake.polls if "external_task_ids" in call.query]
    assert asked == [{"external_task_ids": [attempt.id]}] * len(asked)
    assert len(asked) > 3


async def test_a_submit_that_is_never_listed_is_not_sent_again(gateway: Running, fake: FakeKling) -> None:
    """That a repeat makes no second task is what one client saw; the vendor does not promise it."""
    fake.script("submit", Reset(accepted=False))
    video = await gateway.create(model="kling/kling-3.0")
    await gateway.worker.run_once()
    await worked(gateway, LOOKED_FOR_S - 10)
    (attempt,) = await gateway.attempts(video["id"])
    assert attempt.state == "submitting"
    ended = await gateway.finish(video["id"])
    (attempt,) = await gateway.attempts(video["id"])
    assert (ended["status"], attempt.state, attempt.error_code) == ("failed", "lost", "upstream_outcome_unknown")
    assert (len(fake.submits), fake.jobs) == (1, {})


async def test_a_lost_answer_of_v1_is_found_below_its_path(start_gateway: StartGateway) -> None:
    fake = FakeKlingV1()
    fake.script("submit", Reset())
    async with serve(fake) as url:
        config = {"api_key": KEY, "base_url": url, "api": "v1"}
        async with start_gateway(providers={"kling": config}) as gateway:
            video = await gateway.create(model="kling/kling-3.0", input_reference=PICTURE)
            assert (await gateway.finish(video["id"]))["status"] == "completed"
            (attempt,) = await gateway.attempts(video["id"])
    assert fake.polls[0].path == f"/v1/videos/image2video/{attempt.id}"
    assert (len(fake.submits), list(fake.jobs)) == (1, [attempt.upstream_ref])


async def test_a_refusal_as_repeat_is_answered_by_the_first_task(fake: FakeKling, kling: Kling) -> None:
    first = await kling.send(task())
    again = await kling.send(task())
    assert (again.ref, again.status, len(fake.jobs)) == (first.ref, Status.queued, 1)


async def test_a_repeat_whose_task_is_not_listed_yet_is_an_unknown_outcome(fake: FakeKling, kling: Kling) -> None:
    fake.unlisted.add((await kling.send(task())).ref)
    with pytest.raises(errors.UpstreamUnknown, match=r"does not show it: external_task_id already exists$"):
        await kling.send(task())
    assert len(fake.polls) == 1


@pytest.mark.parametrize("fault", [Answer(500), Answer(429), Answer(200, "<html>"), Reset()])
async def test_a_repeat_whose_task_cannot_be_looked_up_is_an_unknown_outcome(
    fake: FakeKling, kling: Kling, fault: Fault
) -> None:
    await kling.send(task())
    fake.script("poll", fault)
    with pytest.raises(errors.UpstreamUnknown, match="external_task_id already exists"):
        await kling.send(task())
    assert len(fake.jobs) == 1


@pytest.mark.parametrize(
    ("code", "message", "looked_up"),
    [
        ("1201", "External Task ID duplicate", 1),
        ("1201", "attempt_1 already exists", 1),
        ("1201", "element chen is repeated in contents", 0),
        ("1201", "the image is already used as last_frame", 0),
        ("1200", "external_task_id already exists", 0),
        ("1201", "external_task_id is too long", 0),
    ],
)
async def test_only_the_refusal_of_our_id_is_a_repeat(
    fake: FakeKling, kling: Kling, code: str, message: str, looked_up: int
) -> None:
    fake.script("submit", fake.refusal(400, message, code))
    if not looked_up:
        fake.script("poll", Answer(500))
    with pytest.raises(errors.UpstreamUnknown if looked_up else errors.UpstreamRejected) as caught:
        await kling.send(task())
    assert caught.value.message.endswith(message)
    assert len(fake.polls) == looked_up


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(503, {"code": 5001, "message": "Temporarily unavailable"}), errors.UpstreamUnavailable),
        (Answer(503, {"code": 5002, "message": "no answer in time"}), errors.UpstreamUnknown),
        (Answer(503, {"message": "upstream connect error"}), errors.UpstreamUnknown),
        (Answer(503, "busy", {"retry-after": "3"}), errors.UpstreamUnknown),
        (Answer(500, {"code": 5001, "message": "Temporarily unavailable"}), errors.UpstreamUnknown),
    ],
)
async def test_a_503_made_no_task_by_its_documented_code_alone(
    fake: FakeKling, kling: Kling, answer: Answer, kind: type[errors.UpstreamError]
) -> None:
    fake.script("submit", answer)
    with pytest.raises(errors.UpstreamError) as caught:
        await kling.send(task())
    assert type(caught.value) is kind


async def test_a_task_of_another_id_is_never_taken_for_the_lost_one(fake: FakeKling, kling: Kling) -> None:
    foreign = (await kling.send(task(id="attempt_2"))).ref
    rows = [{"id": foreign, "status": "processing", "external_id": other} for other in ("attempt_2", None, 7)]
    fake.script("poll", Answer(200, {"code": 0, "data": [*rows, "x", {}]}))
    with pytest.raises(errors.UpstreamRejected):
        await kling.send(task(in_doubt=True, submitted_at=NOW - timedelta(seconds=LOOKED_FOR_S)))
    assert len(fake.submits) == 1


@pytest.mark.parametrize("fault", [Answer(500), Answer(200, b"<html>"), Answer(200, {"code": 0, "data": {}}), Reset()])
async def test_a_look_up_without_an_answer_is_repeated(gateway: Running, fake: FakeKling, fault: Fault) -> None:
    fake.script("submit", Reset())
    fake.script("poll", fault)
    video = await gateway.create(model="kling/kling-3.0")
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert (len(fake.submits), len(fake.jobs)) == (1, 1)


# Polls


async def test_a_task_that_is_not_listed_yet_waits_and_later_is_gone(fake: FakeKling, kling: Kling) -> None:
    ref = (await kling.send(task())).ref
    fake.unlisted.add(ref)
    just_now = task(ref=ref, submitted_at=NOW - timedelta(seconds=LISTED_AFTER_S - 1))
    assert (await kling.poll(just_now)).status is Status.queued
    with pytest.raises(errors.UpstreamGone):
        await kling.poll(task(ref=ref, submitted_at=NOW - timedelta(seconds=LISTED_AFTER_S)))


async def test_twenty_tasks_are_read_in_one_call(gateway: Running, fake: FakeKling) -> None:
    fake.polls_until_working = fake.polls_until_done = 10_000
    videos = [await gateway.create(model="kling/kling-3.0") for _ in range(POLLS_AT_ONCE + 3)]
    while len(fake.jobs) < len(videos):
        await gateway.worker.run_once()
    fake.polls.clear()
    for ref in fake.jobs:
        fake.finish(ref)
    for _ in range(3):
        await worked(gateway, 20)
    asked = [parse_qs(call.query)["task_ids"][0].split(",") for call in fake.polls]
    assert sorted(ref for refs in asked for ref in refs) == sorted(fake.jobs)
    assert max(map(len, asked)) <= POLLS_AT_ONCE
    assert len(asked) < len(videos) / 2
    assert {(await gateway.finish(video["id"]))["status"] for video in videos} == {"completed"}


async def test_each_task_of_an_answer_is_read_for_itself(fake: FakeKling, kling: Kling) -> None:
    refs = [(await kling.send(task(id=f"attempt_{number}"))).ref for number in range(4)]
    fake.finish(refs[0])
    fake.fail(refs[1], message="Failure to pass the risk control system")
    fake.unlisted.add(refs[2])
    tasks = [task(id=f"attempt_{number}", ref=ref) for number, ref in enumerate(refs)]
    found = await kling.poll_many(tasks)
    assert [type(found[one.id]) for one in tasks] == [Progress, Progress, errors.UpstreamGone, Progress]
    done, refused = found["attempt_0"], found["attempt_1"]
    assert isinstance(done, Progress)
    assert isinstance(refused, Progress)
    assert done.output is not None
    assert done.output.url is not None
    assert done.output.url.endswith(f"/files/{refs[0]}.mp4")
    assert refused.failure is not None
    assert refused.failure.code == "content_policy_violation"


@pytest.mark.parametrize(
    "data",
    [None, {}, "x", 7, {"id": "1", "status": "succeeded"}],
)
async def test_an_answer_that_is_no_list_is_no_verdict(fake: FakeKling, kling: Kling, data: Any) -> None:
    ref = (await kling.send(task())).ref
    for call in (kling.poll, lambda one: kling.poll_many([one])):
        fake.script("poll", Answer(200, {"code": 0, "data": data}))
        with pytest.raises(errors.UpstreamUnavailable):
            await call(task(ref=ref))


@pytest.mark.parametrize("outputs", [None, "x", [7], [[]], [{"type": "image", "url": "https://x.example/a"}], [{}]])
async def test_a_finished_task_without_a_video_is_failed(fake: FakeKling, kling: Kling, outputs: Any) -> None:
    ref = (await kling.send(task())).ref
    fake.finish(ref)
    fake.jobs[ref].raw["outputs"] = outputs
    failure = (await kling.poll(task(ref=ref))).failure
    assert failure is not None
    assert failure.code == "no_output"


@pytest.mark.parametrize("kind", [FakeKling, FakeKlingV1])
async def test_a_file_within_the_answer_is_read_from_it(kind: type[FakeKling]) -> None:
    fake = kind()
    async with serve(fake) as url:
        api = "v1" if kind is FakeKlingV1 else "2.0"
        provider = Kling("up", Kling.Config(api_key=KEY, base_url=url, api=api))
        ref = (await provider.send(task())).ref
        fake.elsewhere(ref, "data:video/mp4;base64,AAAAGGZ0eXBtcDQy")
        made = task(ref=ref)
        output = (await provider.poll(made)).output
        assert output is not None
        async with provider.fetch(made, output) as download:
            assert b"".join([chunk async for chunk in download.chunks]) == b"\0\0\0\x18ftypmp42"
        await provider.aclose()


# Lists and callbacks


async def test_the_list_is_read_page_by_page(fake: FakeKling, kling: Kling) -> None:
    made = [(await kling.send(task(id=f"attempt_{number}"))).ref for number in range(105)]
    first, page = await kling.list_tasks(None)
    second, end = await kling.list_tasks(page)
    assert [one.ref for one in (*first, *second)] == list(reversed(made))
    assert (len(first), end) == (100, None)
    assert first[0].created_at == datetime.fromtimestamp(1_795_600_800.123, UTC)


@pytest.mark.parametrize(
    "data",
    [
        *({"has_more": True, "next_cursor": cursor} for cursor in (None, "", 7, "x" * 1_001, "again")),
        {"has_more": "yes", "next_cursor": "c"},
        {"result": [7, {"id": "1"}, {"id": "1", "create_time": "x"}, {"id": 7, "create_time": 1}]},
        {"result": [{"id": "1", "create_time": 10**30}, {"id": "1", "create_time": -1}]},
        "x",
        None,
    ],
)
async def test_an_odd_list_ends(fake: FakeKling, kling: Kling, data: Any) -> None:
    fake.script("list", Answer(200, {"code": 0, "data": data}))
    assert await kling.list_tasks("again") == ([], None)


@pytest.mark.parametrize("vector", RECORDED["webhook_vectors"]["vectors"], ids=lambda vector: vector["name"])
async def test_a_callback_is_judged_as_the_vendors_library_does(vector: dict[str, Any]) -> None:
    provider = Kling("up", Kling.Config(api_key=KEY, webhook_secret=vector["secret"]))
    now = datetime.fromtimestamp(vector["now"], UTC)
    valid = provider.is_callback(vector["headers"], vector["body"].encode(), secret="x", now=now)
    assert valid is (vector["verdict"] == "valid")
    await provider.aclose()


async def test_without_a_secret_every_callback_means_poll_now(kling: Kling) -> None:
    assert kling.is_callback({}, b"", secret="x", now=NOW) is True


# Models


async def test_a_model_that_is_newer_than_the_table_is_passed_on(fake: FakeKling, kling: Kling) -> None:
    for model, path in (("kling-4.0", "text-to-video"), ("kling-4.0-omni", "omni-video"), ("a/../b?", "text-to-video")):
        assert kling.capabilities(model) in (v2.ANYTHING, v2.ANYTHING_OMNI)
        with pytest.raises(errors.UpstreamRejected):
            await kling.send(task(model=model, request=ask(extra={"resolution": "8k", "camera": {"pan": 1}})))
        call = fake.submits[-1]
        assert call.path.startswith(f"/{path}/")
        assert call.path.count("/") == 2
        assert {"resolution": "8k", "camera": {"pan": 1}}.items() <= call.json["settings"].items()


async def test_v1_has_the_models_of_both_names_and_not_those_of_2_0_alone() -> None:
    provider = Kling("up", Kling.Config(api_key=KEY, api="v1"))
    assert provider.listed == ("kling-3.0", "kling-2.6", "kling-2.5-turbo")
    assert provider.capabilities("kling-v2-6") is provider.capabilities("kling-2.6") is v1.MODELS["kling-2.6"]
    assert provider.capabilities("kling-v1-6") is v1.ANYTHING
    assert [provider.capabilities(name) for name in ("kling-3.0-omni", "kling-3.0-turbo", "kling-o1")] == [None] * 3
    assert provider.polls_at_once == 1
    with pytest.raises(errors.UpstreamRejected):
        await provider.list_tasks(None)
    await provider.aclose()
