"""Every text, list and table in a request body has a length: otherwise it may be as large as the whole body."""

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from pydantic import BaseModel

import app.admin
import app.dialects
from app.dialects.shared import ModelConfig
from app.http.fields import SHARED_SCHEMAS
from app.http.openapi import ResponseModel


def wire_models() -> Iterator[type[BaseModel]]:
    """The models of request bodies: those of dialects and the administration API, without the settings of dialects and
    the models of responses."""
    for package in (app.dialects, app.admin):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for value in vars(import_module(found.name)).values():
                is_model = isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == found.name
                if is_model and not issubclass(value, ModelConfig | ResponseModel):
                    yield value


def unlimited(schema: dict[str, Any], definitions: dict[str, Any], path: str) -> Iterator[str]:
    """The paths of what has no length in a JSON schema."""
    if schema.get("title") in SHARED_SCHEMAS:  # `Uploads.media` and `MAX_MEDIA` limit media
        return
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    choices = [choice for kind in ("anyOf", "allOf", "oneOf") for choice in schema.get(kind, ())]
    for choice in choices:
        yield from unlimited(choice, definitions, path)
    kind = schema.get("type")
    if kind is None and not choices and schema.keys().isdisjoint({"enum", "const"}):
        yield f"{path}: anything"
    if kind == "string" and schema.keys().isdisjoint({"maxLength", "enum", "const", "format"}):
        yield f"{path}: text"
    if kind == "array":
        if "maxItems" not in schema:
            yield f"{path}: list"
        yield from unlimited(schema.get("items", {}), definitions, f"{path}[]")
    if kind == "object":
        yield from _unlimited_fields(schema, definitions, path)


def _unlimited_fields(schema: dict[str, Any], definitions: dict[str, Any], path: str) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        yield from unlimited(field, definitions, f"{path}.{name}")
    values = schema.get("additionalProperties", False)
    if values is not False and not schema.get("properties"):  # else fields of a vendor: `extra_of` limits them
        if "maxProperties" not in schema:
            yield f"{path}: table"
        if "maxLength" not in schema.get("propertyNames", {}):
            yield f"{path}: names in a table"
        yield from unlimited({} if values is True else values, definitions, f"{path}.*")


def problems(model: type[BaseModel]) -> set[str]:
    schema = model.model_json_schema()
    return set(unlimited(schema, schema.get("$defs", {}), model.__name__))


MODELS = sorted(set(wire_models()), key=lambda model: (model.__module__, model.__name__))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.__module__}.{model.__name__}")
def test_every_field_of_a_body_has_a_length(model: type[BaseModel]) -> None:
    assert problems(model) == set()


def test_fields_without_a_length_are_found() -> None:
    class Inner(BaseModel):
        text: str | None = None

    class Outer(BaseModel):
        inner: Inner
        names: list[str]
        table: dict[str, str]
        anything: Any
        any_list: list[Any]

    assert problems(Outer) == {
        "Outer.inner.text: text",
        "Outer.names: list",
        "Outer.names[]: text",
        "Outer.table: table",
        "Outer.table: names in a table",
        "Outer.table.*: text",
        "Outer.anything: anything",
        "Outer.any_list: list",
        "Outer.any_list[]: anything",
    }
