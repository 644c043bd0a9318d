"""The playground: a form with what a model can do, its price before the button, and the videos that it makes."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from app import errors
from app.accounts import budgets
from app.accounts.auth import Caller
from app.capabilities import Capabilities, union_of
from app.console import form
from app.console.cards import COLUMNS, Card, card_of, cards_of
from app.console.form import APP, AnyFields, Field, Given
from app.console.guard import ConsoleRoute, KeyHolderDep, form_of, form_with_files
from app.console.model_facts import line_of
from app.console.pages import Values, base_of, format_usd, render
from app.console.snippets import is_of_request, snippets_of
from app.db.models import Video
from app.http.body import fingerprint
from app.http.context import Gateway, GatewayDep, get_video, origin_of
from app.http.create import (
    characters_provider,
    create_job,
    get_finished_video,
    new_video_id,
    plan_request,
    request_from_source,
    source_model,
)
from app.http.uploads import Uploads
from app.jobs import search
from app.jobs.choose import NO_WISHES, Choice
from app.jobs.enqueue import Created, Idempotency
from app.jobs.filters import Filters, State
from app.jobs.search import Wanted
from app.providers.routing import Route
from app.video import Operation, VideoRequest

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

LATEST, SOURCES = 12, 40
"""Videos that the page shows, and finished ones to choose a source from."""
ASK_ABOVE_MICROS, ASK_ABOVE_VIDEOS = 1_000_000, 3
"""Estimate and number of videos above which the page asks before it creates them."""
EXAMPLES = (
    "A paper boat drifts across a still pond at dawn, mist over the water, slow dolly shot",
    "A lighthouse in heavy rain, waves breaking on the rocks, the beam sweeping through the dark",
    "A ginger cat walks along a sunny garden wall and stops to look into the camera",
)
MODES = {"generate": "New", "remix": "Remix", "edit": "Edit", "extend": "Extend"}
DOES = {
    "remix": "Changes one of your videos as the prompt says.",
    "edit": "Edits one of your videos as the prompt says; the rest stays.",
    "extend": "Lets one of your videos go on as the prompt says.",
}


@dataclass(frozen=True)
class Target:
    """The model of a form, and the fields that it has."""

    name: str
    candidates: Sequence[Route]
    fields: Sequence[Field]

    @property
    def able(self) -> Capabilities:
        return union_of([route.capabilities for route in self.candidates])


@dataclass(frozen=True)
class Price:
    """The cost of a form, or the reason why it cannot be made."""

    words: str
    problem: errors.GatewayError | None = None
    choices: Sequence[Choice] = ()
    warnings: Sequence[str] = ()
    asks: bool = False
    """True: the page asks before it creates this."""
    code: Mapping[str, str] | None = None


@routes.get("/console/playground")
async def show_playground(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Show the form, filled in from the address or from the video `from`, and the latest videos."""
    given = {name: value for name, value in request.query_params.items() if value.strip()}
    if "from" in given and _mode_of(given) is Operation.generate:
        given = {**form.values_of((await get_video(gateway, caller, given.pop("from"))).request), **given}
    return await _page(request, gateway, caller, given)


