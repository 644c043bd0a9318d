"""OpenAPI for routes that read their own bodies and build their own responses: keys, headers, files, errors."""

from collections.abc import Awaitable, Callable
from typing import Any, Generic, Literal, TypeVar

from fastapi import Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from pydantic import BaseModel

from app import errors
from app.http.body import body_schema
from app.http.errors import RenderError
from app.media.sniff import VIDEO_SUFFIXES

T = TypeVar("T")
Responses = dict[int | str, dict[str, Any]]


class BearerKey(SecurityBase, Generic[T]):
    """Dependency that requires a key; `authenticate` returns its holder or raises `AuthenticationFailed`."""

    def __init__(self, name: str, description: str, authenticate: Callable[[Request], Awaitable[T]]) -> None:
        self.scheme_name = name
        self.model = HTTPBearer(description=description)
        self._authenticate = authenticate

    async def __call__(self, request: Request) -> T:
        return await self._authenticate(request)


def parameter(
    place: Literal["header", "query"], name: str, description: str, *, kind: str = "string"
) -> dict[str, Any]:
    return {"in": place, "name": name, "description": description, "schema": {"type": kind}}


def create_schema(model: type[BaseModel], *parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the `body_schema` of a call that creates a video, with the headers that all such calls read."""
    return {**body_schema(model), "parameters": [*CREATE_HEADERS, *parameters]}


def file_responses(*kinds: str) -> Responses:
    """Return the responses of a route that streams a file."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    return {
        200: {"content": content},
        206: {"description": "The requested range.", "content": content},
        304: {"description": "The client has the current file already."},
    }


def error_responses(render_error: RenderError, path: str) -> Responses:
    """Return the 4XX and 5XX responses of the routes below `path`, in the shape of the dialect of that path.
    With these FastAPI adds no 422: an invalid request is a 400."""
    sample = errors.InvalidRequest("what is wrong, and the next step")
    schema = _schema_of(render_error(sample, path=path, request_id="req_..."))
    refusal = {
        "description": "The request was refused or failed; the message states the reason.",
        "content": {"application/json": {"schema": schema}},
    }
    return {"4XX": refusal, "5XX": refusal}


def _schema_of(value: Any) -> dict[str, Any]:
    """The JSON schema of values shaped like `value`; null stands for any type."""
    if isinstance(value, dict):
        fields = {name: _schema_of(field) for name, field in value.items()}
        return {"type": "object", "properties": fields, "required": list(fields)}
    return {"type": "string"} if isinstance(value, str) else {}


CREATE_HEADERS = (
    parameter("header", "Idempotency-Key", "A repeated request with the same key returns the same video."),
    parameter("header", "X-App-ID", "Name of the client application, for usage reports."),
)
FILE_HEADERS = (
    parameter("header", "Range", "`bytes=0-1023` for a part of the file."),
    parameter("header", "If-None-Match", "ETags of the files that the client has."),
)
VIDEO_TYPES = tuple(VIDEO_SUFFIXES)
