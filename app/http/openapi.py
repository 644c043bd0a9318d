"""The OpenAPI document: what routes add to FastAPI's, as they read their own bodies and build their own responses.

Routes name the models of their responses (`responses=returns(Video)`) and of their bodies (`body_schema`). Nothing is
validated by the models of responses when the gateway runs: the tests compare every response with them.
"""

from collections.abc import Awaitable, Callable, Iterator
from copy import deepcopy
from typing import Any, ClassVar, Generic, Literal, TypeVar

from fastapi import FastAPI, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from pydantic import BaseModel, ConfigDict, Field

from app.http.body import COMPONENT, body_schema
from app.http.fields import SHARED_SCHEMAS
from app.media.sniff import VIDEO_SUFFIXES

T = TypeVar("T")
Responses = dict[int | str, dict[str, Any]]
Json = dict[str, Any]

KEY_HEADERS = ("api-key", "x-api-key", "x-goog-api-key")
"""Headers with the key alone, as clients of Azure, Anthropic and Google send it."""
CLIENT_KEY = "bearer"
"""Name of the security scheme of API keys as bearer tokens; the key headers are alternatives."""
METRICS_KEY = "metrics_key"

PATH_PARAMETERS = {
    "video_id": "Id of the video, `video_...`.",
    "character_id": "Id of the character, `char_...`.",
    "request_id": "Id of the request, which is the id of its video.",
    "endpoint_id": "Id of the webhook endpoint.",
    "delivery_id": "Id of the delivery.",
    "model": "Name of a model or an alias; it may contain slashes.",
    "project_id": "Id or name of the project.",
    "key_id": "Id of the key.",
    "name": "Name of the provider.",
    "attempt_id": "Id of the attempt, which is the `id` of the entry in the list of repairs.",
    "index": "Index of the output, from 0.",
    "suffix": "Suffix of the file name, such as `mp4`.",
}
"""Descriptions of path parameters, which mean the same on all routes."""


class ResponseModel(BaseModel):
    """Base of the models that describe responses. Clients have to accept further fields: later releases add some."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    example: ClassVar[Json | None] = None
    """An object of the model for the document."""


def may_be_absent() -> Any:
    """Return the default of a field that some responses lack, and that is never null."""
    return Field(default_factory=object)  # so that the schema has no default; these models are never instantiated


class BearerKey(SecurityBase, Generic[T]):
    """Dependency that requires a key; `authenticate` returns its holder or raises `AuthenticationFailed`."""

    def __init__(self, name: str, description: str, authenticate: Callable[[Request], Awaitable[T]]) -> None:
        self.scheme_name = name
        self.model = HTTPBearer(description=description)
        self._authenticate = authenticate

    async def __call__(self, request: Request) -> T:
        return await self._authenticate(request)


def operation_id(prefix: str) -> Callable[[APIRoute], str]:
    """Return a `generate_unique_id_function`: operations are called like their functions, with the prefix of their
    dialect in front."""
    return lambda route: f"{prefix}_{route.name}" if prefix else route.name


def parameter(
    place: Literal["header", "query"], name: str, description: str, *, kind: str = "string"
) -> dict[str, Any]:
    return {"in": place, "name": name, "description": description, "schema": {"type": kind}}


def create_schema(model: type[BaseModel], *parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the `body_schema` of a call that creates a video, with the headers that all such calls read."""
    return {**body_schema(model), "parameters": [*CREATE_HEADERS, *parameters]}


def creates_video(route: object) -> bool:
    """Return True for a route whose schema is that of `create_schema`."""
    schema = getattr(route, "openapi_extra", None) or {}
    return all(header in schema.get("parameters", ()) for header in CREATE_HEADERS)


def returns(model: Any, status: int = 200) -> Responses:
    """Return the response of a route that returns JSON as `model` describes it."""
    return {status: {"model": model}}


