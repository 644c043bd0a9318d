"""Request bodies: decodes JSON, multipart and forms into one nested document, validated by a wire model.

Bodies are decoded here rather than by FastAPI because every POST accepts both JSON and multipart, with the SDKs'
bracket names, and because every error must have the dialect's shape.
"""

import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile

from app import errors
from app.http import request_facts
from app.http.fields import as_form
from app.http.json_text import MAX_NAME_CHARACTERS, JsonReader, decode_fields
from app.http.multipart import MAX_FIELDS, MAX_TEXT_BYTES, Items, close_files, read_multipart
from app.http.spool import Bodies
from app.video import VideoRequest

MAX_DEPTH = 32
MAX_ESCAPES = 1_000_000
"""Limit of escapes such as `%41` in a form: decoding makes an object of each. The longest data URL has 0.75 million."""
MAX_EXTRA_CHARACTERS = 64 * 2**10
CHARSETS = (b"utf-8", b"utf8", b"us-ascii")
"""Accepted charsets: Python has others whose decoding takes quadratic time or yields no text."""
FIELDS_OF_OTHER_DIALECTS = frozenset(
    {*VideoRequest.model_fields, "duration", "input_reference", "media_retention", "webhook_url", "webhook_secret"}
)
"""Names with a meaning in another dialect. They are not passed on as vendor-specific fields: an upstream might apply
them without the checks and the price of this gateway."""

COMPONENT = "#/components/schemas/{model}"
"""Reference to a model in the OpenAPI document."""

Body = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)


@asynccontextmanager
async def body_of(request: Request, model: type[BaseModel], *, optional: bool = False) -> AsyncIterator[Body]:
    """Receive a body and decode JSON, multipart or a URL-encoded form into one nested document; file parts are
    `UploadFile`s, open until the block ends. JSON text in a field that `model` has as an object, a list or a medium is
    decoded, too. An empty body is an empty document if it is `optional`.

    Raises `InvalidRequest` for a body that cannot be read or stored, `UnsupportedMediaType`, `PayloadTooLarge`,
    `RateLimited` and `ServiceUnavailable`.
    """
    kind = _kind_of(request)
    bodies: Bodies = request.scope["gateway_bodies"]
    at_most = MAX_TEXT_BYTES if kind == "multipart" else None
    items: Items = []
    reader = JsonReader()
    async with bodies.receive(request, at_most=at_most) as spool:
        try:
            if optional and not spool.size:
                document: Body = {}
            elif kind == "multipart":
                items, held = await read_multipart(request, spool, reader, model)
                bodies.shrink(spool, held)
                document = _nest(items)
            elif kind == "form":
                document = _form(await spool.read(), reader)
            else:
                document = _object(reader.read(await spool.read()))
            spool.close()
            decode_fields(model, document, reader)
            if isinstance(document.get("model"), str):  # noted before it is validated: errors name it, too
                request_facts.note(model=document["model"])
            yield checked(document)
        finally:
            close_files(items)


