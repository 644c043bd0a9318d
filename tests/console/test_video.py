"""A video's page: timeline, money, webhooks, what can be made from it, links for colleagues, files that are gone."""

import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import pytest
import sqlalchemy as sa
from console.conftest import Visitor, visitor_at
from fakes.receiver import Receiver
from fakes.s3 import S3
from fakes.server import Answer, serve
from harness import ALICE, ORIGIN, Running, StartGateway
from money import ADMIN
from upstreams import Upstreams

from app import ids
from app.db.models import Video

pytestmark = pytest.mark.anyio

CARD = {"model": "sandbox/testcard", "seconds": "1", "size": "128x128"}
HOSTILE = "<img src=x onerror=alert(1)>"
NO_KEY = {"authorization": ""}


@pytest.fixture
async def hook() -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver()
    async with serve(receiver) as url:
        yield receiver, f"{url}/hook?token=sekret"


async def made(gateway: Running, **fields: Any) -> dict[str, Any]:
    return await gateway.finish((await gateway.create(**{**CARD, **fields}))["id"])


def page_of(video: dict[str, Any]) -> str:
    return f"/console/videos/{video['id']}"


async def post(visitor: Visitor, path: str, **form: str) -> Any:
    return await visitor.post(path, {"csrf": await visitor.token(), **form})


async def test_outputs_are_chosen_in_the_address(gateway: Running, alice: Visitor) -> None:
    video = await made(gateway, n=2, metadata={"order": HOSTILE})
    address = page_of(video)
    first, second = (await alice.get(address)).text, (await alice.get(f"{address}?output=1")).text
    assert f'src="{address}/content/0"' in first
    assert f'src="{address}/content/1"' in second
    assert f'data-strip="{address}/spritesheet/1"' in second
    assert f'href="{address}?output=1"' in first
    assert HOSTILE in unescape(first)
    assert "<img src=x" not in first
    for words in ("1 s asked", "128x128 asked, 128x128 made", "made the file", "Output 2, sandbox/testcard"):
        assert words in first, words
    assert (await alice.get(f"{address}?output=7")).status_code == 200
    assert (await alice.get(f"{address}?output=x")).status_code == 400


async def test_each_audience_sees_its_part_of_the_attempts(start_gateway: StartGateway, two: Upstreams) -> None:
    words = f"top up {HOSTILE}"
    two.fakes["one"].script("submit", Answer(402, {"error": {"message": words}}))
    models = {"clip": {"routes": ["one/sora-2", "two/sora-2"]}}
    async with start_gateway(admin_key=ADMIN, providers=two.providers(), models=models) as gateway:
        video = await gateway.finish((await gateway.create(model="clip"))["id"])
        pages = {}
        for key in (ALICE, ADMIN):
            visitor = visitor_at(gateway)
            async with visitor.client:
                await visitor.sign_in(key)
                pages[key] = (await visitor.get(page_of(video))).text
        failed, succeeded = await gateway.attempts(video["id"])
    for text in pages.values():
        assert [*re.findall(r"<strong>(\w+/sora-2)</strong>", text)] == ["one/sora-2", "two/sora-2"]
        assert "upstream_insufficient_credit" in text
        assert "<img src=x" not in text
        assert text.count("<svg") == 2
    for secret in (str(succeeded.upstream_ref), succeeded.id, "top up", "polls"):
        assert secret not in pages[ALICE], secret
        assert secret in pages[ADMIN], secret
    assert failed.error_body is not None
    assert HOSTILE in unescape(pages[ADMIN])


