"""The audit log in the console: who changed what, filters in the address, links to what was changed."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from console.conftest import Visitor
from console.tables import rows, values_of
from harness import ALICE, Running
from money import Operator, operator_of

from app import ids
from app.accounts import audit
from app.accounts.audit import Actor, ActorKind

pytestmark = pytest.mark.anyio

HOSTILE = "<img src=x onerror=alert(1)>"
PAGE = "/console/audit"


@pytest.fixture
async def admin(gateway: Running) -> AsyncIterator[Operator]:
    async with operator_of(gateway) as found:
        yield found


async def record(admin: Operator, action: str, subject: str, **values: Any) -> None:
    """An entry of a command of the user eve."""
    gateway = admin.gateway.gateway
    async with gateway.db.transaction() as session:
        await audit.record(session, Actor(ActorKind.cli, "eve@box"), action, subject, now=gateway.clock(), **values)


async def actions(visitor: Visitor, query: str = "", path: str = PAGE) -> list[str]:
    """The actions of a page's entries."""
    page = await visitor.get(f"{path}?{query}" if query else path)
    assert page.status_code == 200, page.text
    return re.findall(r'aria-label="Only the action ([\w.]+)"', page.text)


async def test_an_entry_says_who_changed_what(admin: Operator, operator: Visitor) -> None:
    project = await admin.ask("POST", "projects", status=201, name="Shop")
    answer = await admin.client.patch(f"/admin/v1/projects/{project['id']}", json={"monthly_budget_usd": 12.5})
    key = await admin.key("web", project="Shop", models=["a/*", "b"], expires_at="2099-01-01T00:00:00Z")
    await operator.post(
        f"/console/accounts/projects/{project['id']}", {"csrf": await operator.token(), "name": "Web shop"}
    )
    page = (await operator.get(PAGE)).text
    found = rows(page)
    assert found[1][1:7] == ["admin console, 192.0.2.7", "project.change", project["id"], "name", "Shop", "Web shop"]
    created = next(row for row in found if "key.create" in row)
    assert created[1:4] == ["admin API, 127.0.0.1", "key.create", f"{key['id']} of Web shop"]
    fields = {row[0]: row[1:] for row in found if len(row) == 3}
    assert fields["models"] == ["", "a/*, b"]
    assert fields["expires_at"] == ["", "2099-01-01 00:00 UTC"]
    assert "concurrent_jobs" not in fields, "which has no value"
    changed = next(row for row in found if "monthly_budget_usd" in row and "project.change" in row)
    assert changed[4:7] == ["monthly_budget_usd", "none", "$12.50"]
    request_id = answer.headers["x-request-id"]
    shown = re.search(rf'<code id="(audit_\w+)">{request_id}</code>', page)
    assert shown
    assert f'data-copy="{shown[1]}"' in page


async def test_what_was_changed_is_a_link_where_it_has_a_page(admin: Operator, operator: Visitor) -> None:
    key = await admin.key("web")
    video = (await admin.gateway.create(model="sandbox/testcard", seconds="1", size="128x128"))["id"]
    attempt = ids.new("attempt")
    await record(admin, "repair.find", attempt, after={"video": video, "upstream_ref": "task-1"})
    await record(admin, "schema.migrate", "schema", before={"revision": "1"}, after={"revision": "2"})
    page = (await operator.get(PAGE)).text
    links = dict(re.findall(r'<a href="(/console/[^"?]+)">([^<]+)</a>', page))
    assert links[f"/console/accounts/keys/{key['id']}"] == key["id"]
    assert links[f"/console/accounts/projects/{key['project']}"] in (key["project"], "web")
    assert links[f"/console/videos/{video}"] == attempt
    assert "schema" not in links.values()
    for path in (path for path in links if path.startswith(("/console/accounts/", "/console/videos/"))):
        assert (await operator.get(path)).status_code == 200, path


