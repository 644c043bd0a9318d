"""The library and a video's page: what each holder sees, filters, files under the session, cancel and delete."""

import re
from html import unescape

import pytest
from console.conftest import Visitor, copy_video
from harness import ALICE, BOB, Running, statements

from app.jobs.search import MAX_COUNTED

pytestmark = pytest.mark.anyio

HOSTILE = "<img src=x onerror=alert(1)> {{ 7*7 }} </textarea><script>"
CARD = {"model": "sandbox/testcard", "seconds": "1", "size": "128x128"}


async def shown(visitor: Visitor, path: str = "/console/videos") -> list[str]:
    """The ids of the cards of a page."""
    page = await visitor.get(path)
    assert page.status_code == 200, page.text
    return re.findall(r'data-video="(video_\w+)"', page.text)


async def test_a_holder_sees_the_videos_of_the_own_project(gateway: Running, alice: Visitor, operator: Visitor) -> None:
    mine = await gateway.create(**CARD)
    theirs = (await gateway.bob.post("/v1/videos", json={"prompt": "bob's", **CARD})).json()
    assert await shown(alice) == [mine["id"]]
    assert await shown(operator) == [theirs["id"], mine["id"]]
    for path in ("", "/card", "/content/0", "/thumbnail/0", "/spritesheet/0", "/end"):
        assert (await alice.get(f"/console/videos/{theirs['id']}{path}")).status_code == 404, path
    page = await operator.get(f"/console/videos/{theirs['id']}")
    assert theirs["id"] in page.text
    assert BOB not in page.text


async def test_filters_narrow_the_page_and_stay_in_the_address(gateway: Running, alice: Visitor) -> None:
    first = await gateway.create(**CARD)
    gateway.clock.advance(60)
    second = await gateway.create(**{**CARD, "prompt": "a tall lighthouse"})
    for query, expected in (
        ("q=LIGHTHOUSE", [second["id"]]),
        ("q=%25", []),
        ("status=queued", [second["id"], first["id"]]),
        ("status=completed", []),
        ("status=&model=&q=", [second["id"], first["id"]]),
        (f"created_before={first['created_at']}", [first["id"]]),
        ("model=sandbox/testcard&q=boat", [first["id"]]),
    ):
        assert await shown(alice, f"/console/videos?{query}") == expected, query
    page = await alice.get("/console/videos?q=LIGHTHOUSE")
    assert 'name="q" type="search" value="LIGHTHOUSE"' in page.text
    for query in (
        "colour=red",
        "before=video_x&q=a",
        "view=list",
        "project=other",
        "status=done",
        "created_after=yesterday",
        "q=" + "a" * 201,
        "after=video_x&q=a",
    ):
        wrong = await alice.get(f"/console/videos?{query}")
        assert (wrong.status_code, 'role="alert"' in wrong.text) == (400, True), query


async def test_older_videos_are_a_page_away(gateway: Running, alice: Visitor) -> None:
    made = [(await gateway.create(**CARD))["id"] for _ in range(26)]
    page = await alice.get("/console/videos?status=queued")
    (older,) = re.findall(r'href="(/console/videos\?[^"]*after=[^"]+)"', page.text)
    first = await shown(alice, "/console/videos?status=queued")
    rest = await shown(alice, older.replace("&amp;", "&"))
    assert sorted(first + rest) == sorted(made)
    assert len(first) == 24


async def test_newer_videos_are_a_page_back(gateway: Running, alice: Visitor) -> None:
    for _ in range(50):
        await gateway.create(**CARD)
    for query in ("", "status=queued&"):
        whole = await shown(alice, f"/console/videos?{query}")
        pages = [f"/console/videos?{query}"]
        while older := re.findall(r'href="([^"]*after=[^"]+)"', (await alice.get(pages[-1])).text):
            pages.append(unescape(older[0]))
        assert [len(await shown(alice, page)) for page in pages] == [24, 24, 2]
        (newer,) = re.findall(r'href="([^"]*before=[^"]+)"', (await alice.get(pages[-1])).text)
        assert await shown(alice, unescape(newer)) == await shown(alice, pages[1])
        (newest,) = re.findall(r'href="([^"]*before=[^"]+)"', (await alice.get(pages[1])).text)
        first = await alice.get(unescape(newest))
        assert first.status_code == 303, "the first page, which is full"
        assert await shown(alice, first.headers["location"]) == whole


