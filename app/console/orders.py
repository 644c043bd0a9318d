"""Orders of the playground: the model of a form, its price before the button, and the videos that it makes."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app import errors
from app.accounts import budgets, pricing
from app.accounts.auth import Caller
from app.capabilities import Capabilities, union_of
from app.console import form
from app.console.form import APP, COMPARED, Field, Given
from app.console.model_facts import able_of
from app.console.pages import format_usd
from app.console.snippets import snippets_of
from app.http.body import Body, fingerprint
from app.http.context import Gateway, get_video
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
from app.jobs.choose import NO_WISHES, Choice
from app.jobs.enqueue import Created, Idempotency
from app.jobs.plan import Plan
from app.providers.routing import Route
from app.video import Operation, VideoRequest

ASK_ABOVE_MICROS, ASK_ABOVE_VIDEOS = 1_000_000, 3
"""Estimate and number of videos above which the page asks before it creates them."""
MAX_DIGITS = 16
MODES = {"generate": "New", "remix": "Remix", "edit": "Edit", "extend": "Extend"}
_NOTHING = Capabilities(operations=frozenset())


@dataclass(frozen=True)
class Target:
    """The model of a form, and the fields that it has."""

    name: str
    candidates: Sequence[Route]
    fields: Sequence[Field]

    def fitting(self, values: Mapping[str, str]) -> set[str]:
        """The names of the fields whose given values this model can take."""
        return {one.name for one in self.fields if one.name in values and one.fits(values[one.name])}


@dataclass(frozen=True)
class Price:
    """The cost of a form, or the reason why it cannot be made."""

    words: str
    micros: int = 0
    """The amount that is held for all of it, as far as it is known."""
    problem: errors.GatewayError | None = None
    choices: Sequence[Choice] = ()
    warnings: Sequence[str] = ()
    others: Sequence[str] = ()
    """The costs of the models that it is compared with, and of all together."""
    asks: bool = False
    """True: the page asks before it creates this."""
    code: Mapping[str, str] | None = None


def mode_of(given: Mapping[str, str]) -> Operation:
    """The mode of a form. Raises `InvalidRequest`."""
    mode = given.get("mode", "generate")
    if mode not in MODES:
        raise errors.InvalidRequest(f"mode: expected one of {', '.join(MODES)}", param="mode")
    return Operation(mode)


def operations_of(gateway: Gateway, caller: Caller, route_name: str) -> frozenset[Operation]:
    """The operations of a route that a caller may use; none for one that is not there any more."""
    try:
        found = gateway.router.routes(route_name)
    except errors.ModelNotFound:
        return frozenset()
    return union_of([one.capabilities for one in found if caller.may_use(route_name, one)] or [_NOTHING]).operations


async def target_of(gateway: Gateway, caller: Caller, given: Mapping[str, str]) -> Target | None:
    """The model of a form; of a source the one that made it. None for one that the caller may not use."""
    mode = mode_of(given)
    if mode is Operation.generate:
        name = given.get("model", "")
        candidates = gateway.router.permitted_models(caller.may_use, every=True).get(name)
        return Target(name, candidates, form.fields_of(able_of(candidates))) if candidates else None
    if "from" not in given:
        return None
    source = await get_video(gateway, caller, given["from"])
    try:
        candidates = gateway.router.routes(source_model(source))
    except errors.ModelNotFound:
        return None
    fields = [form.seconds_field(able_of(candidates))] if mode.lengthens else []
    return Target(source.model, candidates, fields)


async def _read(
    gateway: Gateway, caller: Caller, given: Given, uploads: Uploads
) -> tuple[VideoRequest, dict[str, Any]]:
    """The request of a form, and where it may go. Raises `InvalidRequest`, `NotFound`."""
    mode = mode_of(given.values)
    if mode is Operation.generate:
        request = form.read_request(given, uploads)
        return request, {"only_provider": await characters_provider(gateway, caller, request)}
    if "from" not in given.values:
        raise errors.InvalidRequest("Choose a video first.", param="from", code="missing_parameter")
    source = await get_finished_video(gateway, caller, given.values["from"])
    plain = form.read_request(Given({"model": "-", **_of_mode(given, mode)}), uploads)
    request = request_from_source(
        source, plain.prompt, source_model(source), mode, {}, seconds=plain.seconds if mode.lengthens else None
    )
    return request, {"only_provider": source.provider, "shown_model": source.model}


def _of_mode(given: Given, mode: Operation) -> dict[str, str]:
    """The fields that a remix, an edit or an extension has."""
    names = ("prompt", "seconds") if mode.lengthens else ("prompt",)
    return {name: given.values[name] for name in names if name in given.values}


async def create_all(gateway: Gateway, caller: Caller, given: Given, body: Body) -> list[Created | errors.GatewayError]:
    """Create the video of a form, and those of the models that it is compared with; the errors of the latter stand in
    their places. Raises what `create_job` raises for the first, and `InvalidRequest` for much more money than the form
    has shown."""
    await _require_agreed(gateway, caller, given)
    made: list[Created | errors.GatewayError] = []
    for number, variant in enumerate(await variants(gateway, caller, given)):
        content = fingerprint({**body, "retry": None, "variant": number}, operation=APP)
        try:
            made.append(await _create(gateway, caller, variant, content, number))
        except errors.GatewayError as error:
            if not made:
                raise
            made.append(error)
    return made


async def _require_agreed(gateway: Gateway, caller: Caller, given: Given) -> None:
    """Require that the form has shown what is held for it, if that is much: its price may be older than its fields."""
    shown = given.values.get("agreed", "")
    agreed = int(shown) if shown.isdecimal() and len(shown) < MAX_DIGITS else 0
    total = sum([quote.held_micros or 0 for quote in await _quotes(gateway, caller, given)])
    if total > max(agreed, ASK_ABOVE_MICROS):
        message = f"this may cost {format_usd(total)}, more than the price that was shown; look at it and send it again"
        raise errors.InvalidRequest(message, code="price_changed")


async def _create(gateway: Gateway, caller: Caller, given: Given, content: str, number: int) -> Created:
    uploads = Uploads(new_video_id(), gateway.settings.allow_networks)
    request, where = await _read(gateway, caller, given, uploads)
    # With the content in it, a form that was changed after a lost answer makes what it says now.
    retry = f"console {given.values.get('retry') or secrets.token_urlsafe(16):.40} {number} {content[:16]}"
    return await create_job(
        gateway,
        caller,
        request,
        uploads,
        dialect="openai",
        app=APP,
        idempotency=Idempotency(retry, content, gateway.clock()),
        **where,
    )


async def variants(gateway: Gateway, caller: Caller, given: Given) -> list[Given]:
    """The form for its own model, then for each model that it is compared with: those of its fields that the model has.
    Raises `InvalidRequest` for a model that the caller may not use."""
    found = [given]
    if mode_of(given.values) is not Operation.generate:
        return found
    for name in COMPARED:
        if name not in given.values:
            continue
        values = {**given.values, "model": given.values[name]}
        target = await target_of(gateway, caller, values)
        if target is None:
            message = f"{given.values[name][:100]}: this model is not among yours; open the page again"
            raise errors.InvalidRequest(message, param=name)
        media = {f"{one.name}_file" for one in target.fields if one.kind == "media"}
        chosen = {f"{one.name}_chosen" for one in target.fields if one.kind == "media"}
        kept = {"model", "prompt", "retry", *target.fitting(values), *chosen}
        found.append(
            Given(
                {name: value for name, value in values.items() if name in kept},
                {name: files for name, files in given.files.items() if name in media},
            )
        )
    return found


async def price_of(gateway: Gateway, caller: Caller, given: Given, origin: str) -> Price:
    """The cost of a form, or the reason why it cannot be made, in words; with it those of the compared models."""
    try:
        code = snippets_of(given, origin)
        quotes = await _quotes(gateway, caller, given)
    except errors.GatewayError as error:
        return Price(error.message, problem=error)
    plan = quotes[0].plan
    others = [f"{quote.model}: {quote.words}" for quote in quotes[1:]]
    if plan is None:
        return Price(quotes[0].words, problem=quotes[0].problem, others=others, code=code)
    known = [quote.held_micros for quote in quotes if quote.held_micros is not None]
    total = sum(known)
    if others:
        unknown = any(quote.plan is not None and quote.held_micros is None for quote in quotes)
        others.append(f"together {'at least' if unknown else 'at most'} {format_usd(total)}")
    words = quotes[0].words
    async with gateway.db.reading() as connection:
        left = await budgets.available(connection, [caller.project_id], key_id=caller.key_id, now=gateway.clock())
    micros = left[caller.project_id][1]
    if micros is not None and micros < total:
        words += f". {format_usd(micros)} is left: the operator can raise the limit or add credit"
    count = plan.request.n * len([quote for quote in quotes if quote.plan is not None])
    asks = total > ASK_ABOVE_MICROS or count > ASK_ABOVE_VIDEOS
    return Price(words, total, choices=plan.choices, warnings=plan.warnings, others=others, asks=asks, code=code)


@dataclass(frozen=True)
class _Quote:
    """The cost of one model's video, or the reason why it cannot be made."""

    model: str
    words: str
    held_micros: int | None = None
    """The amount that is held until it ends: the cost at the dearest route that may be used. None: not known."""
    plan: Plan | None = None
    problem: errors.GatewayError | None = None


