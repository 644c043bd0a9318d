"""Provider contract: the free call that tries address and key."""

import pytest
from contract.stage import NOW, Stage
from fakes.server import Answer, Reset

from app import errors
from app.providers.base import Provider

pytestmark = pytest.mark.anyio


async def test_the_right_key_is_accepted_by_free_calls(stage: Stage, provider: Provider) -> None:
    assert await provider.check(NOW) is True
    assert stage.fake.submits == []
    assert stage.fake.polls


async def test_a_wrong_key_is_refused(stage: Stage, provider: Provider) -> None:
    stage.fake.key = "another key than the one that is sent"
    with pytest.raises(errors.UpstreamAccount):
        await provider.check(NOW)
    assert stage.fake.submits == []


async def test_an_answer_that_says_nothing_about_the_key_is_no_verdict(stage: Stage, provider: Provider) -> None:
    stage.fake.script("poll", Answer(400, {"error": {"message": "not an id of ours"}}))
    assert await provider.check(NOW) is False


async def test_an_upstream_without_an_answer_is_unavailable(stage: Stage, provider: Provider) -> None:
    stage.fake.script("poll", Reset())
    with pytest.raises(errors.UpstreamUnavailable) as caught:
        await provider.check(NOW)
    assert caught.value.upstream_status is None