async def test_what_can_be_made_from_it_is_offered(start_gateway: StartGateway, two: Upstreams) -> None:
    async with start_gateway(admin_key=ADMIN, providers=two.providers()) as gateway:
        video = await gateway.create(model="one/sora-2")
        alice, operator = visitor_at(gateway), visitor_at(gateway)
        async with alice.client, operator.client:
            await alice.sign_in(ALICE)
            await operator.sign_in(ADMIN)
            assert "mode=remix" not in (await alice.get(page_of(video))).text
            await gateway.finish(video["id"])
            remixed = (await gateway.client.post(f"/v1/videos/{video['id']}/remix", json={"prompt": "at night"})).json()
            shown = (await alice.get(page_of(video))).text
            for mode in ("remix", "extend", "edit"):
                assert f"/console/playground?from={video['id']}&amp;mode={mode}" in shown
            assert f'href="/console/videos/{remixed["id"]}">at night</a>' in shown
            assert f'href="/console/videos/{video["id"]}"' in (await alice.get(page_of(remixed))).text
            assert "mode=" not in (await operator.get(page_of(video))).text
            gateway.clock.advance(40 * 86_400)
            await alice.sign_in(ALICE)
            assert "Its files were kept until <time" in (await alice.get(page_of(video))).text
            assert "mode=" not in (await alice.get(page_of(video))).text


async def test_the_sandbox_is_not_offered_what_it_cannot_do(gateway: Running, alice: Visitor) -> None:
    text = (await alice.get(page_of(await made(gateway)))).text
    able = gateway.gateway.providers["sandbox"].capabilities("testcard")
    assert able is not None
    assert set(re.findall(r"mode=(\w+)", text)) == {str(one) for one in able.operations} & {"remix", "extend", "edit"}


async def test_a_queued_video_says_what_it_waits_for(start_gateway: StartGateway, two: Upstreams) -> None:
    async with start_gateway(providers=two.providers(), worker_concurrency=1) as gateway:
        theirs = await gateway.bob.post("/v1/videos", json={"prompt": "a", "model": "one/sora-2"})
        mine = [await gateway.create(model="one/sora-2") for _ in range(3)]
        assert theirs.status_code == 202
        visitor = visitor_at(gateway)
        async with visitor.client:
            await visitor.sign_in(ALICE)
            # Projects take turns: one of the other project comes before the first of this one at most.
            for video, ahead in zip(mine, (1, 2, 3), strict=True):
                assert f"Waits for one: {ahead} ahead." in (await visitor.get(page_of(video))).text
            two.fakes["one"].script("submit", *[Answer(503, {"error": {"message": "down"}})] * 20)
            for _ in range(4):
                await gateway.create(model="one/sora-2")
            await gateway.worker.run_once()
            pages = [(await visitor.get(page_of(video))).text for video in mine]
            assert all("one rests until <time" in page for page in pages)


async def test_a_running_video_says_how_long_it_usually_takes(gateway: Running, alice: Visitor) -> None:
    await made(gateway)
    video = await gateway.create(**CARD)
    gateway.clock.advance(12)
    text = (await alice.get(page_of(video))).text
    assert "12 s so far." in text
    assert "waits for its turn, 12 s so far" in text
    await gateway.gateway.durations.refresh()
    for path in (page_of(video), f"{page_of(video)}/card", "/console/videos", "/console/videos?view=table"):
        assert re.search(r"12 s so far, usually \d+ s", (await alice.get(path)).text), path


async def test_money_is_shown_line_by_line(start_gateway: StartGateway) -> None:
    async with start_gateway(prices={"sandbox/testcard": 0.1, "sandbox/fail": 0.1}) as gateway:
        visitor = visitor_at(gateway)
        async with visitor.client:
            await visitor.sign_in(ALICE)

            async def figures(video: dict[str, Any]) -> dict[str, str]:
                text = (await visitor.get(page_of(video))).text
                return {
                    word: amount for amount, word in re.findall(r"<strong>([^<]+)</strong>([A-Z][a-z ]+)</li>", text)
                }

            running = await gateway.create(**CARD)
            assert await figures(running) == {
                "Estimate": "$0.10",
                "Held": "$0.10",
                "Charged": "$0.00",
                "Given back": "$0.00",
            }
            done, failed = await gateway.finish(running["id"]), await made(gateway, model="sandbox/fail")
            assert (await figures(done))["Charged"] == "$0.10"
            assert (await figures(done))["Held"] == "$0.00"
            assert (await figures(done))["Given back"] == "$0.00"
            assert "the rest given back" not in (await visitor.get(page_of(done))).text
            assert (await figures(failed))["Given back"] == "$0.10"
            shorter = await gateway.create(**CARD)
            async with gateway.gateway.db.transaction() as session:
                held = Video.hold_micros + 50_000
                await session.execute(sa.update(Video).where(Video.id == shorter["id"]).values(hold_micros=held))
            shorter = await gateway.finish(shorter["id"])
            assert (await figures(shorter))["Given back"] == "$0.05", "less was made than was held for"
            assert "Charged, the rest given back" in (await visitor.get(page_of(shorter))).text


