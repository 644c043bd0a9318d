"""Job creation for all dialects: plan, uploads, idempotency, webhook; and requests based on a finished video."""

import re
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any

from fastapi import Request

from app import errors, ids
from app.accounts import pricing
from app.accounts.auth import Caller
from app.db.faults import read_fault
from app.db.models import Video
from app.http import request_facts
from app.http.body import Body, fingerprint
from app.http.context import Gateway, gateway_of, get_video, origin_of
from app.http.frames import fit_frames
from app.http.uploads import Uploads
from app.jobs import videos
from app.jobs.choose import NO_WISHES, Routing, Strategy
from app.jobs.enqueue import Created, Idempotency, NewJob, enqueue, find_replay
from app.jobs.plan import Plan, make_plan
from app.telemetry import traces
from app.video import Media, Operation, Status, VideoRequest, Webhook
from app.webhooks import endpoints, signing

MAX_IDEMPOTENCY_CHARACTERS = 256
MAX_APP_CHARACTERS = 200
ROUTING_HEADER, MAX_COST_HEADER = "x-gateway-routing", "x-gateway-max-cost"


async def create_job(
    gateway: Gateway,
    caller: Caller,
    request: VideoRequest,
    uploads: Uploads,
    *,
    dialect: str,
    app: str | None,
    only_provider: str | None = None,
    shown_model: str | None = None,
    routing: Routing = NO_WISHES,
    idempotency: Idempotency | None = None,
) -> Created:
    """Validate the request, store the uploads, create the job, wake the worker.

    `shown_model` is the model name that the client sees if its request names none; with `idempotency` the job of an
    earlier request may be returned. After an exception nothing remains: no job, no upload, no hold.
    """
    request_facts.note(model=shown_model or request.model)
    caller = await gateway.authenticator.check(caller)  # the key may have expired while the body was read
    try:
        plan = plan_request(
            gateway, caller, request, only_provider=only_provider, shown_model=shown_model, routing=routing
        )
        plan = await fit_frames(gateway, plan, request, uploads, caller.project_id)
    except errors.GatewayError:  # a repeated create gets its video, though prices or routes have changed since
        existing = idempotency and await find_replay(gateway.db, caller.project_id, idempotency)
        if not existing:
            raise
        request_facts.note_video(existing)
        return Created(existing, replayed=True)
    try:
        await uploads.store(gateway)
        await gateway.authenticator.check(caller)
        plan = replace(plan, request=plan.request.model_copy(update={"app": plan.request.app or app}))
        job = NewJob(
            video_id=uploads.video_id,
            caller=caller,
            dialect=dialect,
            model=shown_model or request.model,
            plan=plan,
            quote=pricing.quote(gateway.settings, plan.routes, plan.request),
            deadline_s=gateway.settings.job_deadline_s,
            request_id=request_facts.request_id(),
            traceparent=traces.traceparent(),
            idempotency=idempotency,
        )
        created = await enqueue(gateway.db, job, now=gateway.clock())
    except BaseException as error:
        fault = read_fault(error)
        if fault is None or fault.is_undone:  # else the commit may have succeeded, and the job needs the files
            await uploads.discard(gateway)
        raise
    request_facts.note_video(created.video)
    if created.replayed:
        await uploads.discard(gateway)
    else:
        gateway.listener.announce(caller.project_id, created.video.id)
    gateway.wake()
    return created


def plan_request(
    gateway: Gateway,
    caller: Caller,
    request: VideoRequest,
    *,
    only_provider: str | None = None,
    shown_model: str | None = None,
    routing: Routing = NO_WISHES,
) -> Plan:
    """Plan the routes of a request: those that can express it, that the key may use and, if spending is limited, that
    have a price. Raises `ModelNotFound`, `PermissionDenied`, `InvalidRequest`, `InsufficientFunds`."""
    permitted = partial(caller.may_use, shown_model or request.model)
    limits = [micros for micros in (routing.max_cost_micros, caller.max_cost_micros) if micros is not None]
    plan = make_plan(
        gateway.router,
        request,
        settings=gateway.settings,
        named=shown_model,
        only_priced=caller.limited,
        routing=replace(routing, max_cost_micros=min(limits, default=None)),
        times=gateway.durations.times,
        only_provider=only_provider,
        permitted=permitted,
    )
    return replace(plan, warnings=(*request.warnings, *endpoints.secret_warnings(request.webhook), *plan.warnings))


async def characters_provider(gateway: Gateway, caller: Caller, request: VideoRequest) -> str | None:
    """Return the provider of the request's characters: the video must be made where they are stored. Raises `NotFound`
    for one that is not the project's, `InvalidRequest` for those of several providers."""
    providers = set()
    for character_id in request.characters:
        async with gateway.db.reading() as connection:
            providers.add((await videos.get_character(connection, character_id, project_id=caller.project_id)).provider)
    if len(providers) > 1:
        raise errors.InvalidRequest(
            f"the characters live at different providers: {', '.join(sorted(providers))}", param="characters"
        )
    return next(iter(providers), None)


