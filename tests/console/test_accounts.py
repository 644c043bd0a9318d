"""Accounts: projects with their money, keys, and every change of them by the operator."""

import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import psycopg
import pytest
from console.conftest import Visitor, visitor_at
from console.tables import row_of, rows, text_of, values_of
from harness import ALICE, BOB, Running, StartGateway, statements
from money import ADMIN, Operator, operator_of, status

pytestmark = pytest.mark.anyio

HOSTILE = "<img src=x onerror=alert(1)>"
READER = "adm-reader-0123456789"
VIDEO = {"model": "sandbox/testcard", "seconds": "1", "size": "128x128"}


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> AsyncIterator[Running]:
    """A gateway whose videos cost half a dollar a second, with a key that may only read."""
    settings: dict[str, Any] = {
        "admin_key": ADMIN,
        "admin_keys": {"reader": {"key": READER, "role": "read"}},
        "api_keys": {"Alice": ALICE, "Bob": BOB},
        "prices": {"sandbox/testcard": 0.5},
    }
    async with start_gateway(**settings) as running:
        yield running


@pytest.fixture
async def admin(gateway: Running) -> AsyncIterator[Operator]:
    """The administration API, which has to agree with the pages."""
    async with operator_of(gateway) as found:
        yield found


async def send(visitor: Visitor, path: str, **form: str) -> Any:
    return await visitor.post(f"/console/accounts/{path}", {"csrf": await visitor.token(), **form})


async def entries(admin: Operator) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await admin.ask("GET", "audit"))["data"]
    return found


def problem_at(page: str, name: str) -> str:
    """The error at a field, which names it as its description."""
    assert re.search(rf'name="{name}"[^>]*aria-describedby="h-{name}"[^>]*aria-invalid="true"', page), page
    found = re.search(rf'<p class="wrong" id="h-{name}" role="alert">(.*?)</p>', page)
    assert found, page
    return unescape(found[1])


# Lists


async def test_projects_and_keys_are_listed_with_their_money(admin: Operator, operator: Visitor) -> None:
    project = await admin.ask("POST", "projects", status=201, name="Shop", billing="prepaid", monthly_budget_usd=10)
    await admin.ask("POST", f"projects/{project['id']}/credits", status=201, amount_usd=4)
    limits = {"requests_per_minute": 60, "concurrent_jobs": 3, "max_cost_usd": 2, "models": ["sandbox/*"]}
    key = await admin.key("web", project="Shop", monthly_budget_usd=5, expires_at="2099-01-01T00:00:00Z", **limits)
    async with admin.user(key) as client:
        assert (await client.post("/v1/videos", json={"prompt": "a", **VIDEO})).status_code == 202
    await admin.gateway.create(**VIDEO)
    with statements(admin.gateway) as sent:
        page = (await operator.get("/console/accounts")).text
    assert len(sent) <= 12, sent
    assert row_of(page, "Shop")[1:] == ["prepaid", "$0.50 of $10.00", "$3.50", "1", "1"]
    assert row_of(page, "web")[1:] == [
        key["ends_in"],
        "Shop",
        "60 requests a minute 3 running $2.00 a request models sandbox/*",
        "never",
        "$0.50 of $5.00",
        "1",
        "Valid until 2099-01-01 00:00 UTC",
    ]
    of_settings = [row for row in rows(page) if row[0] == "Alice from settings"]
    assert [row[1:] for row in of_settings] == [
        ["postpaid", "$0.50", "no limit", "1", "1"],
        [ALICE[-4:], "Alice", "none", "never", "$0.50", "1", "Valid"],
    ]
    assert 'max="5000000"' in page
    credit = f"projects/{project['id']}/credit?reference=invoice"
    for path in (f"projects/{project['id']}", f"keys/{key['id']}", credit, "keys/new"):
        with statements(admin.gateway) as sent:
            assert (await operator.get(f"/console/accounts/{path}")).status_code == 200, path
        assert len(sent) <= 12, (path, sent)
    shown = text_of((await operator.get(f"/console/accounts/projects/{project['id']}")).text)
    for words in ("$0.50 of $10.00 spent this month", "$3.50 balance, prepaid", "$3.50 left to spend", "reserve"):
        assert words in shown, words


