"""A transport to the gateway that compares every response with the OpenAPI document, so that the two cannot differ."""

import json
import re
from collections.abc import Iterator
from datetime import date, datetime
from functools import cache, lru_cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker
from starlette.types import ASGIApp

from app.main import create_app
from app.settings import load

ALIAS = "/openai/v1/"
"""Second prefix of the OpenAI dialect, which the document omits."""
WITH_SLASHES = ("model",)
"""Parameters of paths that may contain slashes."""
"""Methods that the document omits: HEAD is GET without a body, OPTIONS is a preflight of a browser at any path."""

Json = dict[str, Any]
FORMATS = FormatChecker(())


def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


def _is_date(value: object) -> bool:
    return not isinstance(value, str) or bool(date.fromisoformat(value))


FORMATS.checks("date-time", raises=ValueError)(_is_date_time)  # called, since as a decorator it is untyped
FORMATS.checks("date", raises=ValueError)(_is_date)


@cache
def document() -> Json:
    """The OpenAPI document, which is the same whatever the settings, without its servers."""
    return create_app(load(_env_file=None, api_keys=["x"])).openapi()


class DescribedTransport(httpx.ASGITransport):
    """Raises `AssertionError` for a response that the document lacks or describes otherwise, and for a JSON object with
    a field that it lacks."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app)
        self.described: set[tuple[str, int]] = set()
        """Operation id and status of each response that was compared."""
        self._compared: set[tuple[str, int, bytes]] = set()
        """The same with the body: a thousand equal responses are compared once."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        operation = operation_of(request.method, re.sub("/+", "/", request.url.path).rstrip("/") or "/")
        if operation is not None and request.method not in ("HEAD", "OPTIONS"):  # a preflight is for all routes
            kind = response.headers.get("content-type", "").partition(";")[0]
            content = await response.aread() if kind == "application/json" else b""
            described = (operation["operationId"], response.status_code)
            if (*described, content) not in self._compared:
                found = list(problems(operation, response.status_code, kind, json.loads(content) if content else None))
                call = f"{request.method} {request.url.path} returns {response.status_code}"
                assert not found, f"{call}, and differs from the OpenAPI document: {found}"
                self.described.add(described)
                self._compared.add((*described, content))
        return response


@lru_cache(1_000)
def operation_of(method: str, path: str) -> Json | None:
    """The operation at a path, None for a path that the document omits; for a method that the path lacks any other of
    the path, whose errors have the same shape."""
    for pattern, operations in _paths():
        if pattern.fullmatch(path.replace(ALIAS, "/v1/", 1)):
            found: Json = operations.get(method.lower()) or next(iter(operations.values()))
            return found
    return None


@cache
def _paths() -> list[tuple[re.Pattern[str], Json]]:
    """Patterns of all paths, literal segments first."""

    def pattern(path: str) -> re.Pattern[str]:
        return re.compile(re.sub(r"\\{(\w+)\\}", lambda m: ".+" if m[1] in WITH_SLASHES else "[^/]+", re.escape(path)))

    ordered = sorted(document()["paths"], key=lambda path: [part.startswith("{") for part in path.split("/")])
    return [(pattern(path), document()["paths"][path]) for path in ordered]


def problems(operation: Json, status: int, kind: str, body: Any) -> Iterator[str]:
    """Find the parts of a response that an operation lacks or describes otherwise."""
    responses = operation["responses"]
    described = responses.get(str(status), responses.get(f"{status // 100}XX"))
    if described is None:
        yield f"it has {', '.join(responses)} only"
    elif not kind and described.get("content"):
        yield f"it has no content, not {' or '.join(described['content'])}"
    elif kind and kind not in described.get("content", {}):
        yield f"it has no {kind}"
    elif kind == "application/json" and body is None:
        yield "it has no JSON"
    elif body is not None:
        schema = described["content"][kind]["schema"]
        yield from (
            f"{error.json_path}: {error.message[:300]}" for error in _validator(json.dumps(schema)).iter_errors(body)
        )


@cache
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator({**json.loads(schema), "components": _strict_components()}, format_checker=FORMATS)


@cache
def _strict_components() -> Any:
    return _strict(document()["components"])


def _strict(schema: Any) -> Any:
    """Forbid fields that are not described; the document itself allows them, since later releases add some."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(value) for name, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        strict.setdefault("additionalProperties", False)
    return strict
