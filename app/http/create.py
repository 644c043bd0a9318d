"""What all dialects share: who is asking, how uploads are kept, how a job is created, how a file is answered."""

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from io import BytesIO
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import Depends, Request
from fastapi.responses import Response, StreamingResponse
from starlette.datastructures import UploadFile

from app import errors, ids
from app.accounts import keys
from app.accounts import pricing as prices
from app.accounts.keys import Authenticator, Caller
from app.db.database import Database, is_unavailable
from app.db.listener import Bell
from app.db.models import Video
from app.http.body import Body, fingerprint
from app.http.openapi import BearerKey
from app.jobs import enqueue as intake
from app.jobs import videos
from app.jobs.durations import Typical
from app.media import mp4
from app.media import store as media
from app.media.signed_links import SignedLinks
from app.providers.base import Provider
from app.providers.routing import Plan, Router
from app.settings import Settings
from app.video import Media, Operation, Status, VideoRequest, Webhook
from app.webhooks import endpoints as webhooks
from app.webhooks import signing
from app.webhooks.sender import Sender

MAX_IDEMPOTENCY_CHARACTERS = 256
MAX_APP_CHARACTERS = 200
MAX_MEDIA = 20
"""Of one request, files and addresses alike: each is fetched or sent on by the worker."""


@dataclass(frozen=True)
class Gateway:
    """Everything a handler may need; made once in `main.py`."""

    settings: Settings
    db: Database
    providers: Mapping[str, Provider]
    router: Router
    store: media.Store
    links: SignedLinks
    authenticator: Authenticator
    sender: Sender
    """Calls webhooks; handlers only use it to send a test."""
    clock: Callable[[], datetime]
    bell: Bell
    typical: Typical
    wake: Callable[[], None]
    """Tells the worker of this process, if there is one, that a job was created or cancelled."""


def gateway_of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


async def _gateway_of(request: Request) -> Gateway:
    """A dependency that is no coroutine would be run in a thread."""
    return gateway_of(request)


async def caller_of(request: Request) -> Caller:
    """Raises `AuthenticationFailed`, and `RateLimited` when the key has made its requests of the minute. The key is all
    that follows the scheme, so it may contain blanks."""
    gateway = gateway_of(request)
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme and scheme.lower() != "bearer":
        raise errors.AuthenticationFailed("send the API key as `Authorization: Bearer <key>`")
    caller = await gateway.authenticator.authenticate(key.strip())
    if caller.requests_per_minute is not None:
        left = await keys.count_request(gateway.db, caller, now=gateway.clock())
        request.scope["gateway_headers"].extend(left)
    return caller


GatewayDep = Annotated[Gateway, Depends(_gateway_of)]
CallerDep = Annotated[Caller, Depends(BearerKey("api_key", "An API key of this gateway.", caller_of))]


# Media in a request


