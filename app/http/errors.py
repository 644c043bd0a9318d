"""Error responses: renders every exception in the shape of the path's dialect."""

from collections.abc import Awaitable, Callable
from math import ceil
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from psycopg import Error as PsycopgError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app import errors
from app.db.faults import read_fault
from app.telemetry.logs import log

WITHOUT_VERSION = ("/videos", "/models", "/webhook_endpoints", "/webhooks", "/balance")
"""Beginnings of paths that lack the `/v1` of a client's base URL."""

HANDLED = (errors.GatewayError, HTTPException, RequestValidationError, SQLAlchemyError, PsycopgError)
"""Exceptions of route handlers that are answers."""

RenderError = Callable[..., dict[str, Any]]
"""Renders an error for a path, as `dialects.render_error` does."""
ErrorPage = Callable[[Request, errors.GatewayError], Awaitable[Response]]
"""Renders an error as a page for a browser."""


def install_error_handlers(app: FastAPI, render_error: RenderError) -> None:
    async def handle(request: Request, error: Exception) -> Response:
        return to_response(request.scope, error, render_error)

    for kind in HANDLED:
        app.add_exception_handler(kind, handle)


def to_response(scope: Scope, error: Exception, render_error: RenderError) -> Response:
    """Render any exception in the shape of the path's dialect."""
    known = to_gateway_error(error)
    path = f"/{scope['path'].lstrip('/')}"  # a base URL may end with a slash
    if known.code == "unknown_url" and path.startswith(WITHOUT_VERSION):
        message = f"there is nothing at this address, but at /v1{path[:200]}: the base URL has to end with /v1"
        known = errors.NotFound(message, code="unknown_url")
    headers = known.headers
    if isinstance(known, errors.UpstreamError):  # from an upstream call inside a request, such as creating a character
        headers = {**headers, "x-should-retry": str(known.retryable).lower()}
        if known.retry_after_s is not None:
            headers["retry-after"] = str(ceil(known.retry_after_s))
    scope["gateway_error_code"] = known.code  # for its span
    body = render_error(known, path=scope["path"], request_id=scope["gateway_request_id"])
    return JSONResponse(body, status_code=known.status_code, headers=headers or None)


def to_gateway_error(error: Exception) -> errors.GatewayError:
    if isinstance(error, errors.GatewayError):
        return error
    if isinstance(error, HTTPException):
        return _from_http(error)
    if isinstance(error, RequestValidationError):
        problem = error.errors()[0]
        param = str(problem["loc"][-1])
        return errors.InvalidRequest(f"{param}: {problem['msg']}", param=param, code="invalid_value")
    fault = read_fault(error)
    if fault is not None:  # logged where it was met
        retry_after_s = 1 if fault.kind == "prepared_statements" else 2
        return errors.ServiceUnavailable(
            "the gateway cannot take requests just now; try again", retry_after_s=retry_after_s
        )
    log.error("unexpected error", exc_info=error)
    return errors.InternalError("the gateway failed; search its log for the request id to find the reason")


def _from_http(error: HTTPException) -> errors.GatewayError:
    if error.status_code == 404:
        return errors.NotFound("there is nothing at this address; see /docs for the routes", code="unknown_url")
    if error.status_code == 405:
        allowed: Any = (error.headers or {}).get("Allow", "")
        return errors.MethodNotAllowed(
            f"this method is not for this address; allowed: {allowed}", headers={"allow": allowed}
        )
    return errors.InvalidRequest(str(error.detail))
