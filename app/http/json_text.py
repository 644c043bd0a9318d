"""JSON in request bodies: the whole body, a part of a multipart body, or the text of a field."""

import json
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from app import errors

MAX_NODES = 200_000
"""Limit of commas and opening brackets in the JSON of a body: a prompt of any length has fewer, and a data URL has
one."""
MAX_NAME_CHARACTERS = 80


class JsonReader:
    """Decodes the JSON texts of one body, within one limit for all of them."""

    def __init__(self) -> None:
        self._left = MAX_NODES

    def read(self, text: bytes | str, name: str | None = None) -> Any:
        """Decode the whole body or, with `name`, a part or a field. Raises `InvalidRequest`."""
        raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        self._left -= raw.count(b",") + raw.count(b"[") + raw.count(b"{")
        if self._left < 0:
            raise _invalid(name, "has too many values in it")
        try:
            return json.loads(raw, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:  # invalid UTF-8 raises ValueError, too
            raise _invalid(name, f"is not valid JSON{_where(raw, error)}") from None


def _invalid(name: str | None, why: str) -> errors.InvalidRequest:
    param = name and name[:MAX_NAME_CHARACTERS]
    return errors.InvalidRequest(f"{param or 'the body'} {why}", param=param, code="invalid_json")


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _where(raw: bytes, error: Exception) -> str:
    if not raw:
        return ": it is empty"
    if raw.lstrip().startswith(b"--"):
        return ": it looks like multipart, whose content-type is multipart/form-data with a boundary"
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        return f": it is not {error.encoding.upper()}: byte {error.start} is 0x{byte:02X}; encode the text as UTF-8"
    return f" at line {error.lineno} column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""


def takes_text(model: type[BaseModel], name: str) -> bool:
    """True if the wire model has a field of this name that takes any text, or some words."""
    field = model.model_fields.get(name)
    kinds = _members(field.annotation) if field is not None else []
    return any(kind is str or get_origin(kind) is Literal for kind in kinds)


def decode_fields(model: type[BaseModel], document: dict[str, Any], reader: JsonReader, *, within: str = "") -> None:
    """Replace JSON text in the fields that the wire model has as an object, a list or a medium by what it stands for:
    forms have no other way to write these. A field of plain text is left alone: a prompt may begin with a brace.

    Raises `InvalidRequest` naming the field.
    """
    for name, field in model.model_fields.items():
        if name in document:
            document[name] = _decoded(document[name], field.annotation, reader, within + name)


def _decoded(value: Any, annotation: Any, reader: JsonReader, name: str) -> Any:
    kinds = _members(annotation)
    if isinstance(value, str) and value[:80].lstrip().startswith(("{", "[")) and _takes_json(kinds):
        value = reader.read(value, name)
    if isinstance(value, dict):
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                decode_fields(kind, value, reader, within=f"{name}.")
    elif isinstance(value, list):
        of_items = next((Any if kind is Any else get_args(kind)[0] for kind in kinds if _is_list(kind)), None)
        # A list within a list is no medium; it may be nested deeper than a call stack.
        return [item if isinstance(item, list) else _decoded(item, of_items, reader, name) for item in value]
    return value


def _members(annotation: Any) -> list[Any]:
    """The types that an annotation allows."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]


def _takes_json(kinds: list[Any]) -> bool:
    """True if none of the types is text, and one is an object or a list; a medium is `Any`."""
    return str not in kinds and any(
        _is_list(kind) or get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, BaseModel))
        for kind in kinds
    )


def _is_list(kind: Any) -> bool:
    return kind is Any or get_origin(kind) is list
