"""Query parameters: an unknown one is refused, and times have limits that the database can take."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from pydantic import AfterValidator, AwareDatetime, BeforeValidator

from app import errors
from app.http.fields import iso_moment
from app.mistakes import nearest

_LAST_SECOND = 253_370_764_799
"""The end of the year 9998: other time zones may not be able to express the next one."""
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)

IGNORED = ("api-version", "custom_llm_provider")
"""Parameters that clients of Azure and LiteLLM send with every call."""


def unix_or_iso(value: Any) -> Any:
    """Read Unix seconds; leave the rest, which is to be ISO 8601. Raises `ValueError`."""
    written = str(value)
    if not re.fullmatch(r"\d{1,12}(\.\d{1,6})?", written, re.ASCII):
        return iso_moment(value)
    if float(written) > _LAST_SECOND:
        raise ValueError("expected seconds since 1970, not milliseconds")
    whole, _, part = written.partition(".")
    return datetime.fromtimestamp(int(whole), UTC) + timedelta(microseconds=int(part.ljust(6, "0")))


def _within_limits(moment: datetime) -> datetime:
    if not EARLIEST <= moment <= LATEST:
        raise ValueError("expected a time between 1970 and 2200")
    return moment


Since = Annotated[AwareDatetime, BeforeValidator(unix_or_iso), AfterValidator(_within_limits)]
"""ISO 8601 with an offset, or Unix time in seconds."""


async def only_known_parameters(request: Request) -> None:
    """Refuse a query with a parameter that the route lacks, or with one twice: a filter that is ignored would show too
    much. Raises `InvalidRequest` that names the nearest."""
    known = list(_names(request.scope["route"].dependant))
    given = [name for name, _ in request.query_params.multi_items() if name not in IGNORED]
    for name in given:
        if name not in known:
            raise unknown_parameter(name, known)
        if given.count(name) > 1:
            raise repeated_parameter(name)


def unknown_parameter(name: str, known: Sequence[str]) -> errors.InvalidRequest:
    """The error about a parameter that is none of `known`; names the nearest."""
    near = nearest(name, known)
    hint = f"did you mean {near}?" if near else f"there are {', '.join(known) or 'none'}"
    message = f"{name!r:.80} is not a parameter of this request; {hint}"
    return errors.InvalidRequest(message, param=name[:80], code="unknown_parameter")


def repeated_parameter(name: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"{name[:80]} is given twice; send it once", param=name[:80])


KnownParameters = Annotated[None, Depends(only_known_parameters)]
"""A parameter `_` of a route, behind that of the key: a request without one learns nothing about parameters."""


def _names(dependant: Dependant) -> Iterator[str]:
    """The query parameters of a route and of its dependencies."""
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _names(inner)
