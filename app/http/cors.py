"""Cross-origin resource sharing (CORS): the headers that let scripts of other sites read responses, and preflights.

Media links are open to every origin: the signature in the link is the permission. The paths of the dialects are open to
the origins of `GATEWAY_CORS_ORIGINS`, also those without their `/v1`, whose 404 says so; all other paths to none.
Credentials of a browser, such as cookies, are not used.
Decision 0038 says why this is not Starlette's middleware.
"""

from collections.abc import Iterable

from fastapi.responses import Response
from starlette.types import Scope

from app import errors

Pairs = list[tuple[bytes, bytes]]

MEDIA = "/media/"
READING = b"GET, HEAD"
ALL = b"GET, HEAD, POST, PUT, PATCH, DELETE"
PREFLIGHT_S = 7_200
"""Time for which a browser keeps the response to a preflight; Chromium's limit."""
EXPOSED = (
    b"accept-ranges, allow, content-disposition, content-length, content-range, etag, idempotent-replayed, location, "
    b"openai-poll-after-ms, retry-after, retry-after-ms, www-authenticate, x-gateway-model, x-gateway-provider, "
    b"x-ratelimit-limit-concurrent-jobs, x-ratelimit-limit-requests, x-ratelimit-remaining-concurrent-jobs, "
    b"x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-request-id, x-should-retry"
)
"""Headers that scripts may read, beyond the few that they always may."""

OPEN: Pairs = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", EXPOSED)]
VARY = (b"vary", b"origin")


class Cors:
    """Decides by path and origin. Its headers belong on every response, errors included: without them a script learns
    neither the status nor the message."""

    def __init__(self, origins: Iterable[str], prefixes: Iterable[str]) -> None:
        """Open the paths that begin with `prefixes` to `origins`, of which `*` stands for all."""
        self._origins = frozenset(origin.encode() for origin in origins)
        self._prefixes = tuple(prefixes) if self._origins else ()

    def headers(self, scope: Scope) -> Pairs:
        """The headers of any response to this request."""
        path = f"/{scope['path'].lstrip('/')}/"  # a base URL may end with a slash
        if path.startswith(MEDIA):
            return [*OPEN]
        if not path.startswith(self._prefixes):
            return []
        if b"*" in self._origins:
            return [*OPEN]
        origin = _header(scope, b"origin")
        if origin not in self._origins:
            return [VARY]
        return [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", EXPOSED), VARY]

    def preflight(self, scope: Scope) -> Response | None:
        """The response to a preflight, which has no key: all headers, and the methods of the path. None for any other
        request, and for a path that is open to no origin. Raises `PermissionDenied` for an origin that is not allowed.
        """
        if scope["method"] != "OPTIONS" or not _header(scope, b"access-control-request-method"):
            return None
        given = dict(self.headers(scope))
        if not given:
            return None
        if b"access-control-allow-origin" not in given:
            raise errors.PermissionDenied(
                "pages of this origin may not use this gateway; add the origin to GATEWAY_CORS_ORIGINS",
                code="origin_not_allowed",
            )
        response = Response(status_code=204)
        response.raw_headers += [
            (b"access-control-allow-methods", READING if scope["path"].startswith(MEDIA) else ALL),
            (b"access-control-max-age", b"%d" % PREFLIGHT_S),
        ]
        wanted = _header(scope, b"access-control-request-headers")
        if wanted:  # repeated, because a `*` does not cover authorization
            response.raw_headers.append((b"access-control-allow-headers", wanted))
        return response


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for header, value in scope["headers"] if header == name), b"")
