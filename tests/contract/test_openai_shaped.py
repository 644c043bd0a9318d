"""Provider contract: behaviour of OpenAI-shaped servers only."""

from typing import Any

import pytest
from contract.stage import UPSTREAMS, Stage, content, finished
from fakes.server import Answer, Elsewhere, serve
from fakes.upstream import ask
from fakes.vllm_omni import FakeVllmOmni

from app import errors
from app.providers.base import Provider
from app.providers.openai import OpenAI
from app.video import Media, Operation, Status

pytestmark = pytest.mark.anyio


OPENAI_SHAPED = pytest.mark.parametrize(
    "upstream", [one for one in UPSTREAMS if one.kind is OpenAI], ids=lambda upstream: upstream.name
)


@OPENAI_SHAPED
@pytest.mark.parametrize("status", [400, 404, 422, 500, 503])
async def test_a_failed_job_under_an_error_status_is_a_verdict(stage: Stage, provider: Provider, status: int) -> None:
    task = await stage.submitted(provider)
    error = {"code": status, "message": "out of memory"}
    stage.fake.script("poll", Answer(status, {"id": task.ref, "object": "video", "status": "failed", "error": error}))
    progress = await provider.poll(task)
    assert progress.model_dump(exclude_none=True) == {
        "status": Status.failed,
        "raw_status": "failed",
        "failure": {"code": "generation_failed", "message": "out of memory"},
    }


@OPENAI_SHAPED
@pytest.mark.parametrize("error", ["too hot", {"message": "too hot"}, {"detail": "too hot"}, {"message": ["too hot"]}])
async def test_a_failure_is_read_as_text_or_object(stage: Stage, provider: Provider, error: Any) -> None:
    task = await stage.submitted(provider)
    stage.fake.script("poll", Answer(200, {"id": task.ref, "status": "failed", "error": error}))
    failure = (await provider.poll(task)).failure
    assert failure is not None
    assert "too hot" in failure.message


@OPENAI_SHAPED
@pytest.mark.parametrize(
    ("word", "code"), [("cancelled", "cancelled"), ("expired", "expired"), ("deleted", "cancelled"), ("failed", "boom")]
)
async def test_a_failure_has_a_code(stage: Stage, provider: Provider, word: str, code: str) -> None:
    task = await stage.submitted(provider)
    error = {"code": "boom"} if word == "failed" else None
    stage.fake.script("poll", Answer(200, {"id": task.ref, "status": word, "error": error}))
    failure = (await provider.poll(task)).failure
    assert failure is not None
    assert failure.code == code


@OPENAI_SHAPED
@pytest.mark.parametrize(
    ("said", "read"),
    [(33, 33), (33.9, 33), (-5, 0), (250, 100), (True, None), ("33", None), (None, None), (1e400, None), ([], None)],
)
async def test_progress_is_a_percentage_or_nothing(stage: Stage, provider: Provider, said: Any, read: Any) -> None:
    task = await stage.submitted(provider)
    stage.fake.script("poll", Answer(200, {"id": task.ref, "status": "in_progress", "progress": said}))
    assert (await provider.poll(task)).progress == read


@OPENAI_SHAPED
@pytest.mark.parametrize(
    ("said", "read"),
    [("2500", 2.5), ("999999999", 300), ("9" * 5000, None), ("1500.5", None), ("-1", None), ("²", None)],
)
async def test_the_poll_interval_of_the_upstream_is_bounded(
    stage: Stage, provider: Provider, said: str, read: float | None
) -> None:
    task = await stage.submitted(provider)
    headers = {"openai-poll-after-ms": said}
    stage.fake.script("poll", Answer(200, {"id": task.ref, "status": "in_progress"}, headers))
    stage.fake.script("submit", Answer(200, {"id": "video_2", "status": "queued"}, headers))
    assert (await provider.poll(task)).poll_after_s == read
    assert (await provider.send(task)).poll_after_s == read


@OPENAI_SHAPED
@pytest.mark.parametrize("status", [400, 404, 405, 501])
@pytest.mark.parametrize("named", [{"url": "URL"}, {"output": {"url": "URL"}}, {"output": "URL"}, {"video_url": "URL"}])
async def test_a_file_without_a_content_call_is_fetched_from_its_address(
    stage: Stage, provider: Provider, status: int, named: dict[str, Any]
) -> None:
    task = await stage.submitted(provider)
    elsewhere = Elsewhere()
    async with serve(elsewhere) as other:
        url = f"{other}/a.mp4"
        job = {name: {"url": url} if isinstance(value, dict) else url for name, value in named.items()}
        stage.fake.script("poll", Answer(200, {"id": task.ref, "status": "completed", **job}))
        output = (await provider.poll(task)).output
        stage.fake.script("content", Answer(status, b""))
        assert await content(provider, task, output) == elsewhere.file
    assert "authorization" not in elsewhere.calls[0].headers


@OPENAI_SHAPED
@pytest.mark.parametrize("status", [400, 404, 405, 410, 501])
async def test_a_file_without_a_content_call_or_an_address_is_gone(
    stage: Stage, provider: Provider, status: int
) -> None:
    task, output = await finished(stage, provider)
    stage.fake.script("content", Answer(status, b""))
    with pytest.raises(errors.UpstreamGone):
        await content(provider, task, output)


@OPENAI_SHAPED
async def test_a_submit_that_ended_at_once_is_still_polled(stage: Stage, provider: Provider) -> None:
    stage.fake.script("submit", Answer(200, {"id": "video_1", "status": "failed"}))
    submission = await provider.send(stage.task())
    assert (submission.status, submission.raw_status) == (Status.in_progress, "failed")


@OPENAI_SHAPED
async def test_a_remix_of_an_upload_is_not_sent(stage: Stage, provider: Provider) -> None:
    with pytest.raises(errors.UpstreamRejected):
        await provider.send(stage.task(ask(operation=Operation.remix, source=Media(key="clip"))))
    assert stage.fake.submits == []


@OPENAI_SHAPED
async def test_a_server_without_a_key_gets_no_authorization(stage: Stage) -> None:
    provider = stage.provider(api_key=None)
    with pytest.raises(errors.UpstreamAccount):
        await provider.send(stage.task())
    assert "authorization" not in stage.fake.submits[0].headers
    assert provider.fingerprint == ""


async def test_a_cancel_while_vllm_omni_drains_is_not_certain(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    if isinstance(stage.fake, FakeVllmOmni):
        stage.fake.draining = True
        assert await provider.cancel(task) is False
        stage.fake.restart()
        with pytest.raises(errors.UpstreamGone):
            await provider.poll(task)
