"""GET /v1/me and /v1/usage: what the holder of a key may know about it, and nothing about anyone else."""

import csv
import json
from io import StringIO
from typing import Any

import psycopg
import pytest
from harness import ALICE, BOB, StartGateway
from money import ADMIN, Operator, operator_of

from app.accounts.reports import OWN

pytestmark = pytest.mark.anyio

SMALL = {"prompt": "a paper boat", "model": "sandbox/testcard", "seconds": 1, "size": "320x240"}


async def ask(admin: Operator, key: dict[str, Any], path: str, **query: str) -> Any:
    async with admin.user(key) as client:
        return await client.get(path, params=query)


async def test_me_shows_project_key_limits_and_what_is_left(operator: Operator) -> None:
    project = await operator.ask("POST", "projects", status=201, name="web shop", billing="prepaid", kinds=["sandbox"])
    await operator.ask("POST", f"projects/{project['id']}/credits", status=201, amount_usd=7)
    limits = {"models": ["sandbox/*"], "requests_per_minute": 60, "concurrent_jobs": 3, "max_cost_usd": 2}
    limits |= {"monthly_budget_usd": 5, "expires_at": "2036-01-01T00:00:00Z"}
    key = await operator.key("backend", project=project["id"], **limits)
    for path in ("/v1/me", "/openai/v1/me"):
        answer = await ask(operator, key, path)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert answer.json() == {
            "object": "me",
            "project": {"id": project["id"], "name": "web shop", "billing": "prepaid", "kinds": ["sandbox"]},
            "key": {
                "id": key["id"],
                "name": "backend",
                "ends_in": key["key"][-4:],
                **limits,
                "expires_at": 2_082_758_400,
            },
            "available_usd": 5,
        }
        assert key["key"] not in answer.text


async def test_me_of_a_key_of_the_settings(start_gateway: StartGateway) -> None:
    async with start_gateway(api_keys={"shop": ALICE, "other": BOB}) as gateway:
        alice, bob = (await gateway.client.get("/v1/me")).json(), (await gateway.bob.get("/v1/me")).json()
    assert (alice["project"]["name"], alice["key"]["name"], alice["key"]["ends_in"]) == ("shop", "shop", ALICE[-4:])
    assert (bob["project"]["name"], bob["key"]["ends_in"]) == ("other", BOB[-4:])
    assert alice["key"]["id"] == alice["project"]["id"] != bob["project"]["id"]
    assert {alice["key"][name] for name in ("models", "concurrent_jobs", "expires_at")} == {None}
    assert alice["available_usd"] is None
    assert ALICE not in json.dumps(alice)


async def test_me_and_usage_need_a_key(operator: Operator) -> None:
    key = await operator.key("old")
    await operator.ask("DELETE", f"keys/{key['id']}")
    for path in ("/v1/me", "/v1/usage", "/openai/v1/usage"):
        for wrong in ("", "Bearer ", "Bearer nothing", f"Bearer {ADMIN}", f"Bearer {key['key']}"):
            answer = await operator.client.get(path, headers={"authorization": wrong})
            assert answer.status_code == 401, (path, wrong)
            assert answer.json()["error"]["type"] == "authentication_error"


async def test_usage_is_that_of_the_own_project(operator: Operator) -> None:
    gateway = operator.gateway
    mine, other = await operator.key("mine"), await operator.key("other")
    for key, count in ((mine, 2), (other, 1)):
        async with operator.user(key) as client:
            for number in range(count):
                body = {**SMALL, "user": f"u{number}"}
                assert (await client.post("/v1/videos", json=body, headers={"x-app-id": "=cmd()"})).status_code == 202
    for _ in range(4):
        await gateway.worker.run_once()
        gateway.clock.advance(20)
    [whole] = (await ask(operator, mine, "/v1/usage", by="project,key")).json()["data"]
    assert (whole["project"], whole["key"], whole["jobs"], whole["completed"]) == (mine["project"], mine["id"], 2, 2)
    assert whole["mean_duration_s"] > 0
    for by in ("day", "", "key,model,provider,app,user,day"):
        found = (await ask(operator, mine, "/v1/usage", by=by)).json()
        expected = await operator.client.get("/admin/v1/usage", params={"by": by, "project": mine["project"]})
        for row in (rows := expected.json()["data"]):  # what vendors charge is the operator's alone
            del row["reported_usd"], row["underpriced_usd"]
        assert found == {**expected.json(), "data": rows}
    hidden = await ask(operator, mine, "/v1/usage", by="day", project=other["project"])
    assert (hidden.status_code, hidden.json()["error"]["code"]) == (400, "unknown_parameter")

    sheet = await ask(operator, mine, "/v1/usage", by="app,day", format="csv")
    assert sheet.headers["content-type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(StringIO(sheet.text))
    assert (row["app"], row["jobs"], row["completed"], "reported_usd" in row) == ("'=cmd()", "2", "2", False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"by": "colour"},
        {"by": "day,day"},
        {"by": "x" * 101},
        {"by": "day\x00"},
        {"since": "2026-02-30"},
        {"since": "20260201"},
        {"until": "0"},
        {"since": "0001-01-01"},
        {"since": "2026-02-02", "until": "2026-02-01"},
        {"format": "xml"},
        {"sinse": "2026-02-01"},
    ],
)
async def test_wrong_questions_about_usage_are_refused(operator: Operator, wrong: dict[str, str]) -> None:
    answer = await operator.gateway.client.get("/v1/usage", params=wrong)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in wrong


async def test_a_report_with_too_many_rows_is_refused(operator: Operator, database_url: str) -> None:
    key = await operator.key("many users")
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute(
            """
            insert into ledger (id, project_id, kind, amount_micros, video_id, attempt_id, cost_micros, end_user, day,
              created_at)
            select 'txn_' || n, %(project)s, 'settle', 0, 'video_' || n, 'att_' || n, 0, 'user ' || n, %(day)s, %(now)s
            from generate_series(1, %(number)s) as n
            """,
            {
                "project": key["project"],
                "number": OWN.rows + 1,
                "day": operator.gateway.clock.now.date(),
                "now": operator.gateway.clock.now,
            },
        )
    refused = await ask(operator, key, "/v1/usage", by="user")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "report_too_long")
    assert "fewer days" in refused.json()["error"]["message"]
    for by, rows in (("day", 1), ("", 1)):
        assert len((await ask(operator, key, "/v1/usage", by=by)).json()["data"]) == rows
    assert len(await operator.usage("user", project=key["project"])) == OWN.rows + 1, "an operator may"


async def test_a_gateway_without_an_operator_reports_usage_too(start_gateway: StartGateway) -> None:
    async with start_gateway() as gateway:
        await gateway.finish((await gateway.create(**SMALL))["id"])
        [row] = (await gateway.client.get("/v1/usage")).json()["data"]
        assert (row["jobs"], row["day"]) == (1, f"{gateway.clock():%Y-%m-%d}")
        assert (await gateway.bob.get("/v1/usage")).json()["data"] == []


async def test_usage_of_a_project_without_a_name(start_gateway: StartGateway) -> None:
    async with start_gateway(admin_key=ADMIN) as gateway, operator_of(gateway) as admin:
        me = (await gateway.client.get("/v1/me")).json()
        assert me["project"]["name"] == me["project"]["id"]
        assert me["project"]["id"] in [found["id"] for found in (await admin.ask("GET", "projects"))["data"]]