@dataclass
class Uploads:
    """Collects the files of one request; they are stored once the request is known to be good."""

    video_id: str
    files: list[tuple[Media, BinaryIO]] = field(default_factory=list)
    read: int = 0

    def media(self, value: Any, name: str) -> Media:
        """Read one medium: a file part, an http(s) or data URL, or an object that holds one as `image_url` or `url`.

        Raises `InvalidRequest`. Whether the bytes are a picture is judged in the job.
        """
        self.read += 1
        if self.read > MAX_MEDIA:
            raise errors.InvalidRequest(f"{name}: a request has at most {MAX_MEDIA} files and addresses", param=name)
        if isinstance(value, UploadFile):
            return self._add(value.file, value.filename, name)
        if isinstance(value, dict):
            given = [key for key in ("image_url", "video_url", "url", "file_id") if value.get(key) is not None]
            if len(given) != 1:
                raise errors.InvalidRequest(f"{name}: expected exactly one of image_url and file_id", param=name)
            if given == ["file_id"]:
                raise errors.InvalidRequest(
                    f"{name}: this gateway keeps no files of its own; send the file itself or an image_url", param=name
                )
            value = value[given[0]]
            if isinstance(value, dict):  # {"image_url": {"url": ...}}, as in chat messages
                value = value.get("url")
        if isinstance(value, str):
            if value.startswith("data:"):
                return self._add(BytesIO(decode_data_url(value, name)), None, name)
            if re.match(r"(?i:https?)://[^/\s]+", value) and len(value) <= 8_192:
                return Media(url=value)
            if value.isdecimal():
                raise errors.InvalidRequest(
                    f"{name}: expected a file, got its bytes as numbers; in Node wrap the buffer with toFile()",
                    param=name,
                )
        raise errors.InvalidRequest(f"{name}: expected a file, an https:// URL or a data: URL", param=name)

    def _add(self, file: BinaryIO, filename: str | None, name: str) -> Media:
        head = file.read(64)
        file.seek(0)
        if not head:
            raise errors.InvalidRequest(f"{name}: the file is empty", param=name)
        key = f"uploads/{self.video_id}/{len(self.files)}"
        found = Media(key=key, content_type=mp4.sniff(head), filename=_plain_name(filename))
        self.files.append((found, file))
        return found

    async def store(self, gateway: Gateway) -> None:
        for upload, file in self.files:
            if upload.key is not None:
                limit = gateway.settings.max_body_mb * 2**20
                await gateway.store.put(upload.key, media.chunks_of(file), max_bytes=limit)

    async def discard(self, gateway: Gateway) -> None:
        if self.files:
            await gateway.store.delete([upload.key for upload, _ in self.files if upload.key is not None])


def decode_data_url(value: str, name: str) -> bytes:
    """Return the bytes of a `data:` URL in base 64. Raises `InvalidRequest`."""
    head, comma, payload = value.partition(",")
    if not comma or not head.endswith(";base64"):
        raise errors.InvalidRequest(f"{name}: expected data:<type>;base64,<data>", param=name)
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise errors.InvalidRequest(f"{name}: the data URL is not valid base 64", param=name) from None


def _plain_name(filename: str | None) -> str | None:
    """The last piece of a file name, without what could break out of a header."""
    name = re.sub(r"[^\w.\- ]", "_", (filename or "").replace("\\", "/").rpartition("/")[2])[-100:]
    return name or None


# One create for all dialects


async def create(
    gateway: Gateway,
    caller: Caller,
    request: VideoRequest,
    uploads: Uploads,
    *,
    dialect: str,
    app: str | None,
    only_provider: str | None = None,
    shown_model: str | None = None,
    idempotency: tuple[str, str] | None = None,
) -> intake.Created:
    """Check what the gateway itself knows, keep the uploads, write the job, wake the worker.

    `shown_model` is what the client calls the model where it did not name it itself; `idempotency` is the client's
    key and a hash of its request. What raises here leaves nothing behind: no job, no upload, no money held.
    """
    caller = await gateway.authenticator.check(caller)  # a body may take longer to come than its key lasts
    plan = plan_of(gateway, caller, request, only_provider=only_provider, shown_model=shown_model)
    key, hashed = idempotency or (None, None)
    try:
        await uploads.store(gateway)
        await gateway.authenticator.check(caller)
        created = await intake.create(
            gateway.db,
            plan.request.model_copy(update={"app": plan.request.app or app}),
            video_id=uploads.video_id,
            caller=caller,
            dialect=dialect,
            shown_model=shown_model or request.model,
            routes=[route.name for route in plan.routes],
            quote=prices.quote(gateway.settings, plan),
            warnings=plan.warnings,
            idempotency_key=key,
            idempotency_hash=hashed,
            deadline_s=gateway.settings.job_deadline_s,
            now=gateway.clock(),
        )
    except BaseException as error:
        if not is_unavailable(error):  # a commit whose answer was lost may have happened: its job needs the files
            await uploads.discard(gateway)
        raise
    if created.replayed:
        await uploads.discard(gateway)
    gateway.wake()
    return created


def plan_of(
    gateway: Gateway,
    caller: Caller,
    request: VideoRequest,
    *,
    only_provider: str | None = None,
    shown_model: str | None = None,
) -> Plan:
    """Where the request may go: of the routes that can express it those that the key may use and, where money is
    limited, those with a price. Raises `ModelNotFound`, `PermissionDenied`, `InvalidRequest`, `InsufficientFunds`."""
    plan = gateway.router.plan(
        request, only_provider=only_provider, permitted=partial(caller.may_use, shown_model or request.model)
    )
    return prices.only_priced(gateway.settings, plan) if caller.limited else plan