async def test_filters_narrow_the_page_and_stay_in_the_address(admin: Operator, operator: Visitor) -> None:
    start = admin.gateway.clock()
    keys = []
    for number in range(3):
        keys.append(await admin.key(f"key {number}"))
        admin.gateway.clock.advance(60)
    await record(admin, "breaker.release", "up", before={"circuits": 2})
    made = ["key.create", "project.create"]
    minute = f"{start + timedelta(seconds=60):%Y-%m-%dT%H:%M:%S}"
    for query, expected in (
        ("", ["breaker.release", *made * 3]),
        ("actor=eve@box", ["breaker.release"]),
        ("actor=admin", made * 3),
        ("actor=unknown", []),
        ("action=key.create", ["key.create"] * 3),
        (f"subject={keys[1]['id']}", ["key.create"]),
        (f"project={keys[1]['project']}", made),
        ("project=key+1&action=key.create", ["key.create"]),
        (f"since={minute}&until={minute}", made),
        (f"since={minute}Z&until={minute}%2B00:00", made),
        ("until=2026-01-01T00:00", []),
        ("actor=&action=+&since=", ["breaker.release", *made * 3]),
    ):
        assert sorted(await actions(operator, query)) == sorted(expected), query
    page = (await operator.get(f"{PAGE}?actor=admin&since={minute}Z")).text
    assert (values_of(page)["actor"], values_of(page)["since"]) == ("admin", minute)
    only = re.search(r'href="([^"]+)" aria-label="Only the action key.create"', page)
    assert only
    assert f"actor=admin&since={minute.replace(':', '%3A')}Z&action=key.create" in unescape(only[1])
    empty = (await operator.get(f"{PAGE}?actor=unknown")).text
    assert "Nothing matches." in empty


async def test_older_changes_are_a_page_away(admin: Operator, operator: Visitor) -> None:
    for number in range(53):
        await record(admin, "breaker.release", f"up {number}", before={"circuits": number})
    await admin.key("web")
    first = (await operator.get(f"{PAGE}?action=breaker.release")).text
    (older,) = re.findall(r'<a class="button" href="([^"]+)">Older</a>', first)
    second = (await operator.get(unescape(older))).text
    subjects = [[row[3] for row in rows(page) if len(row) == 8 and row[3].startswith("up")] for page in (first, second)]
    assert [len(found) for found in subjects] == [50, 3]
    assert len({*subjects[0], *subjects[1]}) == 53
    assert "Older" not in second
    last = re.findall(r'<code id="(audit_\w+)"', (await operator.get(f"{PAGE}?action=key.create")).text)
    beyond = await operator.get(f"{PAGE}?action=key.create&after={last[-1]}")
    assert "Nothing matches." in beyond.text


async def test_an_empty_log_says_so(operator: Visitor) -> None:
    assert "Nothing was changed yet." in (await operator.get(PAGE)).text


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("since=yesterday", "since", 400),
        ("since=2026-11-31T00:00", "since", 400),
        ("until=2026-11-01T00", "until", 400),
        ("until=20261101", "until", 400),
        ("project=nope", "project", 404),
        ("after=audit_x", None, 400),
        ("actor=%00", "actor", 400),
        ("actr=admin", None, 400),
        ("actor=a&actor=b", "actor", 400),
        ("%00=1", None, 400),
    ],
)
async def test_a_wrong_filter_is_named(operator: Visitor, query: str, field: str | None, code: int) -> None:
    page = await operator.get(f"{PAGE}?{query}")
    assert (page.status_code, 'role="alert"' in page.text) == (code, True)
    wrong = re.findall(r'<input name="(\w+)"[^>]*aria-invalid="true"', page.text)
    assert wrong == ([field] if field else [])


async def test_text_of_others_is_text(admin: Operator, operator: Visitor) -> None:
    await admin.ask("POST", "projects", status=201, name=HOSTILE)
    await record(admin, HOSTILE, HOSTILE, after={HOSTILE: HOSTILE, "list": [HOSTILE], "tree": {"a": [HOSTILE, 1]}})
    for params in ({}, {"actor": HOSTILE}, {"subject": HOSTILE}, {"since": HOSTILE}, {"project": HOSTILE}):
        page = await operator.client.get(PAGE, params=params)
        assert "<img" not in page.text, params
    assert HOSTILE in unescape((await operator.get(PAGE)).text)


async def test_the_log_is_the_operators_alone(admin: Operator, alice: Visitor, visitor: Visitor) -> None:
    key = await admin.key("web")
    refused = await alice.get(PAGE)
    assert (refused.status_code, key["id"] in refused.text) == (403, False)
    assert (await visitor.get(PAGE)).status_code == 303


async def test_no_secret_is_in_the_page(admin: Operator, operator: Visitor) -> None:
    key = await admin.key("web")
    page = (await operator.get(PAGE)).text
    for secret in (key["key"], key["key"][-6:], ALICE):
        assert secret not in page
