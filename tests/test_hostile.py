"""What a caller or an upstream might send to break the gateway: each is refused in a sentence, and nothing stalls."""

import json
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fakes.openai import FakeOpenAI
from fakes.receiver import Receiver
from fakes.server import KEY, Answer, serve
from harness import ORIGIN, Running, StartGateway

from app import net
from app.providers.answers import declared_size, file_url
from app.video import Media
from app.webhooks import events

pytestmark = pytest.mark.anyio

NAMELESS = "http://xn--a/hook"
"""Its host has the mark of an encoded name, and decodes to none."""
BOUNDARY = "multipart/form-data; boundary=x"
FORM = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na boat\r\n--x--\r\n'
SOMEBODYS = "video_" + "0" * 26


@pytest.fixture
async def fake() -> FakeOpenAI:
    return FakeOpenAI(polls_until_working=0, polls_until_done=0)


@pytest.fixture
async def up(fake: FakeOpenAI, start_gateway: StartGateway) -> AsyncIterator[Running]:
    """A gateway in front of an upstream that the test scripts."""
    async with serve(fake) as url:
        upstream = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]}
        async with start_gateway(providers={"up": upstream}) as running:
            yield running


def refused(response: httpx.Response, param: str | None, status: int = 400) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["param"] == param
    return str(error["message"])


async def refused_create(gateway: Running, param: str | None, **fields: Any) -> None:
    refused(await gateway.client.post("/v1/videos", json={"prompt": "a boat", **fields}), param)
    assert (await gateway.client.get("/v1/videos")).json()["data"] == []


# Addresses without a name


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
    assert error == "no answer: the host of the address has no name"


async def test_a_receiver_that_redirects_to_such_an_address(gateway: Running) -> None:
    receiver = Receiver()
    receiver.script(Answer(302, headers={"location": NAMELESS}))
    async with serve(receiver) as url:
        video = await gateway.create(webhook_url=f"{url}/hook")
        await gateway.client.delete(f"/v1/videos/{video['id']}")
        await gateway.worker.run_once()
    async with gateway.gateway.db.transaction() as session:
        error = (await session.execute(sa.text("select error from delivery_tries"))).scalar_one()
    assert "redirects to an address that is none" in error


@pytest.mark.parametrize("location", ["https://xn--a/film.mp4", "//xn--a/f", "http://h:99999/f", "http://[::1"])
async def test_a_file_that_is_redirected_to_no_address(up: Running, fake: FakeOpenAI, location: str) -> None:
    video = await up.create(model="up/sora-2")
    await up.worker.run_once()
    fake.finish("video_1")
    fake.script("content", *[Answer(302, b"", {"location": location})] * 100)
    ended = await up.finish(video["id"], step_s=120)
    assert ended["error"]["code"] == "output_unavailable"


async def test_a_file_that_has_no_address(up: Running, fake: FakeOpenAI) -> None:
    fake.content_call = False
    video = await up.create(model="up/sora-2")
    await up.worker.run_once()
    fake.finish("video_1")
    fake.jobs["video_1"].raw["url"] = "https://xn--a/film.mp4"
    ended = await up.finish(video["id"], step_s=120)
    assert ended["status"] == "failed"


async def test_an_answer_that_redirects_to_no_address(up: Running, fake: FakeOpenAI) -> None:
    video = await up.create(model="up/sora-2")
    await up.worker.run_once()
    fake.script("poll", Answer(302, b"", {"location": "https://xn--a/"}))
    fake.finish("video_1")
    assert (await up.finish(video["id"]))["status"] == "completed"


@pytest.mark.parametrize("url", ["https://xn--a/f.mp4", "http://h:99999/f", "http://h:" + "9" * 5_000 + "/"])
def test_file_addresses_that_are_none(url: str) -> None:
    assert file_url(url, "https://cdn.example.com/f.mp4") == "https://cdn.example.com/f.mp4"


@pytest.mark.parametrize(
    ("length", "size"), [("17", 17), ("\u00b2", None), ("9" * 5_000, None), ("-1", None), ("+1", None), ("", None)]
)
def test_lengths_that_are_none(length: str, size: int | None) -> None:
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
def test_addresses_that_lead_inwards_or_nowhere(address: str) -> None:
    assert not net.may_reach(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "172.32.0.1", "192.0.1.1", "168.63.129.17", "2606:4700::1111"])