def app_of(request: Request) -> str | None:
    """The application that asks, as it calls itself in `X-App-ID`; for the operator's accounts."""
    name = "".join(filter(str.isprintable, request.headers.get("x-app-id", ""))).strip()
    return name[:MAX_APP_CHARACTERS] or None


def idempotency_of(request: Request, body: Body, operation: str = "create") -> tuple[str, str] | None:
    """Take the client's idempotency key out of the header or the body; returned with a hash of what was asked.

    Raises `InvalidRequest`.
    """
    in_body: Any = body.pop("idempotency_key", None)
    key = request.headers.get("idempotency-key") or in_body
    if key is None:
        return None
    if not isinstance(key, str) or not key.strip() or len(key) > MAX_IDEMPOTENCY_CHARACTERS or not key.isprintable():
        raise errors.InvalidRequest(
            f"idempotency_key: expected 1 to {MAX_IDEMPOTENCY_CHARACTERS} printable characters",
            param="idempotency_key",
        )
    return key, fingerprint(body, operation=operation)


def webhook_of(
    request: Request,
    body: Body,
    *,
    style: str = signing.STANDARD,
    url_field: str = "webhook_url",
    secret_field: str | None = "webhook_secret",  # noqa: S107  # the name of a field
) -> Webhook | None:
    """Take out of the body where the client wants to be told about the end. Raises `InvalidRequest`."""
    url: Any = body.pop(url_field, None)
    secret: Any = body.pop(secret_field, None) if secret_field is not None else None
    if url in (None, ""):
        if secret is not None:
            raise errors.InvalidRequest(f"{secret_field} is only of use with {url_field}", param=url_field)
        return None
    return webhooks.requested(
        url,
        secret,
        style=style,
        url_param=url_field,
        secret_param=secret_field or "",
        origin=str(request.base_url).rstrip("/"),
    )


def new_video_id() -> str:
    return ids.new("video")


async def get(gateway: Gateway, caller: Caller, video_id: str) -> Video:
    return await videos.get(gateway.db, video_id, owner=caller.owner)


# Starting from a video that exists


async def finished(gateway: Gateway, caller: Caller, video_id: str) -> Video:
    """A video of the caller's that can be worked on. Raises `NotFound`, `InvalidRequest`."""
    source = await get(gateway, caller, video_id)
    if source.status is not Status.completed:
        raise errors.InvalidRequest(f"the source video is {source.status}; it must be completed", param="video")
    return source


def model_of(source: Video) -> str:
    """The model that really made it: an alias may lead elsewhere by now."""
    return f"{source.provider}/{source.upstream_model}"


def based_on(
    source: Video,
    prompt: str,
    model: str,
    operation: Operation,
    extra: dict[str, Any],
    *,
    seconds: float | None = None,
) -> VideoRequest:
    """A request in the shape of `source`, and of its length where `seconds` names no other."""
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


async def wait_for(
    request: Request,
    gateway: Gateway,
    caller: Caller,
    video_id: str,
    *,
    until: Callable[[Video], bool],
    timeout_s: float,
) -> Video:
    """Read a video: at once when `until` says yes of it, else as soon as it does, the time is up, or the client is
    gone. Waiting costs no query. Raises `AuthenticationFailed` when the key is revoked meanwhile, `RateLimited` when it
    has too many requests waiting."""
    if timeout_s > 0:
        may_wait(gateway, caller)
    with gateway.bell.listening(video_id, caller.key_id) as rung:
        video = await get(gateway, caller, video_id)
        if until(video) or timeout_s <= 0:
            return video
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            async with asyncio.timeout(timeout_s):
                while not until(video) and not gone.done() and not gateway.bell.closed:
                    await _first(rung, gone)
                    rung.clear()
                    await gateway.authenticator.check(caller)
                    video = await get(gateway, caller, video_id)
        except TimeoutError:
            pass
        finally:
            gone.cancel()
        return video


