"""Paths with a slash too many, as a base URL with a slash at its end makes them."""

import re
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_RUN = re.compile(rb"/{2,}")


class SlashMiddleware:
    """Removes repeated slashes, and one at the end, from paths below the `prefixes` of dialects.

    All other paths stay as they are, or `//admin` would pass a proxy that blocks `/admin`. So does `%2F`, which is part
    of a segment.
    """

    def __init__(self, app: ASGIApp, *, prefixes: tuple[str, ...]) -> None:
        self.app = app
        self._prefixes = prefixes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = scope.get("raw_path") or b""
        if scope["type"] == "http" and (b"//" in raw or raw.endswith(b"/")):
            raw = _RUN.sub(b"/", raw).rstrip(b"/")
            path = unquote(raw.decode("latin-1"))
            if f"{path}/".startswith(self._prefixes):
                scope["path"], scope["raw_path"] = path, raw
        await self.app(scope, receive, send)