async def test_states_have_counts_where_these_are_cheap(gateway: Running, alice: Visitor, operator: Visitor) -> None:
    def counts(text: str) -> dict[str, str]:
        return dict(re.findall(r">(Queued|Running|Ready|Failed|Cancelled) ([\d,+]+)</a>", text))

    failed = await gateway.create(**{**CARD, "model": "sandbox/fail"})
    await gateway.finish(failed["id"])
    stopped = await gateway.create(**CARD)
    await gateway.client.delete(f"/v1/videos/{stopped['id']}")
    for _ in range(3):
        await gateway.create(**CARD)
    await gateway.bob.post("/v1/videos", json={"prompt": "bob's", **CARD})
    expected = {"Queued": "3", "Failed": "2", "Cancelled": "1"}
    for query in ("", "?status=failed", "?view=table"):
        assert counts((await alice.get(f"/console/videos{query}")).text) == expected
    assert len(await shown(alice, "/console/videos?status=failed")) == 2
    assert counts((await alice.get("/console/videos?model=sandbox/fail")).text) == {"Failed": "1"}
    assert counts((await alice.get("/console/videos?q=boat")).text) == {}
    assert counts((await operator.get("/console/videos")).text) == {"Queued": "4"}
    await copy_video(gateway, stopped["id"], MAX_COUNTED)
    page = (await alice.get("/console/videos")).text
    assert counts(page) == {"Queued": "3", "Failed": "1,000+", "Cancelled": "1,000+"}
    assert "Delete all 1 failed…" in page


async def test_times_of_the_form_are_taken(gateway: Running, alice: Visitor) -> None:
    gateway.clock.now = gateway.clock.now.replace(hour=12, minute=30, second=0)
    await alice.sign_in(ALICE)  # around midnight that is later than a session lasts
    first = await gateway.create(**CARD)
    gateway.clock.advance(120)
    second = await gateway.create(**CARD)
    day = f"{gateway.clock():%Y-%m-%d}"
    for query, expected in (
        (f"created_after={day}T12:31", [second["id"]]),
        (f"created_before={day}T12:31", [first["id"]]),
        (f"created_after={day}&created_before={day}", [second["id"], first["id"]]),
        (f"created_after={day}T12:31:00Z", [second["id"]]),
        (f"created_after={day}T14:31:00%2B02:00", [second["id"]]),
    ):
        assert await shown(alice, f"/console/videos?{query}") == expected, query
    page = await alice.get(f"/console/videos?created_after={day}T12:31")
    assert f'name="created_after" value="{day}T12:31"' in page.text
    with_offset = await alice.get(f"/console/videos?created_after={day}T14:31:00%2B02:00")
    assert f'name="created_after" value="{day}T12:31"' in with_offset.text
    assert f"created_after={day}T12%3A31Z" in page.text, "links have what the API takes"


async def test_choices_are_those_of_the_key_and_what_was_typed(gateway: Running, alice: Visitor) -> None:
    page = (await alice.get("/console/videos?model=old/model&provider=gone")).text
    for option in ("<option selected>old/model</option>", "<option selected>gone</option>", "<option>sandbox</option>"):
        assert option in page
    assert "<option>sandbox/testcard</option>" in page


async def test_the_operator_has_a_table_of_all(gateway: Running, alice: Visitor, operator: Visitor) -> None:
    mine = await gateway.create(**CARD)
    theirs = (await gateway.bob.post("/v1/videos", json={"prompt": "bob's", **CARD})).json()
    table = (await operator.get("/console/videos")).text
    assert re.findall(r'<tr id="card-(video_\w+)"', table) == [theirs["id"], mine["id"]]
    assert 'type="checkbox"' not in table
    (project, *_) = re.findall(r"project=(\w+)", table)
    assert await shown(operator, f"/console/videos?project={project}") == [theirs["id"]]
    assert await shown(operator, f"/console/videos?project={project}&view=grid") == [theirs["id"]]
    assert (await operator.get("/console/videos?project=nothing")).status_code == 404
    own = (await alice.get("/console/videos?view=table")).text
    assert "<th>Project</th>" not in own
    assert own.count('type="checkbox"') == 1
    row = await alice.get(f"/console/videos/{mine['id']}/card?view=table")
    assert row.text.lstrip().startswith(f'<tr id="card-{mine["id"]}"')
    assert 'type="checkbox"' not in (await alice.get(f"/console/videos/{mine['id']}/card")).text


