"""Administration API, providers: their circuits, queues and figures, a check, and the aliases that lead to them."""

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from app import errors
from app.accounts.audit import Actor
from app.admin import operation_responses as responses
from app.admin.schemas import listing
from app.admin.shown_settings import cleaner
from app.db.models import Attempt, ProviderHealth
from app.http.body import body_of, body_schema, validated
from app.http.context import Gateway, GatewayDep
from app.http.openapi import returns
from app.http.operator import ActorDep
from app.http.parameters import only_known_parameters
from app.http.responses import no_store
from app.jobs import breaker
from app.jobs.provider_figures import HOURS, Figures, Queue, read_figures
from app.providers import KIND_NAMES, unused_routes
from app.providers.check import Finding, check_provider
from app.providers.routing import Route
from app.setting_types import ModelSettings

routes = APIRouter(tags=["administration"], dependencies=[Depends(only_known_parameters)])

CHECK_S = 10
"""Time limit of a check."""
MAX_CIRCUITS, MAX_MODELS = 100, 200
"""Circuits of single projects, and models, that are listed of one provider."""


class CircuitChange(BaseModel):
    """POST /admin/v1/providers/{name}/breaker."""

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, json_schema_extra={"examples": [{"close": True}]}
    )

    close: Literal[True]
    """True closes all circuits of the provider."""


@routes.get("/admin/v1/providers", responses=returns(responses.ProviderList))
async def list_providers(gateway: GatewayDep) -> Response:
    """List the providers: circuit breaker, limit, queue, the figures of the last hour by submit and by end, the last
    error, and submits and failures of each of the last 24 hours. A provider that is not configured any more is listed
    while jobs still run there."""
    data, complete = await provider_objects(gateway)
    return no_store({**listing(data), "complete": complete})


async def provider_objects(gateway: Gateway) -> tuple[list[dict[str, Any]], bool]:
    """The documents of all providers. The second value is False when there were more attempts than are counted."""
    now = gateway.clock()
    async with gateway.db.reading() as connection:
        found = await read_figures(connection, now=now)
        circuits = await breaker.list_circuits(connection)
    models = _models_by_provider(gateway)
    data = []
    for name in [*gateway.providers, *(name for name in found.queues if name not in gateway.providers)]:
        provider = gateway.providers.get(name)
        data.append(
            {
                "name": name,
                "object": "provider",
                "kind": provider.kind if provider is not None else None,
                "configured": provider is not None,
                "breaker": _breaker([health for health in circuits if health.name == name], now),
                "limit": provider.config.concurrency if provider is not None else None,
                **_queue(found.queues.get(name, Queue()), now),
                **_figures(found.figures.get(name, Figures()), now),
                "models": models.get(name, [])[:MAX_MODELS],
            }
        )
    return data, found.complete


@routes.post(
    "/admin/v1/providers/{name}/breaker",
    responses=returns(responses.ReleasedBreaker),
    openapi_extra=body_schema(CircuitChange),
)
async def release_breaker(name: str, request: Request, gateway: GatewayDep, actor: ActorDep) -> Response:
    """Close the circuits of a provider, that of all projects and those of single ones, so that waiting jobs are
    submitted within seconds. They open again after five failures in a row."""
    async with body_of(request, CircuitChange) as body:
        validated(CircuitChange, body, keep_nulls=True)
    closed = await release_by_operator(gateway, actor, name)
    return no_store({"object": "provider.breaker", "provider": name, "closed": closed})


async def release_by_operator(gateway: Gateway, actor: Actor, name: str) -> int:
    """Close all circuits of a provider; returns the number of those that were open or counting. Raises `NotFound`."""
    async with gateway.db.transaction() as session:
        closed = await breaker.release(session, actor, name, now=gateway.clock()) if "\x00" not in name else 0
    if not closed and name not in gateway.providers:
        raise _no_such_provider(name)
    gateway.wake()
    return closed


@routes.post("/admin/v1/providers/{name}/check", responses=returns(responses.ProviderCheck))
async def check(name: str, gateway: GatewayDep) -> Response:
    """Reach a provider now and try its key by a free call, as `video-gateway providers --check` does."""
    return no_store(await check_by_operator(gateway, name))


async def check_by_operator(gateway: Gateway, name: str) -> dict[str, Any]:
    """The document of a check of a provider, which takes `CHECK_S` at most. Raises `NotFound`."""
    provider = gateway.providers.get(name)
    if provider is None:
        raise _no_such_provider(name)
    began = time.perf_counter()
    if provider.kind == "sandbox":
        found = Finding("ok", "it calls no vendor")
    else:
        try:
            async with asyncio.timeout(CHECK_S):
                found = await check_provider(provider, gateway.clock())
        except TimeoutError:
            found = Finding("failed", f"no answer within {CHECK_S} s", "check the network in between")
        found = found.cleaned(cleaner(gateway.settings))
    took = round((time.perf_counter() - began) * 1_000)
    return {"object": "provider.check", "provider": name, **vars(found), "duration_ms": took}


