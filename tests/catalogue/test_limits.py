"""Limits of projects and keys on the choice among the vendors of a model."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from catalogue.conftest import Open
from fakes.ark import FakeArk
from fakes.fal import FakeFal
from fakes.server import Answer
from harness import ALICE
from money import ADMIN, Operator, operator_of

pytestmark = pytest.mark.anyio
ARK, FAL = "ark/dreamina-seedance-2-0-260128", "fal/bytedance/seedance-2.0"
BODY = {"prompt": "a boat", "model": "seedance-2.0"}


@pytest.fixture
async def operator(opened: Open) -> AsyncIterator[Operator]:
    async with opened(admin_key=ADMIN, api_keys={"own": ALICE}) as gateway, operator_of(gateway) as operator:
        yield operator


async def routes_of(client: httpx.AsyncClient, number: int = 1) -> list[str]:
    """The routes of an estimate, once a change of the project has arrived: within a second, by a notification."""
    async with asyncio.timeout(10):
        while True:
            estimate = (await client.post("/v1/videos?dryRun=true", json=BODY)).json()
            if len(estimate["routes"]) == number:
                return [row["route"] for row in estimate["routes"]]
            await asyncio.sleep(0.01)


async def test_a_project_sends_nothing_to_kinds_that_it_may_not_use(
    operator: Operator, ark: FakeArk, fal: FakeFal
) -> None:
    project = await operator.ask("POST", "projects", status=201, name="resident", kinds=["fal", "fal"])
    assert project["kinds"] == ["fal"]
    key = await operator.key(project="resident")
    fal.script("submit", *[Answer(429)] * 3)
    async with operator.user(key) as client:
        assert await routes_of(client) == [FAL]
        video = (await client.post("/v1/videos", json=BODY)).json()
        for _ in range(6):
            await operator.gateway.worker.run_once()
            operator.gateway.clock.advance(60)
        assert (ark.submits, len(fal.submits)) == ([], 4), video["id"]
        refused = await client.post("/v1/videos", json={**BODY, "model": "ark/dreamina-seedance-2-0-260128"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
        listed = (await client.get("/v1/models")).json()["data"]
        assert {route["route"].split("/")[0] for model in listed for route in model["served_by"]} == {"fal"}

        assert (await operator.ask("PATCH", f"projects/{project['id']}", kinds=None))["kinds"] is None
        assert await routes_of(client, 2) == [ARK, FAL]
        changed = await operator.ask("PATCH", f"projects/{project['id']}", kinds=["ark", "sandbox"])
        assert changed["kinds"] == ["ark", "sandbox"]
        assert await routes_of(client) == [ARK]


async def test_the_project_of_a_key_in_the_settings_has_its_kinds_too(operator: Operator) -> None:
    await operator.ask("PATCH", "projects/own", kinds=["fal"])
    assert await routes_of(operator.gateway.client) == [FAL]


@pytest.mark.parametrize("kinds", [[], ["fall"], ["fal", "\x00"], "fal"])
async def test_kinds_that_are_none_are_refused(operator: Operator, kinds: object) -> None:
    answer = await operator.ask("POST", "projects", status=400, name="wrong", kinds=kinds)
    assert answer["error"]["param"].startswith("kinds")
    assert [project["name"] for project in (await operator.ask("GET", "projects"))["data"]] == ["own"]


async def test_a_key_for_a_model_may_use_it_by_each_of_its_names(operator: Operator) -> None:
    key = await operator.key(models=["seedance-2.0"])
    async with operator.user(key) as client:
        for name, status in (("Seedance-2", 202), ("seedance-2.0", 202), ("seedance-1.5-pro", 403)):
            answer = await client.post("/v1/videos", json={**BODY, "model": name})
            assert answer.status_code == status, name


async def test_no_request_of_a_key_costs_more_than_it_may(operator: Operator) -> None:
    key = await operator.key(max_cost_usd=0.8)
    assert key["max_cost_usd"] == 0.8
    async with operator.user(key) as client:
        estimate = (await client.post("/v1/videos?dryRun=true", json={**BODY, "max_cost": 5})).json()
        assert [(row["kept"], row["reason"]) for row in estimate["routes"]] == [
            (True, "costs $0.756"),
            (False, "dearer than max_cost"),
        ]
        for body in ({**BODY, "n": 2}, {**BODY, "max_cost": 0.5}):
            refused = await client.post("/v1/videos", json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (402, "max_cost_exceeded")
    refused_key = await operator.ask("POST", "keys", status=400, name="x", max_cost_usd=-1)
    assert refused_key["error"]["param"] == "max_cost_usd"
