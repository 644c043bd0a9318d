"""What all dialects share: who is asking, how a body is read, how uploads are kept, how a file is answered.

Bodies are decoded here rather than by FastAPI, because every POST takes JSON and multipart alike, with bracket names
as the SDKs write them, and because every refusal has to come in the dialect's own shape.
"""

import base64
import binascii
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

from fastapi import Depends, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from app import errors, ids, jobs, media, mp4, videos
from app.db import Database
from app.keys import Authenticator, Caller
from app.providers.base import Provider
from app.routing import Router
from app.settings import Settings
from app.tables import Video
from app.video import Media, VideoRequest

MAX_TEXT_PART_BYTES = 24 * 2**20
"""A data URL may have 20,971,520 characters."""
MAX_FIELDS = 1_000
MAX_FILES = 20
MAX_DEPTH = 32
MAX_IDEMPOTENCY_CHARACTERS = 256

Body = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Gateway:
    """Everything a handler may need; made once in `main.py`."""

    settings: Settings
    db: Database
    providers: Mapping[str, Provider]
    router: Router
    store: media.Store
    signer: media.Signer
    authenticator: Authenticator
    clock: Callable[[], datetime]
    wake: Callable[[], None]
    """Tells the worker of this process, if there is one, that a job was created or cancelled."""


def gateway_of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


async def caller_of(request: Request) -> Caller:
    """Raises `AuthenticationFailed`. The key is all that follows the scheme, so it may contain blanks."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme and scheme.lower() != "bearer":
        raise errors.AuthenticationFailed("send the API key as `Authorization: Bearer <key>`")
    return await gateway_of(request).authenticator.authenticate(key.strip())


GatewayDep = Annotated[Gateway, Depends(gateway_of)]
CallerDep = Annotated[Caller, Depends(caller_of)]


# Reading a body


@asynccontextmanager
async def body_of(request: Request) -> AsyncIterator[Body]:
    """Decode JSON, multipart or a URL-encoded form into one nested document; file parts are `UploadFile`s, open for as
    long as the block lasts.

    Raises `InvalidRequest` for what cannot be read or stored, `UnsupportedMediaType`, `PayloadTooLarge`.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        items = await _multipart(request)
    elif media_type == "application/x-www-form-urlencoded":
        items = await _form(request)
    elif media_type in ("", "application/json") or media_type.endswith("+json"):
        yield _checked(_json(await request.body()))
        return
    else:
        raise errors.UnsupportedMediaType(
            f"a body of type {media_type!r:.80} is not understood; send application/json or multipart/form-data"
        )
    try:
        yield _checked(_nest(items))
    finally:
        for _, value in items:
            if isinstance(value, UploadFile):
                await value.close()


