"""The list of the videos of all projects in the administration API."""

from collections.abc import AsyncIterator

import pytest
from harness import Running, StartGateway
from money import ADMIN, Operator, operator_of
from refusals import refused

pytestmark = pytest.mark.anyio


@pytest.fixture
async def operator(start_gateway: StartGateway) -> AsyncIterator[Operator]:
    async with start_gateway(admin_key=ADMIN) as gateway, operator_of(gateway) as operator:
        yield operator


async def ids_of(operator: Operator, query: str = "") -> list[str]:
    return [video["id"] for video in (await operator.ask("GET", f"videos?{query}"))["data"]]


async def test_an_operator_lists_the_videos_of_all_projects(operator: Operator) -> None:
    gateway = operator.gateway
    made = []
    for number, client in enumerate((gateway.client, gateway.bob, gateway.client)):
        body = {"prompt": f"boat {number}", "model": "sandbox/slow", "user": f"u{number}"}
        made.append((await client.post("/v1/videos", json=body, headers={"x-app-id": "web"})).json()["id"])
        gateway.clock.advance(1)
    first, theirs, last = made
    await gateway.client.delete(f"/v1/videos/{last}")
    shown = (await operator.ask("GET", "videos"))["data"]
    projects = {video["id"]: video["project"] for video in shown}
    assert list(projects) == [last, theirs, first]
    assert projects[first] == projects[last] != projects[theirs]
    for query, expected in {
        "order=asc": made,
        "limit=1": [last],
        f"after={last}": [theirs, first],
        "model=sandbox/slow": [last, theirs, first],
        "model=sandbox/slow&order=asc&limit=2": [first, theirs],
        f"model=sandbox/slow&after={theirs}": [first],
        "status=queued": [theirs, first],
        "status=failed": [last],
        "user=u1": [theirs],
        "q=BOAT&status=queued&app=web": [theirs, first],
        f"project={projects[theirs]}": [theirs],
        f"project={projects[first]}&status=queued": [first],
        f"project={projects[theirs]}&q=boat": [theirs],
        f"project={projects[theirs]}&q=2": [],
    }.items():
        assert await ids_of(operator, query) == expected, query


async def test_an_item_names_its_fields_as_the_video_does(operator: Operator) -> None:
    video = await operator.gateway.create(prompt="b" * 501, seconds=1, size="64x64", user="jane")
    await operator.gateway.finish(video["id"])
    (listed,) = (await operator.ask("GET", "videos"))["data"]
    details = await operator.ask("GET", f"videos/{video['id']}")
    assert listed.pop("object") == "video"
    assert listed.pop("prompt") == "b" * 500
    assert (listed.pop("user"), listed.pop("app")) == ("jane", None)
    assert listed == {name: details[name] for name in listed}
    assert (listed["billed_s"], listed["status"], listed["settlement"]) == (1, "completed", "settled")


async def test_the_sums_are_those_of_all_projects(operator: Operator) -> None:
    gateway = operator.gateway
    for client in (gateway.client, gateway.client, gateway.bob):
        made = (await client.post("/v1/videos", json={"prompt": "b", "seconds": 1, "size": "64x64"})).json()["id"]
        while (await client.get(f"/v1/videos/{made}")).json()["status"] != "completed":
            await gateway.worker.run_once()
            gateway.clock.advance(5)
    for query, count in {
        "": 3,
        "status=completed&limit=1": 3,
        "status=failed": 0,
        "model=none": 0,
        "q=b": 3,
        f"project={(await operator.ask('GET', f'videos/{made}'))['project']}": 1,
    }.items():
        summary = (await operator.ask("GET", f"videos?{query}&summary=true"))["summary"]
        assert (summary["count"], summary["seconds"]) == (count, count), query


async def test_a_deleted_video_is_not_listed(operator: Operator) -> None:
    video = await operator.gateway.create(seconds=1, size="64x64")
    await operator.gateway.finish(video["id"])
    await operator.gateway.client.delete(f"/v1/videos/{video['id']}")
    for query in ("", "status=completed", "q=boat", "summary=true"):
        assert await ids_of(operator, query) == []


async def test_the_list_needs_the_admin_key_and_known_names(operator: Operator, gateway: Running) -> None:
    assert (await operator.gateway.client.get("/admin/v1/videos")).status_code == 401
    assert (await gateway.client.get("/admin/v1/videos")).status_code == 404
    assert "no project has" in refused(await operator.client.get("/admin/v1/videos?project=none"), "project", 404)
    assert "did you mean project?" in refused(await operator.client.get("/admin/v1/videos?projct=x"), "projct")
    unknown = f"/admin/v1/videos?model=x&after=video_{'0' * 26}"
    assert "not in this list" in refused(await operator.client.get(unknown), "after")
