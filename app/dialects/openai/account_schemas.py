"""Models of the responses about the key that asks, for the OpenAPI document; `account.py` renders them."""

from datetime import date
from typing import ClassVar, Literal

from app.http.openapi import Json, ResponseModel, may_be_absent
from app.video import Billing


class OwnProject(ResponseModel):
    """The project that the key belongs to."""

    id: str
    name: str
    billing: Billing
    kinds: list[str] | None
    """Kinds of provider that its requests may go to; null: all."""


class OwnKey(ResponseModel):
    """The key that asks, without its secret. A limit that is null is no limit."""

    id: str
    """Of a key in the settings that of its project."""
    name: str
    ends_in: str
    """The last four characters of the key."""
    models: list[str] | None
    """Patterns of the models that it may use; null: all."""
    requests_per_minute: int | None
    concurrent_jobs: int | None
    monthly_budget_usd: float | None
    max_cost_usd: float | None
    """Highest cost of one request."""
    expires_at: int | None
    """Unix time."""


class Me(ResponseModel):
    """The project and the key of this request, and what they may still spend."""

    example: ClassVar[Json] = {
        "object": "me",
        "project": {"id": "proj_01kb3v9zq4e8tq6j8x2m5n7r9s", "name": "shop", "billing": "prepaid", "kinds": None},
        "key": {
            "id": "key_01kb3v9zq4e8tq6j8x2m5n7r9s",
            "name": "shop backend",
            "ends_in": "x7Qa",
            "models": ["lumen/*"],
            "requests_per_minute": 600,
            "concurrent_jobs": 10,
            "monthly_budget_usd": 50.0,
            "max_cost_usd": None,
            "expires_at": 1795780800,
        },
        "available_usd": 42.5,
    }

    object: Literal["me"]
    project: OwnProject
    key: OwnKey
    available_usd: float | None
    """The amount that this key may still spend, by the balance or the budget that limits it most; null: no limit."""


class OwnUsageRow(ResponseModel):
    """Usage of one combination of the dimensions of the report; a dimension that the report lacks is absent."""

    project: str | None = may_be_absent()
    key: str | None = may_be_absent()
    model: str | None = may_be_absent()
    provider: str | None = may_be_absent()
    app: str | None = may_be_absent()
    user: str | None = may_be_absent()
    day: date | None = may_be_absent()
    jobs: int
    """Jobs that were charged or may be."""
    outputs: int
    seconds: float
    cost_usd: float
    held_usd: float
    """Holds of running jobs and of submits whose outcome is unknown."""
    unpriced_outputs: int
    """Outputs without a price, which `cost_usd` does not include."""
    completed: int
    failed: int
    cancelled: int
    """Jobs by how they ended."""
    mean_duration_s: float | None
    """Mean seconds from create to end of the completed jobs; null: there are none."""


class OwnUsage(ResponseModel):
    """Usage of the key's own project."""

    object: Literal["usage"]
    since: date
    until: date
    by: list[str]
    data: list[OwnUsageRow]
