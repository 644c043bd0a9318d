"""The playground: a form with what a model can do, its price before the button, and the videos that it makes."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import ValidationError

from app import errors
from app.accounts import pricing
from app.accounts.auth import Caller
from app.capabilities import Capabilities, union_of
from app.console.cards import COLUMNS, Card, card_of
from app.console.guard import ConsoleRoute, KeyHolderDep, form_of
from app.console.pages import Values, base_of, format_usd, render
from app.http.body import fingerprint
from app.http.context import Gateway, GatewayDep, get_video, origin_of
from app.http.create import create_job, new_video_id, plan_request
from app.http.uploads import Uploads
from app.jobs import search
from app.jobs.choose import Routing
from app.jobs.enqueue import Idempotency
from app.jobs.filters import Filters
from app.jobs.search import Wanted
from app.providers.routing import Route
from app.sizes import complete_by_size
from app.video import VideoRequest

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

APP = "console"
"""The application that usage reports show."""
LATEST = 12
EXAMPLES = (
    "A paper boat drifts across a still pond at dawn, mist over the water, slow dolly shot",
    "A lighthouse in heavy rain, waves breaking on the rocks, the beam sweeping through the dark",
    "A ginger cat walks along a sunny garden wall and stops to look into the camera",
)
SIZE_FIELDS = ("size", "aspect_ratio", "resolution")


@dataclass(frozen=True)
class Field:
    """One field of the form."""

    name: str
    label: str
    choices: Sequence[str] = ()
    """Values to choose from; empty: free text, or a number with limits."""
    kind: str = "text"
    """`text`, `number`, `select`, `check` or `area`."""
    least: float | None = None
    most: float | None = None
    hint: str = ""

    @property
    def is_rare(self) -> bool:
        """True for a field that stands behind the others."""
        return self.name not in ("seconds", *SIZE_FIELDS, "n")


def fields_of(able: Capabilities) -> list[Field]:
    """The fields that a model has, beside model and prompt."""
    found = [_seconds(able)]
    for name, label in (("size", "Size"), ("aspect_ratio", "Aspect ratio"), ("resolution", "Resolution")):
        values = getattr(able, {"size": "sizes", "aspect_ratio": "aspect_ratios", "resolution": "resolutions"}[name])
        if values is None and (name == "size" or able.sizes is None):
            found.append(Field(name, label, hint="the vendor decides"))
        elif values:
            found.append(Field(name, label, tuple(values), "select"))
    found.append(Field("n", "How many", ("1", "2", "3", "4"), "select"))
    if "seed" in able.parameters:
        found.append(Field("seed", "Seed", kind="number", hint="any"))
    if "negative_prompt" in able.parameters:
        found.append(Field("negative_prompt", "Not in it", kind="area"))
    if "generate_audio" in able.parameters:
        found.append(Field("generate_audio", "Sound", ("", "true", "false"), "select"))
    for name, label in (("first_frame", "First frame"), ("last_frame", "Last frame"), ("reference_video", "Reference")):
        if name in able.parameters:
            found.append(Field(name, f"{label}, an address", hint="https://..."))
    return found


def _seconds(able: Capabilities) -> Field:
    hint = "the model's own" if able.default_seconds is None else f"{able.default_seconds:g} if empty"
    if able.seconds is None:
        return Field("seconds", "Length in seconds", kind="number", least=0.1, hint=hint)
    if able.seconds_range:
        return Field("seconds", "Length in seconds", (), "number", able.seconds[0], able.seconds[1], hint)
    return Field("seconds", "Length in seconds", tuple(f"{length:g}" for length in able.seconds), "select", hint=hint)


@routes.get("/console/playground")
async def show_playground(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Show the form, filled in from the address or from the video `from`, and the latest videos."""
    given = {name: value for name, value in request.query_params.items() if value.strip()}
    if "from" in given:
        given = {**_values_of((await get_video(gateway, caller, given["from"])).request), **given}
    models = gateway.router.permitted_models(caller.may_use, every=False)
    model = given.get("model") or gateway.router.default_model
    if model not in models:
        model = next(iter(models), None)
    now = gateway.clock()
    latest = await search.find_page(gateway.db, Filters(caller.project_id), Wanted(LATEST), COLUMNS)
    return await render(
        request,
        "playground.html",
        models=models,
        model=model,
        fields=fields_of(_union(models[model])) if model is not None else (),
        given=Values(given),
        examples=EXAMPLES,
        cards=[Card(row, now) for row in latest.rows],
        only_sandbox=all(route.provider.kind == "sandbox" for found in models.values() for route in found),
        price=await _price(gateway, caller, given | {"model": model or ""}) if model is not None else "",
        retry=secrets.token_urlsafe(16),
    )


