"""Lumenfall's additions to OpenAI's API: the forms of `media_retention`, the replay header, the routing in the
`metadata` of a video, balance and estimate.

Facts: docs.lumenfall.ai and the model pages of lumenfall.ai, read 2026-11-25. Inferred: the words of `media_retention`,
which the vendor does not list, and the entries of `attempts`.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Request
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, WithJsonSchema

from app import errors
from app.accounts import pricing
from app.db.models import Attempt, Video
from app.http.context import Gateway
from app.jobs.plan import Plan
from app.providers.base import Provider
from app.video import AttemptState, Billing, VideoRequest

PREFIX = "/openai/v1/"
"""The vendor's own prefix, where `metadata` has the routing without being asked for it."""
METADATA_HEADER = "x-gateway-metadata"
REPLAY_HEADER = "x-lumenfall-replay"
"""Also the beginning of the headers that choose a recording: `-match`, `-fields`, `-recording`."""

UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
SPAN = re.compile(r"(\d{1,10})([smhdw]?)", re.IGNORECASE | re.ASCII)
RETENTION_FORMS = "expected seconds (86400), a number with its unit (30m, 12h, 7d, 2w), or an ISO 8601 duration (P7D)"
MAX_DURATION_CHARACTERS = 100
MIN_RETENTION_S, MAX_RETENTION_S = 60, 10 * 365 * 86_400

_DURATION = TypeAdapter(timedelta)


# Reading requests


def _retention_s(value: Any) -> Any:
    """Read a time to keep files as seconds. Raises `ValueError`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if match := SPAN.fullmatch(text):
        return int(match[1]) * UNITS_S[match[2].lower() or "s"]
    if text[:1].upper() == "P" and len(text) <= MAX_DURATION_CHARACTERS:
        with suppress(ValidationError):
            return int(_DURATION.validate_python(text.upper()).total_seconds())
    raise ValueError(RETENTION_FORMS)


RETENTION_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": MIN_RETENTION_S, "maximum": MAX_RETENTION_S},
        {"type": "string", "maxLength": MAX_DURATION_CHARACTERS},
    ]
}
RetentionSeconds = Annotated[
    int,
    Field(ge=MIN_RETENTION_S, le=MAX_RETENTION_S),
    BeforeValidator(_retention_s),
    WithJsonSchema(RETENTION_SCHEMA),
]


def refuse_replay(request: Request) -> None:
    """Raise `InvalidRequest` where Lumenfall would answer from a recording or a mock, which is free: here the video
    would be made and paid for."""
    modes = [mode.strip().lower() for mode in request.headers.getlist(REPLAY_HEADER)]
    if modes and set(modes) == {"off"}:
        return
    named = next((name for name in request.headers if name.startswith(REPLAY_HEADER)), None)
    if named is not None:
        raise errors.InvalidRequest(
            f"{named}: this gateway has no recordings and no mocks, so the video would be made and paid for; leave the "
            f"header out or send `{REPLAY_HEADER}: off`",
            param=named[:100],
            code="unsupported_header",
        )


DRY_RUN = "dryRun"
_NEAR_MISSES = re.compile(r"dry[_-]?run", re.IGNORECASE)


def is_dry_run(request: Request, extra: Mapping[str, Any]) -> bool:
    """True if a create asks for an estimate alone. Raises `InvalidRequest` for near misses, by which a video would be
    made and paid for; `extra` are the unknown fields of the body."""
    missed = [name for name in request.query_params if name != DRY_RUN and _NEAR_MISSES.fullmatch(name)]
    missed += [name for name in extra if _NEAR_MISSES.fullmatch(name)]
    if missed:
        raise errors.InvalidRequest(
            f"{missed[0]}: for an estimate, send ?{DRY_RUN}=true with the address, in this spelling; to make the "
            "video, leave it out",
            param=missed[0],
            code="invalid_value",
        )
    given = {value.lower() for value in request.query_params.getlist(DRY_RUN)} or {"false"}
    for answer, forms in ((True, {"true", "1"}), (False, {"false", "0"})):
        if given <= forms:
            return answer
    raise errors.InvalidRequest(f"{DRY_RUN}: expected true or false, once", param=DRY_RUN, code="invalid_value")


# Rendering


def wants_routing(request: Request) -> bool:
    """True if the `metadata` of videos in this response has the routing beside the caller's own strings."""
    path: str = request.scope["route"].path
    return path.startswith(PREFIX) or request.headers.get(METADATA_HEADER, "").strip().lower() == "full"


