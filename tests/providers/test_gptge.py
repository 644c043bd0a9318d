"""Luma via gpt.ge: only what the provider contract suite does not cover."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import pytest
from fakes.gptge import FakeGptGe
from fakes.server import KEY, Answer, Fault, Hang, closed_port, serve
from pydantic import ValidationError

from app import errors
from app.capabilities import fit
from app.media.uploads import Upload
from app.providers.base import Outbound, Task
from app.providers.gptge import MODELS, GptGe
from app.sizes import complete_size
from app.video import Media, Operation, Status, VideoRequest

pytestmark = pytest.mark.anyio

LOOPBACK = ip_network("127.0.0.0/8")
SOURCE: dict[str, Any] = {"operation": Operation.extend, "source": Media(video_id="video_1")}


def ask(**fields: Any) -> VideoRequest:
    return VideoRequest.model_validate({"prompt": "a paper boat", "model": "gptge/luma", **fields})


@asynccontextmanager
async def nothing(media: Media) -> AsyncIterator[Upload]:
    async def chunks() -> AsyncIterator[bytes]:
        yield b""

    yield Upload("empty.png", "image/png", 0, chunks())


def task(**fields: Any) -> Task:
    values = {"id": "attempt_1", "model": "luma", "request": ask(), "read": nothing}
    return Task(**{"now": datetime(2026, 11, 21, tzinfo=UTC), **values, **fields})


@asynccontextmanager
async def connected(base_url: str, **config: Any) -> AsyncIterator[GptGe]:
    values = {"api_key": KEY, "base_url": base_url, "timeout_s": 5, **config}
    provider = GptGe("up", GptGe.Config.model_validate(values), Outbound((LOOPBACK,)))
    yield provider
    await provider.aclose()


@pytest.fixture
def fake() -> FakeGptGe:
    return FakeGptGe()


@pytest.fixture
async def provider(fake: FakeGptGe) -> AsyncIterator[GptGe]:
    async with serve(fake) as origin, connected(origin) as provider:
        yield provider


def problems(**fields: Any) -> dict[str, str]:
    fitted = fit(ask(**fields), MODELS["luma"], can_link=False)
    return {name: problem.why for name, problem in fitted.problems.items()}


# Configuration and what the model can express


def test_a_key_is_all_it_needs() -> None:
    assert GptGe.Config.model_validate({"api_key": KEY}).base_url == "https://api.gpt.ge"
    with pytest.raises(ValidationError, match="api_key"):
        GptGe.Config.model_validate({})


def test_parameters_of_the_vendors_page_are_accepted() -> None:
    pictures = {"first_frame": Media(key="cat"), "last_frame": Media(url="https://x.example/z.png")}
    assert problems(aspect_ratio="4:3", loop=True, expand_prompt=False, **pictures) == {}
    assert problems(**SOURCE) == {}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"seconds": 5}, {"seconds": "its length cannot be chosen"}),
        ({"resolution": "720p"}, {"resolution": "its resolution cannot be chosen, only the aspect_ratio"}),
        (
            complete_size("1280x720", None, None),
            {"size": "its resolution cannot be chosen, only the aspect_ratio"},
        ),
        ({"aspect_ratio": "21:9"}, {"aspect_ratio": "it makes 1:1, 4:3, 3:4, 16:9, 9:16"}),
        ({"seed": 1}, {"seed": "it has no such parameter"}),
        ({"extra": {"model_name": "ray-v2"}}, {"model_name": "it has no such parameter"}),
        ({"operation": Operation.edit}, {"operation": "it cannot edit; it can extend, generate, remix"}),
    ],
)
def test_parameters_of_other_vendors_are_refused(fields: dict[str, Any], said: dict[str, str]) -> None:
    assert problems(**fields) == said


# Submit


async def test_an_extension_is_submitted_polled_and_fetched(provider: GptGe, fake: FakeGptGe) -> None:
    first = await provider.send(task())
    second = await provider.send(task(request=ask(**SOURCE), source_ref=first.ref))
    assert [call.path for call in fake.submits] == ["/luma/generations", f"/luma/generations/{first.ref}/extend"]
    assert fake.submits[1].json == {"user_prompt": "a paper boat"}
    fake.finish(second.ref)
    progress = await provider.poll(task(ref=second.ref))
    assert progress.output is not None
    async with provider.fetch(task(ref=second.ref), progress.output) as download:
        assert b"".join([chunk async for chunk in download.chunks]) == fake.file


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "up can only extend or remix a video it has made"),
        ({"loop": False}, "loop: up has no such parameter where it extends a video"),
    ],
)
async def test_an_extension_that_cannot_be_expressed_is_not_sent(
    provider: GptGe, fake: FakeGptGe, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.UpstreamRejected) as caught:
        await provider.send(task(request=ask(**SOURCE, **fields), source_ref="e70f" if fields else None))
    assert caught.value.message == message
    assert fake.submits == []


async def test_the_callback_address_is_handed_over(provider: GptGe, fake: FakeGptGe) -> None:
    await provider.send(task(callback_url="https://gateway.example/hooks/x1"))
    assert fake.submits[0].json["notify_hook"] == "https://gateway.example/hooks/x1"


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (
            {"code": "invalid_request", "message": "image_url is unreadable", "data": None},
            errors.UpstreamRejected,
            "image_url is unreadable",
        ),
        ({"code": "invalid_request", "message": ""}, errors.UpstreamRejected, "up answered invalid_request"),
        (
            {"error": {"code": "sensitive_words_detected", "message": "no", "type": "new_api_error"}},
            errors.ContentPolicy,
            "no",
        ),
        (
            {"code": "fail_to_fetch_task", "message": "upstream time-out", "data": None},
            errors.UpstreamUnknown,
            "up: the answer carries no usable id: fail_to_fetch_task upstream time-out",
        ),
        (
            {"code": "insufficient_user_quota", "message": "quota", "data": None},
            errors.UpstreamUnknown,
            "up: the answer carries no usable id: insufficient_user_quota quota",
        ),
        (
            {"code": 500, "message": None, "data": {}},
            errors.UpstreamUnknown,
            "up: the answer carries no usable id: 500",
        ),
        (
            {"code": "success", "message": "", "data": "e70f"},
            errors.UpstreamUnknown,
            "up: the answer carries no usable id: success",
        ),
        ({"state": "pending"}, errors.UpstreamUnknown, "up: the answer carries no usable id"),
    ],
)
async def test_success_without_an_id_is_never_sent_again(
    provider: GptGe, fake: FakeGptGe, body: Any, kind: type[errors.UpstreamError], message: str
) -> None:
    fake.script("submit", Answer(200, body))
    with pytest.raises(errors.UpstreamError) as caught:
        await provider.send(task())
    assert type(caught.value) is kind
    assert caught.value.message == message
    assert not caught.value.retryable
    assert not caught.value.next_candidate


@pytest.mark.parametrize("state", [None, 7, {}, ["pending"]])
async def test_an_accepted_task_without_a_state_is_accepted(provider: GptGe, fake: FakeGptGe, state: Any) -> None:
    fake.script("submit", Answer(200, {"id": "e70f", "state": state}))
    submission = await provider.send(task())
    assert (submission.ref, submission.status) == ("e70f", Status.in_progress)


@pytest.mark.parametrize("state", ["completed", "failed"])
async def test_an_end_at_submit_is_for_the_poll_to_say(provider: GptGe, fake: FakeGptGe, state: str) -> None:
    fake.script("submit", Answer(200, {"id": "e70f", "state": state}))
    assert (await provider.send(task())).status is Status.in_progress


# Errors


def envelopes(code: str, message: str) -> tuple[Any, ...]:
    """new-api's two ways to say it."""
    return (
        {"code": code, "message": message, "data": None},
        {"error": {"message": message, "type": "new_api_error", "param": "", "code": code}},
    )


