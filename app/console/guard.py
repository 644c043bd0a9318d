"""The guard of the console: who a browser is signed in as, the checks of every change, and errors as pages.

The cookie of a session is accepted below `/console` alone: no route of the API reads it. A change has to come from a
page of the console itself (`Sec-Fetch-Site`, else `Origin`), and carry the token of its session.
"""

import hmac
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app import errors
from app.accounts import sessions
from app.accounts.audit import Actor, ActorKind
from app.accounts.auth import Caller
from app.accounts.sessions import Holder
from app.console.pages import base_of, error_page
from app.http.body import Body, body_of
from app.http.context import Gateway, gateway_of, origin_of
from app.http.errors import HANDLED, to_gateway_error
from app.http.stream import event_id
from app.video import SessionKind

COOKIE, SECURE_COOKIE = "vgw_console", "__Secure-vgw_console"
SAFE = ("GET", "HEAD")
TOKEN_HEADER, TOKEN_FIELD = "x-csrf-token", "csrf"  # names
MAX_FORM_BYTES, MAX_FIELDS = 256 * 2**10, 200


@dataclass(frozen=True)
class Visitor:
    """A signed-in browser."""

    holder: Holder
    session_id: str
    caller: Caller | None = None
    """The project and key of a holder of an API key; None for the operator."""
    operator: str = ""
    """Name of the operator's admin key."""
    may_write: bool = True
    """False for an admin key that may only read."""

    @property
    def is_operator(self) -> bool:
        return self.caller is None

    @property
    def project_id(self) -> str | None:
        """The project whose things are shown; None for those of all, which the operator sees."""
        return None if self.caller is None else self.caller.project_id

    @property
    def form_token(self) -> str:
        return sessions.form_token(self.session_id)


REASONS = {
    "ended": "Your session has ended. Sign in again.",
    "revoked": "Your key was revoked. Sign in with another one.",
    "expired": "Your key has expired. Sign in with another one.",
}