def executed_model(video: Video) -> str:
    """The route that makes the video, `provider/upstream-model`; before a submit, the first one of its plan."""
    return f"{video.provider}/{video.upstream_model}" if video.provider else str(video.routes[0])


def routing_headers(video: Video) -> dict[str, str]:
    """Headers with the provider and the route of a video, percent-encoded: a model's name may have any character."""
    route = executed_model(video)
    return {"x-gateway-provider": quote(route.partition("/")[0]), "x-gateway-model": quote(route, safe="/:@+,;=()")}


def routing_of(video: Video, attempts: Sequence[Attempt], providers: Mapping[str, Provider]) -> dict[str, Any]:
    """The routing of a video for its `metadata`; `attempts` are all of the video, oldest first."""
    route = executed_model(video)
    name = route.partition("/")[0]
    cost = pricing.dollars(video.cost_micros)
    accepted = [attempt for attempt in attempts if attempt.upstream_ref is not None]
    made = [attempt for attempt in accepted if attempt.state is AttemptState.succeeded] or accepted[-1:]
    return {
        "model": video.model,
        "executed_model": route,
        "provider": name,
        "provider_name": providers[name].title if name in providers else name,
        "upstream_id": made[0].upstream_ref if made else None,
        **({"cost_estimate": pricing.dollars(video.cost_estimate_micros)} if cost is None else {"cost": cost}),
        "cost_currency": "USD",
        "attempts": [_attempt(attempt) for attempt in attempts if _was_tried(attempt)],
    }


def _was_tried(attempt: Attempt) -> bool:
    return attempt.state is not AttemptState.pending or attempt.submitted_at is not None


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "provider": attempt.provider,
        "executed_model": f"{attempt.provider}/{attempt.upstream_model}",
        "status": str(attempt.state),
        "upstream_id": attempt.upstream_ref,
        "error_code": attempt.error_code,
    }


# Money


def render_balance(billing: Billing, left_micros: int | None) -> dict[str, Any]:
    """The balance of a project; unlike Lumenfall's, the amount can be null."""
    return {
        "object": "balance",
        "billing_type": str(billing),
        "available": {"amount": pricing.dollars(left_micros), "currency": "usd"},
    }


def render_estimate(request: VideoRequest, plan: Plan, gateway: Gateway) -> dict[str, Any]:
    """The response to `?dryRun=true`; no total and a warning if the price or the length is
    unknown."""
    route = plan.routes[0]
    found = pricing.estimate(gateway.settings, route, request)
    components = [] if found is None else _components(found)
    hold = pricing.quote(gateway.settings, plan.routes, plan.request).hold_micros
    at_most = None if hold is None else hold * plan.request.n
    warnings = [*plan.warnings, *([] if found else [pricing.no_estimate(gateway.settings, route, request)])]
    return {
        "estimated": True,
        "model": request.model,
        "provider": route.provider.name,
        "total_cost_micros": found.micros if found else None,
        "currency": "USD",
        "components": components,
        "cost_estimate": pricing.dollars(None if found is None else found.micros),
        "cost_at_most": pricing.dollars(at_most),
        "routes": [choice.stored for choice in plan.choices],
        **({"warnings": warnings} if warnings else {}),
    }


def _components(found: pricing.Estimate) -> list[dict[str, Any]]:
    """The cost by length, and what is added for the tasks themselves."""
    seconds, outputs = found.billable_seconds, found.outputs
    by_length = round(seconds * found.formula.per_second) * outputs
    component = {
        "type": "output",
        "metric": "second",  # inferred: Lumenfall shows this for images only
        "quantity": _whole(found.seconds * outputs),
        "billable_quantity": _whole(seconds * outputs),
        "unit_price": found.formula.per_second / pricing.MICROS,
        "total_cost": by_length,
    }
    rest = found.micros - by_length
    added = {
        "type": "output",
        "metric": "task",
        "quantity": outputs,
        "billable_quantity": outputs,
        "unit_price": rest / outputs / pricing.MICROS,
        "total_cost": rest,
    }
    return [component, *([added] if rest else [])]


def _whole(number: float) -> float:
    """The number as an integer where it is whole: Lumenfall documents integers."""
    return int(number) if number == int(number) else number