FAULTS: list[tuple[int, str, str, type[errors.UpstreamError], type[errors.UpstreamError]]] = [
    (400, "invalid_request", "bad ratio", errors.UpstreamRejected, errors.UpstreamRejected),
    (400, "sensitive_words_detected", "no", errors.ContentPolicy, errors.ContentPolicy),
    (401, "invalid_api_key", "invalid token", errors.UpstreamAccount, errors.UpstreamAccount),
    (402, "quota", "pay first", errors.UpstreamCredit, errors.UpstreamCredit),
    (403, "insufficient_user_quota", "user quota is not enough", errors.UpstreamCredit, errors.UpstreamCredit),
    (403, "access_denied", "token may not use luma", errors.UpstreamAccount, errors.UpstreamAccount),
    (404, "task_not_exist", "task_not_exist", errors.UpstreamRejected, errors.UpstreamGone),
    (429, "rate", "slow down", errors.UpstreamRateLimited, errors.UpstreamRateLimited),
    (500, "do_request_failed", "oops", errors.UpstreamUnknown, errors.UpstreamUnavailable),
    (503, "get_channel_failed", "no channel", errors.UpstreamUnavailable, errors.UpstreamUnavailable),
]


@pytest.mark.parametrize(
    ("status", "code", "message", "at_submit", "at_poll"), FAULTS, ids=[f"{one[0]}-{one[1]}" for one in FAULTS]
)
async def test_errors_in_either_envelope_become_the_right_error(
    provider: GptGe,
    fake: FakeGptGe,
    status: int,
    code: str,
    message: str,
    at_submit: type[errors.UpstreamError],
    at_poll: type[errors.UpstreamError],
) -> None:
    for body in envelopes(code, message):
        fake.script("submit", Answer(status, body, {"retry-after": "4"}))
        fake.script("poll", Answer(status, body, {"retry-after": "4"}))
        for call, kind in ((provider.submit, at_submit), (provider.poll, at_poll)):
            with pytest.raises(errors.UpstreamError) as caught:
                await call(task(ref="e70f"))
            assert type(caught.value) is kind
            assert (caught.value.upstream_status, caught.value.retry_after_s) == (status, 4)