def test_addresses_that_lead_outwards(address: str) -> None:
    assert net.may_reach(address)


# Films that are none

PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
TEXTS = {
    "HLS": PLAYLIST,
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "page": b"<!doctype html><title>502</title>",
}


@pytest.mark.parametrize("kind", ["video/mp4", "application/octet-stream", "application/vnd.apple.mpegurl"])
@pytest.mark.parametrize("name", TEXTS)
async def test_a_text_is_no_film_whatever_it_is_called(up: Running, fake: FakeOpenAI, name: str, kind: str) -> None:
    video = await up.create(model="up/sora-2")
    await up.worker.run_once()
    fake.finish("video_1")
    fake.script("content", Answer(200, TEXTS[name], {"content-type": kind}))
    up.clock.advance(20)
    await up.worker.run_once()
    assert (await up.get(video["id"]))["status"] == "in_progress"
    assert (await up.finish(video["id"]))["status"] == "completed"  # it was a moment's trouble, the film is there now
    assert (await up.client.get(f"/v1/videos/{video['id']}/content")).content == fake.file


@pytest.mark.parametrize("variant", ["thumbnail", "spritesheet"])
async def test_a_film_that_no_picture_can_be_made_of(up: Running, fake: FakeOpenAI, variant: str) -> None:
    fake.file = b"\0\0\0\x10ftypmp42\0\0\0\0" + PLAYLIST
    video = await up.create(model="up/sora-2")
    assert (await up.finish(video["id"]))["status"] == "completed"
    answer = await up.client.get(f"/v1/videos/{video['id']}/content?variant={variant}")
    assert refused(answer, None, 404).startswith("no picture can be made of this film")
    assert (answer.json()["error"]["code"], answer.headers["x-should-retry"]) == ("no_picture", "false")
    assert "passwd" not in answer.text


# Links that carry their own permission

NOBODY = {"authorization": ""}


async def filmed(gateway: Running, **fields: Any) -> str:
    """The link of a film that is there."""
    video = await gateway.create(model="up/sora-2", **fields)
    return str((await gateway.finish(video["id"]))["output"]["url"])


async def opened(gateway: Running, *links: str) -> list[str]:
    """Those of the links that are answered with anything but a 404."""
    answers = {
        f"{method} {link}": await gateway.client.request(method, link, headers=NOBODY)
        for link in links
        for method in ("GET", "HEAD")
    }
    return [link for link, answer in answers.items() if answer.status_code != 404]


EXPIRIES = (
    "+{}",
    "%2B{}",
    "0{}",
    "{}0",
    "{}.0",
    "{}e0",
    "%20{}",
    "{}%20",
    "{}%0A",
    "{}%00",
    "-{}",
    "",
    "inf",
    "9" * 20,
    "9" * 21,
)
SIGNATURES = ("{}=", "{}A", "%20{}", "{}%00", "", "A" * 43, "A" * 200, "%C3%A9", "%ED%A0%80")
QUERIES = ("exp=1&sig=1&{}&exp=99999999999", "{}&sig=x", "{}&exp=", "{}&sig=", "", "a={}", "%65xp%3D1&{}&%65xp=2")
FILMS = (
    *("1.mp4", "7.mp4", "00.mp4", "-0.mp4", "+0.mp4", "%200.mp4", "0_0.mp4", ".mp4", "0.MP4", "0.webm", "0", "0.mp4/"),
    *("abc.mp4", "/0.mp4", "0.mp4;a", "0.mp4%00", "0%252Emp4", "x%2F..%2F0.mp4", "%2E%2E/0.mp4"),
)


async def test_a_link_cannot_be_made_to_open_more(up: Running) -> None:
    link, other = httpx.URL(await filmed(up, n=2)), httpx.URL(await filmed(up))
    folder, query, others = link.path.rpartition("/")[0], link.query.decode(), other.query.decode()
    exp, sig = link.params["exp"], link.params["sig"]
    arabic = "".join(f"%D9%{0xA0 + int(digit):X}" for digit in exp)
    forged = [f"{link.path}?exp={bad.format(exp)}&sig={sig}" for bad in (*EXPIRIES, str(int(exp) + 1), arabic)]
    forged += [f"{link.path}?exp={exp}&sig={bad.format(sig)}" for bad in (*SIGNATURES, sig.swapcase(), sig[:-1])]
    forged += [f"{link.path}?{bad.format(query)}" for bad in (*QUERIES, others, query.upper())]
    forged += [f"{folder}/{bad}?{query}" for bad in FILMS]
    forged += [f"{path}?{query}" for path in (other.path, link.path.upper(), f"/{link.path}")]
    forged += [f"{folder.replace('video_', 'VIDEO_')}/0.mp4?{query}", f"/media/uploads/{folder[7:]}/0?{query}"]
    assert await opened(up, *forged) == []
    assert len(await opened(up, str(link))) == 2


