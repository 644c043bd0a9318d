"""Several videos of the library at once: selected ones, and all that failed."""

import re
from typing import Any

import pytest
from console.conftest import Visitor, copy_video
from console.tables import values_of
from harness import Running

from app.console.bulk import MAX_AT_ONCE, TYPED_FROM

pytestmark = pytest.mark.anyio

CARD = {"model": "sandbox/testcard", "seconds": "1", "size": "128x128"}
SELECTED, FAILED = "/console/videos/selected", "/console/videos/failed"


async def post(visitor: Visitor, path: str, **form: str) -> Any:
    return await visitor.post(path, {"csrf": await visitor.token(), **form})


async def failed(gateway: Running, count: int, **fields: Any) -> list[str]:
    made = [(await gateway.create(**{**CARD, "model": "sandbox/fail", **fields}))["id"] for _ in range(count)]
    for video_id in made:
        await gateway.finish(video_id)
    return made


def counted(page: str) -> dict[str, str]:
    """Number and time of the count that a form has."""
    found = values_of(page)
    return {"count": found["count"], "until": found["until"]}


async def left(gateway: Running) -> dict[str, str]:
    """Error code, else status, of each video that is left."""
    found = (await gateway.client.get("/v1/videos?limit=100")).json()["data"]
    return {one["id"]: one["error"]["code"] if one["error"] else one["status"] for one in found}


async def test_selected_videos_are_deleted_after_a_question(gateway: Running, alice: Visitor) -> None:
    ended = await failed(gateway, 2, prompt="<img src=x onerror=alert(1)>")
    running = (await gateway.create(**CARD))["id"]
    theirs = (await gateway.bob.post("/v1/videos", json={"prompt": "a", **CARD})).json()["id"]
    chosen = dict.fromkeys([*ended, running, theirs], "on")
    asked = await post(alice, SELECTED, do="delete", **chosen)
    assert "Delete 2 videos?" in asked.text
    assert "2 of those you selected still run" in asked.text
    assert "<img src=x" not in asked.text
    assert len(await left(gateway)) == 3
    sure = dict.fromkeys(re.findall(r'name="(video_\w+)"', asked.text), "on")
    assert sorted(sure) == sorted(ended)
    done = await post(alice, SELECTED, do="delete", sure="yes", **chosen)
    assert "2 videos deleted" in done.text
    assert "2 were left as they are" in done.text
    assert await left(gateway) == {running: "queued"}
    assert (await gateway.bob.get(f"/v1/videos/{theirs}")).json()["status"] == "queued"


async def test_selected_videos_are_cancelled(gateway: Running, alice: Visitor) -> None:
    (ended,) = await failed(gateway, 1)
    running = [(await gateway.create(**CARD))["id"] for _ in range(2)]
    chosen = dict.fromkeys([ended, *running], "on")
    assert "Cancel 2 videos?" in (await post(alice, SELECTED, do="cancel", **chosen)).text
    done = await post(alice, SELECTED, do="cancel", sure="yes", **chosen)
    assert "2 videos cancelled" in done.text
    assert await left(gateway) == {ended: "sandbox_failure", **dict.fromkeys(running, "cancelled")}
    kept = await post(alice, SELECTED, do="delete", sure="yes", **dict.fromkeys(running, "on"))
    assert "0 videos deleted" in kept.text
    assert len(await left(gateway)) == 3


async def test_nothing_or_nonsense_is_selected(gateway: Running, alice: Visitor, operator: Visitor) -> None:
    assert "Nothing to delete" in (await post(alice, SELECTED, do="delete")).text
    assert "Nothing to cancel" in (await post(alice, SELECTED, do="cancel", video_x="on", model="on")).text
    assert (await post(alice, SELECTED, do="sell")).status_code == 400
    for path in (SELECTED, FAILED):
        assert (await post(operator, path, do="delete", count="1")).status_code == 403
    assert (await operator.get(FAILED)).status_code == 403
    assert (await alice.post(SELECTED, {"do": "delete"})).status_code == 403
    now = gateway.clock().isoformat()
    for wrong in ("", "x", "-1", "9" * 20):
        assert (await post(alice, FAILED, count=wrong, until=now)).status_code == 400
        assert (await post(alice, FAILED, count="1", until=wrong)).status_code == 400
    assert (await post(alice, FAILED, count="1")).status_code == 400
    assert (await post(alice, FAILED, count="1", until=now[:19])).status_code == 400


async def test_all_failed_ones_that_match_are_deleted(gateway: Running, alice: Visitor) -> None:
    first = await failed(gateway, 2)
    rest = await failed(gateway, 1, prompt="a tall lighthouse")
    stopped = (await gateway.create(**CARD))["id"]
    await gateway.client.delete(f"/v1/videos/{stopped}")
    library = (await alice.get("/console/videos?status=failed")).text
    assert f'href="{FAILED}?status=failed">Delete all 3 failed…' in library
    page = await alice.get(f"{FAILED}?q=boat&view=table&status=failed")
    assert "Delete 2 failed videos?" in page.text
    assert "<dt>q</dt><dd>boat</dd>" in page.text
    done = await post(alice, f"{FAILED}?q=boat", **counted(page.text))
    assert "2 videos deleted" in done.text
    assert set(await left(gateway)) == {*rest, stopped}
    assert not set(first) & set(await left(gateway))
    assert "No failed videos" in (await alice.get(f"{FAILED}?q=boat")).text
    assert (await alice.get(f"{FAILED}?colour=red")).status_code == 400


async def test_many_need_their_number_and_go_in_parts(gateway: Running, alice: Visitor) -> None:
    (one,) = await failed(gateway, 1)
    await copy_video(gateway, one, TYPED_FROM - 2)
    assert 'name="number"' not in (await alice.get(FAILED)).text
    await copy_video(gateway, one, MAX_AT_ONCE + 5 - TYPED_FROM)
    count = str(MAX_AT_ONCE + 4)
    page = await alice.get(FAILED)
    assert f'name="count" value="{count}"' in page.text
    assert 'name="number"' in page.text
    for number in ("", "3", f"0{count}", "<b>"):
        wrong = await post(alice, FAILED, **counted(page.text), number=number)
        assert wrong.status_code == 400
        assert f"Type {count} to delete" in wrong.text
    part = await post(
        alice, FAILED, **{**counted(page.text), "count": str(MAX_AT_ONCE + 3)}, number=str(MAX_AT_ONCE + 3)
    )
    assert f"{MAX_AT_ONCE} videos deleted" in part.text
    again = {name: value for name, value in values_of(part.text).items() if name in ("count", "number", "until")}
    assert again == {**counted(page.text), "count": "3", "number": "3"}
    assert "3 videos deleted" in (await post(alice, FAILED, **again)).text
    assert len(await left(gateway)) == 1, "no more than the number that was named"


async def test_what_fails_after_the_count_stays(gateway: Running, alice: Visitor) -> None:
    first = await failed(gateway, 2)
    running = (await gateway.create(**{**CARD, "model": "sandbox/fail"}))["id"]
    asked = counted((await alice.get(FAILED)).text)
    assert asked["count"] == "2"
    gateway.clock.advance(1)
    newer = await failed(gateway, 2)
    assert (await left(gateway))[running] == "sandbox_failure"
    for expected in (2, 0):
        done = await post(alice, FAILED, **asked)
        assert f"{expected} videos deleted" in done.text
        assert "are left" not in done.text
        assert set(await left(gateway)) == {running, *newer}
    assert not set(first) & set(await left(gateway))