async def test_what_was_spent_stays_when_the_day_is_closed(admin: Operator, operator: Visitor) -> None:
    clock = admin.gateway.clock

    async def shown() -> list[list[str]]:
        """Spending and running videos of Alice's project and of her key."""
        page = (await operator.get("/console/accounts")).text
        project, key = (row for row in rows(page) if row[0] == "Alice from settings")
        return [[project[2], project[5]], key[5:7]]

    month = clock.now.month
    video = await admin.gateway.finish((await admin.gateway.create(**VIDEO))["id"])
    assert video["status"] == "completed"
    assert await shown() == [["$0.50", "0"], ["$0.50", "0"]]
    clock.advance(2 * 86_400)
    await admin.gateway.worker.run_once()
    await operator.sign_in(ADMIN)
    spent = "$0.50" if clock.now.month == month else "$0.00"
    assert await shown() == [[spent, "0"], [spent, "0"]]


async def test_filters_narrow_both_lists(admin: Operator, operator: Visitor) -> None:
    shop = await admin.key("web", project=(await admin.ask("POST", "projects", status=201, name="Shop"))["id"])
    other = await admin.key("50% off")
    for query, expected in (
        (f"project={shop['project']}", {"Shop", "web"}),
        ("project=Shop", {"Shop", "web"}),
        ("project=Shop&q=WE", {"Shop", "web"}),
        ("project=Shop&q=nothing", {"Shop"}),
        ("q=50%25", {"50% off"}),
        ("q=%25", {"50% off"}),
        (f"q={other['id']}", {"50% off"}),
        ("q=alice", {"Alice from settings"}),
        ("project=&q=nothing", set()),
    ):
        page = await operator.get(f"/console/accounts?{query}")
        found = {row[0] for row in rows(page.text)} - {"Project", "Key"}
        assert (page.status_code, found) == (200, expected), query
    empty = (await operator.get("/console/accounts?q=nothing")).text
    assert "No project matches." in empty
    assert "No key matches." in empty
    for query, code in (
        ("project=nope", 404),
        ("q=%00", 400),
        ("project=%00", 400),
        ("colour=red", 400),
        ("q=a&q=b", 400),
    ):
        wrong = await operator.get(f"/console/accounts?{query}")
        assert (wrong.status_code, 'role="alert"' in wrong.text) == (code, True), query


async def test_a_page_shows_two_hundred_keys_and_says_that_there_are_more(
    admin: Operator, operator: Visitor, database_url: str
) -> None:
    project = (await admin.ask("POST", "projects", status=201, name="Shop"))["id"]
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        insert = """
          insert into keys (id, name, project_id, hash, hint, created_at)
          select 'key_' || lpad(number::text, 26, '0'), 'bulk ' || number, %s, 'hash ' || number, 'abcd', now()
          from generate_series(1, 230) as number
        """
        await connection.execute(insert, (project,))
        await connection.execute("update keys set revoked_at = now() where name = 'bulk 230'")
    page = (await operator.get("/console/accounts")).text
    bulk = [row[0] for row in rows(page) if row[0].startswith("bulk")]
    assert (len(bulk), bulk[0], "bulk 230" in bulk) == (198, "bulk 229", False), "newest first, revoked ones last"
    assert "There are more than these 200 keys" in page
    assert row_of(page, "Shop")[4] == "229"
    shown = (await operator.get(f"/console/accounts/projects/{project}")).text
    assert "There are more than these 200 keys" in shown
    narrowed = (await operator.get("/console/accounts?q=bulk+22")).text
    assert "There are more than" not in narrowed
    assert len([row for row in rows(narrowed) if row[0].startswith("bulk 22")]) == 11


# Audiences


async def test_accounts_are_the_operators_alone(gateway: Running, admin: Operator, visitor: Visitor) -> None:
    key = await admin.key("of the shop")
    project, own = f"/projects/{key['project']}", f"/keys/{key['id']}"
    gets = ("", "/projects/new", project, f"{project}/credit?reference=a", "/keys/new", own, f"{own}/revoke")
    posts = [path.partition("?")[0] for path in gets if path]
    before = await entries(admin)
    for path in gets:
        assert (await visitor.get(f"/console/accounts{path}")).status_code == 303, path
    await visitor.sign_in(ALICE)
    for path in gets:
        assert (await visitor.get(f"/console/accounts{path}")).status_code == 403, path
    for path in posts:
        refused = await send(visitor, path[1:], name="eve", amount_usd="5", typed=key["name"])
        assert (refused.status_code, key["name"] in refused.text) == (403, False), path
    await visitor.sign_in(READER)
    for path in gets:
        page = await visitor.get(f"/console/accounts{path}")
        offers = re.findall(r"<button[^>]*>(Change|Make|Credit|Revoke)", page.text)
        assert (page.status_code, offers) == (200, []), path
    for path in posts:
        refused = await send(visitor, path[1:], name="eve", amount_usd="5", typed=key["name"])
        assert (refused.status_code, "read_only_key" in refused.text) == (403, True), path
    assert await entries(admin) == before
    assert await status(gateway, key["key"]) == 200