@routes.post("/console/playground/fields")
async def show_fields(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Send the fields of the chosen model, with the values that are still valid; says which were dropped."""
    given = _texts(await form_of(request))
    target = await _target(gateway, caller, given)
    if target is None:
        raise errors.InvalidRequest("this model is not among yours; open the page again", param="model")
    fitting = {field.name for field in target.fields if field.name in given and field.fits(given[field.name])}
    lost = [name for name in given if is_of_request(name) and name not in ("model", "prompt", *fitting)]
    dropped = [name for name in lost if not name.endswith("_file")]
    kept = {name: value for name, value in given.items() if name not in lost}
    price = await _price(gateway, caller, Given(kept), origin_of(request))
    shown: dict[str, Any] = {
        "target": target,
        "facts": line_of(gateway, target.name, target.candidates),
        "given": Values(kept),
    }
    return await render(request, "_fields.html", dropped=dropped, price=price, is_part=True, **shown)


@routes.post("/console/playground/price")
async def show_price(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Send what the form as it is would cost, and the same request as code."""
    given = Given(_texts(await form_of(request)))
    price = await _price(gateway, caller, given, origin_of(request))
    return await render(request, "_price.html", price=price, is_part=True)


@routes.post("/console/playground")
async def create(request: Request, gateway: GatewayDep) -> Response:
    """Create the video of the form: its card for the page that is open, else a way to the video's page."""
    async with form_with_files(request, AnyFields) as (caller, body):
        given = Given.of(body)
        try:
            created = await _create(gateway, caller, given, fingerprint({**body, "retry": None}, operation=APP))
        except errors.GatewayError as error:
            if "hx-request" in request.headers:
                raise
            return await _page(request, gateway, caller, dict(given.values), error)
    if "hx-request" not in request.headers:
        return RedirectResponse(f"{base_of(request)}/videos/{created.video.id}", 303)
    return await render(
        request,
        "_made.html",
        card=card_of(created.video, gateway.clock()),
        retry=secrets.token_urlsafe(16),
        replayed=created.replayed,
    )


async def _page(
    request: Request,
    gateway: Gateway,
    caller: Caller,
    given: dict[str, str],
    problem: errors.GatewayError | None = None,
) -> Response:
    models = gateway.router.permitted_models(caller.may_use, every=False)
    mode = _mode_of(given)
    if mode is Operation.generate and given.get("model") not in models:
        default = gateway.router.default_model
        given["model"] = default if default in models else next(iter(models), "")
    sources = [] if mode is Operation.generate else await _sources(gateway, caller, mode)
    if mode is not Operation.generate and "from" not in given and sources:
        given["from"] = str(sources[0].row["id"])
    target = await _target(gateway, caller, given)
    latest = await search.find_page(gateway.db, Filters(caller.project_id), Wanted(LATEST), COLUMNS)
    price = Price("") if target is None else await _price(gateway, caller, Given(given), origin_of(request))
    return await render(
        request,
        "playground.html",
        status=200 if problem is None else problem.status_code,
        groups=_groups(gateway, models),
        modes=[(str(one), MODES[one]) for one in _modes(models)],
        mode=str(mode),
        does=DOES.get(mode, ""),
        sources=sources,
        target=target,
        facts=line_of(gateway, target.name, target.candidates) if target is not None else None,
        given=Values(given),
        problem=problem,
        examples=EXAMPLES,
        cards=cards_of(gateway, latest.rows, gateway.clock()),
        plays=True,
        only_sandbox=all(route.provider.kind == "sandbox" for found in models.values() for route in found),
        price=price,
        retry=secrets.token_urlsafe(16),
        is_part=False,
    )


def _texts(given: Mapping[str, str]) -> dict[str, str]:
    return {name: form.plain_text(value) for name, value in given.items() if value.strip()}


def _mode_of(given: Mapping[str, str]) -> Operation:
    """The mode of a form. Raises `InvalidRequest`."""
    mode = given.get("mode", "generate")
    if mode not in MODES:
        raise errors.InvalidRequest(f"mode: expected one of {', '.join(MODES)}", param="mode")
    return Operation(mode)


def _modes(models: Mapping[str, Sequence[Route]]) -> list[Operation]:
    """The modes that any model has."""
    able = {operation for found in models.values() for route in found for operation in route.capabilities.operations}
    return [Operation(mode) for mode in MODES if mode == "generate" or mode in able]


def _groups(gateway: Gateway, models: Mapping[str, Sequence[Route]]) -> dict[str, list[str]]:
    """The names of models for a menu: aliases, models of the catalogue, then those of each provider."""
    groups: dict[str, list[str]] = {}
    for name, candidates in models.items():
        if name in gateway.router.aliases:
            group = "Aliases"
        elif len(candidates) == 1 and name == candidates[0].name:
            group = candidates[0].provider.name
        else:
            group = "Models"
        groups.setdefault(group, []).append(name)
    return groups


async def _sources(gateway: Gateway, caller: Caller, mode: Operation) -> list[Card]:
    """The latest finished videos whose model has a mode."""
    filters = Filters(caller.project_id, states=[State.completed])
    found = await search.find_page(gateway.db, filters, Wanted(SOURCES), COLUMNS)
    cards = cards_of(gateway, found.rows, gateway.clock())
    return [card for card in cards if card.files and mode in operations_of(gateway, caller, card.provider)]


def operations_of(gateway: Gateway, caller: Caller, route_name: str) -> frozenset[Operation]:
    """The operations of a route that a caller may use; none for one that is not there any more."""
    try:
        found = gateway.router.routes(route_name)
    except errors.ModelNotFound:
        return frozenset()
    return union_of([one.capabilities for one in found if caller.may_use(route_name, one)] or [_NOTHING]).operations


_NOTHING = Capabilities(operations=frozenset())


async def _target(gateway: Gateway, caller: Caller, given: Mapping[str, str]) -> Target | None:
    """The model of a form; of a source the one that made it. None for one that the caller may not use."""
    mode = _mode_of(given)
    if mode is Operation.generate:
        name = given.get("model", "")
        candidates = gateway.router.permitted_models(caller.may_use, every=True).get(name)
        return Target(name, candidates, form.fields_of(_union(candidates))) if candidates else None
    if "from" not in given:
        return None
    source = await get_video(gateway, caller, given["from"])
    try:
        candidates = gateway.router.routes(source_model(source))
    except errors.ModelNotFound:
        return None
    fields = [form.seconds_field(_union(candidates))] if mode.lengthens else []
    return Target(source.model, candidates, fields)


def _union(candidates: Sequence[Route]) -> Capabilities:
    return union_of([route.capabilities for route in candidates])


async def _read(
    gateway: Gateway, caller: Caller, given: Given, uploads: Uploads
) -> tuple[VideoRequest, dict[str, Any]]:
    """The request of a form, and where it may go. Raises `InvalidRequest`, `NotFound`."""
    mode = _mode_of(given.values)
    if mode is Operation.generate:
        request = form.read_request(given, uploads)
        return request, {"only_provider": await characters_provider(gateway, caller, request)}
    if "from" not in given.values:
        raise errors.InvalidRequest("Choose a video first.", param="from", code="missing_parameter")
    source: Video = await get_finished_video(gateway, caller, given.values["from"])
    plain = form.read_request(replace(given, values={"model": "-", **_of_mode(given, mode)}), uploads)
    request = request_from_source(
        source, plain.prompt, source_model(source), mode, {}, seconds=plain.seconds if mode.lengthens else None
    )
    return request, {"only_provider": source.provider, "shown_model": source.model}


def _of_mode(given: Given, mode: Operation) -> dict[str, str]:
    """The fields that a remix, an edit or an extension has."""
    names = ("prompt", "seconds") if mode.lengthens else ("prompt",)
    return {name: given.values[name] for name in names if name in given.values}


async def _create(gateway: Gateway, caller: Caller, given: Given, fingerprinted: str) -> Created:
    uploads = Uploads(new_video_id(), gateway.settings.allow_networks)
    request, where = await _read(gateway, caller, given, uploads)
    retry = f"console {given.values.get('retry') or secrets.token_urlsafe(16):.40}"
    return await create_job(
        gateway,
        caller,
        request,
        uploads,
        dialect="openai",
        app=APP,
        idempotency=Idempotency(retry, fingerprinted, gateway.clock()),
        **where,
    )


async def _price(gateway: Gateway, caller: Caller, given: Given, origin: str) -> Price:
    """The cost of a form, or the reason why it cannot be made, in words."""
    values: dict[str, Any] = {"prompt": "a video", **given.values}
    try:
        code = snippets_of(given, origin)
        request, where = await _read(gateway, caller, replace(given, values=values), Uploads("video_"))
        plan = plan_request(gateway, caller, request, routing=NO_WISHES, **where)
    except errors.GatewayError as error:
        return Price(error.message, problem=error)
    first = next(choice for choice in plan.choices if choice.kept)
    count = f"{plan.request.n} x " if plan.request.n > 1 else ""
    seconds = f"{count}{plan.request.seconds:g} s" if plan.request.seconds is not None else f"{count}the model's length"
    if first.micros is None:
        words = "No price is known."
    else:
        words = f"≈ {format_usd(first.micros)} for {seconds} at {first.route.name}"
        async with gateway.db.reading() as connection:
            left = await budgets.available(connection, [caller.project_id], key_id=caller.key_id, now=gateway.clock())
        micros = left[caller.project_id][1]
        if micros is not None and micros < first.micros:
            words += f". {format_usd(micros)} is left: the operator can raise the limit or add credit"
    asks = (first.micros or 0) > ASK_ABOVE_MICROS or plan.request.n > ASK_ABOVE_VIDEOS
    return Price(words, choices=plan.choices, warnings=plan.warnings, asks=asks, code=code)
