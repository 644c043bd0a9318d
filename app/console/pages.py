"""Pages of the console: templates, their values, the headers of every page, and the static files."""

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app import errors
from app.accounts import budgets, pricing, projects
from app.console.words import plain
from app.http.context import Gateway, gateway_of, origin_of
from app.http.health import RELEASE
from app.jobs import reconcile

HERE = Path(__file__).parent
STATIC = HERE / "static"
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
THEMES = ("light", "dark")
THEME_COOKIE = "vgw_theme"


MENU: Mapping[bool, tuple[tuple[str, str], ...]] = {
    False: (
        ("playground", "Playground"),
        ("videos", "Library"),
        ("models", "Models"),
        ("usage", "Usage"),
        ("webhooks", "Webhooks"),
        ("connect", "Connect"),
    ),
    True: (
        ("overview", "Overview"),
        ("videos", "Library"),
        ("providers", "Providers"),
        ("accounts", "Accounts"),
        ("usage", "Usage"),
        ("repairs", "Repairs"),
        ("webhooks", "Webhooks"),
        ("models", "Models"),
        ("audit", "Audit"),
        ("settings", "Settings"),
    ),
}
"""Address and title of each page in the menu: of holders of API keys, and (True) of the operator."""
SAID: Mapping[str, str] = {
    "cancelled": "The video was cancelled.",
    "deleted": "The video was deleted.",
    "project_made": "The project was made.",
    "project_changed": "The project was changed.",
    "credited": "The balance was credited.",
    "key_changed": "The key was changed.",
    "key_revoked": "The key was revoked.",
    "endpoint_changed": "The endpoint was changed.",
    "endpoint_enabled": "The endpoint gets events again.",
    "endpoint_disabled": "The endpoint gets no more events.",
    "endpoint_deleted": "The endpoint was deleted.",
    "delivery_sent": "The delivery is sent again now.",
    "resent": "The event is being sent again.",
    "circuits_closed": "The circuit is closed: waiting videos are submitted within seconds.",
    "circuits_were_closed": "No circuit of this provider was open.",
    "repair_find": "The task was found and goes on. It is charged when it is ready.",
    "repair_resubmit": "It is submitted once more.",
    "repair_fail": "The money is back, and the video stays failed.",
    "repair_fetch": "The file is being fetched. Nothing is charged for it.",
}
"""Sentences about what a change has done, by their names in addresses."""


UNNAMED = "default project"
"""Words for the project of a key of the settings that has no name."""


@dataclass(frozen=True)
class Frame:
    """The head of a page beside its menu."""

    project: str = ""
    """Name of the project of a key's holder."""
    left_micros: int | None = None
    """The amount that may still be spent; None for no limit."""
    repairs: int = 0
    """Submits that wait for the operator's decision."""


class Values(dict[str, Any]):
    """Values of a form or of a document, of which templates may ask for any name; one that is missing is empty."""

    def __missing__(self, name: str) -> str:
        return ""


@dataclass(frozen=True)
class StaticFile:
    """A file that never changes under its name in addresses."""

    content: bytes
    compressed: bytes
    """The content by gzip."""
    content_type: str


@cache
def static_files() -> Mapping[str, StaticFile]:
    """The static files by their names in addresses, which have a hash of the content."""
    files = {}
    for path in sorted(STATIC.iterdir()):
        if path.suffix in TYPES:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:12]
            compressed = gzip.compress(content, mtime=0)
            files[f"{path.stem}.{digest}{path.suffix}"] = StaticFile(content, compressed, TYPES[path.suffix])
    return files


@cache
def _static_names() -> Mapping[str, str]:
    """The name in addresses of each static file, by its name here."""
    return {f"{name.rsplit('.', 2)[0]}{Path(name).suffix}": name for name in static_files()}


@cache
def _templates() -> Environment:
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        usd=format_usd,
        moment=format_moment,
        clock=lambda at: f"{at.astimezone(UTC):%H:%M:%S} UTC",
        at=datetime.fromisoformat,
        span=format_span,
        iso=lambda at: at.astimezone(UTC).isoformat(),
        query=urlencode,
        plain=plain,
        as_json=partial(json.dumps, indent=2, ensure_ascii=False),
    )
    found.globals.update(release=RELEASE)
    return found


def format_usd(micros: int | None) -> str:
    """An amount in US dollars with at least two decimals; a dash for an unknown one."""
    if micros is None:
        return "-"
    whole, _, decimals = pricing.format_usd(abs(micros)).partition(".")
    return f"{'-' if micros < 0 else ''}{whole}.{decimals.ljust(2, '0')}"


