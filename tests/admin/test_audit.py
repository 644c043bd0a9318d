"""The audit log: an entry with each change by the administration API, in its transaction, and nothing secret in it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from admin.test_admin_calls import ADMIN_CALLS
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Elsewhere, Reset, serve
from harness import StartGateway
from money import ADMIN, Operator, operator_of
from structlog.testing import capture_logs

from app.accounts.audit import NOUNS
from app.db.models import Key, Project

pytestmark = pytest.mark.anyio

CHANGES = {
    ("POST", "projects"): ["project.create"],
    ("PATCH", "projects/proj_x"): ["project.change"],
    ("POST", "projects/proj_x/credits"): ["project.credit"],
    ("POST", "keys"): ["key.create"],
    ("PATCH", "keys/key_x"): ["key.change"],
    ("DELETE", "keys/key_x"): ["key.revoke"],
    ("POST", "providers/up_x/breaker"): ["breaker.release"],
    ("POST", "providers/up_x/check"): [],  # changes nothing
    ("POST", "repairs/att_x"): ["repair.fail", "repair.find", "repair.resubmit", "repair.fetch"],
}
"""The entries of every call that changes something; each is driven by a test below."""


@pytest.fixture
async def fake() -> FakeOpenAI:
    return FakeOpenAI()


@pytest.fixture
async def admin(start_gateway: StartGateway, fake: FakeOpenAI) -> AsyncIterator[Operator]:
    async with serve(fake) as url:
        providers = {"up": {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}}
        async with start_gateway(providers=providers, admin_key=ADMIN) as gateway, operator_of(gateway) as admin:
            yield admin


async def entries(admin: Operator, **query: Any) -> list[dict[str, Any]]:
    """The entries of the audit log, newest first."""
    found = await admin.client.get("/admin/v1/audit", params=query)
    assert found.status_code == 200, found.text
    return list(found.json()["data"])


async def last(admin: Operator) -> dict[str, Any]:
    return (await entries(admin, limit=1))[0]


def test_every_call_that_changes_something_is_in_the_list() -> None:
    assert {call for call in ADMIN_CALLS if call[0] != "GET"} == CHANGES.keys()


async def test_every_change_of_projects_and_keys_has_an_entry(admin: Operator) -> None:
    project = await admin.ask("POST", "projects", status=201, name="shop", kinds=["fal"], monthly_budget_usd=5)
    made = await last(admin)
    who = {"kind": "admin_key", "name": "admin", "address": "127.0.0.1"}
    assert (made["actor"], made["action"], made["subject"]) == (who, "project.create", project["id"])
    fields = {"name": "shop", "billing": "postpaid", "monthly_budget_usd": 5, "kinds": ["fal"]}
    assert (made["before"], made["after"], made["project"]) == (None, fields, project["id"])
    path = f"projects/{project['id']}"
    await admin.ask("PATCH", path, name="Shop", monthly_budget_usd=None, billing="postpaid")
    changed = await last(admin)
    assert (changed["action"], changed["subject"]) == ("project.change", project["id"])
    assert changed["before"] == {"name": "shop", "monthly_budget_usd": 5}
    assert changed["after"] == {"name": "Shop", "monthly_budget_usd": None}
    await admin.ask("POST", f"{path}/credits", status=201, amount_usd=-2.5, reference="invoice 17")
    credited = await last(admin)
    assert (credited["action"], credited["project"]) == ("project.credit", project["id"])
    assert credited["after"] == {"amount_usd": -2.5, "reference": "invoice 17"}

    key = await admin.key("web", project="Shop", models=["up/*"], expires_at="2099-01-01T01:00:00+01:00")
    made = await last(admin)
    assert (made["action"], made["subject"], made["project"]) == ("key.create", key["id"], project["id"])
    assert (made["after"]["models"], made["after"]["expires_at"]) == (["up/*"], "2099-01-01T00:00:00+00:00")
    await admin.ask("PATCH", f"keys/{key['id']}", max_cost_usd=0.5, monthly_budget_usd=7)
    changed = await last(admin)
    assert changed["before"] == {"monthly_budget_usd": None, "max_cost_usd": None}
    assert changed["after"] == {"monthly_budget_usd": 7, "max_cost_usd": 0.5}
    await admin.ask("DELETE", f"keys/{key['id']}")
    revoked = await last(admin)
    assert (revoked["action"], revoked["before"]) == ("key.revoke", {"revoked_at": None})
    assert revoked["after"]["revoked_at"] == admin.gateway.clock().isoformat()
    assert len(await entries(admin)) == 6


async def test_an_entry_has_the_id_of_its_request(admin: Operator) -> None:
    answer = await admin.client.post("/admin/v1/projects", json={"name": "shop"})
    assert (await last(admin))["request_id"] == answer.headers["x-request-id"]


async def test_a_project_made_for_a_key_has_an_entry_of_its_own(admin: Operator) -> None:
    key = await admin.key("web")
    assert {(entry["action"], entry["subject"]) for entry in await entries(admin)} == {
        ("project.create", key["project"]),
        ("key.create", key["id"]),
    }


async def test_what_changes_nothing_has_no_entry(admin: Operator) -> None:
    key = await admin.key("web")
    await admin.ask("DELETE", f"keys/{key['id']}")
    before = await entries(admin)
    await admin.ask("DELETE", f"keys/{key['id']}")
    await admin.ask("PATCH", f"keys/{key['id']}", name="web")
    await admin.ask("PATCH", f"projects/{key['project']}", kinds=None)
    for path in ("projects", f"projects/{key['project']}", "keys", f"keys/{key['id']}", "usage", "ledger", "repairs"):
        await admin.ask("GET", path)
    assert await entries(admin) == before


async def test_every_decision_about_a_repair_has_an_entry(admin: Operator, fake: FakeOpenAI) -> None:
    for action in ("fail", "find", "resubmit"):
        fake.script("submit", Reset())
        video_id = (await admin.gateway.create(model="up/sora-2"))["id"]
        await admin.gateway.worker.run_once()
        (repair,) = (await admin.ask("GET", "repairs"))["data"]
        ref = list(fake.jobs)[-1]
        more: dict[str, Any] = {"upstream_ref": ref} if action == "find" else {}
        with capture_logs() as logs:
            await admin.ask("POST", f"repairs/{repair['id']}", action=action, **more)
        (line,) = [line for line in logs if line["event"].endswith("by operator")]
        assert (line["video"], line["attempt"]) == (video_id, repair["id"])
        entry = await last(admin)
        assert (entry["action"], entry["subject"]) == (f"repair.{action}", repair["id"])
        assert (entry["project"], entry["after"]["video"]) == (repair["project"], video_id)
        if action == "find":
            assert entry["after"]["upstream_ref"] == ref
        await admin.ask("POST", f"repairs/{repair['id']}", action=action, status=404, **more)
        assert await last(admin) == entry, "a refused decision has none"
        await admin.gateway.finish(video_id)


async def test_the_entry_of_a_fetched_file_has_the_host_alone(admin: Operator, fake: FakeOpenAI) -> None:
    fake.content_call = False
    video_id = (await admin.gateway.create(model="up/sora-2"))["id"]
    await admin.gateway.finish(video_id)
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    async with serve(Elsewhere()) as url:
        address = f"{url}/sekret/clip.mp4?token=sekret#sekret"
        await admin.ask("POST", f"repairs/{repair['id']}", action="fetch", url=address)
    entry = await last(admin)
    assert (entry["action"], entry["after"]) == ("repair.fetch", {"video": video_id, "host": "127.0.0.1"})


def test_entries_show_named_columns_alone() -> None:
    """A new column of a project or a key is named here, and either shown in entries or not."""
    left = {Project: {"id", "created_at"}, Key: {"id", "created_at", "project_id", "hash", "hint"}}
    for model, (_, shown) in NOUNS.items():
        assert set(shown) | left[model] == {column.name for column in model.__table__.columns}


async def test_no_secret_is_in_the_log(admin: Operator, database_url: str) -> None:
    key = await admin.key("web", monthly_budget_usd=5)
    await admin.ask("PATCH", f"keys/{key['id']}", name="other")
    await admin.ask("DELETE", f"keys/{key['id']}")
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        found = await (await connection.execute("select string_agg(audit::text, '') from audit")).fetchone()
        hashed = await (await connection.execute("select hash from keys")).fetchone()
    assert found is not None
    assert hashed is not None
    for secret in (key["key"], key["key"][-6:], hashed[0], ADMIN, KEY):
        assert secret not in found[0]


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b", "\x1b[31m", "x" * 200, "{}"])
async def test_hostile_text_is_refused_or_kept_as_it_is(admin: Operator, text: str) -> None:
    project = await admin.ask("POST", "projects", status=201, name="shop")
    body = json.dumps({"amount_usd": 5, "reference": text})
    headers = {"content-type": "application/json"}
    path = f"/admin/v1/projects/{project['id']}/credits"
    answer = await admin.client.post(path, content=body, headers=headers)
    entry = await last(admin)
    if answer.status_code == 201:
        assert entry["after"]["reference"] == text
    else:
        assert (answer.status_code, entry["action"]) == (400, "project.create")


# Both or neither


async def test_a_change_that_fails_leaves_no_entry(admin: Operator) -> None:
    project = await admin.ask("POST", "projects", status=201, name="shop")
    path = f"projects/{project['id']}"
    await admin.ask("POST", f"{path}/credits", status=201, amount_usd=5, reference="invoice 17")
    before = await entries(admin)
    await admin.ask("POST", f"{path}/credits", status=409, amount_usd=5, reference="invoice 17")
    await admin.ask("PATCH", path, status=400, name="other", kinds=["nope"])
    await admin.ask("POST", "keys", status=404, name="x", project="unknown")
    await admin.ask("POST", "keys", status=400, name="x", models=[" \n"])
    await admin.ask("DELETE", "keys/key_x", status=404)
    assert await entries(admin) == before
    assert (await admin.ask("GET", path))["name"] == "shop"


async def test_an_entry_that_fails_leaves_no_change(admin: Operator, database_url: str) -> None:
    key = await admin.key("web")
    before = [await admin.ask("GET", path) for path in ("projects", "keys", "ledger")]
    calls = [
        ("POST", "projects", {"name": "shop"}),
        ("PATCH", f"projects/{key['project']}", {"name": "shop"}),
        ("POST", f"projects/{key['project']}/credits", {"amount_usd": 5}),
        ("POST", "keys", {"name": "shop"}),
        ("PATCH", f"keys/{key['id']}", {"name": "shop"}),
        ("DELETE", f"keys/{key['id']}", None),
    ]
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("alter table audit add constraint nothing check (false) not valid")
        try:
            for method, path, body in calls:
                failed = await admin.client.request(method, f"/admin/v1/{path}", json=body)
                assert failed.status_code >= 500, path
        finally:
            await connection.execute("alter table audit drop constraint nothing")
    assert [await admin.ask("GET", path) for path in ("projects", "keys", "ledger")] == before


@pytest.mark.parametrize("statement", ["update audit set actor = 'eve'", "delete from audit", "truncate audit"])
async def test_the_log_only_grows(admin: Operator, database_url: str, statement: str) -> None:
    await admin.key("web")
    before = await entries(admin)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.RaiseException, match="only ever added to"):
            await connection.execute(statement.encode())
    assert await entries(admin) == before


async def test_changes_at_once_have_entries_that_follow_each_other(admin: Operator) -> None:
    key = await admin.key("0")
    path = f"keys/{key['id']}"
    await asyncio.gather(*(admin.ask("PATCH", path, name=f"{number}") for number in range(1, 9)))
    found = await entries(admin, action="key.change")
    steps = {entry["before"]["name"]: entry["after"]["name"] for entry in found}
    chain = ["0"]
    while chain[-1] in steps:
        chain.append(steps.pop(chain[-1]))
    assert (len(chain), steps) == (9, {}), "no entry shows a state that another change had replaced"
    assert chain[-1] == (await admin.ask("GET", path))["name"]


# Reading


async def test_entries_are_read_in_pages_and_filtered(admin: Operator) -> None:
    clock, keys = admin.gateway.clock, []
    for number in range(3):
        keys.append(await admin.key(f"key {number}"))
        clock.advance(60)
    await admin.ask("PATCH", f"keys/{keys[0]['id']}", name="renamed")
    every = await entries(admin)
    assert len(every) == 7
    paged: list[dict[str, Any]] = []
    while True:
        after = {"after": paged[-1]["id"]} if paged else {}
        page = (await admin.client.get("/admin/v1/audit", params={"limit": 2, **after})).json()
        paged += page["data"]
        assert page["last_id"] == paged[-1]["id"]
        if not page["has_more"]:
            break
    assert paged == every
    assert [entry["action"] for entry in await entries(admin, subject=keys[0]["id"])] == ["key.change", "key.create"]
    assert len(await entries(admin, action="key.create")) == 3
    assert len(await entries(admin, project="key 1")) == 2
    assert len(await entries(admin, project=keys[0]["project"], action="key.change")) == 1
    assert await entries(admin, actor="eve") == []
    assert await entries(admin, actor="admin") == every
    start = clock() - timedelta(seconds=180)
    between = {
        "since": (start + timedelta(seconds=60)).isoformat(),
        "until": (start + timedelta(seconds=60)).isoformat(),
    }
    assert {entry["subject"] for entry in await entries(admin, **between)} == {keys[1]["id"], keys[1]["project"]}
    assert await entries(admin, since="0001-01-01T00:00:00+12:00", until="9999-12-31T23:59:59-12:00") == every
    assert await entries(admin, since="9999-12-31T23:59:59-12:00") == []


@pytest.mark.parametrize(
    ("query", "param", "hint"),
    [
        ("actr=admin", "actr", "did you mean actor?"),
        ("%00=1", "\x00", "there are actor, action"),
        ("actor=%00", "actor", ""),
        ("after=audit_x", "after", "take the last_id of the page before"),
        ("after=%00", "after", ""),
        ("limit=1001", "limit", ""),
        ("limit=0", "limit", ""),
        ("since=yesterday", "since", ""),
        ("since=2026-11-01T00:00:00", "since", ""),
    ],
)
async def test_a_wrong_filter_is_refused(operator: Operator, query: str, param: str, hint: str) -> None:
    refused = await operator.client.get(f"/admin/v1/audit?{query}")
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, param)
    assert re.search(re.escape(hint), error["message"])


async def test_filters_take_any_text(operator: Operator) -> None:
    for text in ("'; drop table audit; --", "\ud7ff%_\\", "x" * 4_000):
        assert await entries(operator, actor=text, action=text, subject=text) == []
    assert (await operator.client.get("/admin/v1/audit", params={"project": "nope"})).status_code == 404