async def test_a_page_takes_few_queries(gateway: Running, alice: Visitor, operator: Visitor) -> None:
    for _ in range(25):
        await gateway.create(**CARD)
    done = await gateway.finish((await gateway.create(**CARD))["id"])
    for path in ("", "?status=queued&model=sandbox/testcard", "?q=boat", f"/{done['id']}"):
        for visitor in (alice, operator):
            with statements(gateway) as sent:
                assert (await visitor.get(f"/console/videos{path}")).status_code == 200
            assert len(sent) <= 11, (path, sent)  # one more may go past SQLAlchemy


async def test_a_finished_video_plays_under_the_session(gateway: Running, alice: Visitor, visitor: Visitor) -> None:
    video = await gateway.finish((await gateway.create(**CARD))["id"])
    address = f"/console/videos/{video['id']}"
    whole = await alice.get(f"{address}/content/0")
    part = await alice.get(f"{address}/content/0", range="bytes=0-9")
    assert (whole.status_code, whole.headers["content-type"]) == (200, "video/mp4")
    assert (part.status_code, part.content) == (206, whole.content[:10])
    saved = await alice.get(f"{address}/content/0?download=true")
    assert saved.headers["content-disposition"].startswith("attachment;")
    for variant, kind in (("thumbnail", "image/webp"), ("spritesheet", "image/jpeg")):
        picture = await alice.get(f"{address}/{variant}/0")
        assert (picture.status_code, picture.headers["content-type"]) == (200, kind)
    page = await alice.get(address)
    assert f'src="{address}/content/0"' in page.text
    assert "Ready" in page.text
    for path in ("", "/content/0", "/thumbnail/0"):
        assert (await visitor.get(f"{address}{path}")).status_code == 303


async def test_text_of_others_is_text(gateway: Running, alice: Visitor, operator: Visitor) -> None:
    video = await gateway.create(**{**CARD, "prompt": HOSTILE, "user": HOSTILE, "metadata": {"a": HOSTILE}})
    for visitor in (alice, operator):
        for path in ("", f"/{video['id']}", f"/{video['id']}/card"):
            page = await visitor.get(f"/console/videos{path}")
            assert "<img src=x" not in page.text
            assert "<script>" not in page.text
            assert "{{ 7*7 }}" in page.text
    form = await alice.get("/console/playground")
    filled = await alice.client.get("/console/playground", params={"prompt": HOSTILE, "seconds": HOSTILE})
    for page in (form, filled):
        assert "<img src=x" not in page.text


async def test_a_failed_video_says_why(gateway: Running, alice: Visitor) -> None:
    video = await gateway.finish((await gateway.create(**{**CARD, "model": "sandbox/fail"}))["id"])
    assert video["error"]["code"]
    for path in ("", f"/{video['id']}"):
        assert f"Failed: {video['error']['code']}" in (await alice.get(f"/console/videos{path}")).text
    assert video["error"]["message"] in unescape((await alice.get(f"/console/videos/{video['id']}")).text)


async def test_a_running_video_is_cancelled_and_an_ended_one_deleted(gateway: Running, alice: Visitor) -> None:
    video = await gateway.create(**CARD)
    address = f"/console/videos/{video['id']}"
    assert "Cancel this video?" in (await alice.get(f"{address}/end")).text
    token = await alice.token()
    assert (await alice.post(f"{address}/end", {})).status_code == 403
    cancelled = await alice.post(f"{address}/end", {"csrf": token})
    assert (cancelled.status_code, cancelled.headers["location"]) == (303, f"{address}?said=cancelled")
    assert "The video was cancelled." in (await alice.get(cancelled.headers["location"])).text
    assert (await gateway.get(video["id"]))["error"]["code"] == "cancelled"
    assert "Cancelled" in (await alice.get(address)).text
    assert (await alice.post(f"{address}/end", {"csrf": token, "ended": "yes"})).status_code == 409, "kept for an hour"
    gateway.clock.advance(3_700)
    assert "Delete this video?" in (await alice.get(f"{address}/end")).text
    deleted = await alice.post(f"{address}/end", {"csrf": token})
    assert deleted.headers["location"] == "/console/videos?said=deleted"
    assert "The video was deleted." in (await alice.get(deleted.headers["location"])).text
    assert (await gateway.client.get(f"/v1/videos/{video['id']}")).status_code == 404


async def test_the_operator_changes_no_video_here(gateway: Running, operator: Visitor) -> None:
    video = await gateway.create(**CARD)
    address = f"/console/videos/{video['id']}/end"
    assert (await operator.get(address)).status_code == 403
    assert (await operator.post(address, {"csrf": await operator.token()})).status_code == 403
    assert (await gateway.get(video["id"]))["status"] == "queued"
