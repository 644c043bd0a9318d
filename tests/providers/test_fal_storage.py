"""fal's storage, to which long uploads go: who gets the key, and what a hostile answer does."""

import base64
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import pytest
from fakes.fal import FakeFal
from fakes.server import KEY, Answer, Elsewhere, Fault, Reset, serve, serve_bytes
from fakes.upstream import ask
from harness import Running, StartGateway

from app import errors
from app.media.uploads import Upload
from app.providers.base import Outbound, Task
from app.providers.fal import Fal
from app.video import Media

pytestmark = pytest.mark.anyio

MODEL = "bytedance/seedance-2.0"
LOOPBACK = ip_network("127.0.0.0/8")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4 * 1024
"""Longer than what is sent within the request."""
SHORT = PNG[: 2**20 - 100]
STORED = "https://v3.fal.media/files/b/abc/x.png"
"""The address of a stored file in the recordings."""


@pytest.fixture
def fake() -> FakeFal:
    return FakeFal()


@pytest.fixture
async def origins(fake: FakeFal) -> AsyncIterator[tuple[str, str]]:
    """The queue and the storage: one fake at two addresses."""
    async with serve(fake) as queue, serve(fake) as storage:
        yield queue, storage


@asynccontextmanager
async def provider_at(queue: str, storage: str, *, allow: bool = True) -> AsyncIterator[Fal]:
    config = Fal.Config(api_key=KEY, base_url=queue, storage_url=storage, timeout_s=5)
    provider = Fal("fal", config, Outbound((LOOPBACK,) if allow else ()))
    try:
        yield provider
    finally:
        await provider.aclose()


def task_of(size: int = len(PNG)) -> Task:
    @asynccontextmanager
    async def read(media: Media) -> AsyncIterator[Upload]:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(0, size, 2**18):
                yield bytes(2**18)

        yield Upload("boat.png", "image/png", -(-size // 2**18) * 2**18, chunks())

    now = datetime(2026, 11, 21, tzinfo=UTC)
    return Task("attempt_1", MODEL, ask(first_frame=Media(key="boat")), read=read, now=now)


async def test_a_long_upload_goes_to_the_storage_and_the_key_does_not(
    start_gateway: StartGateway, fake: FakeFal, origins: tuple[str, str]
) -> None:
    queue, storage = origins
    providers = {"fal": {"api_key": KEY, "base_url": queue, "storage_url": storage}}
    async with start_gateway(providers=providers, allow_networks=["127.0.0.0/8"]) as gateway:
        await create(gateway, PNG)
        [initiate, put] = fake.calls["upload"]
        assert (initiate.origin, initiate.headers["authorization"]) == (storage, f"Key {KEY}")
        assert initiate.fields["content_type"] == put.headers["content-type"] == "image/png"
        assert (put.json, put.headers["content-length"]) == (PNG, str(len(PNG)))
        assert KEY not in str(put.headers)
        assert fake.submits[0].json["image_url"] == STORED
        await create(gateway, SHORT)
        assert len(fake.calls["upload"]) == 2
        assert fake.submits[1].json["image_url"] == f"data:image/png;base64,{base64.b64encode(SHORT).decode()}"


async def create(gateway: Running, picture: bytes) -> None:
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    video = await gateway.create(model=f"fal/{MODEL}", input_reference=url)
    assert (await gateway.finish(video["id"]))["status"] == "completed"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, {"file_url": STORED}),
        Answer(200, {"upload_url": "{storage}/put"}),
        Answer(200, {"upload_url": "ftp://x.example/put", "file_url": STORED}),
        Answer(200, {"upload_url": "http://[::1", "file_url": STORED}),
        Answer(200, {"upload_url": "https://x.example/" + "a" * 10_000, "file_url": STORED}),
        Answer(200, {"upload_url": 7, "file_url": STORED}),
        Answer(200, []),
        Answer(200, "<html>"),
        Answer(500, {"detail": "Internal Server Error"}),
        Reset(),
    ],
)
async def test_an_unusable_answer_of_the_storage_sends_nothing(
    fake: FakeFal, origins: tuple[str, str], answer: Fault
) -> None:
    async with provider_at(*origins) as provider:
        fake.script("upload", answer)
        with pytest.raises(errors.UpstreamUnavailable):
            await provider.send(task_of())
        assert (len(fake.calls["upload"]), fake.submits) == (1, [])
        assert (await provider.send(task_of())).ref in fake.jobs