@pytest.mark.parametrize("answer", [Answer(200, "<html>"), Answer(200, b""), Answer(502, "<html>"), Hang()])
async def test_no_answer_to_a_submit_leaves_it_open(fake: FakeGptGe, answer: Fault) -> None:
    fake.script("submit", answer)
    async with serve(fake) as origin, connected(origin, timeout_s=0.3) as provider:
        with pytest.raises(errors.UpstreamUnknown):
            await provider.send(task())
    assert len(fake.submits) == 1


async def test_a_refused_connection_is_certain() -> None:
    async with connected(closed_port()) as provider:
        with pytest.raises(errors.UpstreamUnavailable):
            await provider.send(task())


# Poll


URL = "https://cdn.example/v.mp4"


@pytest.mark.parametrize(
    "where",
    [
        {"video": {"url": URL}},
        {"video": {"url": None, "download_url": URL}},
        {"video": {}, "artifact": {"video": {"url": URL}}},
        {"artifact": {"video": {"url": 7, "download_url": URL}}},
        {"video": None, "artifact": None, "result": {"video_url": URL}},
        {"video": "pending", "video_raw": {"url": URL}},
        {"video": {"url": "javascript:alert(1)"}, "video_raw": {"url": URL}},
        {"video": {"url": [URL]}},
        {"video": [URL]},
    ],
)
async def test_the_file_is_found_wherever_its_address_stands(
    provider: GptGe, fake: FakeGptGe, where: dict[str, Any]
) -> None:
    fake.script("poll", Answer(200, {"id": "e70f", "state": "completed", **where}))
    output = (await provider.poll(task(ref="e70f"))).output
    assert output is not None
    assert (output.url, output.authenticated) == (URL, False)


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"video": None, "result": []},
        {"video": {"url": ""}},
        {"video": {"url": "javascript:alert(1)"}},
        {"video": {"url": "file:///etc/passwd"}},
    ],
)
async def test_a_completed_task_without_a_file_has_failed(
    provider: GptGe, fake: FakeGptGe, where: dict[str, Any]
) -> None:
    fake.script("poll", Answer(200, {"id": "e70f", "state": "completed", **where}))
    progress = await provider.poll(task(ref="e70f"))
    assert (progress.status, progress.raw_status, progress.output) == (Status.failed, "completed", None)
    assert progress.failure is not None
    assert progress.failure.code == "no_output"
    assert progress.failure.message == "up reports the video as completed: completed, but names no file"
    assert json.loads(progress.failure.body or "")["state"] == "completed"


@pytest.mark.parametrize(
    ("reason", "code", "message"),
    [
        ("job exceeded its time", "generation_failed", "job exceeded its time"),
        ("400: prompt not allowed because advanced moderation failed", "content_policy_violation", None),
        ("prompt contains blacklisted words", "content_policy_violation", None),
        ({"reason": "x"}, "generation_failed", '{"reason": "x"}'),
        ("", "generation_failed", "up reports the video as failed"),
    ],
)
async def test_the_failure_reason_becomes_code_and_message(
    provider: GptGe, fake: FakeGptGe, reason: Any, code: str, message: str | None
) -> None:
    fake.script("poll", Answer(200, {"id": "e70f", "state": "failed", "failure_reason": reason}))
    failure = (await provider.poll(task(ref="e70f"))).failure
    assert failure is not None
    assert (failure.code, failure.message) == (code, message or reason)


@pytest.mark.parametrize("state", [None, 7, True, {}, ["completed"]])
async def test_a_state_that_is_no_word_is_no_verdict(provider: GptGe, fake: FakeGptGe, state: Any) -> None:
    fake.script("poll", Answer(200, {"id": "e70f", "state": state, "video": {"url": URL}}))
    with pytest.raises(errors.UpstreamUnavailable):
        await provider.poll(task(ref="e70f"))


async def test_the_file_is_fetched_without_the_key(provider: GptGe, fake: FakeGptGe) -> None:
    submission = await provider.send(task())
    fake.finish(submission.ref)
    progress = await provider.poll(task(ref=submission.ref))
    assert progress.output is not None
    async with provider.fetch(task(), progress.output) as download:
        assert download.size == len(fake.file)
    assert KEY not in str(fake.contents)
