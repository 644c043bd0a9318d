"""The gateway's parts for route handlers, and authentication of requests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel, SecretStr

from app import errors
from app.accounts import auth
from app.accounts.auth import Authenticator, Caller
from app.accounts.operator_keys import OperatorKeys
from app.db.database import Database
from app.db.listener import Listener
from app.db.models import Video
from app.http import request_facts
from app.http.openapi import CLIENT_KEY, KEY_HEADERS, BearerKey
from app.http.slots import Slots
from app.jobs import lifecycle, videos
from app.jobs.changes import SharedReads
from app.jobs.durations import Durations
from app.jobs.gauges import Gauges
from app.jobs.metrics import count_ended
from app.media.signed_links import SignedLinks
from app.media.store import Store
from app.media.turns import Turns
from app.providers.base import Provider
from app.providers.routing import Router
from app.settings import Settings, origins
from app.webhooks.sender import Sender


@dataclass(frozen=True)
class Gateway:
    """All parts a handler may need; created once in `main.py`."""

    settings: Settings
    dialects: Mapping[str, BaseModel]
    """The `Config` of each dialect that has one, by name."""
    create_paths: Mapping[str, str]
    """Path of the call that creates a video, by dialect."""
    db: Database
    providers: Mapping[str, Provider]
    router: Router
    store: Store
    links: SignedLinks
    authenticator: Authenticator
    operator_keys: OperatorKeys
    sender: Sender
    """Sends webhooks; handlers use it only for test events."""
    clock: Callable[[], datetime]
    listener: Listener
    changed_videos: SharedReads
    durations: Durations
    gauges: Gauges
    waiting: Slots
    """Waiting and event-stream requests of each key."""
    searches: Slots
    """Searches of each project that are under way, see `jobs/search.py`."""
    webhook_tests: Slots
    """Test events that are being sent for each project."""
    character_turns: Mapping[str, Turns]
    """Turns of the projects at making characters, by provider: an upload may take minutes."""
    wake: Callable[[], None]
    """Wakes the worker of this process, if there is one, after a job was created or cancelled."""
    origins: tuple[list[str], Mapping[tuple[str, ...], tuple[Any, str]]] = field(default_factory=origins, repr=False)
    """Origin of each setting at the start, see `settings.origins`; with its value, which may be secret."""


def gateway_of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


async def _gateway_of(request: Request) -> Gateway:
    """`gateway_of` as a coroutine: FastAPI runs other dependencies in a thread."""
    return gateway_of(request)


async def caller_of(request: Request) -> Caller:
    """Authenticate a request. Raises `AuthenticationFailed`, and `RateLimited` when the key has no requests left this
    minute, or its address has sent too many wrong ones."""
    gateway = gateway_of(request)
    request.scope["gateway_arrived_at"] = gateway.clock()  # for its retries, see `take_idempotency`
    caller = await gateway.authenticator.authenticate(_key_of(request), address=address_of(request))
    return await admit(request, caller)


async def admit(request: Request, caller: Caller) -> Caller:
    """Note the caller of a request, and count it. Raises `RateLimited`."""
    gateway = gateway_of(request)
    request.scope["gateway_project"] = caller.project_id  # for the limits of its request body, see http/spool.py
    request_facts.note(project=caller.project_id, key=caller.key_id)
    if caller.requests_per_minute is not None:
        left = await auth.count_request(gateway.db, caller, now=gateway.clock())
        request.scope["gateway_headers"].extend(left)
    return caller


def address_of(request: Request) -> str:
    """The address of the client; empty at a Unix socket."""
    return request.client.host if request.client is not None else ""


def _key_of(request: Request) -> str:
    """The API key of a request: a bearer token, which may contain spaces, or else the value of one of `KEY_HEADERS`."""
    header = request.headers.get("authorization")
    if header is None:
        return next((request.headers[name].strip() for name in KEY_HEADERS if name in request.headers), "")
    scheme, _, key = header.partition(" ")
    if scheme and scheme.lower() != "bearer":
        raise errors.AuthenticationFailed("send the API key as `Authorization: Bearer <key>`")
    return key.strip()


GatewayDep = Annotated[Gateway, Depends(_gateway_of)]

CallerDep = Annotated[Caller, Depends(BearerKey(CLIENT_KEY, "An API key of this gateway.", caller_of))]


def require_operator(request: Request, keys: Mapping[str, SecretStr], what: str) -> str:
    """Require a key of the operator; returns its name. Raises `AuthenticationFailed`, and `RateLimited` after too many
    wrong ones."""
    gateway = gateway_of(request)
    header = request.headers.get("authorization", "")
    return gateway.operator_keys.require(keys, header, what=what, address=address_of(request), now=gateway.clock())


def origin_of(request: Request) -> str:
    """Scheme, host and path prefix of this gateway as the client reached it, see `proxies.py`."""
    base = request.base_url
    return f"{base.scheme}://{base.netloc}{request.scope['gateway_prefix']}"


async def end_video(gateway: Gateway, caller: Caller, video_id: str, *, has_ended: bool | None = None) -> bool:
    """Cancel a running video, or delete one that has ended; True if it was cancelled. Raises `NotFound`, and with
    `has_ended` `Conflict`, see `lifecycle.cancel_or_delete`."""
    async with gateway.db.transaction() as session:
        video, cancelled = await lifecycle.cancel_or_delete(
            session, video_id, project_id=caller.project_id, has_ended=has_ended, now=gateway.clock()
        )
    request_facts.note_video(video)
    if cancelled:
        count_ended(video)
    gateway.wake()
    return cancelled


async def get_video(gateway: Gateway, caller: Caller, video_id: str) -> Video:
    video = await videos.get_video(gateway.db, video_id, project_id=caller.project_id)
    request_facts.note_video(video)
    return video
