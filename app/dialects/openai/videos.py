"""The OpenAI dialect, at /v1 and /openai/v1: OpenAI's Videos API as its SDKs use it, with Lumenfall's extensions.

The routes; wire models and rendering are in `wire.py`.
"""

from functools import partial
from typing import Annotated, Literal

from fastapi import Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import UploadFile

from app import errors, ids
from app.accounts import budgets
from app.accounts.auth import Caller
from app.db import rows
from app.db.models import Video
from app.dialects.openai import (
    account,
    attempts,
    events,
    models,
    project_events,
    requests,
    schemas,
    webhook_deliveries,
    webhooks,
)
from app.dialects.openai.lumenfall import is_dry_run, refuse_replay, render_balance, render_estimate
from app.dialects.openai.responses import CREATED, DRY_RUN, answer, shown
from app.dialects.openai.router import AliasedRouter
from app.dialects.openai.wire import (
    CreateCharacter,
    CreateVideo,
    EditVideo,
    ExtendVideo,
    RemixVideo,
    parse,
    render_character,
)
from app.http import filters
from app.http.body import body_of, body_schema, extra_of, validated
from app.http.context import CallerDep, Gateway, GatewayDep, end_video, get_video
from app.http.create import (
    app_name,
    characters_provider,
    create_job,
    get_finished_video,
    new_video_id,
    plan_request,
    request_from_source,
    source_model,
    take_idempotency,
    take_routing,
    take_webhook,
)
from app.http.files import content_response
from app.http.frames import fit_frames
from app.http.openapi import FILE_HEADERS, VIDEO_TYPES, create_schema, file_responses, returns
from app.http.responses import no_store
from app.http.uploads import Uploads
from app.http.wait import wait_for_video
from app.jobs import videos
from app.jobs.choose import Routing
from app.jobs.enqueue import Idempotency
from app.jobs.plan import character_provider
from app.media.store import open_upload
from app.video import Operation, VideoRequest, Webhook

TITLE = "OpenAI, Lumenfall"
PREFIXES = ("/v1/", "/openai/v1/")
MAX_WAIT_S = 60
MAX_CHARACTERS_WAITING = 8
"""Characters of one project that may wait for a turn, per provider and process."""
SOURCE_NAMES = {"source": "video"}
"""The client's name of the source of an edit or an extension."""

routes = AliasedRouter(tags=["videos"])


async def _from_source(
    gateway: Gateway, caller: Caller, wire: EditVideo, uploads: Uploads, operation: Operation
) -> tuple[VideoRequest, Video | None]:
    """Return the request of an edit or an extension, and its source if that is a video of this gateway."""
    extra = extra_of(wire)
    seconds = wire.seconds if isinstance(wire, ExtendVideo) else None
    if isinstance(wire.video, dict) and "id" in wire.video:
        source = await get_finished_video(gateway, caller, str(wire.video["id"]))
        model = wire.model or source_model(source)
        derived = request_from_source(source, wire.prompt, model, operation, extra, seconds=seconds)
        return derived.model_copy(update={"client_names": SOURCE_NAMES}), source
    if not isinstance(wire.video, UploadFile):
        raise errors.InvalidRequest('video: expected a file or {"id": "video_..."}', param="video")
    found = wire.model or gateway.router.default_model
    if found is None:
        raise errors.InvalidRequest("model is required with an uploaded video", param="model")
    request = VideoRequest(
        prompt=wire.prompt,
        model=found,
        operation=operation,
        source=uploads.media(wire.video, "video"),
        seconds=seconds,
        extra=extra,
        client_names=SOURCE_NAMES,
    )
    return request, None


# Routes are matched in order, so the most frequent request comes first. Otherwise literal segments come before
# {video_id}; here the method tells them apart.


@routes.get("/v1/videos/{video_id}", responses=returns(schemas.Video))
async def retrieve_video(
    video_id: str,
    request: Request,
    gateway: GatewayDep,
    caller: CallerDep,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait for a change of the status.")] = 0,
) -> Response:
    """Read a video. Until it ends, the header `openai-poll-after-ms` suggests when to poll again. With `wait`, the
    response is delayed until the status changes, for at most that many seconds."""
    if wait == 0:
        return await answer(await get_video(gateway, caller, video_id), gateway, request)
    before = (await get_video(gateway, caller, video_id)).status
    video = await wait_for_video(
        request, gateway, caller, video_id, until=lambda v: v.status.ended or v.status is not before, timeout_s=wait
    )
    return await answer(video, gateway, request)


# Literal segments before {video_id}


