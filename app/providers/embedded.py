"""JSON answers that may hold a whole video file: read in pieces, in bounded memory.

`JsonCutter` keeps a document with its long strings cut; `open_file` streams one string of a document as the file that
it encodes. Both look at bytes and leap over strings, and both are bounded whatever an upstream sends.
"""

import json
import re
from binascii import a2b_base64
from collections.abc import AsyncIterator, Sequence

MAX_JSON_BYTES = 6 * 2**30
"""Size limit of an answer whose long strings are cut: the default limit of a file as base64, and a margin."""
PIECE_BYTES = 2**16
"""Longest string that is kept, and the longest piece that `JsonCutter` takes."""
HEAD_BYTES = 1_000
"""Part of a longer string that is kept: enough to see its kind, too long for an id."""
MAX_TOKENS = 10**6
MAX_DEPTH = 500

_INSIDE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_WHOLE = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
"""JSON up to a string that does not end within the data."""
_HEAD = re.compile(rb'(?:[^"\\]|\\u[0-9a-fA-F]{4}|\\[^u])*', re.DOTALL)
_TOKEN = re.compile(rb'[][{},"]')
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|(.?))", re.DOTALL)
_OPEN_ESCAPE = re.compile(rb"\\u[0-9a-fA-F]{0,3}\Z")
_STANDARD = bytes.maketrans(b"-_", b"+/")
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BLANKS = b" \t\r\n"


class MissingString(Exception):
    """The document has no embedded file at the path."""


class BrokenString(Exception):
    """The embedded file ends early or is not base64."""


class JsonCutter:
    """Keeps the bytes of a JSON document in `kept`, each string longer than `PIECE_BYTES` cut to `HEAD_BYTES`; keeps
    all bytes of anything else."""

    def __init__(self) -> None:
        self.kept = bytearray()
        self._is_json: bool | None = None
        self._rest = b""
        self._opened_at: int | None = None
        """Index in `kept` at which the open string begins."""
        self._is_cut = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece, of at most `PIECE_BYTES`."""
        if self._is_json is None:
            self._is_json = piece.lstrip(b"\xef\xbb\xbf" + _BLANKS)[:1] in (b"{", b"[")
        if not self._is_json:
            self.kept += piece
            return
        data, self._rest = self._rest + piece, b""
        start = 0 if self._opened_at is None else self._continue(data, 0)
        if self._opened_at is not None:
            return
        end = _end(_WHOLE, data, start)
        self.kept += data[start:end]
        if end < len(data):
            self.kept += b'"'
            self._opened_at, self._is_cut = len(self.kept), False
            self._continue(data, end + 1)

    def _continue(self, data: bytes, start: int) -> int:
        """Take what belongs to the open string; returns the index behind it."""
        end = _inside_end(data, start)
        if not self._is_cut:
            self.kept += data[start:end]
            self._is_cut = len(self.kept) - (self._opened_at or 0) > PIECE_BYTES
            if self._is_cut:
                self._cut()
        if end == len(data):
            return end
        if data[end : end + 1] == b"\\":
            self._rest = b"\\"
            return len(data)
        self.kept += b'"'
        self._opened_at = None
        return end + 1

    def _cut(self) -> None:
        """Cut the open string behind a whole character."""
        text = self.kept[self._opened_at :][:HEAD_BYTES]
        whole = text[: _end(_HEAD, bytes(text), 0)]
        self.kept[self._opened_at :] = whole.decode("utf-8", "ignore").encode()


async def open_file(pieces: AsyncIterator[bytes], path: Sequence[str | int]) -> tuple[str | None, AsyncIterator[bytes]]:
    """Open the file that the string at `path` of a JSON document is: a `data:` URL, or base64.

    Returns the content type of the URL, if any, and the chunks of the file. Base64 may be of either alphabet, in lines,
    and without padding. Raises `MissingString`; the chunks raise `BrokenString`.
    """
    texts = _unescaped(_string_at(pieces, path))
    head = b""
    async for text in texts:
        head += text
        if len(head) >= HEAD_BYTES:
            break
    head = head.lstrip()
    if not head or re.match(rb"https?:", head, re.IGNORECASE):
        raise MissingString
    if head[:5].lower() != b"data:":
        return None, _decoded(head, texts)
    declared, _, start = head[5:].partition(b",")
    content_type, *parameters = declared.decode("ascii", "replace").lower().replace(" ", "").split(";")
    if "base64" not in parameters:
        raise BrokenString
    return content_type or None, _decoded(start, texts)


async def _string_at(pieces: AsyncIterator[bytes], path: Sequence[str | int]) -> AsyncIterator[bytes]:
    """The text of one string in pieces, escapes and all. Raises `MissingString`, `BrokenString`."""
    finder = _Finder(path)
    async for piece in pieces:
        text = finder.feed(piece)
        if text:
            yield text
        if finder.is_done:
            return
    raise BrokenString if finder.is_found else MissingString


class _Finder:
    """Follows a path through a JSON text; tolerates what is not JSON."""

    def __init__(self, path: Sequence[str | int]) -> None:
        self.is_found = self.is_done = False
        self._path = list(path)
        self._at: list[str | int | None] = []
        """The key or index in each open container; None where an object's next string is a key."""
        self._in_string = False
        self._key: bytearray | None = None
        self._rest = b""
        self._tokens = 0

    def feed(self, piece: bytes) -> bytes:
        """The part of the string at the path that is in this piece."""
        data, self._rest, found, start = self._rest + piece, b"", b"", 0
        while start < len(data) and not self.is_done:
            if not self._in_string:
                token = _TOKEN.search(data, start)
                if token is None:
                    break
                self._take(token[0])
                start = token.end()
                continue
            end = _inside_end(data, start)
            if self.is_found:
                found += data[start:end]
            elif self._key is not None and len(self._key) < HEAD_BYTES:
                self._key += data[start:end]
            if data[end : end + 1] == b"\\":
                self._rest = b"\\"
                break
            if end < len(data):
                self._close()
            start = end + 1
        return found

    def _take(self, token: bytes) -> None:
        self._tokens += 1
        if self._tokens > MAX_TOKENS or len(self._at) > MAX_DEPTH:
            raise MissingString
        if token == b'"':
            self._in_string = True
            if self._at and self._at[-1] is None:
                self._key = bytearray()
            else:
                self.is_found = self._at == self._path
        elif token in (b"{", b"["):
            self._at.append(None if token == b"{" else 0)
        elif not self._at:
            raise MissingString
        elif token == b",":
            self._at[-1] = self._at[-1] + 1 if isinstance(self._at[-1], int) else None
        else:
            self._at.pop()

    def _close(self) -> None:
        self._in_string = False
        self.is_done = self.is_found
        if self._key is not None:
            try:
                self._at[-1] = str(json.loads(b'"' + self._key + b'"'))
            except ValueError:
                self._at[-1] = "\0"  # no name of a place
            self._key = None