async def test_there_is_no_page_of_what_is_unknown(operator: Visitor) -> None:
    for path in ("projects/proj_x", "projects/%00", "projects/proj_x/credit", "keys/key_x", "keys/key_x/revoke"):
        assert (await operator.get(f"/console/accounts/{path}")).status_code == 404, path
        assert (await send(operator, path, name="a", amount_usd="5", typed="a")).status_code == 404, path


# Projects


async def test_a_project_is_made(admin: Operator, operator: Visitor) -> None:
    form = {"name": " Web shop ", "billing": "prepaid", "monthly_budget_usd": "12.5", "kinds": "gemini, sandbox,"}
    made = await send(operator, "projects/new", **form)
    where = made.headers["location"]
    assert made.status_code == 303
    project_id = re.fullmatch(r"/console/accounts/projects/(proj_\w+)\?said=project_made", where)
    assert project_id, where
    project = await admin.ask("GET", f"projects/{project_id[1]}")
    assert (project["name"], project["billing"], project["monthly_budget_usd"]) == ("Web shop", "prepaid", 12.5)
    assert project["kinds"] == ["gemini", "sandbox"]
    page = (await operator.get(where)).text
    assert "The project was made." in page
    assert values_of(page)["kinds"] == "gemini, sandbox"
    entry = (await entries(admin))[0]
    assert (entry["action"], entry["subject"]) == ("project.create", project["id"])
    assert entry["actor"] == {"kind": "console", "name": "admin", "address": "192.0.2.7"}


@pytest.mark.parametrize(
    ("field", "value", "words", "code"),
    [
        ("name", "", "required", 400),
        ("name", "a" * 101, "", 400),
        ("name", "a\x1bb", "printable", 400),
        ("name", " Alice ", "another project is called 'Alice'", 409),
        ("monthly_budget_usd", "-1", "0 or more", 400),
        ("monthly_budget_usd", "1.2345678", "six decimals", 400),
        ("monthly_budget_usd", "nan", "", 400),
        ("monthly_budget_usd", "1e300", "", 400),
        ("monthly_budget_usd", HOSTILE, "", 400),
        ("billing", HOSTILE, "", 400),
        ("kinds", "gemini, nope", "'nope' is none", 400),
        ("kinds", ", ,", "one or more", 400),
        ("kinds", HOSTILE, HOSTILE, 400),
        ("kinds", "a" * 5_000, "", 400),
    ],
)
async def test_a_wrong_field_of_a_project_is_named_and_what_was_typed_stays(
    admin: Operator, operator: Visitor, field: str, value: str, words: str, code: int
) -> None:
    project = await admin.ask("POST", "projects", status=201, name="Shop")
    before = await entries(admin)
    good = {"name": "Good", "billing": "postpaid", "monthly_budget_usd": "7", "kinds": "gemini"}
    for path in ("projects/new", f"projects/{project['id']}"):
        refused = await send(operator, path, **{**good, field: value})
        assert refused.status_code == code, path
        if field == "billing":
            assert 'id="h-billing" role="alert"' in refused.text
        elif value or path == "projects/new":
            assert words in problem_at(refused.text, field)
        kept = values_of(refused.text)
        assert all(kept[name] == text for name, text in good.items() if name not in (field, "billing")), kept
        assert "<img" not in refused.text
    assert await entries(admin) == before


