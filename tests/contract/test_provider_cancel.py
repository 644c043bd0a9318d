"""Provider contract: cancelling a task, and characters."""

import pytest
from contract.stage import Stage, read
from fakes.server import Answer
from fakes.upstream import VIDEO_PART

from app.providers.base import Provider
from app.video import Media

pytestmark = pytest.mark.anyio


async def test_a_cancel_is_certain_where_the_upstream_stops_the_work(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    assert await provider.cancel(task) is (stage.upstream.cancels and stage.upstream.stops)
    assert len(stage.fake.deletes) == int(stage.upstream.cancels)


async def test_a_cancel_of_an_unknown_task_is_certain_unless_it_may_be_found_later(
    stage: Stage, provider: Provider
) -> None:
    certain = stage.upstream.cancels and stage.upstream.gone_costs_nothing
    assert await provider.cancel(stage.task(ref="video_never_made")) is certain


@pytest.mark.parametrize("status", [204, 400, 405, 409, 422, 501])
async def test_a_refused_cancel_is_not_certain(stage: Stage, provider: Provider, status: int) -> None:
    task = await stage.submitted(provider)
    stage.fake.script("cancel", Answer(status))
    assert await provider.cancel(task) is (status in stage.upstream.stopped_by)


async def test_a_character_is_created_where_the_provider_can(stage: Stage, provider: Provider) -> None:
    if not provider.characters:
        with pytest.raises(NotImplementedError):
            await provider.create_character("Mossy", Media(key="clip"), read)
        return
    assert await provider.create_character("Mossy", Media(key="clip"), read) == "char_1"
    (call,) = stage.fake.calls["character"]
    assert (call.method, call.path) == ("POST", "/v1/videos/characters")
    assert call.form == [("name", "Mossy"), ("video", VIDEO_PART)]
