"""The OpenAI dialect: pages of the list, and videos of another project."""

from typing import Any

import pytest
from dialects.openai_wire import Upstream, error_of
from harness import Running

pytestmark = pytest.mark.anyio


async def test_the_list_is_paged_in_both_orders(gateway: Running) -> None:
    made = [(await gateway.create(model="sandbox/slow"))["id"] for _ in range(5)]
    await gateway.client.delete(f"/v1/videos/{made[0]}")  # cancelled, so still there
    theirs = (await gateway.bob.post("/v1/videos", json={"prompt": "b"})).json()["id"]

    async def page(query: str = "") -> tuple[list[str], Any, Any, bool]:
        response = await gateway.client.get(f"/v1/videos{query}")
        assert response.status_code == 200, response.text
        body = response.json()
        assert list(body) == ["object", "data", "first_id", "last_id", "has_more"]
        assert body["object"] == "list"
        assert response.headers["cache-control"] == "no-store"
        return [video["id"] for video in body["data"]], body["first_id"], body["last_id"], body["has_more"]

    newest = made[::-1]
    assert await page() == (newest, newest[0], newest[-1], False)
    assert await page("?limit=2") == (newest[:2], newest[0], newest[1], True)
    assert await page(f"?limit=2&after={newest[1]}") == (newest[2:4], newest[2], newest[3], True)
    assert await page(f"?limit=2&after={newest[3]}") == (newest[4:], newest[4], newest[4], False)
    assert await page("?limit=5") == (newest, newest[0], newest[-1], False)
    assert await page(f"?order=asc&limit=4&after={made[0]}") == (made[1:], made[1], made[4], False)
    assert await page(f"?after={newest[-1]}") == ([], None, None, False)
    assert await page("?limit=0") == ([], None, None, True)
    assert await page("?after=nothing%00here&limit=100") == (newest, newest[0], newest[-1], False)
    assert await page(f"?after={theirs}") == (newest, newest[0], newest[-1], False)
    got = (await gateway.bob.get("/openai/v1/videos")).json()["data"]
    assert [video["id"] for video in got] == [theirs]


@pytest.mark.parametrize("query", ["limit=-1", "limit=101", "limit=x", "limit=", "limit=1e999", "order=up", "order="])
async def test_bad_page_parameters_are_refused(gateway: Running, query: str) -> None:
    error = error_of(await gateway.client.get(f"/v1/videos?{query}"), 400)
    assert (error["param"], error["code"]) == (query.partition("=")[0], "invalid_value")


async def test_a_video_of_another_project_is_a_404(up: Upstream) -> None:
    mine = await up.completed()
    bob = up.gateway.bob
    path = f"/v1/videos/{mine['id']}"
    by_id = {"prompt": "p", "video": {"id": mine["id"]}}
    missing = f"no video has the id {mine['id']!r}"
    for response in (
        await bob.get(path),
        await bob.delete(path),
        await bob.get(f"{path}/content"),
        await bob.get(f"{path}/content?variant=thumbnail"),
        await bob.post(f"{path}/remix", json={"prompt": "p"}),
        await bob.post("/v1/videos/edits", json=by_id),
        await bob.post("/v1/videos/extensions", json={**by_id, "seconds": "4"}),
    ):
        assert error_of(response, 404)["message"] == missing
    assert (await bob.head(f"{path}/content")).status_code == 404
    assert (await up.client.get(path)).status_code == 200