async def test_a_link_that_is_written_differently_is_the_same_link(up: Running) -> None:
    link = await filmed(up)
    others = [link.replace(".mp4", "%2Emp4"), link.replace("/0.", "%2F0."), link.replace("/media", "/%6Dedia")]
    exp = httpx.URL(link).params["exp"]
    others.append(link.replace("exp=", f"exp={int(exp) + 1}&exp="))
    assert len(await opened(up, *others)) == 2 * len(others)
    up.clock.now = datetime.fromtimestamp(int(exp), UTC)
    assert await opened(up, link, *others) == []


async def test_a_link_is_dead_when_its_film_is(up: Running) -> None:
    link, kept = await filmed(up), await filmed(up, media_retention=60)
    assert len(await opened(up, link, kept)) == 4
    await up.client.delete(f"/v1/videos/{httpx.URL(link).path.split('/')[2]}")
    up.clock.advance(61)
    assert await opened(up, link, kept) == []
    await up.worker.purge()
    assert await opened(up, link, kept) == []


async def test_a_link_to_an_upload_opens_that_one_while_it_is_there(start_gateway: StartGateway) -> None:
    async with start_gateway(public_url=ORIGIN) as gateway:
        picture = {"input_reference": ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(64))}
        videos = [
            (await gateway.client.post("/v1/videos", data={"prompt": "a boat"}, files=picture)).json()["id"]
            for _ in range(2)
        ]
        links = [gateway.gateway.links.for_upstream(Media(key=f"uploads/{video}/0")) or "" for video in videos]
        mine, other = map(httpx.URL, links)
        folder, query = mine.path.removesuffix("0"), mine.query.decode()
        assert len(await opened(gateway, *links)) == 4
        films = [f"/media/{videos[0]}/0.mp4", mine.path.upper(), other.path]
        forged = [f"{path}?{query}" for path in (*films, f"{folder}1", f"{folder}00", f"{folder}0/", folder)]
        forged += [f"{folder}..%2F{videos[1]}%2F0?{query}", f"{mine.path}?{other.query.decode()}"]
        forged += [f"{mine.path}?{query.replace('exp=', bad)}" for bad in ("exp=0", "exp=9", "exp=%2B", "exp=-")]
        assert await opened(gateway, *forged) == []
        assert (await gateway.finish(videos[0]))["status"] == "completed"
        assert await opened(gateway, str(mine)) == []  # nobody needs it any more
        gateway.clock.advance(86_401)
        assert await opened(gateway, str(other)) == []


TOKENS = ("{}A", "{}=", "%20{}", "{}%00", "{}/", "/{}", "x", "%C3%A9", "")


async def test_a_callback_is_for_its_attempt_only(start_gateway: StartGateway, fake: FakeOpenAI) -> None:
    async with serve(fake) as url:
        upstream = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]}
        async with start_gateway(providers={"up": upstream}, public_url=ORIGIN) as gateway:
            videos = [(await gateway.create(model="up/sora-2"))["id"] for _ in range(2)]
            await gateway.worker.run_once()
            (mine,), (other,) = [await gateway.attempts(video) for video in videos]
            links = gateway.gateway.links
            where, _, token = str(links.callback(mine.id)).rpartition("/")
            forged = [f"{where}/{bad.format(token)}" for bad in TOKENS]
            forged += [f"{where}/{bad}" for bad in (token.swapcase(), token[:-1], links.callback_token(other.id))]
            forged += [f"{where.upper()}/{token}", f"{where}x/{token}", f"{where}%00/{token}", where]
            for method in ("GET", "POST"):
                answers = [await gateway.client.request(method, callback, headers=NOBODY) for callback in forged]
                assert {answer.status_code for answer in answers} == {404}
            assert [attempt.due_at for attempt in await gateway.attempts(videos[0])] == [mine.due_at]
            assert (await gateway.client.post(f"{where}/{token}")).json() == {"received": True}
            assert [attempt.due_at for attempt in await gateway.attempts(videos[0])] == [gateway.clock()]


