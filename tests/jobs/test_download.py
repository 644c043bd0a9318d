"""The download of the finished file from the upstream."""

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import Answer, BrokenOff, Elsewhere, Reset, serve
from harness import Running, StartGateway
from jobs.upstream import provider

pytestmark = pytest.mark.anyio


async def test_a_file_that_breaks_off_is_fetched_again(gateway: Running, fake: FakeOpenAI) -> None:
    half = fake.file[: len(fake.file) // 2]
    fake.script("content", BrokenOff(half, len(fake.file)), BrokenOff(b"", len(fake.file)), Answer(500), Reset())
    video = await gateway.create(model="up/sora-2")
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    content = await gateway.client.get(f"/v1/videos/{video['id']}/content")
    assert content.content == fake.file


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Answer(404, {"error": {"message": "expired"}}), "no_output"),
        (Answer(200, b""), "output_unavailable"),
        (Answer(200, "<html>not a video</html>"), "output_unavailable"),
    ],
)
async def test_a_file_that_never_comes_fails_the_job(
    gateway: Running, fake: FakeOpenAI, fault: Answer, code: str
) -> None:
    fake.script("content", *[fault] * 100)
    video = await gateway.create(model="up/sora-2")
    ended = await gateway.finish(video["id"], step_s=70)
    assert ended["error"]["code"] == code
    assert ended["output"] is None
    assert len(fake.submits) == 1


async def test_a_file_that_is_too_large_fails_the_job(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    fake.file = bytes(2**20 + 1)
    async with start_gateway(providers={"up": provider(upstream)}, max_file_mb=1) as gateway:
        video = await gateway.create(model="up/sora-2")
        ended = await gateway.finish(video["id"])
    assert ended["error"]["code"] == "output_too_large"


async def test_a_redirected_file_comes_without_our_key(gateway: Running, fake: FakeOpenAI) -> None:
    elsewhere = Elsewhere()
    async with serve(elsewhere, host="127.0.0.2") as url:
        video = await gateway.create(model="up/sora-2")
        await gateway.worker.run_once()
        fake.elsewhere("video_1", f"{url}/clip.mp4")
        assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert ["authorization" in call.headers for call in elsewhere.calls] == [False]


async def test_a_file_redirected_to_a_private_address_is_not_fetched(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    elsewhere = Elsewhere()
    async with (
        serve(elsewhere, host="127.0.0.2") as url,
        start_gateway(providers={"up": provider(upstream)}, allow_networks=[]) as gateway,
    ):
        video = await gateway.create(model="up/sora-2")
        await gateway.worker.run_once()
        fake.finish("video_1")
        fake.script("content", *[Answer(302, b"", {"location": f"{url}/clip.mp4"})] * 100)
        ended = await gateway.finish(video["id"], step_s=70)
    assert ended["error"]["code"] == "output_unavailable"
    assert elsewhere.calls == []
    assert "127.0.0" not in ended["error"]["message"]