def _kind_of(request: Request) -> Literal["multipart", "form", "json"]:
    """The kind of a body by its headers. Raises `UnsupportedMediaType`."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise errors.UnsupportedMediaType(
            f"content-encoding {coding!r:.80} is not supported; send the body uncompressed"
        )
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        _refuse_charset(request)
        return "multipart"
    if media_type == "application/x-www-form-urlencoded":
        _refuse_charset(request)
        return "form"
    if media_type in ("", "application/json", "text/plain") or media_type.endswith("+json"):
        return "json"  # fetch labels a string as text/plain
    raise errors.UnsupportedMediaType(
        f"a body of type {media_type!r:.80} is not understood; send application/json or multipart/form-data"
    )


def _refuse_charset(request: Request) -> None:
    """Raise `UnsupportedMediaType` for a form in any charset but UTF-8."""
    options = parse_options_header(request.headers["content-type"])[1]
    charset = options.get(b"charset", b"utf-8").strip().lower()
    if charset not in CHARSETS:
        raise errors.UnsupportedMediaType(f"a form in the charset {charset.decode('latin-1')!r:.80} is not understood")


def _object(document: Any) -> Body:
    if not isinstance(document, dict):
        raise errors.InvalidRequest("the body must be a JSON object", code="invalid_json")
    return document


def _form(raw: bytes, reader: JsonReader) -> Body:
    """Decode a form. curl labels every `-d` body as a form, so a body that starts with `{` is read as JSON."""
    if raw.lstrip().startswith(b"{"):
        return _object(reader.read(raw))
    if raw.count(b"%") > MAX_ESCAPES:
        raise errors.InvalidRequest("the form has too many %-escapes in it; send it as multipart/form-data or as JSON")
    try:
        items = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:  # also raised for invalid UTF-8
        raise errors.InvalidRequest(
            f"the form cannot be read: it has to be UTF-8, with at most {MAX_FIELDS} fields"
        ) from None
    return _nest(list(items))


_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")


def _nest(items: Items) -> Body:
    """Build the document that `f`, `f[]`, `f[N]`, `f[key]`, `f[][key]` and `f[N][key]` describe."""
    root: Body = {}
    for name, value in items:
        match = _NAME.fullmatch(name)
        if match is None:
            raise errors.InvalidRequest(
                f"the field name {name!r:.80} is not understood", param=name[:MAX_NAME_CHARACTERS]
            )
        path = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
        if len(path) > MAX_DEPTH:
            raise errors.InvalidRequest(
                f"the field {match[1]!r:.80} is nested too deeply", param=match[1][:MAX_NAME_CHARACTERS]
            )
        _put(root, path, value)
    return root


def _put(root: Body, path: list[str], value: Any) -> None:
    node: Any = root
    for key, following in zip(path, [*path[1:], None], strict=True):
        fresh: Any = value if following is None else [] if following == "" or following.isdecimal() else {}
        if isinstance(node, dict):
            if key in node and following is None:  # a repeated plain name is a list, as in any form
                node[key] = [*node[key], value] if isinstance(node[key], list) else [node[key], value]
                return
            node = node.setdefault(key, fresh)
        else:
            node = _put_in_list(node, key, following, fresh, path)
        if following is not None and not isinstance(node, dict if isinstance(fresh, dict) else list):
            raise errors.InvalidRequest(
                f"the field {path[0]!r:.80} is given in two shapes", param=path[0][:MAX_NAME_CHARACTERS]
            )


def _put_in_list(node: list[Any], key: str, following: str | None, fresh: Any, path: list[str]) -> Any:
    if key == "":
        if following and node and isinstance(node[-1], dict) and following not in node[-1]:
            return node[-1]
        node.append(fresh)
        return node[-1]
    if not key.isdecimal() or len(key) > 4 or int(key) > MAX_FIELDS:
        raise errors.InvalidRequest(
            f"the field {path[0]!r:.80} is given in two shapes", param=path[0][:MAX_NAME_CHARACTERS]
        )
    index = int(key)
    if index < len(node):
        return node[index]
    node.append(fresh)  # parts come in order; missing indexes are skipped
    return node[-1]


def checked(document: Body) -> Body:
    """Refuse what JSON or PostgreSQL cannot store: NUL, lone surrogates, infinite numbers, excessive nesting."""

    def check(value: Any, name: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise errors.InvalidRequest(f"{name} is nested too deeply", param=name)
        if isinstance(value, str):
            if not _is_text(value):
                raise errors.InvalidRequest(f"{name} contains a character that is not text", param=name)
        elif isinstance(value, float) and value - value != 0:
            raise errors.InvalidRequest(f"{name} is not a finite number", param=name)
        elif isinstance(value, int) and abs(value) >= 2**63:
            raise errors.InvalidRequest(f"{name} is too large a number", param=name)
        elif isinstance(value, dict):
            for key, item in value.items():
                check(key, name, depth + 1)
                check(item, name, depth + 1)
        elif isinstance(value, list):
            for item in value:
                check(item, name, depth + 1)

    for key, value in document.items():
        check(key, "a field name", 0)
        check(value, key[:MAX_NAME_CHARACTERS], 0)
    return document


def _is_text(value: str) -> bool:
    if value.isascii():  # a data URL is not copied
        return "\x00" not in value
    try:
        return b"\x00" not in value.encode()
    except UnicodeEncodeError:
        return False


def validated(model: type[Model], document: Mapping[str, Any], *, keep_nulls: bool = False) -> Model:
    """Validate a document by its wire model; text is coerced by schema, and a field that is null is absent, unless
    `keep_nulls`. Raises `InvalidRequest` naming the field."""
    if not keep_nulls:
        document = {name: value for name, value in document.items() if value is not None}
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_context=False, include_url=False)[0]
        named = [str(part) for part in problem["loc"] if not str(part).startswith(("function-", "tagged-"))]
        param = ".".join(named)[:MAX_NAME_CHARACTERS] or None
        if problem["type"] == "missing":
            raise errors.InvalidRequest(f"{param} is required", param=param, code="missing_parameter") from None
        message = problem["msg"].removeprefix("Value error, ")
        text = f"{param}: {message}" if param else message
        raise errors.InvalidRequest(text, param=param, code="invalid_value") from None


def extra_of(wire: BaseModel) -> dict[str, Any]:
    """Return the vendor-specific fields. Raises `InvalidRequest` for a field of another dialect, for a file, and if
    they are too long together."""
    extra = dict(wire.model_extra or {})
    for name in sorted(extra.keys() & FIELDS_OF_OTHER_DIALECTS):
        raise errors.InvalidRequest(f"{name} is not a field of this call; /docs lists its fields", param=name)
    for name, value in extra.items():
        if _has_file(value):
            raise errors.InvalidRequest(f"{name}: no file is expected here", param=name[:MAX_NAME_CHARACTERS])
    if len(json.dumps(extra)) > MAX_EXTRA_CHARACTERS:
        longest = max(extra, key=lambda name: len(json.dumps(extra[name])))[:MAX_NAME_CHARACTERS]
        raise errors.InvalidRequest(
            f"{longest}: fields that only a vendor knows have at most {MAX_EXTRA_CHARACTERS} characters together",
            param=longest,
        )
    return extra


def _has_file(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(_has_file(item) for item in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, UploadFile)


def body_schema(model: type[BaseModel], *, required: bool = True, json: bool = True) -> dict[str, Any]:
    """Return the `requestBody` in OpenAPI of a route that decodes its own body; `complete` in `http/openapi.py` makes
    components of the schemas. Every route takes JSON and multipart; multipart is described where files can be sent,
    and JSON unless `json` is false."""
    schema = model.model_json_schema(ref_template=COMPONENT)
    content = {"application/json": {"schema": schema}} if json else {}
    parts = as_form(schema["properties"])
    if parts != schema["properties"]:
        form = {**schema, "title": f"{schema['title']}Form", "properties": parts}
        content["multipart/form-data"] = {"schema": form}
    return {"requestBody": {"required": required, "content": content}}


def reject_bool(value: Any) -> Any:
    """Raise `ValueError` for true and false, which pydantic would accept as the numbers 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


def fingerprint(body: Body, *, operation: str = "create") -> str:
    """Return a hash of the request, equal for JSON and multipart; files are hashed by their bytes."""
    plain = json.dumps([operation, _as_text(body)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(plain.encode()).hexdigest()


def _as_text(value: Any) -> Any:
    """Convert a value to its form equivalent: every scalar is text, nulls are left out."""
    match value:
        case dict():
            return {key: _as_text(item) for key, item in value.items() if item is not None}
        case list():
            return [_as_text(item) for item in value]
        case UploadFile():
            digest = hashlib.file_digest(value.file, "sha256").hexdigest()  # type: ignore[arg-type]  # a spooled file
            value.file.seek(0)
            return f"file {digest}"
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
    return str(value)
