"""Options of the commands about projects and keys, and the reading of their values."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

import typer

from app import errors
from app.accounts import pricing
from app.accounts.keys import Changes

NONE = "none"
"""Option value that removes a limit."""
SPAN = re.compile(r"(\d{1,5})([dh])")


class Pays(StrEnum):
    prepaid = "prepaid"
    postpaid = "postpaid"


Budget = Annotated[
    str | None, typer.Option("--monthly-budget", help="US dollars in a calendar month, UTC; `none` for no limit.")
]
Rpm = Annotated[str | None, typer.Option("--requests-per-minute", help="A number; `none` for no limit.")]
Jobs = Annotated[str | None, typer.Option("--concurrent-jobs", help="Unfinished videos at once; `none` for no limit.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="A model it may use, or a pattern such as lumen/*; repeatable; `none` for no limit."),
]
MaxCost = Annotated[
    str | None, typer.Option("--max-cost", help="Highest cost of one request in US dollars; `none` for no limit.")
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", help="A kind of provider that it may use, such as fal; repeatable; `none` for all."),
]
Expires = Annotated[
    str | None,
    typer.Option(
        "--expires", help="Lifetime such as 90d or 12h, or a date such as 2027-01-31 (UTC); `none` for never."
    ),
]


def read_micros(value: str | None, name: str) -> Any:
    """Micros, None for no limit, `...` without the option. Raises `InvalidRequest`."""
    if value is None or value == NONE:
        return ... if value is None else None
    micros = read_amount(value, name)
    if micros < 0:
        raise errors.InvalidRequest(f"{name}: expected 0 or more")
    return micros


def read_amount(value: str, name: str) -> int:
    try:
        return pricing.micros_of(Decimal(value.removeprefix("$")))
    except (ValueError, ArithmeticError):
        raise errors.InvalidRequest(f"{name}: expected US dollars such as 25 or 12.50, got {value!r:.40}") from None


def read_number(value: str | None, name: str) -> Any:
    if value is None or value == NONE:
        return ... if value is None else None
    if not value.isdecimal() or len(value) > 9:
        raise errors.InvalidRequest(f"{name}: expected a whole number or `none`, got {value!r:.40}")
    return int(value)


def read_moment(value: str | None) -> Any:
    if value is None or value == NONE:
        return ... if value is None else None
    if span := SPAN.fullmatch(value):
        return datetime.now(UTC) + (timedelta(days=int(span[1])) if span[2] == "d" else timedelta(hours=int(span[1])))
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise errors.InvalidRequest(f"expires: expected 90d, 12h or 2027-01-31, got {value!r:.40}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def read_list(values: list[str] | None) -> Any:
    """The values of a repeatable option, None for `none`, `...` without the option."""
    if not values:
        return ...
    return None if values == [NONE] else values


def read_changes(
    rpm: str | None,
    jobs: str | None,
    models: list[str] | None,
    expires: str | None,
    max_cost: str | None,
    budget: str | None,
    **more: Any,
) -> Changes:
    return Changes(
        models=read_list(models),
        max_cost_micros=read_micros(max_cost, "max-cost"),
        monthly_budget_micros=read_micros(budget, "monthly-budget"),
        requests_per_minute=read_number(rpm, "requests-per-minute"),
        concurrent_jobs=read_number(jobs, "concurrent-jobs"),
        expires_at=read_moment(expires),
        **more,
    )