# Fields that are not what they seem


@pytest.mark.parametrize("seconds", ["long", {"a": 1}, [4], -1, 0, True, 1e9, "Infinity"])
async def test_an_edit_of_no_length(gateway: Running, seconds: Any) -> None:
    body = {"prompt": "a boat", "video": {"id": SOMEBODYS}, "seconds": seconds}
    content = json.dumps(body)
    said = await gateway.client.post("/v1/videos/edits", content=content, headers={"content-type": "application/json"})
    refused(said, "seconds")


async def test_an_edit_has_the_length_of_its_source(up: Running, fake: FakeOpenAI) -> None:
    source = await up.create(model="up/sora-2", seconds="8")
    assert (await up.finish(source["id"]))["status"] == "completed"
    edit = await up.client.post("/v1/videos/edits", json={"prompt": "at night", "video": {"id": source["id"]}})
    assert (edit.status_code, edit.json()["seconds"]) == (202, "8")


PRICED = {"size": "1920x1080", "n": 4, "duration": 60, "resolution": "1080p", "aspect_ratio": "16:9"}


@pytest.mark.parametrize("name", [*PRICED, "characters", "first_frame", "input_reference"])
@pytest.mark.parametrize("operation", ["edits", "extensions", f"{SOMEBODYS}/remix"])
async def test_what_was_priced_is_what_is_asked(gateway: Running, operation: str, name: str) -> None:
    body = {"prompt": "a boat", name: PRICED.get(name, "x")}
    if "remix" not in operation:
        body |= {"video": {"id": SOMEBODYS}}
    if operation == "extensions":
        body |= {"seconds": 4}
    assert name in refused(await gateway.client.post(f"/v1/videos/{operation}", json=body), name)


@pytest.mark.parametrize("name", ["model", "seconds"])
async def test_a_remix_is_of_the_length_and_model_of_its_source(gateway: Running, name: str) -> None:
    body = {"prompt": "a boat", name: "4"}
    refused(await gateway.client.post(f"/v1/videos/{SOMEBODYS}/remix", json=body), name)


# Charsets


@pytest.mark.parametrize("charset", ["punycode", "unicode_escape", "utf-16", "idna", "rot13", '"utf-7"', "no-such"])
@pytest.mark.parametrize("kind", [BOUNDARY, "application/x-www-form-urlencoded"])
async def test_a_form_in_a_charset_of_the_callers_choice(gateway: Running, kind: str, charset: str) -> None:
    headers = {"content-type": f"{kind}; charset={charset}"}
    refused(await gateway.client.post("/v1/videos", content=FORM, headers=headers), None, 415)


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf8"', "us-ascii"])
async def test_a_form_in_a_charset_that_is_known(gateway: Running, charset: str) -> None:
    headers = {"content-type": f"{BOUNDARY}; charset={charset}"}
    assert (await gateway.client.post("/v1/videos", content=FORM, headers=headers)).status_code == 202
    headers = {"content-type": f"application/x-www-form-urlencoded; charset={charset}"}
    assert (await gateway.client.post("/v1/videos", content=b"prompt=boat", headers=headers)).status_code == 202


# Too much of something


@pytest.mark.parametrize(
    "metadata", [{str(n): "x" for n in range(65)}, {"k" * 65: "x"}, {"k": "x" * 2_001}], ids=["keys", "key", "value"]
)
async def test_too_much_metadata(gateway: Running, metadata: dict[str, str]) -> None:
    answer = await gateway.client.post("/v1/videos", json={"prompt": "a boat", "metadata": metadata})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("metadata")


async def test_too_long_a_user_and_too_many_fields_of_the_vendors(gateway: Running) -> None:
    await refused_create(gateway, "user", user="u" * 1_001)
    await refused_create(gateway, "style", style="x" * 65_536, mood="dark")