async def test_only_what_differs_is_changed(admin: Operator, operator: Visitor) -> None:
    project = await admin.ask("POST", "projects", status=201, name="Shop", monthly_budget_usd=5, kinds=["gemini"])
    path = f"projects/{project['id']}"
    shown = values_of((await operator.get(f"/console/accounts/{path}")).text)
    form = {name: shown[name] for name in ("name", "monthly_budget_usd", "kinds")} | {"billing": "postpaid"}
    before = await entries(admin)
    assert (await send(operator, path, **form)).status_code == 303
    assert await entries(admin) == before, "nothing differs"
    changed = await send(operator, path, **{**form, "name": HOSTILE, "monthly_budget_usd": "", "kinds": ""})
    page = (await operator.get(changed.headers["location"])).text
    assert "The project was changed." in page
    assert "<img" not in page
    entry = (await entries(admin))[0]
    assert (entry["action"], entry["actor"]["kind"]) == ("project.change", "console")
    assert entry["before"] == {"name": "Shop", "monthly_budget_usd": 5, "kinds": ["gemini"]}
    assert entry["after"] == {"name": HOSTILE, "monthly_budget_usd": None, "kinds": None}
    await send(operator, path, billing="prepaid")
    assert (await admin.ask("GET", path))["billing"] == "prepaid", "fields that are not sent stay"


# Credits


async def test_a_credit_shows_the_new_balance_before_it_is_made(admin: Operator, operator: Visitor) -> None:
    project = await admin.ask("POST", "projects", status=201, name="Shop", billing="prepaid")
    path = f"projects/{project['id']}/credit"
    await admin.ask("POST", f"projects/{project['id']}/credits", status=201, amount_usd=4)
    before = await entries(admin)
    preview = (await operator.get(f"/console/accounts/{path}?amount_usd=2.5&reference=invoice+17")).text
    assert "Balance now $4.00 Added $2.50 New balance $6.50 Reference invoice 17" in text_of(preview)
    assert await entries(admin) == before, "a preview changes nothing"
    form = {name: values_of(preview)[name] for name in ("amount_usd", "reference")}
    done = await send(operator, path, **form)
    assert done.headers["location"] == f"/console/accounts/projects/{project['id']}?said=credited"
    page = text_of((await operator.get(done.headers["location"])).text)
    assert "$6.50 balance" in page
    assert "invoice 17" in page
    entry = (await entries(admin))[0]
    assert (entry["action"], entry["actor"]["kind"]) == ("project.credit", "console")
    assert entry["after"] == {"amount_usd": 2.5, "reference": "invoice 17"}
    again = await send(operator, path, **form)
    assert again.status_code == 409
    assert "credited to this project before" in problem_at(again.text, "reference")
    named = await operator.get(f"/console/accounts/{path}?amount_usd=-1&reference=")
    assert named.status_code == 303
    less = (await operator.get(named.headers["location"])).text
    assert "Subtracted $1.00 New balance $5.50" in text_of(less)
    reference = values_of(less)["reference"]
    assert reference, "one is made up, so that pressing twice credits once"
    assert (await send(operator, path, amount_usd="-1", reference=reference)).status_code == 303
    assert (await send(operator, path, amount_usd="-1", reference=reference)).status_code == 409
    assert (await admin.ask("GET", f"projects/{project['id']}"))["available_usd"] == 5.5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount_usd", ""),
        ("amount_usd", "much"),
        ("amount_usd", "1.0000001"),
        ("amount_usd", "inf"),
        ("amount_usd", HOSTILE),
        ("reference", "a" * 201),
    ],
)
async def test_a_wrong_credit_is_named_at_its_field(admin: Operator, operator: Visitor, field: str, value: str) -> None:
    project = await admin.ask("POST", "projects", status=201, name="Shop")
    before = await entries(admin)
    form = {"amount_usd": "5", "reference": "invoice", field: value}
    path = f"projects/{project['id']}/credit"
    preview = await operator.client.get(f"/console/accounts/{path}", params=form)
    for refused in (preview, await send(operator, path, **form)):
        assert refused.status_code == 400
        assert problem_at(refused.text, field)
        assert "New balance" not in refused.text
        assert "<img" not in refused.text
    assert await entries(admin) == before


async def test_a_credit_of_a_postpaid_project_says_what_it_does(admin: Operator, operator: Visitor) -> None:
    project = await admin.ask("POST", "projects", status=201, name=HOSTILE)
    page = await operator.client.get(
        f"/console/accounts/projects/{project['id']}/credit", params={"amount_usd": "5", "reference": HOSTILE}
    )
    assert "This project is postpaid" in page.text
    assert "New balance" not in page.text
    assert "<img" not in page.text


# Keys


