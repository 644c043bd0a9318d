"""Usage: a chart and a table of what was used by day, of the own project or of all for the operator, and as CSV."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import TypeAdapter, ValidationError

from app import errors
from app.accounts import keys, ledger, pricing, projects
from app.accounts.reports import OPERATORS, OWN, VENDORS, dimensions_of, report, span_of
from app.console import charts
from app.console.guard import ConsoleRoute, Visitor, VisitorDep
from app.console.pages import Values, format_usd, render
from app.http.context import Gateway, GatewayDep
from app.http.usage import Day, usage_response

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

MAX_ROWS = 500
RANGES = (7, 30, 90)
"""Days of the links to ranges."""
DEFAULT_DAYS = 30
MAX_NAME, MAX_NAMES = 40, 200
"""Characters of a name in the chart, and projects that the form proposes."""
GROUPS = {
    "model": "Model",
    "provider": "Provider",
    "key": "Key",
    "app": "Application",
    "user": "End user",
    "project": "Project",
}
"""Dimensions that divide the bars; the last one is the operator's."""
NONE = "(none)"
"""The name of what has none."""
_DAY = TypeAdapter(Day)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}".rstrip("0").rstrip(".")


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _usd(micros: float) -> str:
    return format_usd(round(micros))


def _rounded_usd(micros: float) -> str:
    """An amount for charts and sums: two decimals, or four of less than a dollar; the table has all of them."""
    if abs(micros) >= pricing.MICROS:
        return f"${micros / pricing.MICROS:,.2f}"
    return _usd(micros if abs(micros) < 100 else round(micros, -2))


@dataclass(frozen=True)
class Measure:
    """Unit of the bars: a column of the report."""

    title: str
    column: str
    show: Callable[[Any], str]
    is_whole: bool = True


MEASURES = {
    "cost": Measure("Cost", "cost_micros", _rounded_usd),
    "seconds": Measure("Seconds", "seconds", _seconds, is_whole=False),
    "videos": Measure("Videos", "jobs", _count),
    "failed": Measure("Failed", "failed", _count),
}


@dataclass(frozen=True)
class Column:
    """A column of the table, by which it may be sorted."""

    name: str
    title: str
    column: str
    show: Callable[[Any], str]

    @property
    def show_sum(self) -> Callable[[Any], str]:
        return _rounded_usd if self.show is _usd else self.show


COLUMNS = (
    Column("videos", "Videos", "jobs", _count),
    Column("outputs", "Outputs", "outputs", _count),
    Column("seconds", "Seconds", "seconds", _seconds),
    Column("cost", "Cost", "cost_micros", _usd),
    Column("held", "Held", "held_micros", _usd),
    Column("unpriced", "Without price", "unpriced", _count),
    Column("completed", "Completed", "completed", _count),
    Column("failed", "Failed", "failed", _count),
    Column("cancelled", "Cancelled", "cancelled", _count),
    Column("mean", "Mean time, s", "mean_duration_s", _seconds),
)
COLUMNS_OF_VENDORS = (
    Column("reported", "Reported by vendors", "reported_micros", _usd),
    Column("beyond", "Beyond our price", "underpriced_micros", _usd),
)
"""Columns that the operator alone sees."""


@dataclass(frozen=True)
class Wanted:
    """The report that an address asks for."""

    since: date
    until: date
    by: str
    measure: str
    sort: str
    """Name of a column; with `-` before it the largest comes first."""
    project: str
    """Id or name of the project that the operator looks at; empty for all."""

    @property
    def dimensions(self) -> list[str]:
        return dimensions_of(f"day,{self.by}")

    def address(self, **changed: Any) -> dict[str, Any]:
        """The parameters of the same page, some of them changed; None leaves one out."""
        own = {"since": self.since, "until": self.until, "measure": self.measure, "by": self.by, "sort": self.sort}
        found = {**own, "project": self.project or None, **changed}
        return {name: value for name, value in found.items() if value is not None}

    def range_address(self, days: int) -> dict[str, Any]:
        return self.address(days=days, since=None, until=None)


