"""Fields of forms: what people type, as the administration API takes it, and values as forms show them."""

import json
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


WORDS = {
    "name": "name",
    "billing": "billing",
    "monthly_budget_usd": "monthly budget",
    "kinds": "kinds of provider",
    "models": "models",
    "requests_per_minute": "requests a minute",
    "concurrent_jobs": "videos running at once",
    "max_cost_usd": "cost of a request",
    "expires_at": "end",
}
"""Words for the fields in sentences."""
SHOWN = "shown"
"""Name of the hidden field with the values that a form has shown."""
CHANGED_MEANWHILE = "changed_meanwhile"
"""Code of the conflict of a form with a change by someone else."""


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
    changed = changed_in(form, shown)
    return validated(model, checked({name: _value(name, text) for name, text in changed.items()}), keep_nulls=True)


def read_changes(model: type[Model], form: Mapping[str, str], current: Mapping[str, str]) -> Model:
    """Validate the fields of a form that differ from those which it has shown; what others have changed since stays.
    Raises `InvalidRequest`, and `Conflict` for a field that both have changed."""
    shown = shown_by(form, current)
    changed = changed_in(form, shown)
    both = [name for name, text in changed.items() if current[name] not in (shown[name], text)]
    if both:
        texts = [f"{WORDS[name]} (now {_quoted(current[name])}, you typed {_quoted(changed[name])})" for name in both]
        raise errors.Conflict(
            f"Changed since this page was opened: {', '.join(texts)}. Nothing of what you sent was saved; send the "
            "form again to save it all the same.",
            code=CHANGED_MEANWHILE,
        )
    return read_form(model, changed, shown)


def shown_by(form: Mapping[str, str], current: Mapping[str, str]) -> dict[str, str]:
    """The values that a form has shown; for one that does not tell them the current ones. Raises `InvalidRequest`."""
    if SHOWN not in form:
        return dict(current)
    try:
        found = json.loads(form[SHOWN])
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in current):
        raise errors.InvalidRequest("this form is incomplete; open the page again", code="invalid_value")
    return {name: found[name] for name in current}


def changed_in(form: Mapping[str, str], shown: Mapping[str, str]) -> dict[str, str]:
    """The fields of a form that differ from those which it has shown."""
    typed = {name: form[name].strip() for name in shown if name in form}
    return {name: text for name, text in typed.items() if text != shown[name]}


def _quoted(text: str) -> str:
    return f'"{text}"' if text else "empty"


def anew(form: Mapping[str, str] | None, current: Mapping[str, str], problem: Problem | None) -> dict[str, str]:
    """The values of a form that is shown, with the hidden field. After another problem than a conflict that field stays
    as it was sent, so that the form is compared with the same values again."""
    given = dict(form or {})
    if problem is not None and problem.code == CHANGED_MEANWHILE:
        given = changed_in(given, shown_by(given, current))
    return {**current, SHOWN: json.dumps(dict(current)), **given}


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