@routes.get("/admin/v1/models", responses=returns(responses.AliasList))
async def list_aliases(gateway: GatewayDep) -> Response:
    """List the aliases of the settings: their routes and weights as configured, and where each route leads. All models
    that can be requested are listed at `GET /v1/models`."""
    problems = unused_routes(gateway.settings, gateway.providers, KIND_NAMES)
    usable = gateway.router.models(every=False)
    data = []
    for name, alias in gateway.router.aliases.items():
        reasons = {one.name: one.reason for one in problems.get(name, ())}
        data.append(_alias(name, alias, list(usable.get(name, ())), reasons))
    return no_store(listing(data))


def _no_such_provider(name: str) -> errors.NotFound:
    message = f"no provider is called {name!r:.80}; GET /admin/v1/providers lists them"
    return errors.NotFound(message, param="name")


def _models_by_provider(gateway: Gateway) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for model, candidates in gateway.router.models(every=False).items():
        for route in candidates:
            found.setdefault(route.provider.name, []).append({"model": model, "route": route.name})
    return found


def _breaker(circuits: list[ProviderHealth], now: datetime) -> dict[str, Any]:
    common = next((health for health in circuits if health.project_id == breaker.ALL_PROJECTS), None)
    single = [health for health in circuits if health.project_id != breaker.ALL_PROJECTS][:MAX_CIRCUITS]
    return {**_circuit(common, now), "projects": [{"project": h.project_id, **_circuit(h, now)} for h in single]}


def _circuit(health: ProviderHealth | None, now: datetime) -> dict[str, Any]:
    if health is None or health.open_until is None:
        return {"state": "closed", "failures": health.failures if health is not None else 0, "open_until": None}
    state = "open" if health.open_until > now else "half_open"
    return {"state": state, "failures": health.failures, "open_until": health.open_until.isoformat()}


def _queue(queue: Queue, now: datetime) -> dict[str, Any]:
    oldest_s = None if queue.oldest is None else max(0, round((now - queue.oldest).total_seconds()))
    return {
        "under_way": queue.under_way,
        "waiting": queue.waiting,
        "oldest_wait_s": oldest_s,
        "storing": queue.storing,
    }


def _figures(figures: Figures, now: datetime) -> dict[str, Any]:
    ended, error = figures.succeeded + figures.failed, figures.last_error
    first = now - timedelta(hours=HOURS)
    return {
        "last_hour": {
            "submits": figures.submits,
            "succeeded": figures.succeeded,
            "failed": figures.failed,
            "success_rate": round(figures.succeeded / ended, 4) if ended else None,
            "failures": [{"code": code, "count": count} for code, count in figures.codes],
            "accepted_s": _percentiles(figures.accepted_s),
            "finished_s": _percentiles(figures.finished_s),
        },
        "last_error": _error(error) if error is not None else None,
        "hours": [
            {"start": (first + timedelta(hours=n)).isoformat(), "submits": submits, "failures": failures}
            for n, (submits, failures) in enumerate(figures.hours)
        ],
    }


def _percentiles(pair: tuple[float, float] | None) -> dict[str, float] | None:
    return None if pair is None else {"p50": round(pair[0], 3), "p95": round(pair[1], 3)}


def _error(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": (attempt.ended_at or attempt.submitted_at or attempt.created_at).isoformat(),
        "attempt": attempt.id,
        "video": attempt.video_id,
        "code": attempt.error_code,
        "message": attempt.error_message,
        "body": attempt.error_body,
    }


def _alias(name: str, alias: ModelSettings, usable: list[Route], reasons: Mapping[str, str]) -> dict[str, Any]:
    entries = []
    for number, entry in enumerate(alias.routes):
        to, weight = (entry, None) if isinstance(entry, str) else (entry.to, entry.weight)
        leads_to = [route.name for route in usable if route.entry == number]
        otherwise = "no provider here serves it"
        problem = None if leads_to else reasons.get(to, otherwise)
        entries.append({"to": to, "weight": weight, "leads_to": leads_to, "problem": problem})
    return {
        "name": name,
        "object": "alias",
        "usable": bool(usable),
        "routes": entries,
        **alias.model_dump(mode="json", exclude={"routes", "max_cost"}),
        "max_cost_usd": alias.max_cost,
    }