def file_responses(*kinds: str) -> Responses:
    """Return the responses of a route that streams a file."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    return {
        200: {"description": "The file.", "content": content},
        206: {"description": "The requested range.", "content": content},
        304: {"description": "The client has the current file already."},
    }


def error_responses(model: type[ResponseModel]) -> Responses:
    """Return the 4XX and 5XX responses of the routes of a dialect, whose errors `model` describes. With these FastAPI
    adds no 422: an invalid request is a 400."""
    refusal = {"description": "The request was refused or failed; the message states the reason.", "model": model}
    return {"4XX": refusal, "5XX": refusal}


CREATE_HEADERS = (
    parameter("header", "Idempotency-Key", "A repeated request with the same key returns the same video."),
    parameter("header", "X-App-ID", "Name of the client application, for usage reports."),
)
FILE_HEADERS = (
    parameter("header", "Range", "`bytes=0-1023` for a part of the file."),
    parameter("header", "If-None-Match", "ETags of the files that the client has."),
)
VIDEO_TYPES = tuple(VIDEO_SUFFIXES)


class DescribedApp(FastAPI):
    """A FastAPI application whose OpenAPI document is completed by `complete`."""

    _document: Json | None = None

    def openapi(self) -> Json:
        if self._document is None:
            self._document = complete(deepcopy(super().openapi()))  # a copy: two threads may build it
        return self._document


def complete(document: Json) -> Json:
    """Move the schemas of bodies to the components, describe the parameters of paths, list all ways to send a key."""
    components = document["components"]
    for operation in _operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            content["schema"] = _component(content["schema"], components["schemas"])
        for found in operation.get("parameters", ()):
            if found["in"] == "path" and found["name"] in PATH_PARAMETERS:
                found.setdefault("description", PATH_PARAMETERS[found["name"]])
        security = operation.setdefault("security", [])
        if {CLIENT_KEY: []} in security:
            security.extend({name: []} for name in KEY_HEADERS)
    schemes = components["securitySchemes"]
    schemes[METRICS_KEY] = {"type": "http", "scheme": "bearer", "description": "`GATEWAY_METRICS_KEY`, if it is set."}
    for name in KEY_HEADERS:
        schemes[name] = {"type": "apiKey", "in": "header", "name": name, "description": "An API key of this gateway."}
    for model in ResponseModel.__subclasses__():
        if model.example is not None and model.__name__ in components["schemas"]:
            components["schemas"][model.__name__]["examples"] = [model.example]  # FastAPI leaves out what is null
    for schema in components["schemas"].values():
        for field in schema.get("properties", {}).values():
            field.pop("title", None)  # only its name in other words
    components["schemas"] = dict(sorted(components["schemas"].items()))
    return document


def _operations(document: Json) -> Iterator[Json]:
    for path in document["paths"].values():
        yield from path.values()


def _component(schema: Json, components: Json) -> Json:
    """Add a model's schema to the components under its title, and the models inside it; return the reference."""
    inner = schema.pop("$defs", {})
    for name, definition in [*inner.items(), (schema["title"], schema)]:
        shared = _with_shared(definition, components)
        if components.setdefault(name, shared) != shared:
            raise ValueError(f"two models are called {name}: give one another title")
    return {"$ref": COMPONENT.format(model=schema["title"])}


def _with_shared(value: Any, components: Json) -> Any:
    """Replace the schemas of `http/fields.py` by references, and add them to the components."""
    if isinstance(value, list):
        return [_with_shared(item, components) for item in value]
    if not isinstance(value, dict):
        return value
    shared = SHARED_SCHEMAS.get(value.get("title", ""))
    if shared is None:
        return {name: _with_shared(inner, components) for name, inner in value.items()}
    components[shared["title"]] = {name: _with_shared(inner, components) for name, inner in shared.items()}
    beside = {name: inner for name, inner in value.items() if name not in shared or inner != shared[name]}
    return {**beside, "$ref": COMPONENT.format(model=shared["title"])}
