"""What /openapi.json says beyond what FastAPI finds out by itself: how a refusal looks at each door."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from fastapi import FastAPI

from app import errors

DialectOf = Callable[[str], ModuleType]


class Described(FastAPI):
    """The application, with a description of it that holds."""

    def __init__(self, *, dialect_of: DialectOf, **options: Any) -> None:
        super().__init__(**options)
        self._dialect_of = dialect_of

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _completed(super().openapi(), self._dialect_of)
        return self.openapi_schema


def _completed(document: dict[str, Any], dialect_of: DialectOf) -> dict[str, Any]:
    """Every refusal has the shape of its door; what is not valid is a 400, never FastAPI's 422."""
    refusals: dict[str, Any] = {}
    for path, operations in document["paths"].items():
        name = dialect_of(path).__name__.rpartition(".")[2]
        refusals.setdefault(name, _refusal(path, dialect_of))
        for operation in operations.values():
            operation["responses"].pop("422", None)
            refused = {"$ref": f"#/components/responses/{name}"}
            operation["responses"] |= {"4XX": refused, "5XX": refused}
    components = document.setdefault("components", {})
    for of_the_422 in ("HTTPValidationError", "ValidationError"):
        components.get("schemas", {}).pop(of_the_422, None)
    components["responses"] = refusals
    return document


def _refusal(path: str, dialect_of: DialectOf) -> dict[str, Any]:
    sample = errors.InvalidRequest("what is wrong, and what to do about it")
    body = dialect_of(path).render_error(sample, path=path, request_id="req_...")
    return {
        "description": "Refused or failed; the message says why.",
        "content": {"application/json": {"schema": _shape_of(body)}},
    }


def _shape_of(value: Any) -> dict[str, Any]:
    """The JSON schema of what looks like `value`; a null may be anything."""
    if isinstance(value, dict):
        fields = {name: _shape_of(field) for name, field in value.items()}
        return {"type": "object", "properties": fields, "required": list(fields)}
    return {"type": "string"} if isinstance(value, str) else {}