async def test_a_new_key_is_shown_once(gateway: Running, admin: Operator, operator: Visitor) -> None:
    project = await admin.ask("POST", "projects", status=201, name="Shop")
    form = {
        "name": HOSTILE,
        "project": "Shop",
        "models": "sandbox/*, lumen/*",
        "requests_per_minute": "60",
        "concurrent_jobs": "2",
        "monthly_budget_usd": "9.5",
        "max_cost_usd": "1",
        "expires_at": "2099-01-01T12:30",
    }
    made = await send(operator, "keys/new", **form)
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    assert "<img" not in made.text
    found = re.search(r'id="secret-value">([^<]+)<', made.text)
    assert found
    secret = found[1]
    assert made.text.count(secret) == 1
    back = re.search(r'href="(/console/accounts/keys/(key_\w+))" data-replaces', made.text)
    assert back
    key = await admin.ask("GET", f"keys/{back[2]}")
    assert (key["name"], key["project"], key["models"]) == (HOSTILE, project["id"], ["sandbox/*", "lumen/*"])
    assert (key["requests_per_minute"], key["concurrent_jobs"]) == (60, 2)
    assert (key["monthly_budget_usd"], key["max_cost_usd"]) == (9.5, 1)
    assert key["expires_at"] == "2099-01-01T12:30:00+00:00"
    assert await status(gateway, secret) == 200
    entry = (await entries(admin))[0]
    assert (entry["action"], entry["subject"], entry["actor"]["kind"]) == ("key.create", key["id"], "console")
    for path in (back[1], "/console/accounts", f"/console/accounts/projects/{project['id']}", "/console/audit"):
        page = (await operator.get(path)).text
        assert secret not in page, path
        assert "<img" not in page, path
    again = await send(operator, "keys/new", **form)
    assert (again.status_code, "secret-value" in again.text) == (409, False), "the form sent twice makes one key"
    assert "a key of this project is called" in problem_at(again.text, "name")
    assert "the key was made the first time. If you have not seen it, it is lost" in problem_at(again.text, "name")


async def test_a_key_without_a_project_makes_one(admin: Operator, operator: Visitor) -> None:
    assert (await send(operator, "keys/new", name="shop")).status_code == 201
    (key,) = (await admin.ask("GET", "keys"))["data"]
    assert (await admin.ask("GET", f"projects/{key['project']}"))["name"] == "shop"
    again = await send(operator, "keys/new", name="shop")
    assert "another project is called" in problem_at(again.text, "name")
    assert values_of((await operator.get("/console/accounts/keys/new?project=proj_x")).text)["project"] == "proj_x"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "", "required"),
        ("project", "nope", "no project has"),
        ("project", HOSTILE, "no project has"),
        ("models", "a\x1bb", "patterns such as"),
        ("models", ",", "patterns such as"),
        ("models", "a" * 201, ""),
        ("requests_per_minute", "0", "greater than or equal to 1"),
        ("requests_per_minute", "1000001", "expected 1 to 1000000"),
        ("concurrent_jobs", "1.5", "integer"),
        ("concurrent_jobs", "9" * 30, ""),
        ("monthly_budget_usd", "-0.5", "0 or more"),
        ("max_cost_usd", "a lot", "number"),
        ("expires_at", "soon", "expected an ISO 8601 time"),
        ("expires_at", "20991231", "expected an ISO 8601 time"),
        ("expires_at", "2099-02-31T00:00", "datetime"),
        ("expires_at", "2099-01-01T00", ""),
        ("expires_at", "0001-01-01T00:00", "expected a year"),
        ("expires_at", HOSTILE, ""),
    ],
)
async def test_a_wrong_field_of_a_key_is_named_and_what_was_typed_stays(
    admin: Operator, operator: Visitor, field: str, value: str, words: str
) -> None:
    key = await admin.key("web")
    before = await entries(admin)
    good = {"name": "Good", "models": "sandbox/*", "requests_per_minute": "7", "monthly_budget_usd": "7"}
    paths = ["keys/new"] if field in ("project", "name") else ["keys/new", f"keys/{key['id']}"]
    for path in paths:
        refused = await send(operator, path, **{**good, field: value})
        assert refused.status_code == (404 if field == "project" else 400), path
        assert words in problem_at(refused.text, field)
        kept = values_of(refused.text)
        assert all(kept[name] == text for name, text in good.items() if name != field), kept
        assert "<img" not in refused.text
    assert await entries(admin) == before


