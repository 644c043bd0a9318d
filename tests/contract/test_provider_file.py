"""Provider contract: the finished file."""

import pytest
from contract.stage import HTML, Stage, content, finished
from fakes.server import Answer, BrokenOff

from app import errors
from app.providers.base import Provider

pytestmark = pytest.mark.anyio


async def test_a_completed_task_gives_its_file(stage: Stage, provider: Provider) -> None:
    task, output = await finished(stage, provider)
    async with provider.fetch(task, output) as download:
        if stage.upstream.addressed:
            assert (download.size, download.content_type) == (len(stage.fake.file), "video/mp4")
        assert b"".join([chunk async for chunk in download.chunks]) == stage.fake.file
    assert [call.query for call in stage.fake.contents] == [stage.upstream.file_query]


async def test_a_missing_file_is_gone(stage: Stage, provider: Provider) -> None:
    task, output = await finished(stage, provider)
    stage.fake.script("content", stage.fake.refusal(404, "File not found"))
    with pytest.raises(errors.UpstreamGone):
        await content(provider, task, output)


async def test_a_file_that_is_not_ready_can_be_fetched_later(stage: Stage, provider: Provider) -> None:
    task, output = await finished(stage, provider)
    stage.fake.script("content", Answer(500, HTML))
    with pytest.raises(errors.UpstreamUnavailable):
        await content(provider, task, output)
    assert await content(provider, task, output) == stage.fake.file


async def test_a_file_that_breaks_off_is_unavailable(stage: Stage, provider: Provider) -> None:
    task, output = await finished(stage, provider)
    stage.fake.script("content", BrokenOff(stage.fake.file[:100], promised=len(stage.fake.file)))
    with pytest.raises(errors.UpstreamUnavailable):
        await content(provider, task, output)
