"""Sign-in and sign-out, the start page, static files and the theme of the console."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from app import errors
from app.accounts import sessions
from app.accounts.secrets import is_loopback
from app.accounts.sessions import Holder
from app.console import pages
from app.console.guard import (
    COOKIE,
    REASONS,
    SECURE_COOKIE,
    ConsoleRoute,
    SignInRequired,
    Visitor,
    VisitorDep,
    caller_of,
    form_of,
    operator_name,
    session_id_of,
    visitor_of,
)
from app.console.pages import base_of, render
from app.http.context import Gateway, GatewayDep, address_of, origin_of
from app.video import SessionKind

LONGEST_NEXT, LONGEST_CODE = 2_000, 100
WRONG_KEY = "This key is not valid. Check it, or ask the operator for another one."
WRONG_LINK = "This link was used already, or is older than ten minutes. Ask for another one, or sign in with a key."

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)
unknown = APIRouter(include_in_schema=False, route_class=ConsoleRoute)


@unknown.api_route("/console/{rest:path}", methods=["GET", "HEAD", "POST"])
async def no_page(visitor: VisitorDep) -> Response:
    """Answer addresses that no page has; strangers are led to the sign-in, whatever the address."""
    raise errors.NotFound("there is nothing at this address", code="unknown_url")


@routes.get("/console")
async def start(request: Request, visitor: VisitorDep) -> Response:
    """Lead to the first page."""
    return RedirectResponse(f"{base_of(request)}/{'overview' if visitor.is_operator else 'playground'}", 303)


@routes.get("/console/static/{name}")
async def static_file(name: str, request: Request) -> Response:
    """Send a static file, which never changes under this name."""
    found = pages.static_files().get(name)
    if found is None:
        raise errors.NotFound("there is no such file; open the page again")
    headers = {
        "cache-control": "public, max-age=31536000, immutable",
        "content-type": found.content_type,
        "vary": "accept-encoding",
    }
    if not _takes_gzip(request):
        return Response(found.content, headers=headers)
    return Response(found.compressed, headers={**headers, "content-encoding": "gzip"})


def _takes_gzip(request: Request) -> bool:
    """True for a browser that takes gzip; one that refuses it by `q=0` is given the plain file."""
    codings = request.headers.get("accept-encoding", "").lower().replace(" ", "").split(",")
    return any(coding.partition(";")[0] == "gzip" and not coding.endswith((";q=0", ";q=0.0")) for coding in codings)


@routes.get("/console/login")
async def show_login(
    request: Request,
    target: Annotated[str, Query(alias="next")] = "",
    reason: str = "",
    code: str = "",
) -> Response:
    """Show the form; with the code of a link, one that a script submits at once where no session is open."""
    try:
        visitor = await visitor_of(request)
    except SignInRequired:
        visitor = None
    return await _form(request, target, code=code[:LONGEST_CODE], reason=REASONS.get(reason, ""), signed_in=visitor)


@routes.post("/console/login")
async def log_in(request: Request, gateway: GatewayDep) -> Response:
    """Open a session with an API key, an admin key or the code of a link."""
    form = await form_of(request)
    key, code, target = (form.get(name, "").strip() for name in ("key", "code", "next"))
    await sessions.count_sign_in(gateway.db, address_of(request), now=gateway.clock())
    holder = await (_holder_of_link(gateway, code) if code else _holder_of_key(gateway, key))
    try:
        if holder is None:
            raise SignInRequired
        await caller_of(gateway, holder)
    except SignInRequired:
        return await _form(request, target, problem=WRONG_LINK if code else WRONG_KEY, status=401)
    lifetime = timedelta(seconds=gateway.settings.console_session_s)
    async with gateway.db.transaction() as session:
        connection = await session.connection()
        if before := session_id_of(request):  # the browser gets a new id, whatever it had
            await sessions.close_session(connection, before)
        opened = await sessions.open_session(connection, holder, lifetime=lifetime, now=gateway.clock())
    response = RedirectResponse(_inside(request, target) or base_of(request), 303)
    is_https = origin_of(request).startswith("https:")
    response.set_cookie(
        SECURE_COOKIE if is_https else COOKIE,
        opened,
        path=base_of(request),
        secure=is_https,
        httponly=True,
        samesite="lax",
    )
    return response


@routes.post("/console/logout")
async def log_out(request: Request, gateway: GatewayDep, visitor: VisitorDep) -> Response:
    """Close this session; with `everywhere`, all sessions of the same key."""
    form = await form_of(request)
    async with gateway.db.transaction() as session:
        connection = await session.connection()
        await sessions.close_session(connection, visitor.session_id)
        if form.get("everywhere"):
            await sessions.close_sessions_of(connection, visitor.holder)
    response = RedirectResponse(f"{base_of(request)}/login", 303, headers={"clear-site-data": '"cache", "storage"'})
    for name in (COOKIE, SECURE_COOKIE):
        response.delete_cookie(name, path=base_of(request), secure=name == SECURE_COOKIE, httponly=True, samesite="lax")
    return response


@routes.post("/console/theme")
async def choose_theme(request: Request, visitor: VisitorDep) -> Response:
    """Remember light, dark, or the system's colours, and go back to the page."""
    form = await form_of(request)
    response = RedirectResponse(_inside(request, form.get("next", "")) or base_of(request), 303)
    theme = form.get("theme", "")
    if theme in pages.THEMES:
        response.set_cookie(pages.THEME_COOKIE, theme, path=base_of(request), max_age=31_536_000, samesite="lax")
    else:
        response.delete_cookie(pages.THEME_COOKIE, path=base_of(request))
    return response


async def _form(
    request: Request,
    target: str,
    *,
    code: str = "",
    reason: str = "",
    problem: str = "",
    signed_in: Visitor | None = None,
    status: int = 200,
) -> Response:
    host = request.url.hostname or ""
    is_open = origin_of(request).startswith("http:") and not (is_loopback(host) or host.endswith(".localhost"))
    values: dict[str, Any] = {"next": _inside(request, target), "code": code, "reason": reason, "problem": problem}
    shown = {**values, "signed_in": signed_in, "is_open": is_open, "visitor": None}
    return await render(request, "login.html", status=status, **shown)


async def _holder_of_key(gateway: Gateway, key: str) -> Holder | None:
    hashed = gateway.authenticator.hash(key)
    if operator_name(gateway, hashed) is not None:
        return Holder(SessionKind.admin, hashed)
    try:
        return Holder(SessionKind.key, (await gateway.authenticator.authenticate(key)).key_hash)
    except errors.AuthenticationFailed:
        return None


async def _holder_of_link(gateway: Gateway, code: str) -> Holder | None:
    async with gateway.db.reading() as connection:
        return await sessions.redeem_link(connection, code, now=gateway.clock())


def _inside(request: Request, address: str) -> str:
    """The address if it is a page of the console, else nothing: a link must not lead elsewhere."""
    base = base_of(request)
    is_path = address.startswith((f"{base}/", f"{base}?")) or address == base
    is_plain = len(address) <= LONGEST_NEXT and address.isprintable() and "\\" not in address and "//" not in address
    return address if is_path and is_plain and not address.startswith(f"{base}/log") else ""