async def _quotes(gateway: Gateway, caller: Caller, given: Given) -> list[_Quote]:
    return [await _quote(gateway, caller, variant) for variant in await variants(gateway, caller, given)]


async def _quote(gateway: Gateway, caller: Caller, given: Given) -> _Quote:
    model = given.values.get("model", "")
    try:
        values = {"prompt": "a video", **given.values}
        request, where = await _read(gateway, caller, replace(given, values=values), Uploads("video_"))
        plan = plan_request(gateway, caller, request, routing=NO_WISHES, **where)
    except errors.GatewayError as error:
        return _Quote(model, error.message, problem=error)
    kept = [choice for choice in plan.choices if choice.kept]
    first, known = kept[0], [choice.micros for choice in kept if choice.micros is not None]
    count = f"{plan.request.n} x " if plan.request.n > 1 else ""
    length = "the model's length" if plan.request.seconds is None else f"{plan.request.seconds:g} s"
    if first.micros is None:
        found = pricing.no_estimate(gateway.settings, first.route, plan.request)
        words = f"{found[0].upper()}{found[1:]}."
    else:
        words = f"≈ {format_usd(first.micros)} for {count}{length} at {first.route.name}"
        if len(known) < len(kept):
            words += ", and unknown if another route has to make it"
        elif max(known) > first.micros:
            words += f", at most {format_usd(max(known))} if another route has to make it"
    return _Quote(model, words, max(known, default=None), plan)