async def test_all_fields_of_a_key_are_changed(admin: Operator, operator: Visitor) -> None:
    key = await admin.key("web", requests_per_minute=60, expires_at="2099-01-01T00:00:00.123456Z")
    path = f"keys/{key['id']}"
    shown = values_of((await operator.get(f"/console/accounts/{path}")).text)
    before = await entries(admin)
    await send(operator, path, **{name: text for name, text in shown.items() if name != "csrf"})
    assert await entries(admin) == before, "nothing differs"
    form = {
        "name": "shop",
        "models": "lumen/*",
        "requests_per_minute": "",
        "concurrent_jobs": "4",
        "monthly_budget_usd": "3",
        "max_cost_usd": "0.25",
        "expires_at": "2098-06-01T00:00:00+02:00",
    }
    changed = await send(operator, path, **form)
    assert "The key was changed." in (await operator.get(changed.headers["location"])).text
    entry = (await entries(admin))[0]
    assert (entry["action"], entry["actor"]["kind"]) == ("key.change", "console")
    assert entry["after"] == {
        "name": "shop",
        "models": ["lumen/*"],
        "requests_per_minute": None,
        "concurrent_jobs": 4,
        "monthly_budget_usd": 3,
        "max_cost_usd": 0.25,
        "expires_at": "2098-05-31T22:00:00+00:00",
    }
    await admin.key("other", project=key["project"])
    taken = await send(operator, path, name="other")
    assert (taken.status_code, "is called 'other' already" in problem_at(taken.text, "name")) == (409, True)


async def test_a_key_is_revoked_by_its_name(gateway: Running, admin: Operator, operator: Visitor) -> None:
    key = await admin.key("web & co")
    path = f"keys/{key['id']}/revoke"
    page = (await operator.get(f"/console/accounts/{path}")).text
    assert "Type its name: web &amp; co" in page
    for typed in ("", "web", HOSTILE):
        wrong = await send(operator, path, typed=typed)
        assert (wrong.status_code, problem_at(wrong.text, "typed")) == (400, "this is not the key's name")
        assert "<img" not in wrong.text
    assert await status(gateway, key["key"]) == 200
    done = await send(operator, path, typed=" web & co ")
    page = (await operator.get(done.headers["location"])).text
    assert "The key was revoked." in page
    assert "This key is refused for ever." in page
    assert "Change the key" not in page
    gateway.gateway.listener.key_changes += 1  # the notice of the database, which comes within a second
    assert await status(gateway, key["key"]) == 401
    entry = (await entries(admin))[0]
    assert (entry["action"], entry["subject"], entry["actor"]["kind"]) == ("key.revoke", key["id"], "console")
    listed = row_of((await operator.get("/console/accounts?q=" + key["id"])).text, "web & co")
    assert listed[-1].startswith("Revoked")


async def test_an_expired_key_says_so(gateway: Running, admin: Operator, operator: Visitor) -> None:
    await admin.key("web", expires_at=gateway.clock().isoformat())
    page = (await operator.get("/console/accounts?q=web")).text
    assert [row[-1] for row in rows(page) if row[0] == "web"][-1].startswith("Expired")


async def test_keys_of_the_settings_cannot_be_changed(gateway: Running, admin: Operator, operator: Visitor) -> None:
    static = next(iter(gateway.gateway.authenticator.static_projects))
    page = (await operator.get(f"/console/accounts/keys/{static}")).text
    assert "from settings" in page
    assert "Change the key" not in page
    assert "Revoke" not in page
    before = await entries(admin)
    assert (await operator.get(f"/console/accounts/keys/{static}/revoke")).status_code == 404
    for path in (f"keys/{static}", f"keys/{static}/revoke"):
        assert (await send(operator, path, name="eve", typed="Alice")).status_code == 404
    assert await entries(admin) == before
    for path in ("", f"/keys/{static}", f"/projects/{static}"):
        shown = (await operator.get(f"/console/accounts{path}")).text
        assert ALICE not in shown
        assert BOB not in shown
    assert "The settings name it again" in shown


async def test_an_installation_with_one_key_says_so(start_gateway: StartGateway) -> None:
    async with start_gateway(admin_key=ADMIN, api_keys=[ALICE]) as gateway:
        visitor = visitor_at(gateway)
        async with visitor.client:
            await visitor.sign_in(ADMIN)
            page = (await visitor.get("/console/accounts")).text
    assert "There is only the key from the settings" in page
    assert len([row for row in rows(page) if "from settings" in row[0]]) == 2
