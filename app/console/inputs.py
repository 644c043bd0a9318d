"""Fields of forms: what people type, as the administration API takes it, and values as forms show them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel

from app import errors
from app.db.models import Key, Project
from app.http.body import checked, validated
from app.http.fields import iso_moment

Model = TypeVar("Model", bound=BaseModel)

LISTS, MOMENTS = ("models", "kinds"), ("expires_at",)
"""Fields that are written with commas, and times."""
LOCAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?")
"""A time as the control of a browser sends it; the forms say that it is UTC."""
PROJECT_FIELDS = ("name", "billing", "monthly_budget_usd", "kinds")
KEY_FIELDS = (
    *("name", "models", "requests_per_minute", "concurrent_jobs", "monthly_budget_usd", "max_cost_usd"),
    "expires_at",
)


@dataclass(frozen=True)
class Problem:
    """An error of a form, at the field `param` if it has one."""

    message: str
    code: str
    param: str
    status: int


def problem_of(error: errors.GatewayError) -> Problem:
    """The error for its field, whose name the message need not repeat."""
    message = error.message.removeprefix(f"{error.param}: ")
    return Problem(message, error.code, (error.param or "").partition(".")[0], error.status_code)


def read_form(model: type[Model], form: Mapping[str, str], shown: Mapping[str, str]) -> Model:
    """Validate the fields of a form that differ from those which it `shown`; an empty one removes a limit. Raises
    `InvalidRequest`."""
    typed = {name: form[name].strip() for name in shown if name in form}
    changed = {name: text for name, text in typed.items() if text != shown[name]}
    return validated(model, checked({name: _value(name, text) for name, text in changed.items()}), keep_nulls=True)


def _value(name: str, text: str) -> Any:
    if not text:
        return "" if name == "name" else None
    if name in LISTS:
        return [part.strip() for part in text.split(",") if part.strip()]
    return moment_text(name, text) if name in MOMENTS else text


def moment_text(name: str, text: str) -> str:
    """A time as ISO 8601 with an offset; without one it is UTC. Raises `InvalidRequest`."""
    try:
        return iso_moment(f"{text}+00:00" if LOCAL.fullmatch(text) else text)
    except ValueError as error:
        raise errors.InvalidRequest(f"{name}: {error}", param=name, code="invalid_value") from None


def local_text(at: datetime | None) -> str:
    """A time for the control of a browser, UTC."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}"


def project_values(project: Project) -> dict[str, str]:
    """The fields of a project as its form shows them."""
    return {
        "name": project.name,
        "billing": str(project.billing),
        "monthly_budget_usd": _amount(project.monthly_budget_micros),
        "kinds": ", ".join(project.kinds or ()),
    }


def key_values(key: Key) -> dict[str, str]:
    """The fields of a key as its form shows them."""
    return {
        "name": key.name,
        "models": ", ".join(key.models or ()),
        "requests_per_minute": _number(key.requests_per_minute),
        "concurrent_jobs": _number(key.concurrent_jobs),
        "monthly_budget_usd": _amount(key.monthly_budget_micros),
        "max_cost_usd": _amount(key.max_cost_micros),
        "expires_at": local_text(key.expires_at),
    }


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _amount(micros: int | None) -> str:
    return "" if micros is None else f"{micros / 1_000_000:.6f}".rstrip("0").rstrip(".")