def _json(raw: bytes) -> Body:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        document = json.loads(raw, parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # ValueError is also what broken UTF-8 raises
        where = f" at line {error.lineno} column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise errors.InvalidRequest(f"the body is not valid JSON{where}", code="invalid_json") from None
    if not isinstance(document, dict):
        raise errors.InvalidRequest("the body must be a JSON object", code="invalid_json")
    return document


class _WholeMultiPartParser(MultiPartParser):
    """Starlette's parser, which takes a body that stops half-way for a whole one unless somebody looks."""

    complete = False

    def on_end(self) -> None:
        self.complete = True


async def _multipart(request: Request) -> list[tuple[str, str | UploadFile]]:
    parser = _WholeMultiPartParser(
        request.headers,
        request.stream(),
        max_files=MAX_FILES,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_TEXT_PART_BYTES,
    )
    try:
        items = (await parser.parse()).multi_items()
    except MultiPartException as error:
        raise errors.InvalidRequest(f"the multipart body cannot be read: {error.message}") from None
    if not parser.complete:
        for _, value in items:
            if isinstance(value, UploadFile):
                await value.close()
        raise errors.InvalidRequest("the multipart body stops before its closing boundary; was the upload cut off?")
    return items


async def _form(request: Request) -> list[tuple[str, str | UploadFile]]:
    """curl labels any `-d` as a form, so a body that is plainly JSON is read as that."""
    raw = await request.body()
    if raw.lstrip().startswith(b"{"):
        return [(name, value) for name, value in _json(raw).items()]

    async def stream() -> AsyncIterator[bytes]:
        yield raw

    return (await FormParser(request.headers, stream()).parse()).multi_items()  # type: ignore[arg-type]  # async iterator


_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")


def _nest(items: list[tuple[str, Any]]) -> Body:
    """Build the document that `f`, `f[]`, `f[N]`, `f[key]`, `f[][key]` and `f[N][key]` describe."""
    root: Body = {}
    for name, value in items:
        match = _NAME.fullmatch(name)
        if match is None:
            raise errors.InvalidRequest(f"the field name {name!r:.80} is not understood", param=name[:80])
        path = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
        if len(path) > MAX_DEPTH:
            raise errors.InvalidRequest(f"the field {match[1]!r:.80} is nested too deeply", param=match[1][:80])
        _put(root, path, value)
    return root


def _put(root: Body, path: list[str], value: Any) -> None:
    node: Any = root
    for key, following in zip(path, [*path[1:], None], strict=True):
        fresh: Any = value if following is None else [] if following == "" or following.isdecimal() else {}
        if isinstance(node, dict):
            if key in node and following is None:  # a repeated plain name is a list, as in any form
                node[key] = [*node[key], value] if isinstance(node[key], list) else [node[key], value]
                return
            node = node.setdefault(key, fresh)
        else:
            node = _put_in_list(node, key, following, fresh, path)
        if following is not None and not isinstance(node, dict if isinstance(fresh, dict) else list):
            raise errors.InvalidRequest(f"the field {path[0]!r:.80} is given in two shapes", param=path[0][:80])


def _put_in_list(node: list[Any], key: str, following: str | None, fresh: Any, path: list[str]) -> Any:
    if key == "":
        if following and node and isinstance(node[-1], dict) and following not in node[-1]:
            return node[-1]
        node.append(fresh)
        return node[-1]
    if not key.isdecimal() or len(key) > 4 or int(key) > MAX_FIELDS:
        raise errors.InvalidRequest(f"the field {path[0]!r:.80} is given in two shapes", param=path[0][:80])
    index = int(key)
    if index < len(node):
        return node[index]
    node.append(fresh)  # parts come in order; a gap closes
    return node[-1]


def _checked(document: Body) -> Body:
    """Refuse what JSON or Postgres cannot hold: NUL, lone surrogates, infinite numbers, bottomless nesting."""

    def check(value: Any, name: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise errors.InvalidRequest(f"{name} is nested too deeply", param=name)
        if isinstance(value, str):
            if "\x00" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)):
                raise errors.InvalidRequest(f"{name} contains a character that is not text", param=name)
        elif isinstance(value, float) and value - value != 0:
            raise errors.InvalidRequest(f"{name} is not a finite number", param=name)
        elif isinstance(value, int) and abs(value) >= 2**63:
            raise errors.InvalidRequest(f"{name} is too large a number", param=name)
        elif isinstance(value, dict):
            for key, item in value.items():
                check(key, name, depth + 1)
                check(item, name, depth + 1)
        elif isinstance(value, list):
            for item in value:
                check(item, name, depth + 1)

    for key, value in document.items():
        check(key, "a field name", 0)
        check(value, key[:80], 0)
    return document


