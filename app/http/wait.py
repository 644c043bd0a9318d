"""Requests that wait: for a video, woken by the listener and limited per key, and for work that a disconnect ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import nullcontext, suppress
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from app import errors
from app.accounts.auth import Caller
from app.db.models import Video
from app.http.context import CallerDep, Gateway, GatewayDep, get_video

T = TypeVar("T")


async def wait_for_video(
    request: Request,
    gateway: Gateway,
    caller: Caller,
    video_id: str,
    *,
    until: Callable[[Video], bool],
    timeout_s: float,
) -> Video:
    """`watch_video` in a waiting slot of the key. Raises `RateLimited` when it has none left."""
    with gateway.waiting.slot(caller.key_id) if timeout_s > 0 else nullcontext():
        return await watch_video(request, gateway, caller, video_id, until=until, timeout_s=timeout_s)


async def watch_video(
    request: Request,
    gateway: Gateway,
    caller: Caller,
    video_id: str,
    *,
    until: Callable[[Video], bool],
    timeout_s: float,
) -> Video:
    """Return a video once `until(video)` is true, the timeout has passed, the client has disconnected or the server
    stops. Waiting runs no queries. Raises `AuthenticationFailed` when the key is revoked meanwhile."""
    with gateway.listener.waiter(video_id) as changed:
        if timeout_s > 0:  # the key may have been revoked between two waits of an event stream
            await gateway.authenticator.check(caller)
        video = await get_video(gateway, caller, video_id)
        if until(video) or timeout_s <= 0:
            return video
        gone = asyncio.ensure_future(disconnected(request))
        try:
            async with asyncio.timeout(timeout_s):
                while not until(video) and not gone.done() and not gateway.listener.closed:
                    await first_of(changed, gone)
                    changed.clear()
                    await gateway.authenticator.check(caller)
                    video = await get_video(gateway, caller, video_id)
        except TimeoutError:
            pass
        finally:
            gone.cancel()
        return video


async def waiting_slot(gateway: GatewayDep, caller: CallerDep) -> AsyncIterator[None]:
    """Hold a waiting slot of the key until the response has been sent, as a dependency of a stream."""
    with gateway.waiting.slot(caller.key_id):
        yield


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, which is cancelled when the client disconnects. Raises `ClientDisconnect`."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return await working
    finally:
        gone.cancel()
        working.cancel()


async def first_of(changed: asyncio.Event, gone: "asyncio.Future[None]", *, timeout_s: float | None = None) -> None:
    """Wait until the event is set, the client has disconnected or the time is up."""
    waiting = asyncio.ensure_future(changed.wait())
    try:
        await asyncio.wait((waiting, gone), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def disconnected(request: Request) -> None:
    """Return when the client disconnects."""
    with suppress(errors.PayloadTooLarge):  # the rest of the body is not read, so a disconnect is not seen
        while (await request.receive())["type"] != "http.disconnect":
            pass