@routes.post("/v1/videos", status_code=202, responses=CREATED, openapi_extra=create_schema(CreateVideo, DRY_RUN))
async def create_video(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create a video. Responds 202 at once; poll the video, or use the SDK's `create_and_poll`."""
    async with body_of(request, CreateVideo) as body:
        routing = take_routing(request, body)
        idempotency = take_idempotency(request, body)
        webhook = take_webhook(request, body)
        uploads = Uploads(new_video_id(), gateway.settings.allow_networks)
        parsed = parse(body, uploads, default_model=gateway.router.default_model)
        provider = await characters_provider(gateway, caller, parsed)
        return await _create(
            request, gateway, caller, parsed, uploads, idempotency, webhook, routing, only_provider=provider
        )


async def _create(
    request: Request,
    gateway: Gateway,
    caller: Caller,
    parsed: VideoRequest,
    uploads: Uploads,
    idempotency: Idempotency | None,
    webhook: Webhook | None,
    routing: Routing,
    *,
    only_provider: str | None = None,
    shown_model: str | None = None,
) -> Response:
    refuse_replay(request)
    parsed = parsed.model_copy(update={"webhook": webhook})
    if is_dry_run(request, parsed.extra):
        plan = plan_request(
            gateway, caller, parsed, only_provider=only_provider, shown_model=shown_model, routing=routing
        )
        plan = await fit_frames(gateway, plan, parsed, uploads, caller.project_id, dry=True)
        return no_store(render_estimate(plan.request, plan, gateway))
    created = await create_job(
        gateway,
        caller,
        parsed,
        uploads,
        dialect="openai",
        app=app_name(request),
        only_provider=only_provider,
        shown_model=shown_model,
        idempotency=idempotency,
        routing=routing,
    )
    status = 200 if created.replayed else 202
    response = await answer(created.video, gateway, request, status=status, untried=not created.replayed)
    if created.replayed:
        response.headers["idempotent-replayed"] = "true"
    return response


@routes.get("/v1/videos", responses=returns(schemas.VideoPage), openapi_extra={"parameters": [filters.METADATA]})
async def list_videos(
    request: Request, gateway: GatewayDep, caller: CallerDep, query: Annotated[filters.ListQuery, Query()]
) -> Response:
    """List your videos, newest first. Request the next page with `after=<last_id>` while `has_more` is true. The
    filters `user`, `app`, `provider`, `metadata` and `q` look at the first 20,000 videos that match the other ones, and
    `searched` says so."""
    wanted = query.filters(request, caller.project_id)
    columns = list(Video.__table__.columns)
    found = await filters.find_page(gateway, wanted, query.wanted, columns, holder=caller.project_id)
    page = [rows.read_only(Video, row) for row in found.rows]
    return no_store(filters.found_page(found, await shown(page, gateway, request)))


@routes.post("/v1/videos/edits", status_code=202, responses=CREATED, openapi_extra=create_schema(EditVideo, DRY_RUN))
async def edit_video(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create a video by editing one of yours or an uploaded one as the prompt says."""
    return await _derive(request, gateway, caller, EditVideo, Operation.edit)


@routes.post(
    "/v1/videos/extensions", status_code=202, responses=CREATED, openapi_extra=create_schema(ExtendVideo, DRY_RUN)
)
async def extend_video(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create a longer video from one of yours or an uploaded one."""
    return await _derive(request, gateway, caller, ExtendVideo, Operation.extend)


async def _derive(
    request: Request, gateway: Gateway, caller: Caller, wire_model: type[EditVideo], operation: Operation
) -> Response:
    async with body_of(request, wire_model) as body:
        routing = take_routing(request, body)
        idempotency = take_idempotency(request, body, str(operation))
        webhook = take_webhook(request, body)
        uploads = Uploads(new_video_id(), gateway.settings.allow_networks)
        wire = validated(wire_model, body)
        parsed, source = await _from_source(gateway, caller, wire, uploads, operation)
        where = _pinned_to(source) if source else {}
        if source and wire.model:
            where["shown_model"] = wire.model
        return await _create(request, gateway, caller, parsed, uploads, idempotency, webhook, routing, **where)


def _pinned_to(source: Video) -> dict[str, str | None]:
    """Arguments that create a derived video at its source's provider, under the model name that the client knows."""
    return {"only_provider": source.provider, "shown_model": source.model}


# Characters: stored at the upstream that created them


@routes.post(
    "/v1/videos/characters",
    responses=returns(schemas.VideoCharacter),
    openapi_extra=body_schema(CreateCharacter, json=False),  # multipart only, as OpenAI describes it
)
async def create_character(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create a reusable character from a video, at the provider of `model`, else at the first that supports it."""
    refuse_replay(request)
    uploads = Uploads(ids.new("char"), gateway.settings.allow_networks)
    try:
        async with body_of(request, CreateCharacter) as body:
            wire = validated(CreateCharacter, body)
            video = uploads.media(wire.video, "video")
            named = wire.model or gateway.router.default_model or ""
            caller = await gateway.authenticator.check(caller)
            provider = character_provider(gateway.router, wire.model, partial(caller.may_use, named))
            await uploads.store(gateway)
        turns = gateway.character_turns[provider.name]
        async with turns.of(caller.project_id, what="characters", max_waiting=MAX_CHARACTERS_WAITING):
            ref = await provider.create_character(wire.name, video, partial(open_upload, gateway.store))
    finally:
        await uploads.discard(gateway)
    async with gateway.db.transaction() as session:
        character = await videos.add_character(
            session,
            uploads.video_id,
            project_id=caller.project_id,
            name=wire.name,
            provider=provider.name,
            upstream_ref=ref,
            now=gateway.clock(),
        )
    return JSONResponse(render_character(character))


@routes.get("/v1/videos/characters/{character_id}", responses=returns(schemas.VideoCharacter))
async def get_character(character_id: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Read a character."""
    async with gateway.db.reading() as connection:
        return JSONResponse(
            render_character(await videos.get_character(connection, character_id, project_id=caller.project_id))
        )


# One video


routes.include_router(events.routes)


@routes.delete("/v1/videos/{video_id}", responses=returns(schemas.DeletedVideo))
async def delete_video(
    video_id: str,
    gateway: GatewayDep,
    caller: CallerDep,
    expect: Annotated[
        Literal["running", "ended"] | None,
        Query(description="The state that the client has seen: `running` never deletes, `ended` never cancels."),
    ] = None,
) -> Response:
    """Cancel a running video (it becomes failed, with the code `cancelled`), or delete one that has ended; one that was
    cancelled is kept for an hour, so that a repeated call does not delete it. If `expect` is not so, the video stays as
    it is, and the response is a 409."""
    await end_video(gateway, caller, video_id, has_ended=None if expect is None else expect == "ended")
    return JSONResponse({"id": video_id, "object": "video.deleted", "deleted": True})


@routes.post(
    "/v1/videos/{video_id}/remix", status_code=202, responses=CREATED, openapi_extra=create_schema(RemixVideo, DRY_RUN)
)
async def remix_video(video_id: str, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create a video by changing a finished one as the prompt says."""
    async with body_of(request, RemixVideo) as body:
        routing = take_routing(request, body)
        idempotency = take_idempotency(request, body, f"remix {video_id}")
        webhook = take_webhook(request, body)
        wire = validated(RemixVideo, body)
        extra = extra_of(wire)
    source = await get_finished_video(gateway, caller, video_id)
    parsed = request_from_source(source, wire.prompt, source_model(source), Operation.remix, extra)
    uploads = Uploads(new_video_id(), gateway.settings.allow_networks)
    return await _create(request, gateway, caller, parsed, uploads, idempotency, webhook, routing, **_pinned_to(source))


@routes.get(
    "/v1/videos/{video_id}/content",
    response_class=Response,
    responses=file_responses(*VIDEO_TYPES, "image/webp", "image/jpeg"),
    openapi_extra={"parameters": [*FILE_HEADERS]},
)
@routes.head("/v1/videos/{video_id}/content", include_in_schema=False)
async def download_content(
    video_id: str,
    request: Request,
    gateway: GatewayDep,
    caller: CallerDep,
    variant: Annotated[
        Literal["video", "thumbnail", "spritesheet"], Query(description="The video, or an image made from it.")
    ] = "video",
    index: Annotated[
        int | None, Query(ge=0, le=3, description="Which output; the first finished one if absent.")
    ] = None,
) -> Response:
    """Download the video file, a thumbnail (WebP) or a sprite sheet (JPEG). Supports ranges, ETags and HEAD."""
    video = await get_video(gateway, caller, video_id)
    return await content_response(request, gateway, video, index, variant=variant)


# Money


@routes.get("/v1/balance", tags=["models"], responses=returns(schemas.Balance))
async def show_balance(gateway: GatewayDep, caller: CallerDep) -> Response:
    """Read the amount that this key may still spend, by the balance or the budget that limits it most; null if none
    does. Lumenfall's shape."""
    async with gateway.db.reading() as connection:
        available = await budgets.available(connection, [caller.project_id], key_id=caller.key_id, now=gateway.clock())
    billing, left = available[caller.project_id]
    return no_store(render_balance(billing, left))


routes.include_router(project_events.routes)
routes.include_router(models.routes)
routes.include_router(account.routes)
routes.include_router(webhooks.routes)
routes.include_router(webhook_deliveries.routes)
routes.include_router(attempts.routes)
routes.include_router(requests.routes)
