"""Addresses that cannot be parsed or resolved: webhook URLs, redirects and file URLs of upstreams."""

import httpx
import pytest
import sqlalchemy as sa
from fakes.openai import FakeOpenAI
from fakes.receiver import Receiver
from fakes.server import Answer, serve
from harness import Running
from refusals import refused, refused_create

from app import net
from app.providers.answers import declared_size, file_url
from app.webhooks import events

pytestmark = pytest.mark.anyio


NAMELESS = "http://xn--a/hook"
"""Its host has the mark of an encoded name, and decodes to none."""


async def test_a_webhook_address_whose_name_does_not_decode(gateway: Running) -> None:
    await refused_create(gateway, "webhook_url", webhook_url=NAMELESS)
    body = {"name": "mine", "url": NAMELESS, "event_types": ["video.failed"]}
    refused(await gateway.client.post("/v1/webhook_endpoints", json=body), "url")


async def test_a_job_with_such_an_address_from_before_can_end(gateway: Running) -> None:
    assert events.queue_key_of(NAMELESS) == "http://xn--a:80"
    video = await gateway.create(webhook_url="http://example.com/hook")
    stored = "update videos set request = jsonb_set(request, '{webhook,url}', to_jsonb(cast(:url as text)))"
    async with gateway.gateway.db.transaction() as session:
        await session.execute(sa.text(stored), {"url": NAMELESS})
    assert (await gateway.client.delete(f"/v1/videos/{video['id']}")).status_code == 200
    await gateway.worker.run_once()
    async with gateway.gateway.db.transaction() as session:
        error = (await session.execute(sa.text("select error from delivery_tries"))).scalar_one()
    assert error == "no answer: the host name of the address is invalid"


async def test_a_receiver_that_redirects_to_such_an_address(gateway: Running) -> None:
    receiver = Receiver()
    receiver.script(Answer(302, headers={"location": NAMELESS}))
    async with serve(receiver) as url:
        video = await gateway.create(webhook_url=f"{url}/hook")
        await gateway.client.delete(f"/v1/videos/{video['id']}")
        await gateway.worker.run_once()
    async with gateway.gateway.db.transaction() as session:
        error = (await session.execute(sa.text("select error from delivery_tries"))).scalar_one()
    assert "redirects to an invalid address" in error


@pytest.mark.parametrize("location", ["https://xn--a/clip.mp4", "//xn--a/f", "http://h:99999/f", "http://[::1"])
async def test_a_file_that_is_redirected_to_no_address(up: Running, fake: FakeOpenAI, location: str) -> None:
    video = await up.create(model="up/sora-2")
    await up.worker.run_once()
    fake.finish("video_1")
    fake.script("content", *[Answer(302, b"", {"location": location})] * 100)
    ended = await up.finish(video["id"], step_s=120)
    assert ended["error"]["code"] == "output_unavailable"


async def test_a_file_without_a_valid_address_fails_the_job(up: Running, fake: FakeOpenAI) -> None:
    fake.content_call = False
    video = await up.create(model="up/sora-2")
    await up.worker.run_once()
    fake.finish("video_1")
    fake.jobs["video_1"].raw["url"] = "https://xn--a/clip.mp4"
    ended = await up.finish(video["id"], step_s=120)
    assert ended["status"] == "failed"


async def test_an_answer_that_redirects_to_no_address(up: Running, fake: FakeOpenAI) -> None:
    video = await up.create(model="up/sora-2")
    await up.worker.run_once()
    fake.script("poll", Answer(302, b"", {"location": "https://xn--a/"}))
    fake.finish("video_1")
    assert (await up.finish(video["id"]))["status"] == "completed"


@pytest.mark.parametrize("url", ["https://xn--a/f.mp4", "http://h:99999/f", "http://h:" + "9" * 5_000 + "/"])
def test_invalid_file_addresses_are_none(url: str) -> None:
    assert file_url(url, "https://cdn.example.com/f.mp4") == "https://cdn.example.com/f.mp4"


@pytest.mark.parametrize(
    ("length", "size"), [("17", 17), ("\u00b2", None), ("9" * 5_000, None), ("-1", None), ("+1", None), ("", None)]
)
def test_invalid_lengths_are_none(length: str, size: int | None) -> None:
    assert declared_size(httpx.Headers([(b"content-length", length.encode("latin-1"))])) == size


async def test_the_guarded_client_takes_a_name_that_does_not_decode_for_unreachable() -> None:
    async with net.guarded() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(NAMELESS, headers={"host": "example.com"})


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.255.255.254", "169.254.0.1"),
        *("172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.168.0.1", "198.18.0.1"),
        *("198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
        *("fc00::1", "fd00:ec2::254", "fe80::1", "ff02::1", "2001:db8::1", "2001::1", "100::1", "100:0:0:1::1"),
        *("64:ff9b::10.0.0.1", "64:ff9b:1::1"),
        *("fec0::1", "5f00::1", "3fff::1", "3fff:fff::", "192.88.99.1", "2002:7f00:1::"),
        *("::1", "::", "::127.0.0.1", "::10.0.0.1", "::ffff:0:127.0.0.1", "::ffff:0:a00:1"),
    ],
)
def test_private_and_invalid_addresses_are_not_public(address: str) -> None:
    assert not net.may_reach(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "172.32.0.1", "192.0.1.1", "168.63.129.17", "2606:4700::1111"])
def test_public_addresses_are_public(address: str) -> None:
    assert net.may_reach(address)
