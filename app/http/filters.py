"""Parameters and parts of the answers of the lists of videos, those of a project and of all."""

import re
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from app import errors
from app.accounts import pricing
from app.http.context import Gateway
from app.http.openapi import ResponseModel, may_be_absent
from app.http.parameters import IGNORED, repeated_parameter, unix_or_iso, unknown_parameter
from app.http.responses import page_of
from app.jobs import search
from app.jobs.filters import Filters, State
from app.jobs.search import Found, Looked, Wanted
from app.video import MAX_NAME_CHARACTERS

MAX_METADATA = 8
"""Fields of the metadata in one request."""
METADATA: dict[str, Any] = {
    "in": "query",
    "name": "metadata",
    "description": "Only videos with these texts in their metadata, `metadata[order]=17`.",
    "style": "deepObject",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": MAX_METADATA},
}
_FIELD = re.compile(r"metadata\[(.{1,64})\]", re.DOTALL)
_NO_NUL = r"^[^\x00]*$"  # PostgreSQL cannot even compare text with a NUL

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS, pattern=_NO_NUL)]
StateWord = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
_STATES: dict[str, tuple[State, ...]] = {**{str(state): (state,) for state in State}}
_STATES["failed"] = (State.failed, State.cancelled)


def _last_moment(value: Any) -> Any:
    """`unix_or_iso` at the end of a whole second: `created_at` of a video has no fraction, and is to be included."""
    rest = timedelta(microseconds=999_999 if str(value).isdigit() else 0)
    moment = unix_or_iso(value)
    return moment + rest if isinstance(moment, datetime) else moment


After = Annotated[AwareDatetime, BeforeValidator(unix_or_iso)]
Before = Annotated[AwareDatetime, BeforeValidator(_last_moment)]


class ListQuery(BaseModel):
    """Parameters of GET /v1/videos."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    after: Annotated[str, Field(max_length=8_192)] | None = None
    """The `last_id` of the page before."""
    limit: Annotated[int, Field(ge=0, le=100)] = 20
    """Longest page."""
    order: Literal["asc", "desc"] = "desc"
    """`desc`: newest first; `asc`: oldest first."""
    status: StateWord | None = None
    """Only videos with this status; `failed` includes cancelled ones, `cancelled` is these alone."""
    model: Name | None = None
    """Only videos of this model, as the request named it."""
    key: Name | None = None
    """Only videos created with this key, by id."""
    created_after: After | None = None
    """Unix seconds, or ISO 8601 with an offset; included."""
    created_before: Before | None = None
    """Unix seconds, or ISO 8601 with an offset; included."""
    provider: Name | None = None
    """Only videos that this provider makes."""
    user: Annotated[str, Field(min_length=1, max_length=1_000, pattern=_NO_NUL)] | None = None
    """Only videos with this `user`."""
    app: Name | None = None
    """Only videos of this application, as `X-App-ID` named it."""
    q: Annotated[str, Field(min_length=1, max_length=200, pattern=_NO_NUL)] | None = None
    """Only videos with this text in the prompt, in capital or small letters."""
    summary: bool = False
    """Add number, seconds and cost of all matching videos."""

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.limit, self.after, self.order == "asc", self.summary)

    def filters(self, request: Request, project_id: str | None) -> Filters:
        """The filters of the request. Raises `InvalidRequest` for a parameter that the list has not."""
        return Filters(
            project_id,
            self.key,
            None if self.status is None else _STATES[self.status],
            self.model,
            self.created_after,
            self.created_before,
            self.provider,
            self.user,
            self.app,
            self.q,
            _metadata_of(request, type(self)),
        )


def _metadata_of(request: Request, query: type[ListQuery]) -> dict[str, str]:
    """The filters on metadata. Raises `InvalidRequest`, also for a parameter that the list has not."""
    metadata: dict[str, str] = {}
    given = request.query_params.multi_items()
    for name, value in given:
        match = _FIELD.fullmatch(name)
        if name in IGNORED:
            continue
        if not match and name not in query.model_fields:
            raise unknown_parameter(name, [*query.model_fields, "metadata[name]"])
        if sum(other == name for other, _ in given) > 1:
            raise repeated_parameter(name)
        if match:
            metadata[match[1]] = value
            if "\0" in name + value or len(value) > 2_000 or len(metadata) > MAX_METADATA:
                raise errors.InvalidRequest(
                    f"metadata: expected up to {MAX_METADATA} texts of up to 2,000 characters, without NUL",
                    param="metadata",
                    code="invalid_value",
                )
    return metadata


async def find_page(
    gateway: Gateway, filters: Filters, wanted: Wanted, columns: search.Columns, *, holder: str
) -> Found:
    """Read a page; a search takes a slot of `holder`. Raises `InvalidRequest`, `RateLimited`."""
    is_search = search.time_limit_s(filters, wanted) is not None
    with gateway.searches.slot(holder) if is_search else nullcontext():
        return await search.find_page(gateway.db, filters, wanted, columns)


# Answers


class SearchedVideos(ResponseModel):
    """The videos that filters without an index look at (`user`, `app`, `provider`, `metadata`, `q`): the first ones
    that match the other filters."""

    rows: int
    """Their number, 20,000 at most."""
    complete: bool
    """False: there are more behind them, which `after=<last_id>` leads to."""


class VideoSums(ResponseModel):
    """Sums over all matching videos, on whichever page."""

    count: int
    seconds: float
    """Billed length of the outputs."""
    cost_usd: float | None
    """Known costs in US dollars."""
    searched: SearchedVideos = may_be_absent()
    """Present with filters without an index: the sums are over the newest of these videos."""


def found_page(found: Found, data: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The list object of a page, whose videos are `data`."""
    page = {**page_of(data, has_more=found.has_more), "last_id": found.last_id}
    if found.looked is not None:
        page["searched"] = _searched(found.looked)
    if found.totals is not None:
        totals = found.totals
        page["summary"] = {
            "count": totals.count,
            "seconds": round(totals.seconds, 3),
            "cost_usd": pricing.dollars(totals.cost_micros),
            **({"searched": _searched(totals.looked)} if totals.looked is not None else {}),
        }
    return page


def _searched(looked: Looked) -> dict[str, Any]:
    return {"rows": looked.rows, "complete": looked.complete}
