"""The address `/`: the console for browsers, or a page where there is none; a JSON document for programs."""

import re
from base64 import b64encode
from hashlib import sha256

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from app.http.context import GatewayDep, origin_of
from app.http.health import RELEASE, STATIC

PAGE = (STATIC / "home.html").read_text("utf-8").replace("{release}", RELEASE)
"""Its links are relative, so that it works under any sub-path."""
STYLE = sha256(re.findall("<style>(.*?)</style>", PAGE, re.DOTALL)[0].encode()).digest()
POLICY = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
    f"style-src 'sha256-{b64encode(STYLE).decode()}'"
)
HEADERS = {"vary": "accept", "cache-control": "no-cache"}

routes = APIRouter(tags=["operations"])


@routes.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
async def home(request: Request, gateway: GatewayDep) -> Response:
    """Lead browsers to the console, and show programs where the parts of the gateway are."""
    accept = ",".join(request.headers.getlist("accept"))
    if _quality(accept, "text/html") > _quality(accept, "application/json"):
        if gateway.settings.console:
            return RedirectResponse(f"{request.scope['gateway_prefix']}/console", 303, headers=HEADERS)
        return HTMLResponse(PAGE, headers={**HEADERS, "content-security-policy": POLICY})
    origin = gateway.settings.public_url or origin_of(request)
    links = {"docs": f"{origin}/docs", "openapi": f"{origin}/openapi.json", "health": f"{origin}/healthz"}
    return JSONResponse({"name": "video-gateway", "version": RELEASE, **links}, headers=HEADERS)


def _quality(accept: str, media_type: str) -> float:
    """The preference that an Accept header gives to a media type by its most specific entry, 0 to 1."""
    given: dict[str, float] = {}
    for entry in accept.lower().split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        weights = [match[1] for part in parameters if (match := re.fullmatch(r"q=([01](\.\d{0,3})?)", part))]
        given[name] = float(weights[0]) if weights else 1
    names = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
    return next((given[name] for name in names if name in given), 0)