async def test_as_much_as_is_allowed(up: Running) -> None:
    metadata = {f"{n:064}": "x" * 2_000 for n in range(64)}
    video = await up.create(model="up/sora-2", metadata=metadata, user="u" * 1_000, style="x" * 65_000)
    assert video["metadata"] == metadata
    await up.create(model="up/sora-2", prompt="," * 32_000)


@pytest.mark.parametrize("node", [b"0", b"[]", b"{}"])
async def test_json_of_a_million_nodes(gateway: Running, node: bytes) -> None:
    body = b'{"prompt": "a boat", "style": [' + node + (b"," + node) * 200_000 + b"]}"
    headers = {"content-type": "application/json"}
    refused(await gateway.client.post("/v1/videos", content=body, headers=headers), None)
    refused(
        await gateway.client.post(
            "/v1/videos", content=body, headers={"content-type": "application/x-www-form-urlencoded"}
        ),
        None,
    )


async def test_form_of_a_million_escapes(gateway: Running) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    body = b"prompt=" + b"%41" * 1_000_000
    for content, said in ((body, "prompt"), (body + b"%41", None)):
        message = refused(await gateway.client.post("/v1/videos", content=content, headers=headers), said)
    assert "send it as multipart/form-data or as JSON" in message


async def test_more_media_than_anybody_needs(up: Running) -> None:
    pictures = [f"https://example.com/{n}.png" for n in range(21)]
    await refused_create(up, "reference_images", model="up/sora-2", reference_images=pictures)
    await refused_create(
        up, "reference_images", model="up/sora-2", input_reference=pictures[:10], reference_images=pictures[:11]
    )
    body = {"model": "up/sora-2", "prompt": "a boat", "reference_image_urls": pictures}
    refused(await up.client.post("/v1/videos/generations", json=body), "reference_image_urls")
    await up.create(model="up/sora-2", reference_images=pictures[:20])


# The edge


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/videos/", "/v1/models/x/", "/v1/webhook_endpoints/", "/luma/generations/", "/v1/videos/generations/"),
        *("/v2/generate/video/luma-ai/generation/", "/healthz/", "/metrics/", "/admin/v1/videos/", "/no/such/"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_slash_at_the_end_leads_nowhere(gateway: Running, method: str, path: str) -> None:
    answer = await gateway.client.request(method, path, json={} if method == "POST" else None)
    assert answer.status_code in (404, 405)
    assert "location" not in answer.headers
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_a_declared_length_that_is_too_much_is_refused_before_an_answer_begins(
    gateway: Running, method: str
) -> None:
    video = await gateway.create()
    length = {"content-length": str(gateway.gateway.settings.max_body_mb * 2**20 + 1)}
    for path in (f"/v1/videos/{video['id']}/events", f"/v1/videos/{video['id']}"):
        answer = await gateway.client.request(method, path, headers=length)
        assert answer.status_code == 413
    assert (await gateway.get(video["id"]))["status"] == "queued"


async def test_an_endless_body_does_not_break_an_answer_that_waits(start_gateway: StartGateway) -> None:
    async def content() -> AsyncIterator[bytes]:
        for _ in range(32):
            yield bytes(2**16)

    async with start_gateway(max_body_mb=1) as gateway:
        video = await gateway.create()
        answer = await gateway.client.request("GET", f"/v1/videos/{video['id']}?wait=60", content=content())
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")


async def test_what_operators_see_is_not_for_everybody(start_gateway: StartGateway) -> None:
    async with start_gateway(metrics_key="sk-metrics") as gateway:
        assert (await gateway.client.get("/readyz")).json() == {"status": "ready"}
        for key in ("", "Bearer", "Bearer sk-wrong", "Basic sk-metrics"):
            refused(await gateway.client.get("/metrics", headers={"authorization": key}), None, 401)
        right = {"authorization": "Bearer sk-metrics"}
        assert "gateway_queue_age_seconds" in (await gateway.client.get("/metrics", headers=right)).text


async def test_asking_for_metrics_all_the_time_does_not_count_the_queue_each_time(gateway: Running) -> None:
    before = (await gateway.client.get("/metrics")).text
    await gateway.create()
    assert 'gateway_attempts{provider="sandbox"' not in before + (await gateway.client.get("/metrics")).text
    gateway.app.state.queue_read_at = -math.inf
    assert 'gateway_attempts{provider="sandbox"' in (await gateway.client.get("/metrics")).text
