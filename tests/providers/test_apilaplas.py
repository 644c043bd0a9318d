"""Luma via Apilaplas: only what the provider contract suite does not cover."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any
from urllib.parse import parse_qsl

import pytest
from fakes.apilaplas import FakeApilaplas
from fakes.server import KEY, Answer, Fault, Hang, Reset, closed_port, serve
from pydantic import ValidationError
from structlog.testing import capture_logs

from app import errors
from app.capabilities import fit
from app.media.uploads import Upload
from app.providers.apilaplas import MODELS, Apilaplas
from app.providers.base import Outbound, Task
from app.sizes import complete_size
from app.video import Media, Operation, Progress, Status, VideoRequest

pytestmark = pytest.mark.anyio

LOOPBACK = ip_network("127.0.0.0/8")
PATH = "/v2/generate/video/luma-ai/generation"
URL = "https://cdn.example/v.mp4"
SOURCE: dict[str, Any] = {"operation": Operation.extend, "source": Media(video_id="video_1")}


def ask(**fields: Any) -> VideoRequest:
    return VideoRequest.model_validate({"prompt": "a paper boat", "model": "apilaplas/ray-2", **fields})


@asynccontextmanager
async def nothing(media: Media) -> AsyncIterator[Upload]:
    async def chunks() -> AsyncIterator[bytes]:
        yield b""

    yield Upload("empty.png", "image/png", 0, chunks())


def task(**fields: Any) -> Task:
    values = {"id": "attempt_1", "model": "ray-2", "request": ask(), "read": nothing}
    return Task(**{"now": datetime(2026, 11, 21, tzinfo=UTC), **values, **fields})


@asynccontextmanager
async def connected(base_url: str, **config: Any) -> AsyncIterator[Apilaplas]:
    values = {"api_key": KEY, "base_url": base_url, "timeout_s": 5, **config}
    provider = Apilaplas("up", Apilaplas.Config.model_validate(values), Outbound((LOOPBACK,)))
    yield provider
    await provider.aclose()


@pytest.fixture
def fake() -> FakeApilaplas:
    return FakeApilaplas()


@pytest.fixture
async def provider(fake: FakeApilaplas) -> AsyncIterator[Apilaplas]:
    async with serve(fake) as origin, connected(origin) as provider:
        yield provider


async def submitted(provider: Apilaplas, count: int) -> list[Task]:
    return [task(id=f"attempt_{i}", ref=(await provider.send(task())).ref) for i in range(count)]


def problems(fields: dict[str, Any], *, can_link: bool = False) -> dict[str, str]:
    fitted = fit(ask(**fields), MODELS["ray-2"], can_link=can_link)
    return {name: problem.why for name, problem in fitted.problems.items()}


# Configuration and what the models can express


def test_a_key_is_all_it_needs() -> None:
    assert Apilaplas.Config.model_validate({"api_key": KEY}).base_url == "https://api.apilaplas.com"
    with pytest.raises(ValidationError, match="api_key"):
        Apilaplas.Config.model_validate({})


def test_the_vendors_default_model_comes_first() -> None:
    assert list(MODELS) == ["ray-1-6", "ray-2", "ray-flash-2"]


def test_parameters_of_the_vendors_page_are_accepted() -> None:
    picture = Media(url="https://x.example/a.png")
    assert problems({**complete_size("1280x720", None, None), "seconds": 9, "loop": True, "first_frame": picture}) == {}
    assert problems(SOURCE) == {}
    assert problems({"last_frame": Media(key="cat")}, can_link=True) == {}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"first_frame": Media(key="cat")}, "first_frame"),
        ({"aspect_ratio": "3:2"}, "aspect_ratio"),
        ({"expand_prompt": True}, "expand_prompt"),
        ({"extra": {"camera": "left"}}, "camera"),
        ({"operation": Operation.edit}, "operation"),
    ],
)
def test_parameters_that_the_vendor_lacks_are_refused(fields: dict[str, Any], name: str) -> None:
    assert list(problems(fields)) == [name]


# Submit


async def test_created_is_accepted(provider: Apilaplas, fake: FakeApilaplas) -> None:
    submission = await provider.send(task(model="ray-1-6", callback_url="https://gateway.example/hooks/x1"))
    assert (submission.ref in fake.jobs, submission.status, submission.raw_status) == (True, Status.queued, "queued")
    assert fake.submits[0].json == {
        "model": "ray-1-6",
        "prompt": "a paper boat",
        "aspect_ratio": "16:9",
        "callback_url": "https://gateway.example/hooks/x1",
    }


async def test_an_extension_is_submitted_polled_and_fetched(provider: Apilaplas, fake: FakeApilaplas) -> None:
    first = await provider.send(task())
    second = await provider.send(task(request=ask(**SOURCE), source_ref=first.ref))
    assert fake.submits[1].json["keyframes"] == {"frame0": {"type": "generation", "id": first.ref}}
    fake.finish(second.ref)
    progress = await provider.poll(task(ref=second.ref))
    assert progress.output is not None
    async with provider.fetch(task(ref=second.ref), progress.output) as download:
        assert b"".join([chunk async for chunk in download.chunks]) == fake.file
    assert KEY not in str(fake.contents)


@pytest.mark.parametrize(
    ("fields", "source_ref", "message"),
    [
        (SOURCE, None, "up can only extend or remix a video it has made"),
        (
            {**SOURCE, "first_frame": Media(url="https://x.example/a.png")},
            "755f",
            "first_frame: up has no such parameter where it extends a video",
        ),
        (
            {**SOURCE, "operation": Operation.prepend, "last_frame": Media(url="https://x.example/a.png")},
            "755f",
            "last_frame: up has no such parameter where it extends a video",
        ),
        (
            {"first_frame": Media(key="cat")},
            None,
            "up takes images by URL only; send an https:// URL or set GATEWAY_PUBLIC_URL",
        ),
    ],
)
async def test_a_request_that_cannot_be_expressed_is_not_sent(
    provider: Apilaplas, fake: FakeApilaplas, fields: dict[str, Any], source_ref: str | None, message: str
) -> None:
    with pytest.raises(errors.UpstreamRejected) as caught:
        await provider.send(task(request=ask(**fields), source_ref=source_ref))
    assert caught.value.message == message
    assert fake.submits == []


@pytest.mark.parametrize(
    "answer", [Answer(201, "<html>"), Answer(201, b""), Answer(201, []), Answer(500, "<html>"), Hang()]
)
async def test_no_answer_to_a_submit_leaves_it_open(fake: FakeApilaplas, answer: Fault) -> None:
    fake.script("submit", answer)
    async with serve(fake) as origin, connected(origin, timeout_s=0.3) as provider:
        with pytest.raises(errors.UpstreamUnknown):
            await provider.send(task())
    assert len(fake.submits) == 1


@pytest.mark.parametrize("state", ["completed", "failed"])
async def test_an_end_at_submit_is_for_the_poll_to_say(provider: Apilaplas, fake: FakeApilaplas, state: str) -> None:
    fake.script("submit", Answer(201, {"id": "755f", "state": state}))
    assert (await provider.send(task())).status is Status.in_progress


async def test_a_refused_connection_is_certain() -> None:
    async with connected(closed_port()) as provider:
        with pytest.raises(errors.UpstreamUnavailable):
            await provider.send(task())
        with pytest.raises(errors.UpstreamUnavailable):
            await provider.poll_many([task(ref="755f")])


# Errors


FAULTS: list[tuple[int, Any, type[errors.UpstreamError], type[errors.UpstreamError]]] = [
    (400, "aspect_ratio must be one of", errors.UpstreamRejected, errors.UpstreamRejected),
    (400, "blocked by moderation", errors.ContentPolicy, errors.ContentPolicy),
    (401, "Unauthorized", errors.UpstreamAccount, errors.UpstreamAccount),
    (402, "Payment Required", errors.UpstreamCredit, errors.UpstreamCredit),
    (403, "insufficient balance", errors.UpstreamCredit, errors.UpstreamCredit),
    (404, "Not Found", errors.UpstreamRejected, errors.UpstreamGone),
    (429, "ThrottlerException: Too Many Requests", errors.UpstreamRateLimited, errors.UpstreamRateLimited),
    (500, "Internal server error", errors.UpstreamUnknown, errors.UpstreamUnavailable),
]


@pytest.mark.parametrize("headers", [{"retry-after": "4"}, {}], ids=["retry_after", "plain"])
@pytest.mark.parametrize(("status", "message", "at_submit", "at_poll"), FAULTS, ids=[str(one[0]) for one in FAULTS])
async def test_errors_in_the_flat_envelope_become_the_right_error(
    provider: Apilaplas,
    fake: FakeApilaplas,
    headers: dict[str, str],
    status: int,
    message: str,
    at_submit: type[errors.UpstreamError],
    at_poll: type[errors.UpstreamError],
) -> None:
    for verb in ("submit", "poll"):
        fake.script(verb, fake.refusal(status, message, None, headers))
    for call, kind in ((provider.submit, at_submit), (provider.poll, at_poll)):
        with pytest.raises(errors.UpstreamError) as caught:
            await call(task(ref="755f"))
        assert type(caught.value) is kind
        assert caught.value.upstream_status == status
        assert caught.value.retry_after_s == (4 if headers else None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"message": "prompt is too long", "error": "Bad Request", "statusCode": "400"}, "prompt is too long"),
        ({"message": ["prompt is too long", "loop: no"], "statusCode": 400}, "prompt is too long; loop: no"),
        ({"error": {"message": "prompt is too long"}}, "prompt is too long"),
        ({"detail": "prompt is too long"}, "prompt is too long"),
        (["prompt"], "up answered 400"),
        ("<html>", "up answered 400"),
    ],
)
async def test_the_message_of_an_error_is_read_in_every_shape(
    provider: Apilaplas, fake: FakeApilaplas, body: Any, message: str
) -> None:
    fake.script("submit", Answer(400, body))
    with pytest.raises(errors.UpstreamRejected) as caught:
        await provider.send(task())
    assert caught.value.message == message


# Poll


async def test_a_poll_never_asks_to_be_held(provider: Apilaplas, fake: FakeApilaplas) -> None:
    (one,) = await submitted(provider, 1)
    await provider.poll(one)
    (call,) = fake.polls
    assert (call.method, call.path, parse_qsl(call.query)) == ("GET", PATH, [("generation_id", one.ref)])


@pytest.mark.parametrize(
    "where",
    [
        {"assets": {"video": URL}},
        {"assets": None, "video": {"url": URL}},
        {"assets": {"video": None}, "video": {"url": URL}},
        {"assets": {"video": "javascript:alert(1)"}, "video": {"url": URL}},
        {"assets": [], "video": {"url": URL}},
        {"assets": {"video": "relative.mp4"}, "video": URL},
    ],
)
async def test_the_file_is_found_wherever_its_address_stands(
    provider: Apilaplas, fake: FakeApilaplas, where: dict[str, Any]
) -> None:
    fake.script("poll", Answer(200, {"id": "755f", "state": "completed", **where}))
    output = (await provider.poll(task(ref="755f"))).output
    assert output is not None
    assert (output.url, output.authenticated) == (URL, False)


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"assets": None, "video": None},
        {"assets": {"image": URL, "progress_video": URL}},
        {"assets": {"video": "javascript:alert(1)"}},
        {"assets": {"video": "relative.mp4"}, "video": 7},
        {"assets": {"video": {"url": URL}}, "video": {"url": 7}},
    ],
)
async def test_a_completed_task_without_a_file_has_failed(
    provider: Apilaplas, fake: FakeApilaplas, where: dict[str, Any]
) -> None:
    fake.script("poll", Answer(200, {"id": "755f", "state": "completed", **where}))
    progress = await provider.poll(task(ref="755f"))
    assert (progress.status, progress.raw_status, progress.output) == (Status.failed, "completed", None)
    assert progress.failure is not None
    assert progress.failure.code == "no_output"
    assert progress.failure.message == "up reports the video as completed: completed, but names no file"
    assert json.loads(progress.failure.body or "")["state"] == "completed"


@pytest.mark.parametrize(
    ("reason", "code", "message"),
    [
        ("Job failed", "generation_failed", "Job failed"),
        ("400: prompt not allowed because advanced moderation failed", "content_policy_violation", None),
        ("prompt has blacklisted words", "content_policy_violation", None),
        (["x"], "generation_failed", '["x"]'),
        (None, "generation_failed", "up reports the video as failed"),
    ],
)
async def test_the_failure_reason_becomes_code_and_message(
    provider: Apilaplas, fake: FakeApilaplas, reason: Any, code: str, message: str | None
) -> None:
    fake.script("poll", Answer(200, {"id": "755f", "state": "failed", "failure_reason": reason}))
    failure = (await provider.poll(task(ref="755f"))).failure
    assert failure is not None
    assert (failure.code, failure.message) == (code, message or reason)


@pytest.mark.parametrize("state", [None, 7, True, {}, ["completed"]])
async def test_a_state_that_is_no_word_is_no_verdict(provider: Apilaplas, fake: FakeApilaplas, state: Any) -> None:
    fake.script("poll", Answer(200, {"id": "755f", "state": state, "video": {"url": URL}}))
    with pytest.raises(errors.UpstreamUnavailable):
        await provider.poll(task(ref="755f"))


# Poll many


@pytest.mark.parametrize("wrapped", [None, "data", "generations"])
async def test_many_tasks_are_polled_in_one_request_of_the_provider(wrapped: str | None) -> None:
    fake = FakeApilaplas(wrapped=wrapped)
    async with serve(fake) as origin, connected(origin) as provider:
        tasks = await submitted(provider, 3)
        fake.finish(tasks[1].ref or "")
        fake.fail(tasks[2].ref or "", message="no")
        answers = await provider.poll_many(tasks)
    (call,) = fake.calls["poll_many"]
    assert (call.method, call.path) == ("GET", f"{PATH}s")
    assert parse_qsl(call.query) == [("generation_ids[]", one.ref) for one in tasks]
    assert fake.polls == []
    seen = [(name, answer.status) for name, answer in answers.items() if isinstance(answer, Progress)]
    assert seen == [("attempt_0", Status.queued), ("attempt_1", Status.completed), ("attempt_2", Status.failed)]


async def test_a_full_batch_reaches_the_vendor(provider: Apilaplas) -> None:
    tasks = await submitted(provider, provider.polls_at_once)
    answers = await provider.poll_many(tasks)
    assert [answer for answer in answers.values() if not isinstance(answer, Progress)] == []
    assert len(answers) == 50


async def test_one_that_is_missing_is_gone_alone(provider: Apilaplas, fake: FakeApilaplas) -> None:
    tasks = await submitted(provider, 3)
    del fake.jobs[tasks[1].ref or ""]
    answers = await provider.poll_many([*tasks, task(id="odd", ref="a&b=c#d/é")])
    assert [type(answer) for answer in answers.values()] == [
        Progress,
        errors.UpstreamGone,
        Progress,
        errors.UpstreamGone,
    ]
    assert parse_qsl(fake.calls["poll_many"][0].query)[-1] == ("generation_ids[]", "a&b=c#d/é")


async def test_an_error_of_one_task_does_not_affect_the_others(provider: Apilaplas, fake: FakeApilaplas) -> None:
    answer = [
        None,
        "odd",
        {"id": 7, "state": "failed"},
        {"id": ["a"], "state": "failed"},
        {"state": "failed"},
        {"id": "stranger", "state": "failed"},
        {"id": "a", "state": "dreaming"},
        {"id": "b", "state": None},
        {"id": "c", "state": "completed"},
        {"id": "d", "state": "pondering"},
        {"id": "e", "state": "completed", "assets": {"video": URL}},
    ]
    fake.script("poll_many", Answer(200, answer))
    with capture_logs() as logs:
        answers = await provider.poll_many([task(id=ref, ref=ref) for ref in "abcdef"])
    assert {
        name: (answer.status, answer.failure and answer.failure.code) if isinstance(answer, Progress) else type(answer)
        for name, answer in answers.items()
    } == {
        "a": (Status.in_progress, None),
        "b": errors.UpstreamUnavailable,
        "c": (Status.failed, "no_output"),
        "d": (Status.in_progress, None),
        "e": (Status.completed, None),
        "f": errors.UpstreamGone,
    }
    assert [entry["status"] for entry in logs] == ["pondering"]


MANY_FAULTS: list[tuple[Fault, type[errors.UpstreamError]]] = [
    (Answer(400, {"message": "bad id"}), errors.UpstreamRejected),
    (Answer(401, {"message": "no"}), errors.UpstreamAccount),
    (Answer(404, {"message": "Generation is not found"}), errors.UpstreamRejected),
    (Answer(429, {"message": "busy"}), errors.UpstreamRateLimited),
    (Answer(500, "<html>"), errors.UpstreamUnavailable),
    (Answer(200, "<html>"), errors.UpstreamUnavailable),
    (Answer(200, b""), errors.UpstreamUnavailable),
    (Answer(200, b"[" * 100_000), errors.UpstreamUnavailable),
    (Answer(200, {"data": None}), errors.UpstreamUnavailable),
    (Answer(200, {"message": "no", "statusCode": "404"}), errors.UpstreamUnavailable),
    (Reset(), errors.UpstreamUnavailable),
]


@pytest.mark.parametrize(("fault", "kind"), MANY_FAULTS)
async def test_a_request_that_fails_as_a_whole_fails_no_task(
    provider: Apilaplas, fake: FakeApilaplas, fault: Fault, kind: type[errors.UpstreamError]
) -> None:
    tasks = await submitted(provider, 2)
    fake.script("poll_many", fault)
    with pytest.raises(errors.UpstreamError) as caught:
        await provider.poll_many(tasks)
    assert type(caught.value) is kind
    assert len(await provider.poll_many(tasks)) == 2
