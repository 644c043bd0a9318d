"""The download of the finished file from the upstream."""

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import Answer, BrokenOff, Elsewhere, Reset, serve, serve_bytes
from harness import Running, StartGateway
from jobs.upstream import provider
from money import ADMIN, operator_of
from samples import CHANGED, Samples

from app.jobs.download import MAX_TRIES

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
        (Answer(200, b"", {"content-type": "video/mp4"}), "output_incomplete"),
        (BrokenOff(b"\0\0\0\x18ftypmp42", 5_000), "output_incomplete"),
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


CUT = [name for name in CHANGED if name.startswith("cut")]
VIDEO = {"content-type": "video/mp4"}


@pytest.mark.parametrize("name", CUT)
async def test_a_file_whose_end_is_missing_is_fetched_again(
    gateway: Running, fake: FakeOpenAI, samples: Samples, name: str
) -> None:
    fake.file = samples(CHANGED[name][0])
    fake.script("content", *[Answer(200, samples(name), VIDEO)] * 2)
    video = await gateway.create(model="up/sora-2")
    done = await gateway.finish(video["id"])
    assert (done["status"], done["output"]["size_bytes"], len(fake.contents)) == ("completed", len(fake.file), 3)
    content = await gateway.client.get(f"/v1/videos/{video['id']}/content")
    assert content.content == fake.file


@pytest.mark.parametrize("name", ["cut_fast.mp4", "cut_base.mp4", "cut.webm"])
async def test_a_file_without_a_length_that_breaks_off_is_fetched_again(
    gateway: Running, fake: FakeOpenAI, samples: Samples, name: str
) -> None:
    fake.file = samples(CHANGED[name][0])
    head = b"HTTP/1.1 200 OK\r\ncontent-type: video/mp4\r\nconnection: close\r\n\r\n"
    video = await gateway.create(model="up/sora-2")
    async with serve_bytes(head + samples(name)) as url:
        await gateway.worker.run_once()
        fake.elsewhere("video_1", f"{url}/clip.mp4")
        done = await gateway.finish(video["id"])
    assert (done["status"], done["output"]["size_bytes"], len(fake.contents)) == ("completed", len(fake.file), 2)


@pytest.mark.parametrize("name", ["cut_fast.mp4", "cut_base.mp4"])
async def test_a_file_whose_end_never_comes_fails_the_job_and_is_refunded(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str, samples: Samples, name: str
) -> None:
    """After a limited number of downloads, long before the deadline: the file at the upstream is as it is."""
    fake.file = samples(name)
    options = {"providers": {"up": provider(upstream)}, "prices": {"up/sora-2": 0.1}, "admin_key": ADMIN}
    async with start_gateway(**options) as gateway, operator_of(gateway) as operator:
        video = await gateway.create(model="up/sora-2", seconds="4")
        started = gateway.clock()
        ended = await gateway.finish(video["id"], step_s=70)
        assert (ended["status"], ended["error"]["code"], ended["output"]) == ("failed", "output_incomplete", None)
        assert (len(fake.contents), len(fake.submits)) == (MAX_TRIES, 1)
        assert (gateway.clock() - started).total_seconds() < gateway.gateway.settings.job_deadline_s / 2
        assert await operator.ledger(video["id"]) == [("reserve", -400_000), ("refund", 400_000)]
        media = gateway.gateway.settings.data_dir / "media"
        assert [path for path in media.rglob("*") if path.is_file()] == []


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
    assert ended["error"]["code"] == "output_gone"
    assert elsewhere.calls == []
    assert "127.0.0" not in ended["error"]["message"]
