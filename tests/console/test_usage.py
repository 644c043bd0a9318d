"""The page of usage: the numbers of the API as bars, as a table and as CSV, for each audience its own."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from html import unescape
from typing import Any

import pytest
import sqlalchemy as sa
from console.conftest import Visitor, visitor_at
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import ALICE, BOB, Running, StartGateway
from money import ADMIN, operator_of

from app.db.models import ClosedDay, UsageDay

pytestmark = pytest.mark.anyio

HOSTILE = "<img src=x onerror=alert(1)>"
DAY_S = 86_400


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> AsyncIterator[Running]:
    """A gateway in front of an upstream with one model that has a price, and one that has none."""
    async with serve(FakeOpenAI(polls_until_working=0, polls_until_done=0)) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2", "unknown"]}
        async with start_gateway(providers={"up": up}, prices={"up/sora-2": 0.1}, admin_key=ADMIN) as running:
            yield running


@asynccontextmanager
async def signed_in(gateway: Running, key: str) -> AsyncIterator[Visitor]:
    found = visitor_at(gateway)
    async with found.client:
        assert (await found.sign_in(key)).status_code == 303
        yield found


async def use(gateway: Running, key: str = ALICE, **fields: Any) -> None:
    """Make a video and let it end."""
    body = {"prompt": "x", "model": "up/sora-2", "seconds": "4", **fields}
    headers = {"authorization": f"Bearer {key}", "x-app-id": "shop"}
    made = await gateway.client.post("/v1/videos", json=body, headers=headers)
    assert made.status_code == 202, made.text
    for _ in range(20):
        await gateway.worker.run_once()
        gateway.clock.advance(20)


async def page_of(visitor: Visitor, query: str = "", status: int = 200) -> str:
    page = await visitor.get(f"/console/usage{query}")
    assert page.status_code == status, page.text
    return page.text


def table_of(page: str) -> list[list[str]]:
    """The cells of the table."""
    body = re.findall(r"<tbody>(.*?)</tbody>", page, re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", body[0], re.DOTALL) if body else []
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]
    return [[unescape(re.sub(r"<[^>]+>", "", cell)) for cell in row] for row in cells]


def bars_of(page: str) -> dict[str, dict[str, str]]:
    """The parts of each bar that has some, by name, as its title has them."""
    found = {}
    for title in re.findall(r"<title>(.*?)</title>", page, re.DOTALL)[1:]:
        head, *parts = [line for line in unescape(title).splitlines() if line]
        if parts:
            found[head.split(": ")[0]] = dict(part.rsplit(": ", 1) for part in parts)
    return found


def legend_of(page: str) -> dict[str, str]:
    return {
        unescape(name): value
        for name, value in re.findall(r"<li><svg.*?<span>(.*?)</span> <strong>(.*?)</strong>", page)
    }


def sums_of(page: str) -> dict[str, str]:
    return {title: value for value, title in re.findall(r"<li><strong>(.*?)</strong>(.*?)</li>", page)}


async def test_bars_table_and_sums_are_those_of_the_api(gateway: Running) -> None:
    for model in ("up/sora-2", "sandbox/testcard", "sandbox/fail"):
        await use(gateway, model=model)
    gateway.clock.advance(2 * DAY_S)
    await use(gateway, n=2)
    rows = (await gateway.client.get("/v1/usage?by=day,model")).json()["data"]
    (whole,) = (await gateway.client.get("/v1/usage?by=")).json()["data"]
    assert len(rows) == 4
    async with signed_in(gateway, ALICE) as alice:
        page = await page_of(alice, "?sort=day")
        counted = {measure: await page_of(alice, f"?measure={measure}") for measure in ("seconds", "videos", "failed")}
    assert [(row[0], row[1], row[2], row[4], row[9]) for row in table_of(page)] == [
        (row["day"], row["model"], str(row["jobs"]), f"{row['seconds']:g}", str(row["failed"])) for row in rows
    ]
    costs = [float(row[5].removeprefix("$")) for row in table_of(page)]
    assert costs == [row["cost_usd"] for row in rows]
    in_bars = [float(value.removeprefix("$")) for parts in bars_of(page).values() for value in parts.values()]
    assert sum(in_bars) == pytest.approx(sum(costs)) == pytest.approx(whole["cost_usd"])
    assert legend_of(page)["up/sora-2"] == f"${whole['cost_usd']:g}"
    assert float(sums_of(page)["Cost"].removeprefix("$")) == whole["cost_usd"]
    assert sums_of(page)["Mean time, s"] == f"{whole['mean_duration_s']:g}"
    for measure, column in (("seconds", "seconds"), ("videos", "jobs"), ("failed", "failed")):
        in_bars = [float(value) for parts in bars_of(counted[measure]).values() for value in parts.values()]
        assert sum(in_bars) == pytest.approx(whole[column]), measure
    assert len(re.findall(r"<g>", page)) == 30, "days without use are there"


async def test_each_audience_sees_its_own(gateway: Running) -> None:
    await use(gateway)
    await use(gateway, BOB, n=3)
    async with signed_in(gateway, ALICE) as alice, signed_in(gateway, ADMIN) as operator, operator_of(gateway) as admin:
        for by in ("model", "provider", "key", "app", "user"):
            assert [row[3] for row in table_of(await page_of(alice, f"?by={by}"))] == ["1"], by
        mine = await page_of(alice)
        assert "Reported by vendors" not in mine
        whole = await page_of(operator)
        assert sums_of(whole)["Outputs"] == "4"
        assert "Reported by vendors" in whole
        by_project = await page_of(operator, "?by=project&sort=outputs")
        found = (await admin.ask("GET", "projects"))["data"]
        names = {one["id"]: one["name"] for one in found}
        rows = await admin.usage("project")
        assert [row[1] for row in table_of(by_project)] == [
            names[row["project"]] for row in sorted(rows, key=lambda row: row["outputs"])
        ]
        (link, *_) = re.findall(r'<td><a href="(/console/usage[^"]*)"', by_project)
        assert sums_of((await operator.get(unescape(link))).text)["Outputs"] == "1", "the project with the fewest"
        for project in names:
            (own,) = await admin.usage("", project=project)
            one = await page_of(operator, f"?project={project}")
            assert sums_of(one)["Outputs"] == str(own["outputs"])
        refused = await page_of(alice, f"?project={next(iter(names))}", 400)
        assert "your own project alone" in refused
        assert not table_of(refused)
        unknown = await page_of(operator, "?project=nowhere", 404)
        assert 'value="nowhere"' in unknown
        assert "no project has the id or name" in unknown


async def test_the_csv_is_that_of_the_api(gateway: Running) -> None:
    await use(gateway, user="=cmd()")
    await use(gateway, BOB)
    today = gateway.clock.now.date()
    since = today - timedelta(days=6)
    async with signed_in(gateway, ALICE) as alice, signed_in(gateway, ADMIN) as operator, operator_of(gateway) as admin:
        asked = {"since": str(since), "until": str(today), "by": "day,user", "format": "csv"}
        for visitor, client, path in (
            (alice, gateway.client, "/v1/usage"),
            (operator, admin.client, "/admin/v1/usage"),
        ):
            page = await page_of(visitor, "?by=user&days=7")
            (link,) = re.findall(r'href="(/console/usage\.csv[^"]*)"', page)
            sheet = await visitor.get(unescape(link))
            theirs = await client.get(path, params=asked)
            assert (sheet.status_code, sheet.content) == (200, theirs.content)
            for name in ("content-type", "content-disposition", "cache-control"):
                assert sheet.headers[name] == theirs.headers[name]
        assert (await alice.get("/console/usage.csv?since=yesterday")).status_code == 400
        assert (await alice.get("/console/usage.csv?by=project")).status_code == 400
        stranger = visitor_at(gateway)
        async with stranger.client:
            assert (await stranger.get("/console/usage.csv")).status_code == 303


async def test_text_of_clients_is_text(gateway: Running) -> None:
    await use(gateway, user=HOSTILE)
    async with signed_in(gateway, ALICE) as alice, signed_in(gateway, ADMIN) as operator:
        for visitor in (alice, operator):
            page = await page_of(visitor, "?by=user")
            assert "<img" not in page
            assert table_of(page)[0][1] == HOSTILE
            assert list(legend_of(page)) == [HOSTILE]
            assert HOSTILE in (await visitor.get("/console/usage.csv?by=user")).text
        for name in ("since", "until", "by", "measure", "sort", "days"):
            page = (await alice.client.get("/console/usage", params={name: HOSTILE})).text
            assert "<img" not in page, name


@pytest.mark.parametrize(
    ("query", "param", "said"),
    [
        ("since=yesterday", "since", "expected a day such as"),
        ("until=20261101", "until", "expected a day such as"),
        ("since=2026-02-30", "since", "expected a day such as"),
        ("since=2026-02-02&until=2026-02-01", "since", "since has to be before until"),
        ("until=0001-01-01", "until", "there was nothing then"),
        ("since=%00", "since", "expected a day such as"),
        ("by=colour", "by", "expected one of model"),
        ("by=project", "by", "expected one of model"),
        ("measure=colour", "measure", "expected one of cost"),
        ("sort=colour", None, "expected one of day"),
        ("sort=reported", None, "expected one of day"),
        ("days=8", None, "expected one of 7"),
    ],
)
async def test_errors_stand_at_their_field(gateway: Running, query: str, param: str | None, said: str) -> None:
    async with signed_in(gateway, ALICE) as alice:
        page = await page_of(alice, f"?{query}", 400)
    assert said in page
    if param is not None:
        assert f'id="h-{param}" role="alert"' in page
        for name, value in re.findall(r"(since|until)=([\w-]+)", query):
            assert f'name="{name}" type="date" value="{value}"' in page
    else:
        assert '<p class="problem" role="alert">' in page


async def test_nothing_was_used_and_the_range_is_kept(gateway: Running) -> None:
    async with signed_in(gateway, ALICE) as alice:
        page = await page_of(alice, "?since=2026-01-02&until=2026-01-31")
        assert "Nothing was used from 2 Jan 2026 to 31 Jan 2026." in page
        assert 'type="date" value="2026-01-02"' in page
        assert "<svg" not in page
        week = await page_of(alice, "?days=7")
        first = gateway.clock.now.date() - timedelta(days=6)
        assert f'type="date" value="{first}"' in week
        assert re.search(r'aria-current="true">7 days', week)


async def test_outputs_without_a_price_are_called_out(gateway: Running) -> None:
    await use(gateway)
    async with signed_in(gateway, ALICE) as alice:
        assert "no price" not in await page_of(alice)
        await use(gateway, model="up/unknown", n=2)
        assert "2 outputs have no price" in await page_of(alice)


async def closed(gateway: Running, day: date, models: int) -> None:
    """A closed day with so many models of Alice's."""
    project = (await gateway.client.get("/v1/me")).json()["project"]["id"]
    nothing = dict.fromkeys(("unpriced", "reported_micros", "underpriced_micros", "failed", "cancelled"), 0)
    some = {"day": day, "project_id": project, "outputs": 1, "seconds": 1, "jobs": 1, "completed": 1, "duration_s": 2}
    rows = [{**nothing, **some, "model": f"model {n:03}", "cost_micros": 1_000 + n} for n in range(models)]
    async with gateway.gateway.db.transaction() as session:
        await session.execute(sa.insert(ClosedDay), [{"day": day}])
        await session.execute(sa.insert(UsageDay), rows)