async def test_an_event_is_sent_again(
    gateway: Running, alice: Visitor, operator: Visitor, hook: tuple[Receiver, str]
) -> None:
    receiver, url = hook
    receiver.script(Answer(500, {"error": HOSTILE}))
    video = await made(gateway, webhook_url=url)
    shown, theirs = (await alice.get(page_of(video))).text, (await operator.get(page_of(video))).text
    assert "next try <time" in shown
    assert HOSTILE in unescape(shown)
    assert HOSTILE not in unescape(theirs)
    for text in (shown, theirs):
        assert "sekret" not in text
        assert "<img src=x" not in text
    (again,) = re.findall(r'action="([^"]+/deliveries/\w+)"', shown)
    assert "/deliveries/" not in theirs
    assert (await post(operator, again)).status_code == 403
    assert (await post(alice, f"{page_of(video)}/deliveries/{ids.new('wh')}")).status_code == 404
    sent = await post(alice, again)
    assert sent.headers["location"] == f"{page_of(video)}?said=resent"
    await gateway.worker.run_once()
    assert len(receiver.received) == 2
    page = (await alice.get(sent.headers["location"])).text
    assert "The event is being sent again." in page
    assert ">delivered</td>" in page.replace("\n", "")


async def test_the_request_is_shown_without_secrets(
    gateway: Running, alice: Visitor, hook: tuple[Receiver, str]
) -> None:
    body = {"prompt": "a boat", **CARD, "webhook_url": hook[1], "seed": 7}
    answer = await gateway.client.post("/v1/videos", json=body, headers={"idempotency-key": "order-17"})
    text = unescape((await alice.get(page_of(answer.json()))).text)
    assert '"seed": 7' in text
    assert "order-17" in text
    assert "sekret" not in text


async def test_a_link_for_a_colleague_ends(gateway: Running, alice: Visitor, operator: Visitor) -> None:
    video = await made(gateway)
    address = f"{page_of(video)}/link"
    day = await post(alice, address, lifetime="86400", output="0")
    (url,) = re.findall(r'id="shared-link">([^<]+)<', unescape(day.text))
    assert url.startswith(f"{ORIGIN}/media/{video['id']}/0.mp4?exp=")
    part = await alice.post(address, {"csrf": await alice.token(), "lifetime": "3600"}, **{"hx-request": "true"})
    assert "<header>" not in part.text
    gateway.clock.advance(86_399)
    assert (await gateway.client.get(url, headers=NO_KEY)).status_code == 200
    gateway.clock.advance(1)
    assert (await gateway.client.get(url, headers=NO_KEY)).status_code == 404
    await alice.sign_in(ALICE)
    await operator.sign_in(ADMIN)
    for lifetime in ("", "1", "31536000", "3600; x"):
        assert (await post(alice, address, lifetime=lifetime)).status_code == 400
    assert (await post(alice, address, lifetime="3600", output="9")).status_code == 404
    assert (await post(operator, address, lifetime="3600")).status_code == 403
    theirs = (await gateway.bob.post("/v1/videos", json={"prompt": "a", **CARD})).json()
    assert (await post(alice, f"{page_of(theirs)}/link", lifetime="3600")).status_code == 404


async def test_a_link_ends_with_the_file(start_gateway: StartGateway) -> None:
    async with start_gateway(retention_s=7_200) as gateway:
        visitor = visitor_at(gateway)
        async with visitor.client:
            await visitor.sign_in(ALICE)
            video = await made(gateway)
            assert re.findall(r'<option value="(\d+)"', (await visitor.get(page_of(video))).text)[-1:] == ["3600"]
            week = await post(visitor, f"{page_of(video)}/link", lifetime="604800")
            expires_at = int((await gateway.get(video["id"]))["expires_at"])
            assert f"exp={expires_at}&" in unescape(week.text)
            assert "when the file is deleted" in week.text
            gateway.clock.advance(7_200)
            assert (await post(visitor, f"{page_of(video)}/link", lifetime="3600")).status_code == 404