@dataclass(frozen=True)
class Used:
    """The report."""

    rows: Sequence[Mapping[str, Any]]
    """In the order that was asked for."""
    sums: Mapping[str, Any] | None
    """Over all rows, which is more than an addition: one video may be in several of them. None: nothing was used."""
    names: Mapping[str, str]
    """Names of projects or keys, by id."""

    def name_of(self, value: str | None) -> str:
        return NONE if value is None else self.names.get(value, value)


@routes.get("/console/usage")
async def show_usage(request: Request, gateway: GatewayDep, visitor: VisitorDep) -> Response:
    """Show the report that the address asks for."""
    given, today = Values(request.query_params), ledger.day_of(gateway.clock())
    found = await _projects(gateway) if visitor.is_operator else {}
    problem: errors.GatewayError | None = None
    wanted, used, chart = None, None, None
    try:
        wanted = _wanted(given, visitor, today=today)
        given |= {"since": wanted.since, "until": wanted.until}
        used = await _read(gateway, visitor, wanted, found)
        chart = _chart(wanted, used) if used.rows else None
    except (errors.InvalidRequest, errors.NotFound) as error:
        problem = error
    return await render(
        request,
        "usage.html",
        status=200 if problem is None else problem.status_code,
        given=given,
        problem=problem,
        wanted=wanted,
        used=used,
        chart=chart,
        chart_height=charts.HEIGHT,
        columns=_columns(visitor),
        most=MAX_ROWS,
        measure=MEASURES[wanted.measure] if wanted is not None else None,
        measures=[(name, one.title) for name, one in MEASURES.items()],
        groups=list(_groups(visitor).items()),
        ranges={days: today - timedelta(days=days - 1) for days in RANGES},
        today=today,
        projects=list(found.values())[:MAX_NAMES],
        short=_short,
        words_of=charts.words_of,
    )


@routes.get("/console/usage.csv")
async def send_csv(request: Request, gateway: GatewayDep, visitor: VisitorDep) -> Response:
    """Send the report of the same address as a spreadsheet, as the API does."""
    wanted = _wanted(Values(request.query_params), visitor, today=ledger.day_of(gateway.clock()))
    project_id = await _project_id(gateway, visitor, wanted)
    rows, _ = await _report(gateway, visitor, wanted, project_id, with_sums=False)
    return await usage_response(
        wanted.dimensions,
        rows,
        since=wanted.since,
        until=wanted.until,
        form="csv",
        without=() if visitor.is_operator else VENDORS,
    )


def _wanted(given: Mapping[str, str], visitor: Visitor, *, today: date) -> Wanted:
    """Read an address. Raises `InvalidRequest` that names the field."""
    by = _one_of(list(_groups(visitor)), "by", given["by"] or "model")
    measure = _one_of(list(MEASURES), "measure", given["measure"] or "cost")
    sort = given["sort"] or "-day"
    _one_of(["day", "group", *(column.name for column in _columns(visitor))], "sort", sort.removeprefix("-"))
    if given["project"] and not visitor.is_operator:
        raise errors.InvalidRequest("project: this page shows your own project alone", param="project")
    since, until = _day("since", given["since"]), _day("until", given["until"])
    if since is None and until is None:
        days = _one_of([str(one) for one in RANGES], "days", given["days"] or str(DEFAULT_DAYS))
        since = today - timedelta(days=int(days) - 1)
    first, last = span_of(since, until, today=today)
    return Wanted(first, last, by, measure, sort, given["project"].strip())


def _one_of(known: Sequence[str], param: str, value: str) -> str:
    if value not in known:
        raise errors.InvalidRequest(f"{param}: expected one of {', '.join(known)}", param=param, code="invalid_value")
    return value