@routes.post("/console/playground/fields")
async def show_fields(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Send the fields of the chosen model, with the values that are still valid; says which were dropped."""
    form = await form_of(request)
    models = gateway.router.permitted_models(caller.may_use, every=False)
    candidates = models.get(form.get("model", ""))
    if not candidates:
        raise errors.InvalidRequest("this model is not among yours; open the page again", param="model")
    fields = fields_of(_union(candidates))
    given = {name: value for name, value in form.items() if value.strip()}
    kept = {
        field.name: given[field.name] for field in fields if field.name in given and _fits(field, given[field.name])
    }
    asked = [name for name in given if name not in ("model", "prompt", "csrf", "retry")]
    dropped = [name for name in asked if name not in kept]
    price = await _price(gateway, caller, {**kept, "model": form["model"], "prompt": given.get("prompt", "")})
    return await render(request, "_fields.html", fields=fields, given=Values(kept), dropped=dropped, price=price)


@routes.post("/console/playground/price")
async def show_price(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Send what the form as it is would cost."""
    return await render(request, "_price.html", price=await _price(gateway, caller, await form_of(request)))


@routes.post("/console/playground")
async def create(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Create the video of the form: its card for the page that is open, else a way to the video's page."""
    form = await form_of(request)
    uploads = Uploads(new_video_id(), gateway.settings.allow_networks)
    parsed = _parse(form, uploads)
    if not parsed.prompt.strip():
        raise errors.InvalidRequest("Describe the video first.", param="prompt", code="missing_parameter")
    content = {name: value for name, value in form.items() if name not in ("csrf", "retry")}
    created = await create_job(
        gateway,
        caller,
        parsed,
        uploads,
        dialect="openai",
        app=APP,
        idempotency=Idempotency(
            f"console {form.get('retry', '')[:40]}", fingerprint(content, operation=APP), gateway.clock()
        ),
        routing=Routing(),
    )
    if "hx-request" not in request.headers:
        return RedirectResponse(f"{base_of(request)}/videos/{created.video.id}", 303)
    card = card_of(created.video, gateway.clock())
    retry = secrets.token_urlsafe(16)
    return await render(request, "_made.html", card=card, retry=retry, request_json=_code(request, form))


def _union(candidates: Sequence[Route]) -> Capabilities:
    return union_of([route.capabilities for route in candidates])


def _fits(field: Field, value: str) -> bool:
    if field.kind == "select":
        return value in field.choices
    if field.kind == "number" and field.least is not None:
        try:
            return field.least <= float(value) <= (field.most or float("inf"))
        except ValueError:
            return False
    return True


def _parse(form: Mapping[str, str], uploads: Uploads) -> VideoRequest:
    """Read the form. Raises `InvalidRequest` that names the field."""
    given = {name: value.strip() for name, value in form.items() if value.strip()}
    values: dict[str, Any] = {"prompt": given.get("prompt", ""), "model": given.get("model", ""), "app": APP}
    for name in ("seconds", "n", "seed", "negative_prompt", "generate_audio"):
        if name in given:
            values[name] = given[name]
    for name in ("first_frame", "last_frame", "reference_video"):
        if name in given:
            values[name] = uploads.media(given[name], name)
    try:
        triple, _ = complete_by_size(*(given.get(name) for name in SIZE_FIELDS))
        return VideoRequest.model_validate({**values, **triple})
    except ValidationError as error:
        wrong = error.errors()[0]
        name = str(wrong["loc"][0]) if wrong["loc"] else "request"
        raise errors.InvalidRequest(f"{name}: {wrong['msg']}", param=name, code="invalid_value") from None
    except ValueError as error:
        name = str(error).partition(":")[0]
        raise errors.InvalidRequest(str(error), param=name, code="invalid_value") from None


async def _price(gateway: Gateway, caller: Caller, form: Mapping[str, str]) -> str:
    """The cost of the form, or the reason why it cannot be made, in words."""
    try:
        parsed = _parse({"prompt": "a", **{name: value for name, value in form.items() if value}}, Uploads("video_"))
        plan = plan_request(gateway, caller, parsed, routing=Routing())
    except errors.GatewayError as error:
        return error.message
    found = pricing.estimate(gateway.settings, plan.routes[0], plan.request)
    if found is None:
        return "No price is known."
    count = f"{plan.request.n} x " if plan.request.n > 1 else ""
    return f"≈ {format_usd(found.micros)} for {count}{found.seconds:g} s at {plan.routes[0].name}"


def _values_of(requested: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a stored request, for the form."""
    names = ("prompt", "model", "seconds", *SIZE_FIELDS, "n", "seed", "negative_prompt", "generate_audio")
    found = {name: requested[name] for name in names if requested.get(name) is not None}
    return {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in found.items()}


def _code(request: Request, form: Mapping[str, str]) -> str:
    """The same request for a terminal."""
    body = {name: value for name, value in form.items() if name not in ("csrf", "retry") and value.strip()}
    text = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    return (
        f'curl {origin_of(request)}/v1/videos \\\n  -H "Authorization: Bearer $OPENAI_API_KEY" \\\n'
        f"  -H 'content-type: application/json' \\\n  -d '{text}'"
    )