async def _unescaped(texts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same text with its JSON escapes resolved; those of no ASCII character become `?`."""
    rest = b""
    async for text in texts:
        data, rest = rest + text, b""
        if b"\\" in data:
            if half := _OPEN_ESCAPE.search(data):
                data, rest = data[: half.start()], half[0]
            data = _ESCAPE.sub(_character, data.replace(rb"\/", b"/"))
        if data:
            yield data
    if rest:
        raise BrokenString


def _character(escape: re.Match[bytes]) -> bytes:
    if escape[1] is not None:
        return chr(int(escape[1], 16)).encode("ascii", "replace")
    return {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"?", b"f": b"?", b"u": b"?"}.get(escape[2], escape[2])


async def _decoded(head: bytes, texts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The bytes of a base64 text that begins with `head`. Raises `BrokenString`."""
    rest, is_padded = b"", False
    async for text in _chained(head, texts):
        digits, padding, more = text.translate(_STANDARD, _BLANKS).partition(b"=")
        if (digits and is_padded) or more.strip(b"=") or digits.translate(None, _ALPHABET):
            raise BrokenString
        is_padded = is_padded or bool(padding)
        digits = rest + digits
        whole = len(digits) - len(digits) % 4
        rest = digits[whole:]
        if whole:
            yield a2b_base64(digits[:whole])
    if len(rest) == 1:
        raise BrokenString
    if rest:
        yield a2b_base64(rest + b"=" * (4 - len(rest)))


async def _chained(head: bytes, texts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for text in texts:
        yield text


def _inside_end(data: bytes, start: int) -> int:
    """The end of the inside of a string: its quote, a backslash that ends the data, or the end of the data."""
    quote = data.find(b'"', start)
    end = len(data) if quote < 0 else quote
    return end if data.find(b"\\", start, end) < 0 else _end(_INSIDE, data, start)


def _end(pattern: re.Pattern[bytes], data: bytes, start: int) -> int:
    """The end of a match at `start`, for patterns that also match nothing."""
    match = pattern.match(data, start)
    return start if match is None else match.end()