def format_moment(at: datetime) -> str:
    """A time for people; a script shows it in the browser's time zone."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def format_span(seconds: float) -> str:
    """A duration for people, in its largest unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    if seconds >= 10 or seconds == int(seconds):
        return f"{seconds:.0f} s"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1_000:.0f} ms"


def base_of(request: Request) -> str:
    """The path of the console as the browser sees it, behind a proxy with a prefix as well."""
    return f"{request.scope['gateway_prefix']}/console"


def policy_of(media: str | None = None) -> str:
    """The content security policy of a page: nothing is loaded from elsewhere, but videos from the origin `media`, and
    no script makes markup but by the one policy of `static/console.js`."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"media-src 'self'{f' {media}' if media else ''}; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types default"
    )


async def render(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """Render a page, or a part of one (`_part.html`), with the headers that every page has.

    A page asks the database for its head, unless `frame` is given. One that `plays` videos may load them from the
    bucket to which their addresses redirect.
    """
    plays = values.pop("plays", False)
    visitor = values.setdefault("visitor", request.scope.get("console_visitor"))
    if not template.startswith("_") and "frame" not in values:
        values["frame"] = Frame() if visitor is None else await _frame_of(gateway_of(request), visitor)
    base = base_of(request)
    theme = request.cookies.get(THEME_COOKIE)
    text = (
        _templates()
        .get_template(template)
        .render(
            base=base,
            path=request.scope["path"],
            here=_here(request, visitor),
            live_since=request.scope.get("console_since", ""),
            session=hashlib.sha256(visitor.form_token.encode()).hexdigest()[:12] if visitor is not None else "",
            asset=lambda name: f"{base}/static/{_static_names()[name]}",
            origin=origin_of(request),
            form_token=visitor.form_token if visitor is not None else "",
            theme=theme if theme in THEMES else "",
            menu=MENU[visitor.is_operator] if visitor is not None else (),
            said=SAID.get(request.query_params.get("said", ""), ""),
            **values,
        )
    )
    media = None
    if plays and gateway_of(request).settings.storage_presign:
        media = await gateway_of(request).store.presigned_origin()
    return HTMLResponse(text, status, headers=page_headers(media))


def _here(request: Request, visitor: Any) -> str:
    """The address of the page that is open; for the answer of a form, the page of the menu it belongs to."""
    base, path = base_of(request), request.scope["path"].removeprefix("/console")
    if request.method in ("GET", "HEAD"):
        query = urlencode([(name, value) for name, value in request.query_params.multi_items() if name != "said"])
        return f"{base}{path}{f'?{query}' if query else ''}"
    first = path.split("/")[1] if path else ""
    known = visitor is not None and first in dict(MENU[visitor.is_operator])
    return f"{base}/{first}" if known else base


async def _frame_of(gateway: Gateway, visitor: Any) -> Frame:
    async with gateway.db.reading() as connection:
        if visitor.caller is None:
            return Frame(repairs=await reconcile.count_undecided(connection))
        project_id, key_id = visitor.caller.project_id, visitor.caller.key_id
        left = await budgets.available(connection, [project_id], key_id=key_id, now=gateway.clock())
        name = await projects.name_of(connection, project_id)
        return Frame(name if name != project_id else UNNAMED, left[project_id][1])


def go(request: Request, path: str, said: str = "") -> Response:
    """Lead to another page of the console after a change; `said` is one of `SAID`."""
    return RedirectResponse(f"{base_of(request)}/{path}{f'?said={said}' if said else ''}", 303)


def page_headers(media: str | None = None) -> dict[str, str]:
    return {
        "content-security-policy": policy_of(media),
        "cache-control": "no-store",
        "cross-origin-opener-policy": "same-origin",
        "referrer-policy": "same-origin",
        "vary": "cookie",
    }


async def error_page(request: Request, error: errors.GatewayError) -> Response:
    """An error as a page, or for htmx as a line in the status of the page that is open."""
    values = {"error": error, "request_id": request.scope["gateway_request_id"], "frame": Frame()}
    if "hx-request" in request.headers:
        response = await render(request, "_error.html", status=error.status_code, **values)
        response.headers.update({"hx-retarget": "#status", "hx-reswap": "innerHTML"})
    else:
        response = await render(request, "error.html", status=error.status_code, **values)
    response.headers.update(error.headers)
    return response
