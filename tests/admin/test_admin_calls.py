"""Access to the administration API, and the keys that it makes and changes."""

import re
from typing import Any

import pytest
from money import ADMIN, Operator, status

from app.settings import load

pytestmark = pytest.mark.anyio


ADMIN_CALLS = [
    ("GET", "projects"),
    ("POST", "projects"),
    ("GET", "projects/proj_x"),
    ("PATCH", "projects/proj_x"),
    ("POST", "projects/proj_x/credits"),
    ("GET", "keys"),
    ("POST", "keys"),
    ("GET", "keys/key_x"),
    ("PATCH", "keys/key_x"),
    ("DELETE", "keys/key_x"),
    ("GET", "usage"),
    ("GET", "ledger"),
    ("GET", "audit"),
    ("GET", "events"),
    ("GET", "repairs"),
    ("POST", "repairs/att_x"),
    ("GET", "videos"),
    ("GET", "videos/video_x"),
    ("GET", "providers"),
    ("POST", "providers/up_x/breaker"),
    ("POST", "providers/up_x/check"),
    ("GET", "models"),
    ("GET", "settings"),
    ("GET", "status"),
    ("GET", "webhook_deliveries"),
]


@pytest.mark.parametrize(("method", "path"), ADMIN_CALLS)
async def test_admin_calls_with_a_normal_key_are_refused(operator: Operator, method: str, path: str) -> None:
    for client in (operator.gateway.client, operator.gateway.bob):
        refused = await client.request(method, f"/admin/v1/{path}", json={"name": "mine"})
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
    assert await status(operator.gateway, ADMIN) == 401, "nor does the admin key make videos"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *((f"keys?project={nul}", 400) for nul in ("%00", "proj_%00x")),
        *((f"ledger?{name}=%00", 400) for name in ("project", "video", "after")),
        ("usage?project=%00", 400),
        *((f"{name}/%00", 404) for name in ("projects", "keys", "videos")),
    ],
)
async def test_queries_that_a_database_cannot_take_are_client_errors(
    operator: Operator, path: str, status: int
) -> None:
    answer = await operator.client.get(f"/admin/v1/{path}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, "invalid_request_error")


async def test_an_unknown_parameter_of_a_list_is_refused(operator: Operator) -> None:
    for method, path in ADMIN_CALLS:
        if method == "GET" and "_x" not in path and path != "events":
            answer = await operator.client.get(f"/admin/v1/{path}?projekt=x")
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (400, "unknown_parameter", "projekt"), path


def test_every_admin_route_is_in_the_list_of_calls(gateway_routes: set[tuple[str, str]]) -> None:
    named = {(method, re.sub(r"/\w+_x", "/{}", path)) for method, path in ADMIN_CALLS}
    assert gateway_routes == named


@pytest.fixture
def gateway_routes() -> set[tuple[str, str]]:
    from app.main import create_app

    paths = create_app(load(_env_file=None, api_keys=["x"])).openapi()["paths"]
    return {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path.removeprefix("/admin/v1/")))
        for path, methods in paths.items()
        if path.startswith("/admin/v1/")
        for method in methods
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "two\nlines"}, "name"),
        ({"name": "\x1b[31mred"}, "name"),
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "zero\u200bwidth"}, "name"),
        ({}, "name"),
        ({"name": "x", "project": "unknown's"}, "project"),
        ({"name": "x", "models": []}, "models"),
        ({"name": "x", "models": ["a\x00b"]}, "models"),
        ({"name": "x", "requests_per_minute": 0}, "requests_per_minute"),
        ({"name": "x", "concurrent_jobs": -1}, "concurrent_jobs"),
        ({"name": "x", "concurrent_jobs": 10**9}, "concurrent_jobs"),
        ({"name": "x", "monthly_budget_usd": -1}, "monthly_budget_usd"),
        ({"name": "x", "monthly_budget_usd": 1e-7}, "monthly_budget_usd"),
        ({"name": "x", "monthly_budget_usd": 1e15}, "monthly_budget_usd"),
        ({"name": "x", "monthly_budget_usd": True}, "monthly_budget_usd"),
        ({"name": "x", "expires_at": "2027-01-01T00:00:00"}, "expires_at"),
        ({"name": "x", "expires_at": "tomorrow"}, "expires_at"),
        ({"name": "x", "expires_at": "9999-12-31T23:59:59-12:00"}, "expires_at"),
        ({"name": "x", "expires_at": "0001-01-01T00:00:00+12:00"}, "expires_at"),
        ({"name": "x", "expires_at": "9999-12-31T23:59:59Z"}, "expires_at"),
        ({"name": "x", "colour": "red"}, "colour"),
    ],
)
async def test_invalid_keys_are_refused(operator: Operator, body: dict[str, Any], param: str) -> None:
    before = (await operator.ask("GET", "projects"))["data"]
    refused = await operator.client.post("/admin/v1/keys", json=body)
    assert refused.status_code in (400, 404), refused.text
    assert refused.json()["error"]["param"] == param
    assert (await operator.ask("GET", "keys"))["data"] == []
    assert (await operator.ask("GET", "projects"))["data"] == before, "nothing is left half made"


async def test_changing_a_key_changes_only_the_named_fields(operator: Operator) -> None:
    limits = {"models": ["lumen/*"], "requests_per_minute": 5, "concurrent_jobs": 2, "monthly_budget_usd": 12.5}
    key = await operator.key("web", **limits)
    changed = await operator.ask("PATCH", f"keys/{key['id']}", name="shop", concurrent_jobs=None)
    assert changed == {**{k: v for k, v in key.items() if k != "key"}, "name": "shop", "concurrent_jobs": None}
    project = await operator.ask("PATCH", f"projects/{key['project']}", name="Shop", monthly_budget_usd=3)
    assert (project["name"], project["monthly_budget_usd"], project["available_usd"]) == ("Shop", 3, 3)
    assert await operator.ask("GET", f"projects/{key['project']}") == project
    assert project in (await operator.ask("GET", "projects"))["data"]
    await operator.ask("GET", "projects/unknown", status=404)
    await operator.ask("PATCH", "keys/key_[/x]", status=404)


@pytest.mark.parametrize("name", ["", " "])
async def test_a_project_has_a_name(operator: Operator, name: str) -> None:
    await operator.ask("POST", "projects", status=400, name=name)
    project = await operator.ask("POST", "projects", status=201, name="shop")
    await operator.ask("PATCH", f"projects/{project['id']}", status=400, name=name)
    assert (await operator.ask("GET", f"projects/{project['id']}"))["name"] == "shop"