def _day(param: str, text: str) -> date | None:
    if not text.strip():
        return None
    try:
        return _DAY.validate_python(text.strip())
    except ValidationError:
        message = f"{param}: expected a day such as 2026-11-01"
        raise errors.InvalidRequest(message, param=param, code="invalid_value") from None


def _groups(visitor: Visitor) -> Mapping[str, str]:
    return GROUPS if visitor.is_operator else {name: title for name, title in GROUPS.items() if name != "project"}


def _columns(visitor: Visitor) -> Sequence[Column]:
    return (*COLUMNS, *COLUMNS_OF_VENDORS) if visitor.is_operator else COLUMNS


async def _projects(gateway: Gateway) -> dict[str, str]:
    """The name of each project, by id."""
    async with gateway.db.reading() as connection:
        return {one.id: one.name for one in await projects.list_projects(connection)}


async def _project_id(gateway: Gateway, visitor: Visitor, wanted: Wanted) -> str | None:
    """The project that is shown; None for all of them. Raises `NotFound`."""
    if not wanted.project:
        return visitor.project_id
    async with gateway.db.transaction() as session:  # one of its own: it locks the project
        return (await projects.get_project(session, wanted.project)).id


async def _read(gateway: Gateway, visitor: Visitor, wanted: Wanted, found: Mapping[str, str]) -> Used:
    """Read the report, with names of the `found` projects or of one's keys. Raises `InvalidRequest`, `NotFound`."""
    project_id = await _project_id(gateway, visitor, wanted)
    rows, sums = await _report(gateway, visitor, wanted, project_id)
    names = found if wanted.by == "project" else {}
    if rows and wanted.by == "key" and project_id is not None:
        async with gateway.db.reading() as connection:
            names = {one.id: one.name for one in await keys.list_keys(connection, project_id=project_id)}
    often = Counter(names.values())
    names = {one: f"{name} ({one})" if often[name] > 1 else name for one, name in names.items()}
    used = Used(rows, sums, names)
    return replace(used, rows=_sorted(used, wanted, _columns(visitor)))


async def _report(
    gateway: Gateway, visitor: Visitor, wanted: Wanted, project_id: str | None, *, with_sums: bool = True
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The rows of the report, and the sums. Raises `InvalidRequest` beyond the bounds."""
    asked: dict[str, Any] = {
        "since": wanted.since,
        "until": wanted.until,
        "project_id": project_id,
        "bounds": OPERATORS if visitor.is_operator else OWN,
    }
    async with gateway.db.transaction() as session:
        connection = await session.connection()
        rows = await report(connection, wanted.dimensions, **asked)
        sums = await report(connection, [], **asked) if with_sums and rows else [None]
    return rows, sums[0]


def _sorted(used: Used, wanted: Wanted, columns: Sequence[Column]) -> list[Mapping[str, Any]]:
    """The rows in the order of the address; those that are equal by day and name, unknown values last."""

    def name_in(row: Mapping[str, Any]) -> str:
        return used.name_of(row[wanted.by]).lower()

    name = wanted.sort.removeprefix("-")
    is_down = name != wanted.sort
    rows = sorted(used.rows, key=lambda row: (row["day"], name_in(row)))
    if name == "group":
        return sorted(rows, key=name_in, reverse=is_down)
    source = next((column.column for column in columns if column.name == name), "day")
    known = [row for row in rows if row[source] is not None]
    ordered = sorted(known, key=lambda row: row[source], reverse=is_down)
    return [*ordered, *(row for row in rows if row[source] is None)]


def _chart(wanted: Wanted, used: Used) -> charts.Chart:
    measure = MEASURES[wanted.measure]
    rows = [(row["day"], used.name_of(row[wanted.by]), row[measure.column]) for row in used.rows]
    return charts.stacked(rows, since=wanted.since, until=wanted.until, is_whole=measure.is_whole)


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
