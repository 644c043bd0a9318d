"""Reports: pages of the ledger, and usage by day, model, project and key."""

import csv
from io import StringIO
from typing import Any

import pytest
from accounts.billing import create
from money import Operator

pytestmark = pytest.mark.anyio


async def test_the_ledger_is_read_page_by_page(admin: Operator) -> None:
    for _ in range(5):
        await create(admin)
    whole = (await admin.ask("GET", "ledger"))["data"]
    found: list[Any] = []
    page: dict[str, Any] = {"last_id": "~", "has_more": True}
    while page["has_more"]:
        page = await admin.ask("GET", f"ledger?limit=2&after={page['last_id']}")
        found += page["data"]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
    assert (len(found), found) == (5, whole)
    nothing = await admin.ask("GET", "ledger?video=video_x")
    assert (nothing["first_id"], nothing["last_id"], nothing["has_more"]) == (None, None, False)


async def test_usage_is_grouped_by_day_model_project_and_key(admin: Operator) -> None:
    key = await admin.key("shop")
    async with admin.user(key) as client:
        for app, user in (("catalogue", "u1"), ("catalogue", "u2"), ("=cmd()", None)):
            body = {"prompt": "x", "model": "up/sora-2", "seconds": "4", "user": user}
            response = await client.post("/v1/videos", json=body, headers={"x-app-id": app})
            assert response.status_code == 202
    made = await create(admin, n=2)
    await admin.gateway.finish(made)
    running = await create(admin)
    day = admin.gateway.clock.now.date().isoformat()

    assert await admin.usage("project", project=key["project"]) == [
        {
            "project": key["project"],
            "jobs": 3,
            "outputs": 3,
            "seconds": 0.75,
            "cost_usd": 0.075,
            "held_usd": 0,
            "unpriced_outputs": 0,
            "reported_usd": 0,
            "underpriced_usd": 0,
            "completed": 3,
            "failed": 0,
            "cancelled": 0,
            "mean_duration_s": 60.0,
        }
    ]
    by_app = {(row["app"], row["user"]): row["jobs"] for row in await admin.usage("app,user")}
    assert by_app == {("catalogue", "u1"): 1, ("catalogue", "u2"): 1, ("=cmd()", None): 1, (None, None): 2}
    (whole,) = await admin.usage("")
    assert (whole["jobs"], whole["outputs"], whole["cost_usd"], whole["held_usd"]) == (5, 5, 0.125, 0.4)
    assert [row["day"] for row in await admin.usage("day,model,provider")] == [day]
    assert await admin.usage("day", since="2020-01-01", until="2020-01-31") == []

    sheet = await admin.client.get("/admin/v1/usage", params={"by": "app,day", "format": "csv"})
    assert sheet.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(StringIO(sheet.text)))
    assert {row["app"] for row in rows} == {"catalogue", "'=cmd()", ""}, "no formulas"
    for wrong in (
        {"by": "colour"},
        {"by": "day,day"},
        {"since": "2026-02-30"},
        {"since": "20260201"},
        {"until": "0"},
        {"since": "2026-02-02", "until": "2026-02-01"},
    ):
        refused = await admin.client.get("/admin/v1/usage", params=wrong)
        assert refused.status_code == 400, wrong
    assert (await admin.gateway.finish(running))["status"] == "completed"
