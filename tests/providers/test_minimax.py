"""MiniMax: only what the provider contract suite and the recordings do not cover."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from contract.stage import NOW, read
from fakes.minimax import FIRST_PATH, FakeHailuo, FakeMiniMax
from fakes.minimax import PATH as SECOND_PATH
from fakes.recorded import recorded
from fakes.server import KEY, Answer, Call, Fake, Fault, Reset, sample_mp4, serve
from fakes.upstream import ask
from harness import ORIGIN, Running, StartGateway
from money import ADMIN, operator_of
from starlette.types import Receive, Scope, Send

from app import errors
from app.providers.base import Task
from app.providers.minimax import MiniMax

pytestmark = pytest.mark.anyio

H3, MAX = "minimax/MiniMax-H3", "minimax/MiniMax-H3-Max"
HAILUO, FAST, OLD = "minimax/MiniMax-Hailuo-02", "minimax/MiniMax-Hailuo-2.3-Fast", "minimax/T2V-01"
PICTURE = {"image_url": "https://example.com/a.png"}
Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(start_gateway: StartGateway) -> Start:
    @asynccontextmanager
    async def started(fake: Fake, **settings: Any) -> AsyncIterator[Running]:
        async with serve(fake) as url:
            providers = {"minimax": {"api_key": KEY, "base_url": url}}
            values = {"providers": providers, "allow_networks": ["127.0.0.0/8"], **settings}
            async with start_gateway(**values) as running:
                yield running

    return started


@pytest.fixture
def fake() -> FakeMiniMax:
    return FakeMiniMax()


@pytest.fixture
def first() -> FakeHailuo:
    """The fake with the words of version 1."""
    return FakeHailuo()


@pytest.fixture
async def gateway(fake: FakeMiniMax, start: Start) -> AsyncIterator[Running]:
    async with start(fake) as running:
        yield running


@pytest.fixture
async def hailuo(first: FakeHailuo, start: Start) -> AsyncIterator[Running]:
    async with start(first) as running:
        yield running


async def sent(gateway: Running, fake: Fake, **fields: Any) -> Call:
    """The paid request of a new video."""
    await gateway.create(**fields)
    await gateway.worker.run_once()
    return fake.submits[-1]


async def refused(gateway: Running, **fields: Any) -> str:
    """The parameter that a create is refused for."""
    answer = await gateway.client.post("/v1/videos", json={"prompt": "a boat", **fields})
    assert answer.status_code == 400, answer.text
    return str(answer.json()["error"]["param"])


# Which version, and what is sent


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (H3, SECOND_PATH),
        (MAX, SECOND_PATH),
        ("minimax/MiniMax-H4", SECOND_PATH),
        (HAILUO, FIRST_PATH),
        ("minimax/MiniMax-Hailuo-9", FIRST_PATH),
        (OLD, FIRST_PATH),
    ],
)
async def test_the_models_name_decides_on_the_version(
    gateway: Running, fake: FakeMiniMax, model: str, path: str
) -> None:
    assert (await sent(gateway, fake, model=model)).path == path


@pytest.mark.parametrize("fields", [{"size": "1280x720"}, {"resolution": "720p", "aspect_ratio": "16:9"}, {}])
@pytest.mark.parametrize(("model", "cost"), [(H3, 5 * 0.08), (MAX, 5 * 0.08), (HAILUO, 0.28)])
async def test_720p_and_no_resolution_are_made_as_768p_and_cost_as_much(
    start: Start, model: str, fields: dict[str, Any], cost: float
) -> None:
    fake = FakeHailuo() if model == HAILUO else FakeMiniMax()
    async with start(fake) as gateway:
        video = await gateway.create(model=model, **fields)
        assert video["cost_estimate"] == pytest.approx(cost, abs=1e-5)
        assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert fake.submits[0].json["resolution"] == "768P"


@pytest.mark.parametrize(
    ("fields", "resolution", "ratio"),
    [
        ({}, "768P", "16:9"),
        ({"resolution": "2k"}, "2K", "16:9"),
        ({"size": "1440x2560"}, "2K", "9:16"),
        ({"size": "1792x768"}, "768P", "21:9"),
        ({"input_reference": PICTURE}, "768P", "adaptive"),
        ({"input_reference": PICTURE, "size": "768x1366"}, "768P", "9:16"),
        ({"reference_images": ["https://example.com/a.png"]}, "768P", "adaptive"),
    ],
)
async def test_resolution_and_ratio_are_always_sent(
    gateway: Running, fake: FakeMiniMax, fields: dict[str, Any], resolution: str, ratio: str
) -> None:
    body = (await sent(gateway, fake, model=H3, **fields)).json
    assert (body["resolution"], body["ratio"], body["duration"]) == (resolution, ratio, 5)
    assert len(fake.jobs) == 1


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        (H3, {"resolution": "480p"}, "resolution"),
        (MAX, {"resolution": "2k"}, "resolution"),
        (H3, {"seconds": 3}, "seconds"),
        (MAX, {"seconds": 4}, "seconds"),
        (H3, {"generate_audio": False}, "generate_audio"),
        (H3, {"seed": 7}, "seed"),
        (MAX, {"reference_images": ["https://example.com/a.png"]}, "reference_images"),
        (H3, {"reference_images": ["https://example.com/a.png"] * 10}, "reference_images"),
        (H3, {"last_frame": "https://example.com/b.png"}, "input_reference"),
        (MAX, {"last_frame": "https://example.com/b.png"}, "input_reference"),
        (HAILUO, {"last_frame": "https://example.com/b.png"}, "input_reference"),
        (H3, {"input_reference": PICTURE, "reference_images": ["https://example.com/a.png"]}, "reference_images"),
        (H3, {"input_reference": PICTURE, "reference_video": "https://example.com/a.mp4"}, "reference_video"),
        (HAILUO, {"seconds": 8}, "seconds"),
        (HAILUO, {"seconds": 10, "resolution": "1080p"}, "seconds"),
        (HAILUO, {"resolution": "512p"}, "resolution"),
        (
            HAILUO,
            {"resolution": "512p", "input_reference": PICTURE, "last_frame": "https://example.com/b.png"},
            "resolution",
        ),
        (HAILUO, {"aspect_ratio": "9:16"}, "aspect_ratio"),
        (FAST, {}, "input_reference"),
        ("minimax/MiniMax-Hailuo-2.3", {"last_frame": "https://example.com/b.png"}, "last_frame"),
        (OLD, {"seconds": 10}, "seconds"),
        ("minimax/S2V-01", {}, "input_reference"),
    ],
)
async def test_a_field_that_the_model_would_refuse_is_refused_before_it_is_sent(
    gateway: Running, fake: FakeMiniMax, model: str, fields: dict[str, Any], param: str
) -> None:
    assert await refused(gateway, model=model, **fields) == param
    assert fake.submits == []


async def test_a_first_frame_of_hailuo_has_its_own_ratio_and_may_be_small(hailuo: Running, first: FakeHailuo) -> None:
    fields = {"input_reference": PICTURE, "size": "512x910", "aspect_ratio": "9:16", "resolution": "512p"}
    body = (await sent(hailuo, first, model=HAILUO, **fields)).json
    assert (body["resolution"], body["first_frame_image"], "ratio" in body) == ("512P", PICTURE["image_url"], False)
    assert len(first.jobs) == 1


@pytest.mark.parametrize(
    ("model", "fields", "cost"),
    [
        (H3, {"seconds": 15, "resolution": "2k"}, 15 * 0.13),
        (H3, {"reference_images": ["https://example.com/a.png"] * 5}, 5 * 0.08),
        (H3, {"reference_images": ["https://example.com/a.png"] * 8}, 5 * 0.08 + 3 * 0.04),
        (MAX, {"resolution": "480p"}, 5 * 0.05),
        (MAX, {"input_reference": PICTURE, "last_frame": "https://example.com/b.png"}, 5 * 0.08),
        (HAILUO, {"seconds": 10}, 0.56),
        (HAILUO, {"resolution": "1080p"}, 0.49),
        (HAILUO, {"seconds": 10, "resolution": "512p", "input_reference": PICTURE}, 0.15),
        (FAST, {"seconds": 10, "input_reference": PICTURE}, 0.32),
        (OLD, {}, None),
    ],
)
async def test_a_video_costs_what_was_sent(
    gateway: Running, model: str, fields: dict[str, Any], cost: float | None
) -> None:
    video = await gateway.create(model=model, **fields)
    assert video["cost_estimate"] == (None if cost is None else pytest.approx(cost, abs=1e-5))


async def test_a_reference_video_of_unknown_length_costs_at_least_the_output(
    gateway: Running, fake: FakeMiniMax
) -> None:
    fake.file = sample_mp4(6)
    video = await gateway.create(model=H3, reference_video="https://example.com/in.mp4")
    assert video["cost_estimate"] == pytest.approx(5 * 0.08)
    assert (await gateway.finish(video["id"]))["cost"] == pytest.approx(5 * 0.08)


@pytest.mark.parametrize("seconds", [5.875, 6.125])
@pytest.mark.parametrize(("resolution", "cost"), [("720p", 0.28), ("1080p", 0.49)])
async def test_a_clip_of_hailuo_has_one_price_whatever_its_file_measures(
    hailuo: Running, first: FakeHailuo, seconds: float, resolution: str, cost: float
) -> None:
    first.file = sample_mp4(seconds)
    video = await hailuo.create(model=HAILUO, resolution=resolution)
    done = await hailuo.finish(video["id"])
    assert done["output"]["duration_seconds"] == seconds
    assert done["cost"] == pytest.approx(cost, abs=1e-5)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v2/", "/proxy/v2"])
def test_a_base_url_may_have_the_version(suffix: str) -> None:
    config = MiniMax.Config(api_key=KEY, base_url=f"https://api.minimaxi.com{suffix}")
    assert config.base_url == "https://api.minimaxi.com" + ("/proxy" if "proxy" in suffix else "")


# Unknown tasks, and cancels


async def test_an_unknown_id_is_a_500_that_ends_the_video(gateway: Running, fake: FakeMiniMax) -> None:
    video = await gateway.create(model=H3)
    await gateway.worker.run_once()
    fake.jobs.clear()
    ended = await gateway.finish(video["id"], steps=60)
    assert ended["status"] == "failed"
    assert len(fake.polls) == 3


async def test_another_500_does_not_end_the_video(gateway: Running, fake: FakeMiniMax) -> None:
    video = await gateway.create(model=H3)
    await gateway.worker.run_once()
    fake.script("poll", *[fake.refusal(500, "internal error", "1000")] * 5)
    assert (await gateway.finish(video["id"]))["status"] == "completed"


@pytest.mark.parametrize(
    ("word", "answer", "stopped"),
    [
        ("queued", None, True),
        ("running", None, False),
        ("succeeded", None, False),
        ("cancelled", None, False),
        ("queued", Answer(200, {"task_id": "1", "action": "cancel", "status": ""}), True),
        ("queued", Answer(200, {"task_id": "1", "action": ["cancelled"], "status": {}}), False),
        ("queued", Answer(200, {"task_id": "1", "action": "deleted", "status": "deleted"}), False),
        ("queued", Answer(400, {"error": {"message": "invalid params, invalid task_id (2013)"}}), False),
    ],
)
async def test_only_a_queued_task_is_stopped(word: str, answer: Fault | None, stopped: bool) -> None:
    fake = FakeMiniMax()
    async with serve(fake) as url:
        provider = MiniMax("up", MiniMax.Config(api_key=KEY, base_url=url))
        task = Task("attempt_1", "MiniMax-H3", ask(), read=read, now=NOW)
        ref = (await provider.send(task)).ref
        fake.show(ref, word)
        if answer is not None:
            fake.script("cancel", answer)
        assert await provider.cancel(Task("attempt_1", "MiniMax-H3", ask(), read=read, now=NOW, ref=ref)) is stopped
        assert (ref in fake.jobs, len(fake.deletes)) == (True, int(word == "queued"))
        await provider.aclose()


# Callbacks


@dataclass
class Challenging(Fault):
    """The vendor's challenge of the callback address before it answers, which it does as it would have."""

    gateway: Running
    fake: Fake
    answers: list[tuple[int, Any]] = field(default_factory=list)
    accepted = True

    async def play(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = self.fake.submits[-1]
        answer = await self.gateway.client.post(urlsplit(call.json["callback_url"]).path, json={"challenge": "c-1"})
        self.answers.append((answer.status_code, answer.json()))
        ids = {"task_id": [*self.fake.jobs][-1], "base_resp": {"status_code": 0, "status_msg": "success"}}
        await Answer(200, ids).play(scope, receive, send)


@pytest.mark.parametrize("model", [H3, HAILUO])
async def test_the_challenge_of_a_callback_is_answered_while_the_task_is_created(start: Start, model: str) -> None:
    fake = FakeHailuo() if model == HAILUO else FakeMiniMax()
    async with start(fake, public_url=ORIGIN) as gateway:
        challenge = Challenging(gateway, fake)
        fake.script("submit", challenge)
        video = await gateway.create(model=model)
        await gateway.worker.run_once()
        assert challenge.answers == [(200, {"challenge": "c-1"})]
        assert len(fake.submits) == len(fake.jobs) == 1
        (ref,) = fake.jobs
        fake.finish(ref)
        before = len(fake.polls)
        called = {"task": {"id": "another", "status": "failed", "content": {"url": "https://evil.example/x.mp4"}}}
        callback = urlsplit(fake.submits[0].json["callback_url"]).path
        assert (await gateway.client.post(callback, json=called)).json() == {"received": True}
        await gateway.worker.run_once()
        assert len(fake.polls) == before + 1
        assert (await gateway.finish(video["id"]))["status"] == "completed"


# Version 1: the file, and errors in a 200


async def test_the_address_of_a_file_is_asked_for_at_each_download(hailuo: Running, first: FakeHailuo) -> None:
    first.script("content", Answer(403, "<Error><Message>Request has expired</Message></Error>"))
    video = await hailuo.create(model=HAILUO)
    assert (await hailuo.finish(video["id"]))["status"] == "completed"
    files = first.calls["file"]
    assert [call.headers["authorization"] for call in files] == [f"Bearer {KEY}"] * 2
    assert ["authorization" in call.headers for call in first.contents] == [False, False]
    assert {call.query for call in files} == {f"file_id=9{ref}" for ref in first.jobs}
    response = await hailuo.client.get(f"/v1/videos/{video['id']}/content")
    assert response.content == first.file


@pytest.mark.parametrize("file_id", ["", None, True, {}, ["1"], "x" * 600])
async def test_a_success_without_a_usable_file_is_failed(hailuo: Running, first: FakeHailuo, file_id: Any) -> None:
    video = await hailuo.create(model=HAILUO)
    await hailuo.worker.run_once()
    (ref,) = first.jobs
    first.finish(ref)
    first.jobs[ref].raw["file_id"] = file_id
    ended = await hailuo.finish(video["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "no_output")


async def test_a_file_id_cannot_change_the_path_or_the_host(hailuo: Running, first: FakeHailuo) -> None:
    video = await hailuo.create(model=HAILUO)
    await hailuo.worker.run_once()
    (ref,) = first.jobs
    first.finish(ref)
    first.jobs[ref].raw["file_id"] = "7&group=2#@evil.example/../../x"
    assert (await hailuo.finish(video["id"]))["status"] == "failed"
    assert first.calls["other"] == []
    assert {(call.path, call.query) for call in first.calls["file"]} == {
        ("/v1/files/retrieve", "file_id=7%26group%3D2%23%40evil.example%2F..%2F..%2Fx")
    }


FILE = recorded("minimax", "v1 poll Success -> file", 1)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"file": {**FILE["file"], "download_url": ""}, "base_resp": FILE["base_resp"]}, "no_output"),
        ({"file": {**FILE["file"], "download_url": ["https://example.com/x.mp4"]}}, "no_output"),
        ({"file": "https://example.com/x.mp4"}, "no_output"),
        ({}, "no_output"),
        ({"base_resp": {"status_code": 2013, "status_msg": "invalid params"}}, "output_gone"),
    ],
)
async def test_a_file_without_an_address_is_asked_for_three_times(
    hailuo: Running, first: FakeHailuo, answer: Any, code: str
) -> None:
    first.script("file", *[Answer(200, answer)] * 3)
    video = await hailuo.create(model=HAILUO)
    ended = await hailuo.finish(video["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", code)
    assert len(first.calls["file"]) == 3


@pytest.mark.parametrize("number", [1000, 1002, 1013, 1039])
async def test_an_error_in_the_200_of_a_file_or_a_poll_passes(hailuo: Running, first: FakeHailuo, number: int) -> None:
    for verb in ("poll", "file"):
        first.script(verb, *[Answer(200, {"base_resp": {"status_code": number, "status_msg": "try again"}})] * 4)
    video = await hailuo.create(model=HAILUO)
    assert (await hailuo.finish(video["id"]))["status"] == "completed"
    assert len(first.submits) == 1


async def test_an_unknown_id_of_version_1_ends_the_video(hailuo: Running, first: FakeHailuo) -> None:
    video = await hailuo.create(model=HAILUO)
    await hailuo.worker.run_once()
    first.jobs.clear()
    assert (await hailuo.finish(video["id"], steps=60))["status"] == "failed"
    assert len(first.polls) == 3


def said(number: Any, message: Any = "", ref: Any = "") -> Answer:
    return Answer(200, {"task_id": ref, "base_resp": {"status_code": number, "status_msg": message}})


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (said(1004, "login fail"), "upstream_account_refused"),
        (said(1008, "insufficient balance"), "upstream_insufficient_credit"),
        (said(1026, "input new_sensitive"), "content_policy_violation"),
        (said(1042, "too many invisible characters"), "upstream_rejected"),
        (said(2013, "invalid params"), "upstream_rejected"),
        (said("2013", None), "upstream_rejected"),
        (said(2038, "real-name"), "upstream_account_refused"),
        (said(2049, "invalid api key"), "upstream_account_refused"),
        (said(2056, "usage limit exceeded"), "upstream_account_refused"),
        (said(2067, "usage limit exceeded"), "upstream_account_refused"),
        (said(1000, "unknown error"), "upstream_outcome_unknown"),
        (said(1001, "timeout"), "upstream_outcome_unknown"),
        (said(1024, "internal error"), "upstream_outcome_unknown"),
        (said(1033, "downstream"), "upstream_outcome_unknown"),
        (said(4711, "new"), "upstream_outcome_unknown"),
        (said([1002], {"a": 1}), "upstream_outcome_unknown"),
        (said(0), "upstream_outcome_unknown"),
        (said(1002, "rate limit", ref=7), "upstream_outcome_unknown"),
    ],
)
async def test_a_200_of_a_submit_is_read_by_its_number(
    hailuo: Running, first: FakeHailuo, answer: Answer, code: str
) -> None:
    first.script("submit", *[answer] * 3)
    video = await hailuo.create(model=HAILUO)
    ended = await hailuo.finish(video["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", code)
    assert len(first.submits) == 1


@pytest.mark.parametrize("number", [1002, 1039, 1041, 2045])
async def test_a_limit_in_a_200_is_waited_for(hailuo: Running, first: FakeHailuo, number: int) -> None:
    first.script("submit", *[said(number, "limit")] * 2)
    video = await hailuo.create(model=HAILUO)
    assert (await hailuo.finish(video["id"]))["status"] == "completed"
    assert len(first.submits) == 3
    assert len(first.jobs) == 1


async def test_a_submit_with_an_id_was_accepted_whatever_its_number_says(hailuo: Running, first: FakeHailuo) -> None:
    first.job("77", {"model": "MiniMax-Hailuo-02"})
    first.script("submit", said(1002, "rate limit", ref="77"))
    video = await hailuo.create(model=HAILUO)
    assert (await hailuo.finish(video["id"]))["status"] == "completed"
    assert len(first.submits) == 1


async def test_a_submit_without_an_answer_is_never_sent_again(hailuo: Running, first: FakeHailuo) -> None:
    first.script("submit", Reset())
    video = await hailuo.create(model=HAILUO)
    assert (await hailuo.finish(video["id"]))["error"]["code"] == "upstream_outcome_unknown"
    assert len(first.submits) == 1


@pytest.mark.parametrize(("number", "code"), [(1027, "content_policy_violation"), (1033, "generation_failed")])
async def test_a_failed_task_is_no_error_of_the_poll(
    hailuo: Running, first: FakeHailuo, number: int, code: str
) -> None:
    video = await hailuo.create(model=HAILUO)
    await hailuo.worker.run_once()
    (ref,) = first.jobs
    first.fail(ref, number, "not made")
    ended = await hailuo.finish(video["id"])
    assert (ended["error"]["code"], ended["error"]["message"]) == (code, "not made")
    assert len(first.polls) == 1


# Version 2: hostile answers, and keys


@pytest.mark.parametrize(
    ("status", "message", "number", "kind"),
    [
        (400, "sensitive", "1026", errors.ContentPolicy),
        (400, "no money", "1008", errors.UpstreamCredit),
        (422, "description", "1026", errors.ContentPolicy),
        (400, " " * 60_000 + "x" + "(" * 60_000, "2013", errors.UpstreamRejected),
        (429, "usage limit exceeded", "2056", errors.UpstreamAccount),
        (429, "insufficient", "1008", errors.UpstreamCredit),
        (500, "rate limit", "1002", errors.UpstreamUnknown),
        (503, "unavailable", None, errors.UpstreamUnknown),
        (529, "overloaded", None, errors.UpstreamUnknown),
    ],
)
async def test_the_number_says_more_about_a_refusal_and_nothing_about_a_fault(
    status: int, message: str, number: str | None, kind: type[errors.UpstreamError]
) -> None:
    fake = FakeMiniMax()
    async with serve(fake) as url:
        provider = MiniMax("up", MiniMax.Config(api_key=KEY, base_url=url))
        fake.script("submit", fake.refusal(status, message, number))
        with pytest.raises(errors.UpstreamError) as caught:
            await provider.send(Task("attempt_1", "MiniMax-H3", ask(), read=read, now=NOW))
        await provider.aclose()
    assert type(caught.value) is kind
    assert caught.value.upstream_status == status


@pytest.mark.parametrize("task", [None, [], "succeeded", 7, {"status": {}}, {"status": ["failed"], "error": []}])
async def test_an_answer_without_a_task_is_no_verdict(gateway: Running, fake: FakeMiniMax, task: Any) -> None:
    video = await gateway.create(model=H3)
    fake.script("poll", *[Answer(200, {"task": task})] * 3)
    assert (await gateway.finish(video["id"]))["status"] == "completed"


@pytest.mark.parametrize("error", ["1027", {"code": {"a": 1}, "message": ["x"]}, {"code": None}, [], None])
async def test_a_failure_of_any_shape_is_a_failure(gateway: Running, fake: FakeMiniMax, error: Any) -> None:
    video = await gateway.create(model=H3)
    await gateway.worker.run_once()
    (ref,) = fake.jobs
    fake.fail(ref)
    fake.jobs[ref].raw["error"] = error
    ended = await gateway.finish(video["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "generation_failed")


@pytest.mark.parametrize("model", [H3, HAILUO])
async def test_a_key_of_the_other_platform_is_explained_to_the_operator(start: Start, model: str) -> None:
    fake = FakeHailuo() if model == HAILUO else FakeMiniMax()
    fake.key = "another"
    async with start(fake) as gateway:
        video = await gateway.create(model=model)
        assert (await gateway.finish(video["id"]))["status"] == "failed"
        [attempt] = await gateway.attempts(video["id"])
        assert "needs its base URL, https://api.minimax.io" in str(attempt.error_message)


# The list of tasks


@pytest.mark.parametrize(
    ("model", "most_rows", "has_total", "pages"),
    [(H3, 100, True, 3), (H3, 100, False, 4), (H3, 15, True, 4), (H3, 15, False, 5), (HAILUO, 100, True, 0)],
)
async def test_a_lost_submit_has_candidates_where_the_list_has_its_model(
    start: Start, model: str, most_rows: int, has_total: bool, pages: int
) -> None:
    fake = FakeMiniMax()
    fake.most_rows, fake.has_total = most_rows, has_total
    async with start(fake, admin_key=ADMIN) as gateway, operator_of(gateway) as admin:
        fake.script("submit", Reset())
        await gateway.create(model=model)
        await gateway.worker.run_once()
        for number in range(45):
            job = fake.job(f"other-{number}", {"model": "MiniMax-H3"})
            job.raw["created_at"] = int(gateway.clock.now.timestamp()) + 3_600
        (its, *_) = fake.jobs
        fake.jobs[its].raw["created_at"] = int(gateway.clock.now.timestamp())
        found = (await admin.client.get("/admin/v1/repairs", params={"candidates": "true"})).json()["data"]
        shown = [row["candidates"] and [task["upstream_ref"] for task in row["candidates"]] for row in found]
        assert shown == ([[its]] if model == H3 else [None])
        asked = [call.query for call in fake.calls["list"]]
        assert asked == [f"page_num={page}&page_size=20" for page in range(1, pages + 1)]


@pytest.mark.parametrize("items", [None, {}, [{"id": "1"}], [{"created_at": 1}], ["1"]])
async def test_a_list_that_cannot_be_read_is_not_an_empty_one(items: Any) -> None:
    fake = FakeMiniMax()
    async with serve(fake) as url:
        provider = MiniMax("up", MiniMax.Config(api_key=KEY, base_url=url))
        fake.script("list", Answer(200, {"items": items, "total": 0}))
        with pytest.raises(errors.UpstreamUnavailable):
            await provider.list_tasks(None)
        await provider.aclose()