def validated(model: type[Model], document: Mapping[str, Any]) -> Model:
    """Read a document by its wire model; text is coerced by schema. Raises `InvalidRequest` naming the field."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_context=False, include_url=False)[0]
        param = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(("function-", "tagged-")))
        if problem["type"] == "missing":
            raise errors.InvalidRequest(f"{param} is required", param=param, code="missing_parameter") from None
        message = problem["msg"].removeprefix("Value error, ")
        raise errors.InvalidRequest(f"{param}: {message}", param=param, code="invalid_value") from None


# Media in a request


@dataclass
class Uploads:
    """Collects the files of one request; they are stored once the request is known to be good."""

    video_id: str
    files: list[tuple[Media, BinaryIO]] = field(default_factory=list)

    def media(self, value: Any, name: str) -> Media:
        """Read one medium: a file part, an http(s) or data URL, or an object that holds one as `image_url` or `url`.

        Raises `InvalidRequest`. Whether the bytes are a picture is judged in the job.
        """
        if isinstance(value, UploadFile):
            return self._add(value.file, value.filename)
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
                return self._add(BytesIO(decode_data_url(value, name)), None)
            if re.match(r"https?://[^/\s]+", value) and len(value) <= 8_192:
                return Media(url=value)
            if value.isdecimal():
                raise errors.InvalidRequest(
                    f"{name}: expected a file, got its bytes as numbers; in Node wrap the buffer with toFile()",
                    param=name,
                )
        raise errors.InvalidRequest(f"{name}: expected a file, an https:// URL or a data: URL", param=name)

    def _add(self, file: BinaryIO, filename: str | None) -> Media:
        head = file.read(64)
        file.seek(0)
        if not head:
            raise errors.InvalidRequest("the uploaded file is empty", param="input_reference")
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
    only_provider: str | None = None,
    shown_model: str | None = None,
    idempotency: tuple[str, str] | None = None,
) -> jobs.Created:
    """Check what the gateway itself knows, keep the uploads, write the job, wake the worker.

    `shown_model` is what the client calls the model where it did not name it itself; `idempotency` is the client's
    key and a hash of its request.
    """
    plan = gateway.router.plan(request, only_provider=only_provider)
    key, hashed = idempotency or (None, None)
    try:
        await uploads.store(gateway)
        async with gateway.db.transaction() as session:
            created = await jobs.create(
                session,
                plan.request,
                video_id=uploads.video_id,
                owner=caller.owner,
                dialect=dialect,
                shown_model=shown_model or request.model,
                routes=[route.name for route in plan.routes],
                warnings=plan.warnings,
                idempotency_key=key,
                idempotency_hash=hashed,
                deadline_s=gateway.settings.job_deadline_s,
                now=gateway.clock(),
            )
    except BaseException:
        await uploads.discard(gateway)
        raise
    if created.replayed:
        await uploads.discard(gateway)
    gateway.wake()
    return created


def idempotency_of(request: Request, body: Body) -> str | None:
    """The client's idempotency key, from the header or the body. Raises `InvalidRequest`."""
    key = request.headers.get("idempotency-key") or body.pop("idempotency_key", None)
    body.pop("idempotency_key", None)
    if key is None:
        return None
    if not isinstance(key, str) or not key.strip() or len(key) > MAX_IDEMPOTENCY_CHARACTERS or not key.isprintable():
        raise errors.InvalidRequest(
            f"idempotency_key: expected 1 to {MAX_IDEMPOTENCY_CHARACTERS} printable characters",
            param="idempotency_key",
        )
    return key


def new_video_id() -> str:
    return ids.new("video")


async def get(gateway: Gateway, caller: Caller, video_id: str) -> Video:
    async with gateway.db.reading() as connection:
        return await videos.get(connection, video_id, owner=caller.owner)


# Answering with a file


def file_response(
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
    if tag in [known.strip() for known in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range")
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
    chunks = gateway.store.open(key, start, end)
    return StreamingResponse(chunks, status_code=status, headers=headers, media_type=content_type)


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
        tag, suffix = media.etag(f"{output['sha256']}-{variant}"), "webp" if variant == "thumbnail" else "jpg"
        size = await gateway.store.stat(key) or 0
    return file_response(
        request, gateway, key, size=size, tag=tag, content_type=content_type, filename=f"{name}.{suffix}"
    )


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """What a route that decodes its own body adds to the OpenAPI description."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    kinds = {kind: {"schema": schema} for kind in ("application/json", "multipart/form-data")}
    return {"requestBody": {"required": True, "content": kinds}}


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
