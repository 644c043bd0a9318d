"""Lunos: only what the provider contract suite does not cover."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fakes.lunos import MODEL, FakeLunos
from fakes.server import KEY, Answer, serve
from pydantic import ValidationError

from app import errors
from app.capabilities import fit
from app.providers.base import Task
from app.providers.lunos import Lunos
from app.video import Media, Status, VideoRequest

pytestmark = pytest.mark.anyio

HTML = "<html><body><h1>500 Internal Server Error</h1></body></html>"


def ask(**fields: Any) -> VideoRequest:
    return VideoRequest(prompt="a paper boat", model="an-alias", **fields)


def task(**fields: Any) -> Task:
    values: dict[str, Any] = {
        "id": "attempt_1",
        "model": MODEL,
        "request": ask(),
        "read": None,
        "now": datetime.now(UTC),
    }
    return Task(**values | fields)


@pytest.fixture
def fake() -> FakeLunos:
    return FakeLunos()


@pytest.fixture
async def lunos(fake: FakeLunos) -> AsyncIterator[Lunos]:
    async with serve(fake) as origin:
        provider = Lunos("up", Lunos.Config(api_key=KEY, base_url=origin))
        yield provider
        await provider.aclose()


def test_the_default_base_url_is_the_vendors() -> None:
    assert Lunos.Config(api_key=KEY).base_url == "https://api.lunos.tech"


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/"])
def test_a_version_at_the_end_of_the_base_url_is_removed(tail: str) -> None:
    assert Lunos.Config(api_key=KEY, base_url=f"http://lunos.example{tail}").base_url == "http://lunos.example"


@pytest.mark.parametrize(
    "values",
    [{}, {"api_key": " "}, {"api_key": "klucz-ł"}, {"api_key": "a\nb"}, {"api_key": KEY, "app_id": "two\r\nlines"}],
)
def test_invalid_configuration_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Lunos.Config.model_validate(values)


def test_a_line_end_after_the_key_is_removed() -> None:
    assert Lunos.Config.model_validate({"api_key": f"{KEY}\n"}).api_key.get_secret_value() == KEY


async def test_colons_of_an_id_are_not_encoded(fake: FakeLunos, lunos: Lunos) -> None:
    submission = await lunos.send(task())
    assert submission.ref == "video-op:user123:1703123456789"
    await lunos.poll(task(ref=submission.ref))
    assert fake.polls[0].path == "/v1/video/generations/video-op:user123:1703123456789"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(500, {"error": "Failed to start video generation"}), errors.UpstreamUnavailable),
        (Answer(500, {"error": "Internal Server Error"}), errors.UpstreamUnknown),
        (Answer(500, {"error": ""}), errors.UpstreamUnknown),
        (Answer(500, {"error": {"message": "Failed to start"}}), errors.UpstreamUnknown),
        (Answer(500, {"error": "Failed to start", "statusCode": 500}), errors.UpstreamUnknown),
        (Answer(500, HTML), errors.UpstreamUnknown),
        (Answer(500, b""), errors.UpstreamUnknown),
        (Answer(500, b"[" * 100_000), errors.UpstreamUnknown),
        (Answer(502, {"error": "Failed to start video generation"}), errors.UpstreamUnknown),
    ],
)
async def test_only_a_500_in_its_own_words_was_not_started(
    fake: FakeLunos, lunos: Lunos, answer: Answer, kind: type[errors.UpstreamError]
) -> None:
    fake.script("submit", answer)
    with pytest.raises(kind) as caught:
        await lunos.send(task())
    assert type(caught.value) is kind
    assert caught.value.upstream_status == answer.status
    assert len(fake.submits) == 1


async def test_a_500_carries_its_message_and_retry_after(fake: FakeLunos, lunos: Lunos) -> None:
    fake.script("submit", Answer(500, {"error": "Failed to start video generation"}, {"retry-after": "4"}))
    with pytest.raises(errors.UpstreamUnavailable) as caught:
        await lunos.send(task())
    assert caught.value.message == "up answered 500: Failed to start video generation"
    assert caught.value.retry_after_s == 4
    assert caught.value.next_candidate


async def test_an_unknown_model_is_a_rejection(fake: FakeLunos, lunos: Lunos) -> None:
    with pytest.raises(errors.UpstreamRejected) as caught:
        await lunos.send(task(model="google/veo-9"))
    assert (caught.value.message, caught.value.upstream_status) == ("Model not found", 404)
    assert fake.jobs == {}


async def test_missing_credit_is_a_credit_error(fake: FakeLunos, lunos: Lunos) -> None:
    fake.script("submit", fake.refusal(402, "Insufficient balance"))
    with pytest.raises(errors.UpstreamCredit):
        await lunos.send(task())


@pytest.mark.parametrize("url", [None, "", 7, [], {"url": "https://x.example/a.mp4"}, "javascript:alert(1)", "a.mp4"])
async def test_completed_without_an_address_is_failed(fake: FakeLunos, lunos: Lunos, url: Any) -> None:
    ref = (await lunos.send(task())).ref
    fake.script("poll", Answer(200, {"id": ref, "status": "completed", "video_url": url}))
    progress = await lunos.poll(task(ref=ref))
    assert (progress.status, progress.raw_status, progress.output) == (Status.failed, "completed", None)
    assert progress.failure is not None
    assert progress.failure.code == "no_output"
    assert progress.failure.message == "up reports the video as completed: completed, but names no file"
    assert json.loads(progress.failure.body or "")["status"] == "completed"


@pytest.mark.parametrize("error", ["too hot", {"message": "too hot"}, ["too hot"], {"code": "too hot"}])
@pytest.mark.parametrize("word", ["failed", "exploded"], ids=["known_word", "unknown_word"])
async def test_error_beside_any_final_word_is_a_failure(fake: FakeLunos, lunos: Lunos, word: str, error: Any) -> None:
    ref = (await lunos.send(task())).ref
    fake.script("poll", Answer(200, {"id": ref, "status": word, "error": error}))
    progress = await lunos.poll(task(ref=ref))
    assert progress.status is Status.failed
    assert progress.failure is not None
    assert "too hot" in progress.failure.message


@pytest.mark.parametrize("status", [None, 7, True, [], {"state": "failed"}, ""])
async def test_answer_without_a_word_is_no_verdict(fake: FakeLunos, lunos: Lunos, status: Any) -> None:
    ref = (await lunos.send(task())).ref
    fake.script("poll", Answer(200, {"id": ref, "status": status, "error": "try again"}))
    assert (await lunos.poll(task(ref=ref))).status is Status.in_progress


def test_parameters_that_it_cannot_express_are_named() -> None:
    able = Lunos.models[MODEL]
    request = ask(
        seconds=8,
        size="1024x1024",
        aspect_ratio="1:1",
        resolution="1024p",
        first_frame=Media(url="https://x.example/a.png"),
        negative_prompt="blur",
        extra={"fps": 24},
    )
    assert {name: problem.why for name, problem in fit(request, able, can_link=True).problems.items()} == {
        "seconds": "its length cannot be chosen",
        "size": "it makes 16:9; its resolution cannot be chosen, only the aspect_ratio",
        "first_frame": "it has no such parameter",
        "fps": "it has no such parameter",
    }