def take_routing(request: Request, body: Body) -> Routing:
    """Take the client's wishes about the choice of a route out of the body (`routing`, `max_cost`) and the headers
    (`X-Gateway-Routing`, `X-Gateway-Max-Cost`); of two limits the lower one counts. They are no part of the request
    that an idempotency key stands for. Raises `InvalidRequest`."""
    strategy = body.pop("routing", None) or request.headers.get(ROUTING_HEADER)
    limits = [_limit(limit) for limit in (body.pop("max_cost", None), request.headers.get(MAX_COST_HEADER))]
    if strategy is not None and strategy not in [*Strategy]:
        raise errors.InvalidRequest(f"routing: expected one of {', '.join(Strategy)}", param="routing")
    lowest = min((limit for limit in limits if limit is not None), default=None)
    return Routing(None if strategy is None else Strategy(strategy), lowest)


def _limit(limit: Any) -> int | None:
    """A highest cost in micros. Raises `InvalidRequest`."""
    if limit is None:
        return None
    try:
        micros = -1 if isinstance(limit, bool) else pricing.micros_of(Decimal(str(limit)))
    except (ValueError, ArithmeticError):
        micros = -1
    if micros < 0:
        message = "max_cost: expected US dollars, 0 or more, with at most six decimals"
        raise errors.InvalidRequest(message, param="max_cost")
    return micros


def app_name(request: Request) -> str | None:
    """The client application's name from `X-App-ID`, for usage reports."""
    name = "".join(filter(str.isprintable, request.headers.get("x-app-id", ""))).strip()
    return name[:MAX_APP_CHARACTERS] or None


def take_idempotency(request: Request, body: Body, operation: str = "create") -> Idempotency | None:
    """Take the client's idempotency key out of the header or the body; return it with a hash of the request. Without a
    key None, or the hash alone if retries are folded.

    Raises `InvalidRequest`.
    """
    in_body: Any = body.pop("idempotency_key", None)
    key = request.headers.get("idempotency-key") or in_body
    arrived_at = request.scope["gateway_arrived_at"]
    if key is None:
        if not gateway_of(request).settings.fold_retries:
            return None
        retries = request.headers.get("x-stainless-retry-count", "")
        return Idempotency(
            None,
            fingerprint(body, operation=operation),
            is_retry=re.fullmatch("0*[1-9][0-9]*", retries) is not None,
            arrived_at=arrived_at,
        )
    if not isinstance(key, str) or not key.strip() or len(key) > MAX_IDEMPOTENCY_CHARACTERS or not key.isprintable():
        raise errors.InvalidRequest(
            f"idempotency_key: expected 1 to {MAX_IDEMPOTENCY_CHARACTERS} printable characters",
            param="idempotency_key",
        )
    return Idempotency(key, fingerprint(body, operation=operation), arrived_at=arrived_at)


def take_webhook(
    request: Request,
    body: Body,
    *,
    style: str = signing.STANDARD,
    url_field: str = "webhook_url",
    secret_field: str | None = "webhook_secret",  # noqa: S107  # the name of a field
) -> Webhook | None:
    """Take the webhook's URL and secret out of the body. Raises `InvalidRequest`."""
    url: Any = body.pop(url_field, None)
    secret: Any = body.pop(secret_field, None) if secret_field is not None else None
    if url in (None, ""):
        if secret is not None:
            raise errors.InvalidRequest(f"{secret_field} is only of use with {url_field}", param=url_field)
        return None
    return endpoints.requested(
        url,
        secret,
        style=style,
        url_param=url_field,
        secret_param=secret_field or "",
        origin=origin_of(request),
        allow=gateway_of(request).settings.allow_networks,
    )


def new_video_id() -> str:
    return ids.new("video")


# Requests based on a finished video


async def get_finished_video(gateway: Gateway, caller: Caller, video_id: str) -> Video:
    """Return a completed video of the caller's project. Raises `NotFound`, `InvalidRequest`."""
    source = await get_video(gateway, caller, video_id)
    if source.status is not Status.completed:
        raise errors.InvalidRequest(f"the source video is {source.status}; it must be completed", param="video")
    if source.purged_at is not None:
        raise errors.InvalidRequest(
            "the source video was purged, so nothing can be made from it; use another video",
            param="video",
            code="video_purged",
        )
    return source


def source_model(source: Video) -> str:
    """The route that made the video: its alias may lead to another one by now."""
    return f"{source.provider}/{source.upstream_model}"


def request_from_source(
    source: Video,
    prompt: str,
    model: str,
    operation: Operation,
    extra: dict[str, Any],
    *,
    seconds: float | None = None,
) -> VideoRequest:
    """Build a request with the size of `source`, and with its length unless `seconds` is given."""
    original = VideoRequest.model_validate(source.request)
    measured = max((output["duration_s"] or 0 for output in source.outputs), default=0)
    return VideoRequest(
        prompt=prompt,
        model=model,
        operation=operation,
        source=Media(video_id=source.id, seconds=measured or None),
        seconds=seconds or original.seconds,
        size=original.size,
        aspect_ratio=original.aspect_ratio,
        resolution=original.resolution,
        extra=extra,
    )