async def test_the_table_is_sorted_by_links_and_says_when_it_ends(gateway: Running) -> None:
    await use(gateway)  # the ledger has to have begun
    day = gateway.clock.now.date() - timedelta(days=2)
    await closed(gateway, day, 505)
    query = f"?since={day}&until={day}"
    async with signed_in(gateway, ALICE) as alice:
        page = await page_of(alice, f"{query}&sort=cost")
        assert "These are the first 500 of 505 rows" in page
        assert [row[1] for row in table_of(page)] == [f"model {n:03}" for n in range(500)]
        down = await page_of(alice, f"{query}&sort=-cost")
        assert table_of(down)[0][1] == "model 504"
        assert 'aria-sort="descending"' in down
        links = re.findall(r'<a href="(/console/usage\?[^"]*sort=[^"]*)">Cost', down)
        assert table_of((await alice.get(unescape(links[0]))).text)[0][1] == "model 000"
        assert table_of(await page_of(alice, f"{query}&sort=-group"))[0][1] == "model 504"
        assert sums_of(page)["Videos"] == "505"
        assert len(legend_of(page)) == 9
        assert legend_of(page)["other"] == "$0.6203", "rounded; 620,256 micros"


async def test_rows_lead_to_their_videos(gateway: Running) -> None:
    await use(gateway)
    async with signed_in(gateway, ALICE) as alice:
        (link,) = set(re.findall(r'href="(/console/videos\?[^"]+)"', await page_of(alice, "?by=app")))
        videos = await alice.get(unescape(link))
    assert videos.text.count('class="card"') == 1
