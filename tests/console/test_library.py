"""The library and a video's page: what each holder sees, filters, files under the session, cancel and delete."""

import re
from html import unescape

import pytest
from console.conftest import Visitor
from harness import BOB, Running

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
    assert 'name="q" value="LIGHTHOUSE"' in page.text
    for query in (
        "colour=red",
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
    assert (cancelled.status_code, cancelled.headers["location"]) == (303, address)
    assert (await gateway.get(video["id"]))["error"]["code"] == "cancelled"
    assert "Cancelled" in (await alice.get(address)).text
    gateway.clock.advance(3_700)
    assert "Delete this video?" in (await alice.get(f"{address}/end")).text
    deleted = await alice.post(f"{address}/end", {"csrf": token})
    assert deleted.headers["location"] == "/console/videos"
    assert (await gateway.client.get(f"/v1/videos/{video['id']}")).status_code == 404


async def test_the_operator_changes_no_video_here(gateway: Running, operator: Visitor) -> None:
    video = await gateway.create(**CARD)
    address = f"/console/videos/{video['id']}/end"
    assert (await operator.get(address)).status_code == 403
    assert (await operator.post(address, {"csrf": await operator.token()})).status_code == 403
    assert (await gateway.get(video["id"]))["status"] == "queued"
