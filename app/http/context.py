"""The parts of a gateway as handlers see them, and the caller of a request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request
from pydantic import BaseModel

from app import errors
from app.accounts import auth
from app.accounts.auth import Authenticator, Caller
from app.db.database import Database
from app.db.listener import Listener
from app.db.models import Video
from app.http.openapi import BearerKey
from app.jobs import videos
from app.jobs.durations import Durations
from app.media.signed_links import SignedLinks
from app.media.store import Store
from app.providers.base import Provider
from app.providers.routing import Router
from app.settings import Settings
from app.webhooks.sender import Sender


@dataclass(frozen=True)
class Gateway:
    """Everything a handler may need; made once in `main.py`."""

    settings: Settings
    dialects: Mapping[str, BaseModel]
    """The `Config` of each dialect that has one, by its name."""
    db: Database
    providers: Mapping[str, Provider]
    router: Router
    store: Store
    links: SignedLinks
    authenticator: Authenticator
    sender: Sender
    """Calls webhooks; handlers only use it to send a test."""
    clock: Callable[[], datetime]
    listener: Listener
    durations: Durations
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
        left = await auth.count_request(gateway.db, caller, now=gateway.clock())
        request.scope["gateway_headers"].extend(left)
    return caller


GatewayDep = Annotated[Gateway, Depends(_gateway_of)]

CallerDep = Annotated[Caller, Depends(BearerKey("api_key", "An API key of this gateway.", caller_of))]


def origin_of(request: Request) -> str:
    """Scheme, host and mount path of this gateway as the client reached it."""
    return str(request.base_url).rstrip("/")


async def get_video(gateway: Gateway, caller: Caller, video_id: str) -> Video:
    return await videos.get_video(gateway.db, video_id, project_id=caller.project_id)