@pytest.mark.parametrize(
    "fault", [Answer(403, "<Error>"), Answer(500), Answer(307, headers={"location": "/x"}), Reset()]
)
async def test_a_file_that_the_storage_does_not_take_sends_nothing(
    fake: FakeFal, origins: tuple[str, str], fault: Fault
) -> None:
    queue, storage = origins
    async with provider_at(queue, storage) as provider:
        fake.script("upload", stored_at(f"{storage}/put"), fault)
        with pytest.raises(errors.UpstreamUnavailable, match="the storage of fal did not take an upload"):
            await provider.send(task_of())
        assert (len(fake.calls["upload"]), fake.submits) == (2, [])


def stored_at(url: str) -> Answer:
    return Answer(200, {"upload_url": url, "file_url": STORED})


async def test_a_refused_key_of_the_storage_is_the_operators_matter(fake: FakeFal, origins: tuple[str, str]) -> None:
    async with provider_at(*origins) as provider:
        fake.script("upload", fake.refusal(401, f"no access for {KEY} at {origins[1]}"))
        with pytest.raises(errors.UpstreamAccount) as caught:
            await provider.send(task_of())
    assert KEY not in str(caught.value.body)
    assert origins[1] not in str(caught.value.body)


async def test_a_redirect_of_the_storage_does_not_leak_the_key(fake: FakeFal, origins: tuple[str, str]) -> None:
    elsewhere = Elsewhere()
    async with provider_at(*origins) as provider, serve(elsewhere) as other:
        for status in (302, 307, 308):
            fake.script("upload", Answer(status, headers={"location": f"{other}/put"}))
            with pytest.raises((errors.UpstreamUnavailable, errors.UpstreamAccount)):
                await provider.send(task_of())
    assert (elsewhere.calls, fake.submits) == ([], [])


async def test_a_file_is_not_sent_into_a_private_network(fake: FakeFal, origins: tuple[str, str]) -> None:
    elsewhere = Elsewhere()
    async with provider_at(*origins, allow=False) as provider, serve(elsewhere) as other:
        fake.script("upload", stored_at(f"{other}/put"))
        with pytest.raises(errors.UpstreamUnavailable, match="private network"):
            await provider.send(task_of())
    assert (elsewhere.calls, fake.submits) == ([], [])


async def test_a_stored_file_is_never_in_memory_as_a_whole() -> None:
    size = 48 * 2**20
    async with serve_bytes(_answer(b"")) as bucket:
        body = b'{"upload_url":"%s","file_url":"https://x.example/a"}' % bucket.encode()
        async with (
            serve_bytes(_answer(body)) as storage,
            serve_bytes(_answer(b'{"request_id":"a"}')) as queue,
            provider_at(queue, storage) as provider,
        ):
            tracemalloc.start()
            try:
                assert (await provider.send(task_of(size))).ref == "a"
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert peak < size / 3


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize("url", ["rest.fal.ai", "https://me@rest.fal.ai", "https://rest.fal.ai?x=1"])
def test_the_address_of_the_storage_is_checked(url: str) -> None:
    values: dict[str, Any] = {"api_key": KEY, "storage_url": url}
    with pytest.raises(ValueError, match="expected an address"):
        Fal.Config(**values)


async def test_behind_another_address_uploads_stay_within_the_request(fake: FakeFal, origins: tuple[str, str]) -> None:
    """A relay's key is not fal's."""
    config = Fal.Config(api_key=KEY, base_url=origins[0])
    assert (config.storage_url, Fal.Config(api_key=KEY).storage_url) == ("", "https://rest.fal.ai")
