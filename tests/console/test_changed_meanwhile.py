"""Forms of the operator that another operator's change, a second press or a lost answer meets."""

import json
import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import pytest
from console.conftest import Visitor
from console.tables import text_of, values_of
from harness import Running
from money import Operator, operator_of

pytestmark = pytest.mark.anyio

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
async def admin(gateway: Running) -> AsyncIterator[Operator]:
    """The administration API, by which the other operator makes changes."""
    async with operator_of(gateway) as found:
        yield found


async def open_form(visitor: Visitor, path: str) -> dict[str, str]:
    """The fields of the form that changes a project or a key, as the page shows them."""
    page = (await visitor.get(f"/console/accounts/{path}")).text
    billing = re.search(r'<option value="(\w+)" selected>', page)
    return values_of(page) | ({"billing": billing[1]} if billing else {})


async def send(visitor: Visitor, path: str, form: dict[str, str]) -> Any:
    return await visitor.post(f"/console/accounts/{path}", form)


async def test_what_another_operator_changes_meanwhile_stays(admin: Operator, operator: Visitor) -> None:
    project = await admin.ask("POST", "projects", status=201, name="Shop", monthly_budget_usd=5)
    key = await admin.key("web", project="Shop", models=["sandbox/*"], expires_at="2099-01-01T00:00:00Z")
    project_path, key_path = f"projects/{project['id']}", f"keys/{key['id']}"
    forms = {path: await open_form(operator, path) for path in (project_path, key_path)}
    await admin.ask("PATCH", project_path, billing="prepaid", monthly_budget_usd=80, kinds=["sandbox"])
    await admin.ask("PATCH", key_path, models=["lumen/*"], expires_at="2030-01-01T00:00:00Z", monthly_budget_usd=3)
    for path, form in forms.items():
        assert (await send(operator, path, {**form, "name": "Renamed"})).status_code == 303
    found = await admin.ask("GET", project_path)
    shown = [found[name] for name in ("name", "billing", "monthly_budget_usd", "kinds")]
    assert shown == ["Renamed", "prepaid", 80, ["sandbox"]]
    found = await admin.ask("GET", key_path)
    shown = [found[name] for name in ("name", "models", "expires_at", "monthly_budget_usd")]
    assert shown == ["Renamed", ["lumen/*"], "2030-01-01T00:00:00+00:00", 3]


async def test_a_field_that_both_have_changed_is_asked_about(admin: Operator, operator: Visitor) -> None:
    project = await admin.ask("POST", "projects", status=201, name="Shop", monthly_budget_usd=5)
    key = await admin.key("web", project="Shop", monthly_budget_usd=5, concurrent_jobs=2)
    for path in (f"projects/{project['id']}", f"keys/{key['id']}"):
        form = await open_form(operator, path)
        await admin.ask("PATCH", path, name=HOSTILE, monthly_budget_usd=80)
        before = await admin.ask("GET", path)
        refused = await send(operator, path, {**form, "monthly_budget_usd": "20", "name": "mine"})
        assert refused.status_code == 409
        words = text_of(unescape(refused.text))
        assert 'monthly budget (now "80", you typed "20")' in words
        assert "<img" not in refused.text
        assert await admin.ask("GET", path) == before, "nothing has changed"
        anew = values_of(refused.text)
        assert (anew["monthly_budget_usd"], anew["name"]) == ("20", "mine")
        assert json.loads(anew["shown"])["monthly_budget_usd"] == "80"
        assert (await send(operator, path, {**anew, "billing": "postpaid"})).status_code == 303
        found = await admin.ask("GET", path)
        assert (found["monthly_budget_usd"], found["name"]) == (20, "mine")
        again = await open_form(operator, path)
        await admin.ask("PATCH", path, monthly_budget_usd=7)
        assert (await send(operator, path, {**again, "monthly_budget_usd": "7"})).status_code == 303, "the same change"


async def test_a_form_with_a_wrong_field_compares_with_what_it_had_shown(admin: Operator, operator: Visitor) -> None:
    project = await admin.ask("POST", "projects", status=201, name="Shop", monthly_budget_usd=5)
    path = f"projects/{project['id']}"
    form = await open_form(operator, path)
    await admin.ask("PATCH", path, monthly_budget_usd=80)
    wrong = await send(operator, path, {**form, "kinds": "nope"})
    assert wrong.status_code == 400
    mended = {**values_of(wrong.text), "kinds": "sandbox", "billing": "postpaid"}
    assert (await send(operator, path, mended)).status_code == 303
    found = await admin.ask("GET", path)
    assert (found["monthly_budget_usd"], found["kinds"]) == (80, ["sandbox"])


@pytest.mark.parametrize("shown", ["", "x", "[]", "{}", '{"name": 1}', "[" * 5_000])
async def test_a_form_that_tells_nonsense_is_refused(admin: Operator, operator: Visitor, shown: str) -> None:
    project = await admin.ask("POST", "projects", status=201, name="Shop")
    key = await admin.key("web")
    for path in (f"projects/{project['id']}", f"keys/{key['id']}"):
        form = {**await open_form(operator, path), "name": "mine", "shown": shown}
        refused = await send(operator, path, form)
        assert (refused.status_code, "open the page again" in refused.text) == (400, True)
        assert values_of(refused.text)["name"] == "mine"
        assert (await admin.ask("GET", path))["name"] != "mine"


async def test_a_credit_keeps_its_reference_whatever_way_leads_back(admin: Operator, operator: Visitor) -> None:
    project = await admin.ask("POST", "projects", status=201, name="Shop", billing="prepaid")
    path = f"projects/{project['id']}/credit"
    opened = await operator.get(f"/console/accounts/{path}")
    address = opened.headers["location"]
    assert (opened.status_code, address.startswith(f"/console/accounts/{path}?reference=console-")) == (303, True)
    assert (
        (await operator.get("/console/accounts/projects/Shop/credit"))
        .headers["location"]
        .startswith(f"/console/accounts/{path}?")
    )
    reference = values_of((await operator.get(address)).text)["reference"]
    assert f"reference={reference}" in address
    for expected in (303, 409):  # the answer to the first one was lost, and Back leads to the first page
        form = values_of((await operator.get(address)).text)
        preview = await operator.client.get(
            f"/console/accounts/{path}", params={"amount_usd": "5", "reference": form["reference"]}
        )
        assert preview.status_code == 200
        sent = await send(operator, path, values_of(preview.text))
        assert sent.status_code == expected
    assert (await admin.ask("GET", f"projects/{project['id']}"))["available_usd"] == 5