class SignInRequired(Exception):
    """The browser has to sign in first."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        """One of `REASONS`; empty for a browser that was never signed in."""


async def visitor_of(request: Request) -> Visitor:
    """Find who is signed in, and check the token of a change. Raises `SignInRequired`, `PermissionDenied`."""
    visitor = await _signed_in(request)
    if request.method not in SAFE:
        given = request.headers.get(TOKEN_HEADER)
        _check_token(visitor, (await form_of(request)).get(TOKEN_FIELD, "") if given is None else given)
    return visitor


async def require_session(gateway: Gateway, visitor: Visitor) -> None:
    """Require that a visitor is still signed in, which counts as no use of the session. Raises
    `AuthenticationFailed`."""
    lifetime = timedelta(seconds=gateway.settings.console_session_s)
    async with gateway.db.reading() as connection:
        holder = await sessions.find_session(
            connection, visitor.session_id, lifetime=lifetime, now=gateway.clock(), is_use=False
        )
    try:
        if holder is None:
            raise SignInRequired("ended")
        await caller_of(gateway, holder)
    except SignInRequired as needed:
        raise errors.AuthenticationFailed(REASONS[needed.reason]) from None


async def _signed_in(request: Request) -> Visitor:
    gateway = gateway_of(request)
    request.scope["console_since"] = event_id(gateway.clock())  # before the page reads what it shows
    session_id = session_id_of(request)
    if not session_id:
        raise SignInRequired
    lifetime = timedelta(seconds=gateway.settings.console_session_s)
    async with gateway.db.reading() as connection:
        holder = await sessions.find_session(connection, session_id, lifetime=lifetime, now=gateway.clock())
    if holder is None:
        raise SignInRequired("ended")
    caller = await caller_of(gateway, holder)
    visitor = Visitor(holder, session_id, caller)
    if caller is None:
        name = operator_name(gateway, holder.key_hash) or ""
        role = gateway.settings.operators[name].role
        visitor = Visitor(holder, session_id, operator=name, may_write=role != "read")
    request.scope["console_visitor"] = visitor
    return visitor


def operator_name(gateway: Gateway, key_hash: str) -> str | None:
    """Name of the admin key with this hash; None for a key that is none."""
    hashes = {
        name: gateway.authenticator.hash(given.key.get_secret_value())
        for name, given in gateway.settings.operators.items()
    }
    return next((name for name, hashed in hashes.items() if hmac.compare_digest(hashed, key_hash)), None)


def session_id_of(request: Request) -> str:
    """The id of the session in the cookie; empty without one."""
    return request.cookies.get(SECURE_COOKIE) or request.cookies.get(COOKIE) or ""


async def caller_of(gateway: Gateway, holder: Holder) -> Caller | None:
    """The project and key of a holder, None for the operator. Raises `SignInRequired` when the key is not valid."""
    if holder.kind is SessionKind.admin:
        if operator_name(gateway, holder.key_hash) is None:
            raise SignInRequired("revoked")
        return None
    try:
        return await gateway.authenticator.by_hash(holder.key_hash)
    except errors.AuthenticationFailed as error:
        raise SignInRequired("expired" if error.code == "expired_api_key" else "revoked") from None


def _check_token(visitor: Visitor, given: str) -> None:
    if not hmac.compare_digest(given.encode(), visitor.form_token.encode()):
        raise errors.PermissionDenied("this form is out of date; open the page again", code="form_expired")


@asynccontextmanager
async def form_with_files(request: Request, model: type[BaseModel]) -> AsyncIterator[tuple[Caller, Body]]:
    """Yield the holder of an API key and the fields of a form that may have files, which are open until the block ends;
    `model` is for `body_of`. It takes the place of `KeyHolderDep`, which cannot check the token of such a form.

    Raises `SignInRequired`, `PermissionDenied`, and what `body_of` raises.
    """
    visitor = await _signed_in(request)
    caller = await key_holder_of(visitor)
    request.scope["gateway_project"] = caller.project_id  # for the limits of its body
    async with body_of(request, model) as body:
        token = body.pop(TOKEN_FIELD, "")
        _check_token(visitor, request.headers.get(TOKEN_HEADER, token if isinstance(token, str) else ""))
        yield caller, body


async def form_of(request: Request) -> Mapping[str, str]:
    """The fields of a form without files; the last value of each. Raises `PayloadTooLarge`, `InvalidRequest`."""
    known: Mapping[str, str] | None = request.scope.get("console_form")
    if known is not None:
        return known
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_FORM_BYTES:
            raise errors.PayloadTooLarge(f"the form has more than {MAX_FORM_BYTES // 2**10} KiB")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise errors.InvalidRequest("this is no form; open the page again") from None
    if any("\x00" in text for pair in pairs for text in pair):  # which PostgreSQL has no place for
        raise errors.InvalidRequest("the form contains a character that is not text")
    form = request.scope["console_form"] = dict(pairs)
    return form


def require_same_origin(request: Request) -> None:
    """Require that a change comes from a page of this gateway. Raises `PermissionDenied`."""
    if request.method in SAFE:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    own = urlsplit(origin_of(request))
    if site is not None:
        allowed = site == "same-origin"
    else:  # browsers send it to https and to loopback addresses alone
        allowed = origin is not None and origin == f"{own.scheme}://{own.netloc}"
    if not allowed:
        raise errors.PermissionDenied(
            "the request came from another page; open the console again and repeat it there", code="foreign_origin"
        )


class ConsoleRoute(APIRoute):
    """A route whose errors are pages, and which leads to the sign-in where that is needed."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                require_same_origin(request)
                return await handle(request)
            except SignInRequired as needed:
                return _to_sign_in(request, needed.reason)
            except HANDLED as error:
                return await error_page(request, to_gateway_error(error))

        return guarded


def _to_sign_in(request: Request, reason: str) -> Response:
    base = base_of(request)
    query = []
    if request.method in SAFE and "hx-request" not in request.headers:
        path = f"{request.scope['gateway_prefix']}{request.scope['path']}"
        address = f"{path}?{request.url.query}" if request.url.query else path
        query.append(f"next={quote(address, safe='/')}")
    if reason:
        query.append(f"reason={reason}")
    where = f"{base}/login{'?' if query else ''}{'&'.join(query)}"
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"hx-redirect": where, "cache-control": "no-store"})
    return RedirectResponse(where, 303, headers={"cache-control": "no-store"})


async def key_holder_of(visitor: "VisitorDep") -> Caller:
    """The caller of a holder of an API key. Raises `PermissionDenied` for the operator."""
    if visitor.caller is None:
        raise errors.PermissionDenied("this page belongs to one project; sign in with an API key to see it")
    return visitor.caller


async def operator_of(request: Request, visitor: "VisitorDep") -> Actor:
    """The operator of a page, for the audit log. Raises `PermissionDenied` for holders of API keys, and for changes by
    an admin key that may only read."""
    if not visitor.is_operator:
        raise errors.PermissionDenied("this page is the operator's; sign in with an admin key to see it")
    if request.method not in SAFE and not visitor.may_write:
        message = f"the admin key {visitor.operator!r} may only read; sign in with one that may write"
        raise errors.PermissionDenied(message, code="read_only_key")
    address = request.client.host if request.client is not None else None
    return Actor(ActorKind.console, visitor.operator, address, request.scope["gateway_request_id"])


VisitorDep = Annotated[Visitor, Depends(visitor_of)]
KeyHolderDep = Annotated[Caller, Depends(key_holder_of)]
OperatorDep = Annotated[Actor, Depends(operator_of)]
