"""Signed links and callback tokens: each opens one resource until it expires, however the link is changed."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import ORIGIN, Running, StartGateway

from app.video import Media

pytestmark = pytest.mark.anyio


NO_KEY = {"authorization": ""}


async def stored_link(gateway: Running, **fields: Any) -> str:
    """The link of a stored video file."""
    video = await gateway.create(model="up/sora-2", **fields)
    return str((await gateway.finish(video["id"]))["output"]["url"])


async def opened(gateway: Running, *links: str) -> list[str]:
    """Those of the links that are answered with anything but a 404."""
    answers = {
        f"{method} {link}": await gateway.client.request(method, link, headers=NO_KEY)
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
OTHER_FILES = (
    *("1.mp4", "7.mp4", "00.mp4", "-0.mp4", "+0.mp4", "%200.mp4", "0_0.mp4", ".mp4", "0.MP4", "0.webm", "0", "0.mp4/"),
    *("abc.mp4", "/0.mp4", "0.mp4;a", "0.mp4%00", "0%252Emp4", "x%2F..%2F0.mp4", "%2E%2E/0.mp4"),
)


async def test_a_link_cannot_be_made_to_open_more(up: Running) -> None:
    link, other = httpx.URL(await stored_link(up, n=2)), httpx.URL(await stored_link(up))
    folder, query, others = link.path.rpartition("/")[0], link.query.decode(), other.query.decode()
    exp, sig = link.params["exp"], link.params["sig"]
    arabic = "".join(f"%D9%{0xA0 + int(digit):X}" for digit in exp)
    forged = [f"{link.path}?exp={bad.format(exp)}&sig={sig}" for bad in (*EXPIRIES, str(int(exp) + 1), arabic)]
    forged += [f"{link.path}?exp={exp}&sig={bad.format(sig)}" for bad in (*SIGNATURES, sig.swapcase(), sig[:-1])]
    forged += [f"{link.path}?{bad.format(query)}" for bad in (*QUERIES, others, query.upper())]
    forged += [f"{folder}/{bad}?{query}" for bad in OTHER_FILES]
    forged += [f"{path}?{query}" for path in (other.path, link.path.upper(), f"/{link.path}")]
    forged += [f"{folder.replace('video_', 'VIDEO_')}/0.mp4?{query}", f"/media/uploads/{folder[7:]}/0?{query}"]
    assert await opened(up, *forged) == []
    assert len(await opened(up, str(link))) == 2


async def test_a_link_that_is_written_differently_is_the_same_link(up: Running) -> None:
    link = await stored_link(up)
    others = [link.replace(".mp4", "%2Emp4"), link.replace("/0.", "%2F0."), link.replace("/media", "/%6Dedia")]
    exp = httpx.URL(link).params["exp"]
    others.append(link.replace("exp=", f"exp={int(exp) + 1}&exp="))
    assert len(await opened(up, *others)) == 2 * len(others)
    up.clock.now = datetime.fromtimestamp(int(exp), UTC)
    assert await opened(up, link, *others) == []


async def test_a_link_is_dead_once_its_file_is_gone(up: Running) -> None:
    link, kept = await stored_link(up), await stored_link(up, media_retention=60)
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
        files = [f"/media/{videos[0]}/0.mp4", mine.path.upper(), other.path]
        forged = [f"{path}?{query}" for path in (*files, f"{folder}1", f"{folder}00", f"{folder}0/", folder)]
        forged += [f"{folder}..%2F{videos[1]}%2F0?{query}", f"{mine.path}?{other.query.decode()}"]
        forged += [f"{mine.path}?{query.replace('exp=', bad)}" for bad in ("exp=0", "exp=9", "exp=%2B", "exp=-")]
        assert await opened(gateway, *forged) == []
        assert (await gateway.finish(videos[0]))["status"] == "completed"
        assert await opened(gateway, str(mine)) == []  # the upload is no longer needed
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
                answers = [await gateway.client.request(method, callback, headers=NO_KEY) for callback in forged]
                assert {answer.status_code for answer in answers} == {404}
            assert [attempt.due_at for attempt in await gateway.attempts(videos[0])] == [mine.due_at]
            assert (await gateway.client.post(f"{where}/{token}")).json() == {"received": True}
            assert [attempt.due_at for attempt in await gateway.attempts(videos[0])] == [gateway.clock()]