async def test_a_file_that_is_gone_says_why(gateway: Running, alice: Visitor) -> None:
    kept, erased = await made(gateway), await made(gateway)
    assert (await gateway.client.delete(f"/v1/requests/{erased['id']}/payloads")).status_code == 200
    text = (await alice.get(page_of(erased))).text
    assert "Its files were erased on <time" in text
    for missing in ("<video", "Use again", "Link for a colleague"):
        assert missing not in text
    gateway.clock.advance(31 * 86_400)
    await alice.sign_in(ALICE)
    text = (await alice.get(page_of(kept))).text
    assert "Its files were kept until <time" in text
    assert "<video" not in text


async def test_what_is_not_there_has_a_search(gateway: Running, alice: Visitor) -> None:
    theirs = (await gateway.bob.post("/v1/videos", json={"prompt": "a", **CARD})).json()
    for video_id in (theirs["id"], ids.new("video"), "video_x", HOSTILE):
        page = await alice.client.get(f"/console/videos/{video_id}")
        assert page.status_code == 404
        assert 'name="q"' in page.text
        assert "<img src=x" not in page.text
    video = await made(gateway)
    await post(alice, f"{page_of(video)}/end", ended="yes")
    gone = await alice.get(page_of(video))
    assert (gone.status_code, "It was deleted on <time" in gone.text) == (404, True)
    found = await alice.client.get("/console/videos", params={"q": video["id"]})
    assert found.headers["location"] == page_of(video)


async def test_a_page_that_is_out_of_date_ends_nothing_else(gateway: Running, alice: Visitor) -> None:
    video = await gateway.create(**CARD)
    address = f"{page_of(video)}/end"
    assert 'name="ended" value="no"' in (await alice.get(address)).text
    assert (await post(alice, address, ended="yes")).status_code == 409
    await gateway.finish(video["id"])
    late = await post(alice, address, ended="no")
    assert (late.status_code, "has ended meanwhile" in late.text) == (409, True)
    assert (await gateway.get(video["id"]))["status"] == "completed"


async def test_players_may_load_from_the_bucket_alone(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = S3()
    async with serve(bucket) as endpoint:
        for name, value in bucket.environment(endpoint).items():
            monkeypatch.setenv(name, value)
        async with start_gateway(storage_url=f"s3://{bucket.bucket}/gateway", storage_presign=True) as gateway:
            visitor = visitor_at(gateway)
            async with visitor.client:
                await visitor.sign_in(ALICE)
                video = await made(gateway)
                for path in (page_of(video), "/console/videos"):
                    policy = (await visitor.get(path)).headers["content-security-policy"]
                    assert f"media-src 'self' {endpoint};" in policy
                assert endpoint not in (await visitor.get("/console/models")).headers["content-security-policy"]
                played = await visitor.get(f"{page_of(video)}/content/0", range="bytes=0-9")
                assert (played.status_code, played.headers["cache-control"]) == (307, "no-store")
                assert played.headers["location"].startswith(f"{endpoint}/")
                saved = await visitor.get(f"{page_of(video)}/content/0?download=true")
                assert (saved.status_code, saved.content[4:8]) == (200, b"ftyp")
    bucket.close()


async def test_a_part_of_the_page_is_sent_for_a_page_that_is_open(gateway: Running, alice: Visitor) -> None:
    video = await gateway.create(**CARD)
    running = await alice.get(page_of(video), **{"hx-request": "true"})
    assert running.text.lstrip().startswith("<article")
    assert " data-running" in running.text
    await gateway.finish(video["id"])
    ended = await alice.get(page_of(video), **{"hx-request": "true"})
    assert 'data-end="a paper boat: ready"' in ended.text
    assert "data-feed" not in ended.text
