"""Video files in a bucket, through the HTTP API, against an S3 that fails as scripted."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fakes.openai import FakeOpenAI
from fakes.s3 import S3, refusal
from fakes.server import KEY, Answer, BrokenOff, Fault, Hang, Reset, closed_port, sample_mp4, serve
from harness import Running, StartGateway
from processes import ran
from structlog.testing import capture_logs

from app import errors
from app.media.bucket import check_bucket
from app.media.store import IncompleteFile, StorageUnavailable, Store
from app.settings import ConfigurationError, Settings

pytestmark = pytest.mark.anyio

MIB = 2**20
MP4 = "video/mp4"
NO_KEY = {"authorization": ""}


@pytest.fixture
async def s3(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3]:
    """A bucket that the environment leads to."""
    bucket = S3()
    async with serve(bucket) as url:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in bucket.environment(url).items():
            monkeypatch.setenv(name, value)
        yield bucket
    bucket.close()


@pytest.fixture
def storage_url(s3: S3) -> str:
    return f"s3://{s3.bucket}/gateway"


@pytest.fixture
def store(storage_url: str) -> Store:
    return Store.from_settings(Settings(_env_file=None, storage_url=storage_url))


@pytest.fixture
async def fake() -> FakeOpenAI:
    return FakeOpenAI()


@pytest.fixture
async def gateway(start_gateway: StartGateway, storage_url: str, fake: FakeOpenAI) -> AsyncIterator[Running]:
    """A gateway on the bucket, with the sandbox and one OpenAI-shaped upstream called `up`."""
    async with serve(fake) as url:
        providers = {"up": {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}, "sandbox": {}}
        async with start_gateway(storage_url=storage_url, providers=providers) as running:
            yield running


async def source(size: int, breaks: BaseException | None = None) -> AsyncIterator[bytes]:
    """A video file of that size, in pieces of one MiB."""
    start = sample_mp4()
    yield start
    for left in range(size - len(start), 0, -MIB):
        yield bytes(min(MIB, left))
    if breaks is not None:
        raise breaks


async def small_video(gateway: Running) -> dict[str, Any]:
    created = await gateway.create(model="sandbox/testcard", seconds="1", size="320x180")
    return await gateway.finish(created["id"])


# The life of a video file


async def test_a_video_of_an_upstream_is_stored_and_served(gateway: Running, s3: S3, fake: FakeOpenAI) -> None:
    fake.file = sample_mp4() + bytes(9 * MIB)
    video = await gateway.create(model="up/sora-2")
    done = await gateway.finish(video["id"])
    assert done["status"] == "completed"
    [(key, content_type)] = s3.files.items()
    assert key.startswith(f"gateway/videos/{video['id']}/att_")
    assert (key[-4:], content_type) == (".mp4", MP4)
    path = f"/v1/videos/{video['id']}/content"
    whole = await gateway.client.get(path)
    assert (whole.status_code, whole.headers["content-type"], whole.content) == (200, MP4, fake.file)
    part = await gateway.client.get(path, headers={"range": f"bytes={3 * MIB}-{5 * MIB}"})
    assert (part.status_code, part.content) == (206, fake.file[3 * MIB : 5 * MIB + 1])
    assert part.headers["content-range"] == f"bytes {3 * MIB}-{5 * MIB}/{len(fake.file)}"
    again = await gateway.client.get(path, headers={"if-none-match": whole.headers["etag"]})
    assert again.status_code == 304
    link = await gateway.client.get(done["output"]["url"], headers=NO_KEY)
    assert (link.status_code, link.content) == (200, fake.file)


async def test_a_video_of_the_sandbox_and_its_pictures_are_kept_until_it_is_deleted(gateway: Running, s3: S3) -> None:
    video = await gateway.create(model="sandbox/testcard", seconds="1", size="320x180")
    other = await gateway.create(model="sandbox/testcard", seconds="1", size="320x180")
    for created in (video, other):
        assert (await gateway.finish(created["id"]))["status"] == "completed"
    path = f"/v1/videos/{video['id']}"
    for variant, content_type in (("thumbnail", "image/webp"), ("spritesheet", "image/jpeg")):
        for _ in range(2):
            picture = await gateway.client.get(f"{path}/content", params={"variant": variant})
            assert (picture.status_code, picture.headers["content-type"]) == (200, content_type)
    mine = {key.rpartition(".")[2]: kind for key, kind in s3.files.items() if video["id"] in key}
    assert mine == {"mp4": MP4, "webp": "image/webp", "jpg": "image/jpeg"}
    assert (await gateway.client.delete(path)).status_code == 200
    await gateway.worker.purge()
    assert [key for key in s3.files if other["id"] not in key] == []
    assert len(s3.files) == 1


async def test_a_picture_that_cannot_be_made_is_remembered_in_the_bucket(
    gateway: Running, s3: S3, fake: FakeOpenAI
) -> None:
    video_file = sample_mp4()
    start = video_file.index(b"mdat") + 4
    fake.file = video_file[:start] + b"\xff" * (len(video_file) - start)
    video = await gateway.create(model="up/sora-2")
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    path = f"/v1/videos/{video['id']}"
    answers = [await gateway.client.get(f"{path}/content?variant=thumbnail") for _ in range(2)]
    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in answers] == [(404, "no_picture")] * 2
    assert {key.partition(".mp4.")[2]: kind for key, kind in s3.files.items()} == {
        "": MP4,
        "thumbnail.failed": "application/json",
    }
    assert (await gateway.client.delete(path)).status_code == 200
    await gateway.worker.purge()
    assert s3.files == {}


async def test_expired_files_are_deleted(gateway: Running, s3: S3) -> None:
    video = await gateway.create(model="sandbox/testcard", seconds="1", size="320x180", media_retention=3_600)
    await gateway.finish(video["id"])
    assert len(s3.files) == 1
    gateway.clock.advance(3_601)
    with s3.away():
        await gateway.worker.purge()  # nothing is forgotten while the bucket is away
    s3.script("list", refusal(404, "NoSuchBucket", "The specified bucket does not exist"))
    await gateway.worker.purge()
    assert len(s3.files) == 1
    await gateway.worker.purge()
    assert s3.files == {}


async def test_uploads_are_kept_until_the_end(gateway: Running, s3: S3, fake: FakeOpenAI) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + bytes(100)
    created = await gateway.client.post(
        "/v1/videos",
        data={"prompt": "a paper boat", "model": "up/sora-2"},
        files={"input_reference": ("boat.png", picture, "image/png")},
    )
    video_id = created.json()["id"]
    assert s3.files == {f"gateway/uploads/{video_id}/0": "image/png"}
    assert (await gateway.finish(video_id))["status"] == "completed"
    assert fake.submits[0].fields["input_reference"].sha256 == hashlib.sha256(picture).hexdigest()
    assert [key.split("/")[1] for key in s3.files] == ["videos"]


async def test_a_submit_waits_for_its_bucket(gateway: Running, s3: S3, fake: FakeOpenAI) -> None:
    created = await gateway.client.post(
        "/v1/videos",
        data={"prompt": "a paper boat", "model": "up/sora-2"},
        files={"input_reference": ("boat.png", b"\x89PNG\r\n\x1a\n" + bytes(100), "image/png")},
    )
    with s3.away():
        await gateway.worker.run_once()
    assert (await gateway.get(created.json()["id"]))["status"] == "queued"
    assert (await gateway.finish(created.json()["id"]))["status"] == "completed"
    assert len(fake.jobs) == 1


async def test_an_upload_while_the_bucket_is_away_is_a_503(gateway: Running, s3: S3) -> None:
    with s3.away():
        refused = await gateway.client.post(
            "/v1/videos",
            data={"prompt": "a paper boat", "model": "up/sora-2"},
            files={"input_reference": ("boat.png", b"\x89PNG\r\n\x1a\n", "image/png")},
        )
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_unavailable")
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


# Links that lead on to the bucket


@pytest.fixture
async def presigning(start_gateway: StartGateway, storage_url: str) -> AsyncIterator[Running]:
    async with start_gateway(storage_url=storage_url, storage_presign=True) as running:
        yield running


def ttl_of(response: httpx.Response) -> int:
    assert (response.status_code, response.headers["cache-control"]) == (307, "no-store"), response.text
    return int(parse_qs(urlsplit(response.headers["location"]).query)["X-Amz-Expires"][0])


async def test_a_link_redirects_to_the_bucket(presigning: Running, s3: S3) -> None:
    done = await small_video(presigning)
    content = (await presigning.client.get(f"/v1/videos/{done['id']}/content")).content
    read = len(s3.asked("get"))
    answer = await presigning.client.get(done["output"]["url"], headers=NO_KEY)
    assert ttl_of(answer) == 900
    assert answer.headers["access-control-allow-origin"] == "*", "a script must be able to follow it"
    assert len(s3.asked("get")) == read
    async with httpx.AsyncClient() as player:
        played = await player.get(answer.headers["location"])
        assert (played.status_code, played.headers["content-type"], played.content) == (200, MP4, content)
        part = await player.get(answer.headers["location"], headers={"range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, content[10:20])
        assert (await player.get(answer.headers["location"].partition("?")[0])).status_code == 403


async def test_requests_that_a_presigned_address_cannot_serve_are_served_by_the_gateway(presigning: Running) -> None:
    done = await small_video(presigning)
    head = await presigning.client.head(done["output"]["url"], headers=NO_KEY)
    assert (head.status_code, head.headers["content-type"]) == (200, MP4)
    content = await presigning.client.get(f"/v1/videos/{done['id']}/content", headers={"range": "bytes=0-9"})
    assert (content.status_code, len(content.content)) == (206, 10)
    assert content.headers["etag"] == head.headers["etag"]
    assert content.headers["content-range"] == f"bytes 0-9/{head.headers['content-length']}"


async def test_an_address_at_the_bucket_ends_with_the_link(presigning: Running, s3: S3) -> None:
    done = await small_video(presigning)
    link = done["output"]["url"]
    presigning.clock.advance(3_600 - 10)
    assert ttl_of(await presigning.client.get(link)) == 10
    presigning.clock.advance(9.5)
    assert (await presigning.client.get(link)).status_code == 200
    presigning.clock.advance(0.5)
    assert (await presigning.client.get(link)).status_code == 404
    fresh = (await presigning.get(done["id"]))["output"]["url"]
    assert (await presigning.client.get(fresh + "0")).status_code == 404
    assert ttl_of(await presigning.client.get(fresh)) == 900
    await presigning.client.delete(f"/v1/videos/{done['id']}")
    assert (await presigning.client.get(fresh)).status_code == 404


async def test_a_directory_is_served_by_the_gateway_all_the_same(start_gateway: StartGateway) -> None:
    async with start_gateway(storage_presign=True) as gateway:
        done = await small_video(gateway)
        played = await gateway.client.get(done["output"]["url"], headers=NO_KEY)
        assert (played.status_code, played.headers["content-type"]) == (200, MP4)


TYPES = {
    "video/webm": "video/webm",
    "Video/X-FLV; a=b": "video/x-flv",
    "image/png": MP4,
    "video/日本": MP4,
    "video/": MP4,
}


@pytest.mark.parametrize("bucket", [True, False], ids=["bucket", "directory"])
@pytest.mark.parametrize("said", TYPES, ids=ascii)
async def test_the_content_type_of_an_upstream_is_kept_if_it_is_a_video(
    start_gateway: StartGateway, storage_url: str, fake: FakeOpenAI, said: str, bucket: bool
) -> None:
    """Only where the first bytes say nothing, and never as it comes."""
    content = b"\x01\xff" * 500
    fake.script("content", *[Answer(200, content, {"content-type": said.encode().decode("latin-1")})] * 100)
    async with serve(fake) as url:
        providers = {"up": {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}}
        async with start_gateway(providers=providers, **({"storage_url": storage_url} if bucket else {})) as gateway:
            video = await gateway.finish((await gateway.create(model="up/sora-2"))["id"], steps=20)
            head = await gateway.client.head(f"/v1/videos/{video['id']}/content")
    assert (head.status_code, head.headers["content-type"]) == (200, TYPES[said])


# Uploads that break


async def test_a_large_file_is_uploaded_in_parts(store: Store, s3: S3) -> None:
    kept = await store.put("v/clip.mp4", source(20 * MIB), max_bytes=32 * MIB)
    assert kept.size == 20 * MIB
    assert sorted(call.size for call in s3.asked("part")) == [4 * MIB, 8 * MIB, 8 * MIB]
    assert s3.files == {"gateway/v/clip.mp4": MP4}
    assert s3.unfinished == []


async def test_the_first_bytes_decide_the_content_type(store: Store, s3: S3) -> None:
    async def text() -> AsyncIterator[bytes]:
        yield b"not a known video format"

    await store.put("v/1.mp4", source(MIB), max_bytes=MIB, content_type="video/webm")
    await store.put("v/2.mp4", text(), max_bytes=MIB, content_type="video/webm")
    await store.put("v/3.mp4", text(), max_bytes=MIB)
    assert [*s3.files.values()][:2] == [MP4, "video/webm"]
    assert s3.files["gateway/v/3.mp4"] == "binary/octet-stream"


@pytest.mark.parametrize(
    ("breaks", "max_bytes", "expected_size", "error"),
    [
        (OSError("a pipe"), 32 * MIB, None, OSError),
        (None, 11 * MIB, None, errors.PayloadTooLarge),
        (None, 32 * MIB, 13 * MIB, IncompleteFile),
    ],
)
async def test_a_source_that_breaks_leaves_nothing(
    store: Store,
    s3: S3,
    breaks: BaseException | None,
    max_bytes: int,
    expected_size: int | None,
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        await store.put("v/clip.mp4", source(12 * MIB, breaks), max_bytes=max_bytes, expected_size=expected_size)
    assert (s3.files, s3.unfinished) == ({}, [])
    assert len(s3.asked("begin")) == len(s3.asked("abort")) == 1


async def test_a_cancelled_upload_leaves_nothing(store: Store, s3: S3) -> None:
    waiting = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        async for piece in source(12 * MIB):
            yield piece
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.put("v/clip.mp4", stuck(), max_bytes=32 * MIB))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (s3.files, s3.unfinished) == ({}, [])


REFUSALS = {
    "begin": [refusal(404, "NoSuchBucket", "The specified bucket does not exist")],
    "part": [refusal(403, "AccessDenied", "Access Denied")],
    "complete": [refusal(400, "InvalidPart", "One or more of the specified parts could not be found")],
}


@pytest.mark.parametrize("verb", REFUSALS)
async def test_what_the_bucket_refuses_is_unavailable_and_leaves_nothing(store: Store, s3: S3, verb: str) -> None:
    s3.script(verb, *REFUSALS[verb])
    with pytest.raises(StorageUnavailable):
        await store.put("v/clip.mp4", source(12 * MIB), max_bytes=32 * MIB)
    assert (s3.files, s3.unfinished) == ({}, [])


async def test_a_temporary_failure_of_the_bucket_is_retried(store: Store, s3: S3) -> None:
    for verb in ("begin", "part", "complete"):
        s3.script(verb, Answer(503), Reset(accepted=False))
    await store.put("v/clip.mp4", source(12 * MIB), max_bytes=32 * MIB)
    assert s3.unfinished == []
    s3.script("get", Answer(500), Reset(accepted=False))
    assert await store.read("v/clip.mp4", 0, 9) == sample_mp4()[:9]


async def test_a_bucket_that_stays_away_is_unavailable_after_the_retries(store: Store, s3: S3) -> None:
    s3.script("head", *[Answer(503)] * 50)
    with pytest.raises(StorageUnavailable):
        await store.stat("v/clip.mp4")
    assert len(s3.asked("head")) == 6


# Outages while a job is stored


async def test_a_finished_video_waits_for_its_bucket(gateway: Running, s3: S3, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    fake.finish("video_1")
    gateway.clock.advance(20)
    with s3.away():
        await gateway.worker.run_once()
    [attempt] = await gateway.attempts(video["id"])
    assert (attempt.state, attempt.consecutive_failures) == ("storing", 0)
    assert (await gateway.get(video["id"]))["status"] == "in_progress"
    done = await gateway.finish(video["id"])
    assert done["status"] == "completed"
    assert (len(fake.submits), len(fake.contents)) == (1, 1), "fetched once there is somewhere to put it"
    assert [*s3.files.values()] == [MP4]
    assert s3.unfinished == []


@pytest.mark.parametrize(
    ("verb", "faults", "left"),
    [
        ("part", [Reset(accepted=False)] * 20, 0),
        ("complete", [Answer(500)] * 6, 0),
        ("complete", [Reset(), refusal(404, "NoSuchUpload", "The specified upload does not exist.")], 1),
    ],
    ids=["parts that fail", "an end that fails", "an end whose answer is lost"],
)
async def test_a_file_whose_upload_breaks_is_stored_again(
    gateway: Running, s3: S3, fake: FakeOpenAI, verb: str, faults: list[Fault], left: int
) -> None:
    fake.file = sample_mp4() + bytes(12 * MIB)
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    fake.finish("video_1")
    s3.script(verb, *faults)
    gateway.clock.advance(20)
    await gateway.worker.run_once()
    assert (await gateway.get(video["id"]))["status"] == "in_progress"
    assert (len(s3.files), s3.unfinished) == (left, [])
    s3.forget_script()
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert (len(fake.submits), len(fake.contents)) == (1, 2)
    assert (await gateway.client.get(f"/v1/videos/{video['id']}/content")).content == fake.file
    assert s3.unfinished == []
    await gateway.client.delete(f"/v1/videos/{video['id']}")
    await gateway.worker.purge()
    assert s3.files == {}


async def test_an_upstream_that_breaks_off_leaves_nothing_and_is_asked_again(
    gateway: Running, s3: S3, fake: FakeOpenAI
) -> None:
    fake.file = sample_mp4() + bytes(12 * MIB)
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    fake.finish("video_1")
    fake.script("content", BrokenOff(fake.file[: 10 * MIB], len(fake.file)))
    gateway.clock.advance(20)
    await gateway.worker.run_once()
    assert len(s3.asked("begin")) == len(s3.asked("abort")) == 1
    assert (s3.files, s3.unfinished) == ({}, [])
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert (await gateway.client.get(f"/v1/videos/{video['id']}/content")).content == fake.file


async def test_a_bucket_that_is_away_is_a_503_for_readers(gateway: Running, s3: S3) -> None:
    done = await small_video(gateway)
    with s3.away():
        answer = await gateway.client.get(f"/v1/videos/{done['id']}/content")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
    assert "retry-after" in answer.headers
    assert (await gateway.client.get(f"/v1/videos/{done['id']}/content")).status_code == 200


async def test_a_bucket_that_hangs_holds_up_no_other_work(gateway: Running, s3: S3, fake: FakeOpenAI) -> None:
    await gateway.client.delete(f"/v1/videos/{(await small_video(gateway))['id']}")
    gateway.clock.advance(gateway.gateway.settings.purge_interval_s)
    purging, submitting = Hang(), Hang()
    s3.script("list", purging)
    fake.script("submit", submitting)
    working = asyncio.create_task(gateway.worker.run())
    async with asyncio.timeout(30):
        await purging.reached.wait()
        await gateway.create(model="up/sora-2")
        await submitting.reached.wait()
    for hanging in (purging, submitting):
        hanging.release.set()
    gateway.worker.stop()
    await working


# At the start


async def test_a_good_bucket_is_tried_out_and_left_as_it_was(gateway: Running, s3: S3) -> None:
    assert [call.verb for call in s3.calls] == ["put", "delete", "list", "get"]
    assert s3.files == {}


DENIED = refusal(403, "AccessDenied", "Access Denied")
NOT_DELETED = "<Error><Key>gateway/tried-out</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
PERMISSIONS = "s3:PutObject, s3:GetObject, s3:DeleteObject, s3:ListBucket and s3:AbortMultipartUpload"


@pytest.mark.parametrize(
    ("environment", "faults", "said"),
    [
        (
            {"AWS_ACCESS_KEY_ID": "AKIAOTHER"},
            {},
            f"(?s)InvalidAccessKeyId: .*\nCheck AWS_ACCESS_KEY_ID .*{PERMISSIONS}",
        ),
        ({"AWS_ACCESS_KEY_ID": None}, {}, "Set AWS_ACCESS_KEY_ID"),
        (
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, "AWS_METADATA_ENDPOINT": closed_port()},
            {},
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment; .env is not read for them",
        ),
        ({"AWS_ALLOW_HTTP": None}, {}, "Set AWS_ALLOW_HTTP=true"),
        ({"AWS_ALLOW_HTTP": "perhaps"}, {}, "the bucket cannot be used: .*perhaps"),
        ({"AWS_ENDPOINT_URL": "minio:9000"}, {}, "AWS_ENDPOINT_URL must be an address such as https://"),
        ({}, {"put": Answer(301)}, "Check AWS_REGION and AWS_ENDPOINT_URL"),
        ({}, {"put": refusal(400, "AuthorizationHeaderMalformed", "expecting 'eu-north-1'")}, "expecting 'eu-north-1'"),
        ({}, {"put": DENIED}, f"AccessDenied: Access Denied(?s:.*){PERMISSIONS}"),
        ({}, {"get": DENIED}, PERMISSIONS),
        ({}, {"list": DENIED}, PERMISSIONS),
        ({}, {"delete": Answer(200, f"<DeleteResult>{NOT_DELETED}</DeleteResult>")}, PERMISSIONS),
    ],
)
async def test_a_bucket_that_cannot_be_used_stops_the_start(
    s3: S3,
    storage_url: str,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str | None],
    faults: dict[str, Fault],
    said: str,
) -> None:
    for name, value in environment.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    for verb, fault in faults.items():
        s3.script(verb, fault)
    with pytest.raises(ConfigurationError, match=said):
        await check_bucket(storage_url)


@pytest.mark.slow
async def test_a_missing_bucket_is_one_message_of_the_command(s3: S3, tmp_path: Path) -> None:
    child = await ran("serve", "--workers", "2", cwd=tmp_path, code=1, storage_url="s3://no-such-bucket/clips")
    assert child.printed == (
        "video-gateway: GATEWAY_STORAGE_URL: the bucket cannot be used: NoSuchBucket: The specified bucket does not "
        "exist\nCreate it, or correct GATEWAY_STORAGE_URL or AWS_ENDPOINT_URL."
    )


@pytest.mark.parametrize("trouble", ["away", "overloaded", "silent"])
async def test_a_bucket_that_does_not_answer_stops_no_start(
    start_gateway: StartGateway, s3: S3, storage_url: str, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setenv("AWS_TIMEOUT", "100ms")
    faults: dict[str, Fault] = {"away": Reset(accepted=False), "overloaded": Answer(503), "silent": Hang()}
    s3.script("put", faults[trouble])
    with capture_logs() as logs:
        async with start_gateway(storage_url=storage_url) as gateway:
            monkeypatch.delenv("AWS_TIMEOUT")
            done = await small_video(gateway)
    assert done["status"] == "completed"
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["bucket unusable, video files wait"]


# Purges


async def test_a_purge_that_dies_while_it_deletes_files_is_finished_by_a_worker(gateway: Running, s3: S3) -> None:
    done = await small_video(gateway)
    hang = Hang(accepted=False)
    s3.script("delete", hang)
    purging = asyncio.create_task(gateway.client.delete(f"/v1/requests/{done['id']}/payloads"))
    await hang.reached.wait()
    purging.cancel()
    hang.release.set()
    with pytest.raises(asyncio.CancelledError):
        await purging
    assert (await gateway.get(done["id"]))["prompt"] == ""
    assert len(s3.files) == 1
    gateway.clock.advance(61)
    await gateway.worker.purge()
    assert s3.files == {}


async def test_a_purge_without_the_bucket_says_so_and_is_finished_later(gateway: Running, s3: S3) -> None:
    first, second = await small_video(gateway), await small_video(gateway)
    with s3.away():
        for done in (first, second):
            refused = await gateway.client.delete(f"/v1/requests/{done['id']}/payloads")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_unavailable")
            assert "the texts are purged" in refused.json()["error"]["message"]
            assert (await gateway.get(done["id"]))["prompt"] == ""
    assert len(s3.files) == 2
    answer = (await gateway.client.delete(f"/v1/requests/{first['id']}/payloads")).json()
    assert (answer["already_purged"], answer["media_deleted"]) == (True, 1)
    gateway.clock.advance(61)
    await gateway.worker.purge()
    assert s3.files == {}
