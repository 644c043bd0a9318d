"""Isolation of projects: every route that names something by its id knows only what belongs to the caller's project."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import sample_mp4
from harness import Running

pytestmark = pytest.mark.anyio

SECRET = "the words of Alice"
OPERATORS_ONLY = "/admin/"
PUBLIC = ("/media/", "/callbacks/")
"""Routes that a signature or a token opens instead of a key; see test_signed_links.py and test_callbacks.py."""


def routes_of(gateway: Running) -> Iterator[tuple[str, str]]:
    """Method and path of every route with an id in its path that a project's key opens."""
    for path, methods in gateway.app.openapi()["paths"].items():
        if "{" in path and not path.startswith((OPERATORS_ONLY, *PUBLIC)):
            yield from ((method.upper(), path) for method in methods)


async def belongings(up: Running, fake: FakeOpenAI) -> dict[str, str]:
    """Ids of everything that Alice has, by the name of the path parameter."""
    made = await up.client.post(
        "/v1/webhook_endpoints",
        json={"name": SECRET, "url": "https://example.com/", "event_types": ["video.completed"]},
    )
    video = await up.create(model="up/sora-2", prompt=SECRET)
    assert (await up.finish(video["id"]))["status"] == "completed"
    deliveries = await up.client.get(f"/v1/webhook_endpoints/{made.json()['id']}/deliveries")
    files = {"video": ("ada.mp4", sample_mp4(), "video/mp4")}
    data = {"name": SECRET, "model": "up/sora-2"}
    character = await up.client.post("/v1/videos/characters", data=data, files=files)
    return {
        "video": video["id"],
        "request": video["id"],
        "endpoint": made.json()["id"],
        "delivery": deliveries.json()["data"][0]["id"],
        "character": character.json()["id"],
    }


def filled(path: str, ids: dict[str, str]) -> str:
    """The path with Alice's ids; a parameter that no id fits fails the test."""

    def replaced(match: re.Match[str]) -> str:
        name = match[1].partition(":")[0]
        if name in ("index", "number"):
            return "0"
        known = {"task_id": "video", "generation_id": "video", "job_id": "video", "id": "video"}
        return ids[known.get(name, name.removesuffix("_id"))]

    return re.sub(r"{([^}]+)}", replaced, path)


async def test_no_route_shows_or_changes_what_another_project_has(up: Running, fake: FakeOpenAI) -> None:
    ids = await belongings(up, fake)
    before = await up.get(ids["video"])
    tried = 0
    for method, path in routes_of(up):
        if path.endswith("/v1/models/{model_id:path}") or "model" in path:
            continue  # the same for all projects
        body: dict[str, Any] = {"prompt": "x", "event_type": "video.failed", "name": "x", "url": "https://example.com/"}
        answer = await up.bob.request(method, filled(path, ids), json=body if method in ("POST", "PATCH") else None)
        assert answer.status_code in (400, 404), (method, path, answer.text)
        assert SECRET not in answer.text, (method, path)
        tried += 1
    assert tried >= 21
    assert await up.get(ids["video"]) == before
    for path in (f"/v1/webhook_endpoints/{ids['endpoint']}", f"/v1/videos/characters/{ids['character']}"):
        assert SECRET in (await up.client.get(path)).text


async def test_no_list_shows_what_another_project_has(up: Running, fake: FakeOpenAI) -> None:
    await belongings(up, fake)
    tried = 0
    for path, methods in up.app.openapi()["paths"].items():
        if "get" not in methods or "{" in path or path.startswith(OPERATORS_ONLY):
            continue
        if "text/event-stream" not in methods["get"]["responses"]["200"].get("content", {}):  # a stream has no end
            assert SECRET not in (await up.bob.get(path)).text, path
            tried += 1
    assert tried > 10