def may_wait(gateway: Gateway, caller: Caller) -> None:
    """Raises `RateLimited` when the key holds as many requests in this process as it may."""
    if gateway.bell.waiting(caller.key_id) >= gateway.settings.max_waiting:
        raise errors.RateLimited(
            f"this key has {gateway.settings.max_waiting} requests waiting here; poll, or use webhooks",
            retry_after_s=1,
            code="too_many_waiting",
        )


async def _first(rung: asyncio.Event, gone: "asyncio.Future[None]") -> None:
    ring = asyncio.ensure_future(rung.wait())
    try:
        await asyncio.wait((ring, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        ring.cancel()


async def _disconnected(request: Request) -> None:
    with suppress(errors.PayloadTooLarge):  # nothing more is read of it, so its end would never be seen
        while (await request.receive())["type"] != "http.disconnect":
            pass


# Answering with a file


def media_url(video: Video, index: int, gateway: Gateway, request: Request) -> str:
    """A link that plays without a key until it expires, at the latest when the file goes."""
    origin = str(request.base_url).rstrip("/")
    return gateway.links.video(video.id, index, expires_at=video.expires_at, origin=origin)


async def file_response(
    request: Request, gateway: Gateway, key: str, *, size: int, tag: str, content_type: str, filename: str
) -> Response:
    """Stream a stored file: whole, one range of it, only the headers, or 304."""
    headers = {
        "accept-ranges": "bytes",
        "etag": tag,
        "cache-control": "private, max-age=3600",
        "content-disposition": f'inline; filename="{filename}"',
        "x-content-type-options": "nosniff",
    }
    known = [entry.strip().removeprefix("W/") for entry in request.headers.get("if-none-match", "").split(",")]
    if tag in known or known == ["*"]:
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range") if request.method == "GET" else None
    if request.headers.get("if-range", tag) != tag:
        wanted = None
    status, start, end = 200, 0, size
    span = media.parse_range(wanted, size)
    if span is not None:
        status, (start, end) = 206, span
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    headers["content-length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=content_type)
    chunks = await _begun(gateway.store.open(key, start, end))
    return StreamingResponse(chunks, status_code=status, headers=headers, media_type=content_type)


async def _begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, the first at hand: a file that is not there is an error, not an answer that breaks off."""
    first = await anext(chunks, b"")

    async def all_of_them() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return all_of_them()


async def content(
    request: Request, gateway: Gateway, video: Video, index: int, *, variant: Literal["video"] | media.Variant = "video"
) -> Response:
    """Answer with a finished file or a picture made from it."""
    output = stored_output(video, index, gateway.clock())
    name = f"{video.id}-{index}" if len(video.outputs) > 1 else video.id
    key, size, tag, content_type = output["key"], output["size"], media.etag(output["sha256"]), output["content_type"]
    suffix = {"video/webm": "webm", "video/quicktime": "mov"}.get(content_type, "mp4")
    if variant != "video":
        key, content_type = await media.variant(
            gateway.store, key, variant, output["duration_s"], gateway.settings.ffmpeg_timeout_s
        )
        tag, suffix = f'{tag[:-1]}-{variant}"', "webp" if variant == "thumbnail" else "jpg"
        size = await gateway.store.stat(key) or 0
    return await file_response(
        request, gateway, key, size=size, tag=tag, content_type=content_type, filename=f"{name}.{suffix}"
    )


def stored_output(video: Video, index: int, now: datetime) -> dict[str, Any]:
    """One finished file of a video. Raises `Conflict` while it is not finished, `VideoExpired`, `NotFound`."""
    if not video.status.ended:
        raise errors.Conflict(
            f"the video is {video.status}; download it once its status is completed", code="video_not_ready"
        )
    if video.status == "failed":
        raise errors.NotFound(f"the video failed, so it has no file: {video.error_message}", code="video_failed")
    if video.expires_at is not None and video.expires_at <= now:
        raise errors.VideoExpired(f"the video's files were kept until {video.expires_at:%Y-%m-%d %H:%M} UTC")
    for output in video.outputs:
        if output["index"] == index:
            found: dict[str, Any] = output
            return found
    raise errors.NotFound(f"the video has no output {index}", param="index")
