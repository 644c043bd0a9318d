"""Lumenfall: only what the provider contract suite does not cover."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fakes.lumenfall import FakeLumenfall
from fakes.server import KEY, Answer, serve
from pydantic import ValidationError

from app import errors
from app.capabilities import fit
from app.providers.base import Task
from app.providers.lumenfall import ANYTHING, Lumenfall
from app.video import Media, Status, VideoRequest

pytestmark = pytest.mark.anyio


def ask(**fields: Any) -> VideoRequest:
    return VideoRequest(prompt="a paper boat", model="an-alias", **fields)


def task(**fields: Any) -> Task:
    values: dict[str, Any] = {
        "id": "attempt_1",
        "model": "kling-v3",
        "request": ask(),
        "read": None,
        "now": datetime.now(UTC),
    }
    return Task(**values | fields)


@pytest.fixture
def fake() -> FakeLumenfall:
    return FakeLumenfall()


@pytest.fixture
async def lumenfall(fake: FakeLumenfall) -> AsyncIterator[Lumenfall]:
    async with serve(fake) as origin:
        provider = Lumenfall("up", Lumenfall.Config(api_key=KEY, base_url=f"{origin}/openai/v1"))
        yield provider
        await provider.aclose()


def test_a_key_is_required() -> None:
    with pytest.raises(ValidationError):
        Lumenfall.Config.model_validate({})
    assert Lumenfall.Config(api_key=KEY).base_url == "https://api.lumenfall.ai/openai/v1"


async def test_listed_models_come_from_the_configuration() -> None:
    provider = Lumenfall("up", Lumenfall.Config(api_key=KEY, models=("sora-2", "fal/kling-v3")))
    assert provider.listed == ("sora-2", "fal/kling-v3")
    assert provider.capabilities("veo-3.1-fast") is ANYTHING
    await provider.aclose()


REFUSALS = [
    (400, "INVALID_REQUEST", errors.UpstreamRejected),
    (400, "CONTENT_POLICY_VIOLATION", errors.ContentPolicy),
    (401, "AUTHENTICATION_FAILED", errors.UpstreamAccount),
    (402, "INSUFFICIENT_BALANCE", errors.UpstreamCredit),
    (404, "MODEL_NOT_FOUND", errors.UpstreamRejected),
    (404, "MODEL_DISABLED", errors.UpstreamRejected),
    (429, "RATE_LIMITED", errors.UpstreamRateLimited),
    (502, "ALL_PROVIDERS_EXHAUSTED", errors.UpstreamUnavailable),
    (422, "UPSTREAM_ERROR", errors.UpstreamRejected),
    (500, "UPSTREAM_ERROR", errors.UpstreamUnknown),
    (502, "UPSTREAM_ERROR", errors.UpstreamUnknown),
    (504, None, errors.UpstreamUnknown),
]


@pytest.mark.parametrize(("status", "code", "kind"), REFUSALS)
async def test_a_refused_submit_becomes_the_right_error(
    fake: FakeLumenfall, lumenfall: Lumenfall, status: int, code: str | None, kind: type[errors.UpstreamError]
) -> None:
    fake.script("submit", fake.refusal(status, "It did not work", code))
    with pytest.raises(kind) as caught:
        await lumenfall.send(task())
    assert type(caught.value) is kind
    assert caught.value.upstream_status == status
    assert len(fake.submits) == 1


async def test_replay_of_what_has_ended_is_still_polled(fake: FakeLumenfall, lumenfall: Lumenfall) -> None:
    first = await lumenfall.send(task())
    fake.finish(first.ref)
    again = await lumenfall.send(task())
    assert (again.ref, again.status, again.raw_status) == (first.ref, Status.in_progress, "completed")
    assert (await lumenfall.poll(task(ref=again.ref))).status is Status.completed
    assert (await lumenfall.send(task(id="attempt_2"))).ref != first.ref


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://gateway.example/hooks/x", True),
        ("https://gateway.example:443/hooks/x", True),
        ("https://gateway.example:8443/hooks/x", True),
        ("https://gateway.example:8080/hooks/x", False),
        ("http://gateway.example/hooks/x", False),
        ("https://203.0.113.7/hooks/x", False),
        ("https://[2001:db8::1]/hooks/x", False),
        ("https://localhost/hooks/x", False),
        ("https://gateway.internal/hooks/x", False),
        (None, False),
    ],
)
async def test_a_webhook_is_requested_only_where_it_is_allowed(
    fake: FakeLumenfall, lumenfall: Lumenfall, url: str | None, sent: bool
) -> None:
    await lumenfall.send(task(callback_url=url, callback_secret="s3cret"))
    assert fake.submits[0].json.get("webhook_url") == (url if sent else None)
    assert "s3cret" not in str(fake.submits[0])


async def test_extra_fields_never_replace_ours(fake: FakeLumenfall, lumenfall: Lumenfall) -> None:
    extra = {"idempotency_key": "theirs", "model": "theirs", "n": 4, "cfg_scale": 0.5, "tail_image_url": None}
    await lumenfall.send(task(request=ask(extra=extra)))
    assert fake.submits[0].json == {
        "model": "kling-v3",
        "prompt": "a paper boat",
        "idempotency_key": "attempt_1",
        "cfg_scale": 0.5,
        "tail_image_url": None,
    }


@pytest.mark.parametrize(
    "shown",
    [
        {"output": {"url": "https://media.example/a.mp4"}},
        {"output": [{"url": "https://media.example/a.mp4"}]},
        {"output": "https://media.example/a.mp4"},
        {"output": None, "data": [{"url": "https://media.example/a.mp4"}]},
    ],
)
async def test_the_file_is_found_wherever_its_address_stands(
    fake: FakeLumenfall, lumenfall: Lumenfall, shown: dict[str, Any]
) -> None:
    ref = (await lumenfall.send(task())).ref
    fake.script("poll", Answer(200, {"id": ref, "status": "completed", **shown}))
    output = (await lumenfall.poll(task(ref=ref))).output
    assert output is not None
    assert (output.url, output.authenticated) == ("https://media.example/a.mp4", False)


@pytest.mark.parametrize("output", [None, {}, [], 7, {"url": None}, {"url": ["a"]}, {"url": "javascript:alert(1)"}])
async def test_completed_without_an_address_is_failed(fake: FakeLumenfall, lumenfall: Lumenfall, output: Any) -> None:
    ref = (await lumenfall.send(task())).ref
    fake.script("poll", Answer(200, {"id": ref, "status": "completed", "output": output}))
    progress = await lumenfall.poll(task(ref=ref))
    assert progress.status is Status.failed
    assert progress.failure is not None
    assert progress.failure.code == "no_output"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ({"code": "CONTENT_POLICY_VIOLATION", "message": "no"}, "content_policy_violation", "no"),
        ({"code": "ALL_PROVIDERS_EXHAUSTED", "message": "all failed"}, "generation_failed", "all failed"),
        ({"code": "UPSTREAM_ERROR", "message": "fal said no"}, "generation_failed", "fal said no"),
        ({"code": "TIMEOUT", "message": "too slow"}, "timeout", "too slow"),
        ({"code": 7, "message": "seven"}, "generation_failed", "seven"),
        ("plain words", "generation_failed", "plain words"),
        (None, "generation_failed", "up reports the video as failed"),
    ],
)
async def test_a_failure_carries_its_code_and_message(
    fake: FakeLumenfall, lumenfall: Lumenfall, error: Any, code: str, message: str
) -> None:
    ref = (await lumenfall.send(task())).ref
    fake.script("poll", Answer(200, {"id": ref, "status": "failed", "error": error}))
    failure = (await lumenfall.poll(task(ref=ref))).failure
    assert failure is not None
    assert (failure.code, failure.message) == (code, message)


@pytest.mark.parametrize(
    ("answer", "stopped"),
    [
        (Answer(204), True),
        (Answer(200, {"id": "video_abc1", "object": "video.deleted", "deleted": True}), True),
        (Answer(200, {"id": "video_abc1", "status": "failed"}), True),
        (Answer(200, {"id": "video_abc1", "status": "cancelled"}), True),
        (Answer(200, {"id": "video_abc1", "status": "completed"}), False),
        (Answer(202, {"id": "video_abc1", "status": "in_progress"}), False),
        (Answer(404, {"error": {"message": "Video not found"}}), True),
        (Answer(409, {"error": {"message": "already completed"}}), False),
    ],
)
async def test_a_cancel_is_certain_only_after_certain_answers(
    fake: FakeLumenfall, lumenfall: Lumenfall, answer: Answer, stopped: bool
) -> None:
    ref = (await lumenfall.send(task())).ref
    fake.script("cancel", answer)
    assert await lumenfall.cancel(task(ref=ref)) is stopped


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_a_failed_cancel_raises_so_that_it_is_tried_again(
    fake: FakeLumenfall, lumenfall: Lumenfall, status: int
) -> None:
    fake.script("cancel", Answer(status))
    with pytest.raises(errors.UpstreamError):
        await lumenfall.cancel(task(ref="video_abc1"))


def test_parameters_that_it_cannot_express_are_named() -> None:
    request = ask(
        seconds=3.5,
        size="1000x1000",
        last_frame=Media(key="cat"),
        reference_video=Media(url="https://x.example/f.mp4"),
        extra={"end_image_url": "https://x.example/z.png"},
    )
    assert list(fit(request, ANYTHING, can_link=False).problems) == ["last_frame"]
