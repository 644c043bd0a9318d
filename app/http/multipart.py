"""Multipart bodies: which parts are files, which are JSON, and limits for all of them."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request
from pydantic import BaseModel
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app import errors
from app.http.json_text import JsonReader, takes_text
from app.http.spool import Spool, disk_errors

MAX_TEXT_BYTES = 24 * 2**20
"""Limit of all text parts of a multipart body together: a data URL may have 20,971,520 characters."""
FILE_MEMORY_BYTES = 64 * 2**10
"""Bytes of each file part of a large body that stay in memory; longer ones are in a temporary file."""
MAX_FIELDS = 1_000
MAX_FILES = 20

BLOB = "blob"
"""The filename that browsers give to a `Blob` in a form, be it JSON or a picture."""
BLOB_HEAD_BYTES = 64

Items = list[tuple[str, Any]]

_PLAIN_NAME = re.compile(r"[^\[\]]+(?:\[\d*\])*")
"""The name of a field or of an entry of a list; `field[key]` is a value within an object, which has no files."""
_EXTENDED_FILENAME = re.compile(rb""";\s*filename\*\s*=\s*utf-8'[\w-]*'([^\s;"]+)""", re.IGNORECASE)
"""A filename as RFC 5987 writes it: forbidden in forms (RFC 7578), and sent by older versions of urllib3."""


class _Parser(MultiPartParser):
    """Starlette's parser with a flag for the end, as Starlette accepts a body without its closing boundary; with a
    limit for all text parts together; and with files and JSON known by their types, as clients leave out filenames and
    browsers call every blob `blob`."""

    complete = False
    text_bytes = 0
    is_json = False

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.json_parts: set[int] = set()
        """Indexes of the parts that are JSON: texts, and files with the name of a blob, whose bytes decide."""

    def on_headers_finished(self) -> None:
        part = self._current_part
        disposition = part.content_disposition or b""
        options = parse_options_header(disposition)[1]
        kind = dict(part.item_headers).get(b"content-type", b"").partition(b";")[0].strip().lower()
        self.is_json = kind == b"application/json" or kind.endswith(b"+json")
        if b"filename" not in options:
            extended = _EXTENDED_FILENAME.search(disposition)
            is_text = not kind or kind.startswith(b"text/") or self.is_json
            if extended is not None:
                filename = unquote_to_bytes(extended[1]).translate(None, b'"\\')
                part.content_disposition = disposition + b'; filename="' + filename + b'"'
            elif not is_text and _PLAIN_NAME.fullmatch(options.get(b"name", b"").decode("latin-1")):
                part.content_disposition = disposition + b'; filename=""'
        super().on_headers_finished()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self.count_text(end - start)
        super().on_part_data(data, start, end)

    def count_text(self, size: int) -> None:
        self.text_bytes += size
        if self.text_bytes > MAX_TEXT_BYTES:
            raise MultiPartException(
                f"its text parts have more than {MAX_TEXT_BYTES // 2**20} MiB together; send files as file parts."
            )

    def on_part_end(self) -> None:
        file = self._current_part.file
        if self.is_json and (file is None or file.filename == BLOB):
            self.json_parts.add(len(self.items))
        super().on_part_end()

    def on_end(self) -> None:
        self.complete = True


async def read_multipart(
    request: Request, spool: Spool, reader: JsonReader, model: type[BaseModel]
) -> tuple[Items, int]:
    """Decode a multipart body; returns its parts and the bytes of its text. Raises `InvalidRequest`."""
    boundary = parse_options_header(request.headers["content-type"])[1].get(b"boundary", b"")
    async with aclosing(spool.pieces()) as pieces, aclosing(_without_preamble(pieces, boundary)) as body:
        parser = _Parser(
            request.headers, body, max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=MAX_TEXT_BYTES
        )
        if spool.is_large:
            parser.spool_max_size = FILE_MEMORY_BYTES
        try:
            with disk_errors():  # its files are written to the same directory
                items: Items = list((await parser.parse()).multi_items())
        except MultiPartException as error:
            raise _unreadable(error) from None
        except UnicodeError:
            raise errors.InvalidRequest("the multipart body is not text in the charset it names") from None
    try:
        if not parser.complete:
            raise errors.InvalidRequest("the multipart body stops before its closing boundary; was the upload cut off?")
        for index in sorted(parser.json_parts):
            name, value = items[index]
            if not isinstance(value, UploadFile):
                items[index] = name, _json_or_text(name, value, reader, model)
            elif value.file.read(BLOB_HEAD_BYTES).lstrip().startswith((b"{", b"[")):
                parser.count_text(value.size or 0)
                value.file.seek(0)
                with value.file:
                    items[index] = name, reader.read(value.file.read(), name)
            else:
                value.file.seek(0)
    except MultiPartException as error:
        close_files(items)
        raise _unreadable(error) from None
    except errors.InvalidRequest:
        close_files(items)
        raise
    return items, parser.text_bytes


def _unreadable(error: MultiPartException) -> errors.InvalidRequest:
    hint = " If that was a Buffer in Node: wrap it with toFile()." if "Too many fields" in error.message else ""
    return errors.InvalidRequest(f"the multipart body cannot be read: {error.message}{hint}")


def _json_or_text(name: str, text: str, reader: JsonReader, model: type[BaseModel]) -> Any:
    """Decode a part that is labelled JSON; one that is not JSON stays text where the model has text, since curl takes
    any label: `-F 'prompt=a boat;type=application/json'`. Raises `InvalidRequest`."""
    try:
        return reader.read(text, name)
    except errors.InvalidRequest:
        if takes_text(model, name):
            return text
        raise


async def _without_preamble(pieces: AsyncGenerator[bytes], boundary: bytes) -> AsyncGenerator[bytes]:
    """The body from its first boundary on: what stands before it has no meaning (RFC 2046, 5.1.1)."""
    held = b"\n"  # the first boundary is at the beginning of the body or of a line
    delimiter = b"\n--" + boundary
    begun = False
    async for piece in pieces:
        if begun:
            yield piece
            continue
        held += piece
        start = held.find(delimiter)
        if start >= 0:
            begun = True
            yield held[start + 1 :]
        else:
            held = held[-len(delimiter) :]
    if not begun and held != b"\n":  # else the body is empty
        raise MultiPartException("it does not have the boundary that its content-type names.")


def close_files(items: Items) -> None:
    for _, value in items:
        if isinstance(value, UploadFile):
            value.file.close()
