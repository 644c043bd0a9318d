"""Provider contract: polls, the vocabulary of states, and errors that are no verdict."""

from typing import Any

import pytest
from contract.stage import HTML, UNKNOWN, UPSTREAMS, Stage
from fakes.server import Answer, Drip, Reset
from structlog.testing import capture_logs

from app import errors
from app.providers.base import Provider
from app.video import Failure, Progress, Status

pytestmark = pytest.mark.anyio

WORDED = [one for one in UPSTREAMS if one.worded]


async def test_polls_lead_from_queued_to_completed(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    seen = [(await provider.poll(task)).status for _ in range(3)]
    fake = stage.fake
    assert seen == [stage.upstream.words[word] for word in (fake.waiting, fake.working, fake.done)]
    assert seen[-1] is Status.completed
    assert len(stage.fake.submits) == 1


async def test_every_known_status_word_is_read(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    for word, status in stage.upstream.words.items():
        stage.fake.show(task.ref or "", word)
        progress = await provider.poll(task)
        assert (word, progress.status, progress.raw_status) == (word, status, word)
        assert (progress.output is not None) == (status is Status.completed)
        assert (progress.failure is not None) == (status is Status.failed)


@pytest.mark.parametrize("upstream", WORDED, ids=lambda upstream: upstream.name)
@pytest.mark.parametrize("word", ["reticulating", "", "constructor", "x" * 5000, "a\0b"])
async def test_an_unknown_status_word_is_still_running(stage: Stage, provider: Provider, word: str) -> None:
    task = await stage.submitted(provider)
    stage.fake.show(task.ref or "", word)
    with capture_logs() as logs:
        progress = await provider.poll(task)
    assert progress.status is Status.in_progress
    said = [entry for entry in logs if entry["event"] == "unknown upstream status"]  # of all threads of the process
    assert [(entry["log_level"], entry["provider"], entry["status"]) for entry in said] == [
        ("warning", "up", word[:100].replace("\0", ""))
    ]


async def test_a_failure_carries_the_upstreams_message(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    stage.fake.fail(task.ref or "", message="CUDA out of memory")
    progress = await provider.poll(task)
    assert progress.status is Status.failed
    assert progress.failure is not None
    assert progress.failure == Failure(code="generation_failed", message="CUDA out of memory")


async def test_a_failure_by_moderation_is_a_content_policy_violation(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    stage.fake.fail(task.ref or "", message="The output was blocked by our moderation system")
    progress = await provider.poll(task)
    assert progress.failure is not None
    assert progress.failure.code == "content_policy_violation"


async def test_a_failure_without_a_message_gets_a_default_message(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    stage.fake.fail(task.ref or "")
    progress = await provider.poll(task)
    assert progress.failure is not None
    assert progress.failure.code == "generation_failed"
    assert progress.failure.message.lower() in ("up reports the video as failed", "up reports the video as fail")


async def test_an_unknown_task_is_gone(stage: Stage, provider: Provider) -> None:
    with pytest.raises(errors.UpstreamGone):
        await provider.poll(stage.task(ref="video_never_made"))


NO_VERDICT: dict[str, tuple[Any, type[errors.UpstreamError]]] = {
    "401": (Answer(401, {"error": {"message": "no"}}), errors.UpstreamAccount),
    "408": (Answer(408, b""), errors.UpstreamUnavailable),
    "429": (Answer(429, b"", {"retry-after": "3"}), errors.UpstreamRateLimited),
    "500": (Answer(500, {"error": {"message": "oops"}}), errors.UpstreamUnavailable),
    "502 page": (Answer(502, HTML), errors.UpstreamUnavailable),
    "another job failed": (Answer(500, {"id": "another", "status": "failed"}), errors.UpstreamUnavailable),
    "html": (Answer(200, HTML), errors.UpstreamUnavailable),
    "empty": (Answer(200, b""), errors.UpstreamUnavailable),
    "truncated json": (Answer(200, b'{"id":"vi'), errors.UpstreamUnavailable),
    "deep": (Answer(200, b"[" * 100_000), errors.UpstreamUnavailable),
    "reset": (Reset(), errors.UpstreamUnavailable),
    "huge": (UNKNOWN["huge"], errors.UpstreamUnavailable),
}


@pytest.mark.parametrize("name", NO_VERDICT, ids=[name.replace(" ", "_") for name in NO_VERDICT])
async def test_an_error_while_polling_is_no_verdict(stage: Stage, provider: Provider, name: str) -> None:
    fault, kind = NO_VERDICT[name]
    task = await stage.submitted(provider)
    stage.fake.script("poll", fault)
    with pytest.raises(kind):
        await provider.poll(task)
    assert isinstance(await provider.poll(task), Progress)


async def test_an_answer_that_comes_byte_by_byte_times_out(stage: Stage) -> None:
    provider = stage.provider(timeout_s=0.2)
    task = await stage.submitted(provider)
    stage.fake.script("poll", Drip())
    stage.fake.script("submit", Drip())
    with pytest.raises(errors.UpstreamUnavailable):
        await provider.poll(task)
    with pytest.raises(errors.UpstreamUnknown):
        await provider.send(task)
