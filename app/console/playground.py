"""The playground: a form with what a model can do, its price before the button, and the videos that it makes."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from app import errors
from app.accounts.auth import Caller
from app.console import form
from app.console.cards import COLUMNS, Card, card_of, cards_of
from app.console.form import COMPARED, AnyFields, Given
from app.console.guard import ConsoleRoute, KeyHolderDep, form_of, form_with_files
from app.console.model_facts import line_of
from app.console.orders import MODES, Price, create_all, mode_of, operations_of, price_of, target_of
from app.console.pages import Values, base_of, render
from app.console.snippets import is_of_request
from app.http.context import Gateway, GatewayDep, get_video, origin_of
from app.jobs import search
from app.jobs.enqueue import Created
from app.jobs.filters import Filters, State
from app.jobs.search import Wanted
from app.providers.routing import Route
from app.video import Operation

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

LATEST, SOURCES = 12, 40
"""Videos that the page shows, and finished ones to choose a source from."""
EXAMPLES = (
    "A paper boat drifts across a still pond at dawn, mist over the water, slow dolly shot",
    "A lighthouse in heavy rain, waves breaking on the rocks, the beam sweeping through the dark",
    "A ginger cat walks along a sunny garden wall and stops to look into the camera",
)
DOES = {
    "remix": "Changes one of your videos as the prompt says.",
    "edit": "Edits one of your videos as the prompt says; the rest stays.",
    "extend": "Lets one of your videos go on as the prompt says.",
}


@routes.get("/console/playground")
async def show_playground(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Show the form, filled in from the address or from the video `from`, and the latest videos."""
    given = {name: value for name, value in request.query_params.items() if value.strip()}
    notice = ""
    if "from" in given and mode_of(given) is Operation.generate:
        requested = (await get_video(gateway, caller, given.pop("from"))).request
        given = {**form.values_of(requested), **given}
        if lost := form.uploads_of(requested):
            notice = f"Uploaded files are not kept. Choose them again: {', '.join(lost)}."
    return await _page(request, gateway, caller, given, notice=notice)


@routes.post("/console/playground/fields")
async def show_fields(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Send the fields of the chosen model, with the values that are still valid; says which were dropped."""
    given = _texts(await form_of(request))
    target = await target_of(gateway, caller, given)
    if target is None:
        raise errors.InvalidRequest("this model is not among yours; open the page again", param="model")
    kept_names = {"model", "prompt", *target.fitting(given)}
    lost = [name for name in given if is_of_request(name) and name not in kept_names]
    names = {one.name for one in target.fields}
    files = [name for name in form.MEDIA_FIELDS if f"{name}_chosen" in given and name not in names]
    dropped = [form.LABELS.get(name, name) for name in (*lost, *files) if not name.endswith("_file")]
    kept = {name: value for name, value in given.items() if name not in lost}
    price = await price_of(gateway, caller, Given(kept), origin_of(request))
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
    price = await price_of(gateway, caller, given, origin_of(request))
    return await render(request, "_price.html", price=price, is_part=True)


@routes.post("/console/playground")
async def create(request: Request, gateway: GatewayDep) -> Response:
    """Create the video of the form: its card for the page that is open, else a way to the video's page."""
    async with form_with_files(request, AnyFields) as (caller, body):
        given = Given.of(body)
        try:
            made = await create_all(gateway, caller, given, body)
        except errors.GatewayError as error:
            if "hx-request" in request.headers:
                raise
            return await _page(request, gateway, caller, dict(given.values), error)
    created = [one for one in made if isinstance(one, Created)]
    if "hx-request" not in request.headers:
        where = f"videos/{created[0].video.id}" if len(made) == 1 else "videos"
        return RedirectResponse(f"{base_of(request)}/{where}", 303)
    return await render(
        request,
        "_made.html",
        cards=[card_of(one.video, gateway.clock()) for one in created],
        problems=[one for one in made if isinstance(one, errors.GatewayError)],
        retry=secrets.token_urlsafe(16),
        replayed=all(one.replayed for one in created),
    )


async def _page(
    request: Request,
    gateway: Gateway,
    caller: Caller,
    given: dict[str, str],
    problem: errors.GatewayError | None = None,
    *,
    notice: str = "",
) -> Response:
    models = gateway.router.permitted_models(caller.may_use, every=False)
    mode = mode_of(given)
    if mode is Operation.generate and given.get("model") not in models:
        wanted = given.get("model", "")
        named = gateway.router.permitted_models(caller.may_use, every=True).get(wanted)
        if named:
            models = {**models, wanted: named}
        else:
            default = gateway.router.default_model
            given["model"] = default if default in models else next(iter(models), "")
            if wanted:
                notice = f"You may not use {wanted[:100]}, or it is not there any more. {given['model']} is chosen."
    sources = [] if mode is Operation.generate else await _sources(gateway, caller, mode)
    if mode is not Operation.generate and "from" not in given and sources:
        given["from"] = str(sources[0].row["id"])
    target = await target_of(gateway, caller, given)
    latest = await search.find_page(gateway.db, Filters(caller.project_id), Wanted(LATEST), COLUMNS)
    price = Price("") if target is None else await price_of(gateway, caller, Given(given), origin_of(request))
    return await render(
        request,
        "playground.html",
        status=200 if problem is None else problem.status_code,
        groups=_groups(gateway, models),
        compared=COMPARED,
        modes=[(str(one), MODES[one]) for one in _modes(models)],
        mode=str(mode),
        does=DOES.get(mode, ""),
        sources=sources,
        target=target,
        facts=line_of(gateway, target.name, target.candidates) if target is not None else None,
        given=Values(given),
        problem=problem,
        notice=notice,
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
