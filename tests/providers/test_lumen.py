"""Lumen: only what the provider contract suite does not cover."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fakes.lumen import FakeLumen
from fakes.server import KEY, Answer, serve
from pydantic import ValidationError

from app import errors
from app.capabilities import fit
from app.providers.base import Task
from app.providers.lumen import Lumen
from app.sizes import complete_size
from app.video import Media, Status, VideoRequest

pytestmark = pytest.mark.anyio


def ask(**fields: Any) -> VideoRequest:
    return VideoRequest(prompt="a paper boat", model="an-alias", **fields)


def task(**fields: Any) -> Task:
    values: dict[str, Any] = {
        "id": "attempt_1",
        "model": "seedance-2",
        "request": ask(),
        "read": None,
        "now": datetime.now(UTC),
    }
    return Task(**values | fields)


@pytest.fixture
def fake() -> FakeLumen:
    return FakeLumen()


@pytest.fixture
async def lumen(fake: FakeLumen) -> AsyncIterator[Lumen]:
    async with serve(fake) as origin:
        provider = Lumen("up", Lumen.Config(api_key=KEY, base_url=origin))
        yield provider
        await provider.aclose()


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/"])
def test_a_version_at_the_end_of_the_base_url_is_removed(tail: str) -> None:
    assert Lumen.Config(api_key=KEY, base_url=f"http://lumen.example{tail}").base_url == "http://lumen.example"


def test_a_key_is_required() -> None:
    with pytest.raises(ValidationError):
        Lumen.Config.model_validate({})


async def test_any_model_is_asked_for(fake: FakeLumen, lumen: Lumen) -> None:
    assert lumen.listed == ("seedance-2", "seedance-2-fast", "veo-3-1")
    assert lumen.capabilities("wan-9") is Lumen.any_model
    await lumen.send(task(model="wan-9"))
    assert fake.submits[0].json["model"] == "wan-9"


async def test_an_upload_without_a_link_is_not_sent(fake: FakeLumen, lumen: Lumen) -> None:
    with pytest.raises(errors.UpstreamRejected, match="GATEWAY_PUBLIC_URL"):
        await lumen.send(task(request=ask(first_frame=Media(key="cat"))))
    assert fake.submits == []


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "duration must be at least 4", errors.UpstreamRejected),
        (400, "Content blocked", errors.ContentPolicy),
        (402, "not enough credits", errors.UpstreamCredit),
        (404, "model not available in your group", errors.UpstreamRejected),
        (500, "upstream error", errors.UpstreamUnknown),
        (503, "upstream busy", errors.UpstreamUnavailable),
    ],
)
async def test_a_refused_submit_becomes_the_right_error(
    fake: FakeLumen, lumen: Lumen, status: int, message: str, kind: type[errors.UpstreamError]
) -> None:
    fake.script("submit", fake.refusal(status, message))
    with pytest.raises(kind) as caught:
        await lumen.send(task())
    assert type(caught.value) is kind
    assert caught.value.upstream_status == status
    assert len(fake.submits) == 1


@pytest.mark.parametrize(
    "data",
    [None, [], {}, "https://x.example/a.mp4", [None], [{}], [{"url": 7}], [{"url": "javascript:alert(1)"}], [["a"]]],
)
async def test_succeeded_without_an_address_is_failed(fake: FakeLumen, lumen: Lumen, data: Any) -> None:
    ref = (await lumen.send(task())).ref
    fake.script("poll", Answer(200, {"id": ref, "status": "succeeded", "data": data}))
    progress = await lumen.poll(task(ref=ref))
    assert progress.status is Status.failed
    assert progress.failure is not None
    assert progress.failure.code == "no_output"


@pytest.mark.parametrize(
    ("word", "error", "code", "message"),
    [
        ("failed", {"message": "GPU lost"}, "generation_failed", "GPU lost"),
        ("failed", "GPU lost", "generation_failed", "GPU lost"),
        ("failed", None, "generation_failed", "up reports the video as failed"),
        ("failed", {"message": "content blocked"}, "content_policy_violation", "content blocked"),
        ("cancelled", None, "cancelled", "up reports the video as cancelled"),
        ("cancelled", {"message": "by operator"}, "cancelled", "by operator"),
    ],
)
async def test_a_failure_carries_its_code_and_message(
    fake: FakeLumen, lumen: Lumen, word: str, error: Any, code: str, message: str
) -> None:
    ref = (await lumen.send(task())).ref
    fake.script("poll", Answer(200, {"id": ref, "status": word, "error": error}))
    failure = (await lumen.poll(task(ref=ref))).failure
    assert failure is not None
    assert (failure.code, failure.message) == (code, message)


@pytest.mark.parametrize(
    ("given", "ratio"),
    [
        (("854x480", None, None), "16:9"),
        (("1280x720", None, None), "16:9"),
        (("720x720", None, None), "1:1"),
        ((None, "9:16", "1080p"), "9:16"),
        (("1700x1080", None, None), "85:54"),
        ((None, "5:4", None), "5:4"),
    ],
)
def test_a_size_becomes_a_named_ratio(given: tuple[str | None, str | None, str | None], ratio: str) -> None:
    fitted = fit(ask(**complete_size(*given)), Lumen.models["seedance-2"], can_link=False)
    assert fitted.problems == {}
    assert fitted.request.aspect_ratio == ratio


def test_parameters_that_it_cannot_express_are_named() -> None:
    request = ask(
        seconds=3.5,
        **complete_size("3840x2160", None, None),
        first_frame=Media(key="cat"),
        last_frame=Media(url="https://x.example/z.png"),
        negative_prompt="blur",
    )
    able = Lumen.models["veo-3-1"]
    assert {name: problem.why for name, problem in fit(request, able, can_link=False).problems.items()} == {
        "seconds": "it makes whole seconds from 4 to 3600",
        "size": "it makes 480p, 720p, 1080p",
        "first_frame": ("it takes addresses only, and this gateway has none (GATEWAY_PUBLIC_URL) to offer the file at"),
        "negative_prompt": "it has no such parameter",
    }
    assert "first_frame" not in fit(request, able, can_link=True).problems
