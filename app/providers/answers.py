"""Parsing of upstream answers: ids, file URLs, headers. Pure functions; all input is untrusted."""

import json
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeGuard
from urllib.parse import quote

import httpx

from app.providers.base import ListedTask

CONTENT_POLICY_WORDS = ("moderation", "content_policy", "content policy", "safety", "sensitive", "nsfw", "blocked by")
CREDIT_WORDS = (
    "insufficient_quota",
    "insufficient_user_quota",
    "insufficient_balance",
    "insufficient balance",
    "insufficient credit",
    "billing",
)
"""Words of upstreams in errors about the content, and about an account without money."""
KEPT_CHARACTERS = 2_000
"""Length of an answer that is kept for the operator."""
_LONG_TEXT = re.compile(r'"((?:[^"\\]|\\.){400})(?:[^"\\]|\\.)+"')
MAX_REF_CHARACTERS = 512
MAX_REPORTED_DOLLARS = 1_000_000
MAX_UNIX_S = 2**32
MAX_PERCENT = 2**32
"""Bound that a progress beyond 100 has to keep, which neither NaN nor a number too large for a float does."""


def listed_tasks(rows: Any) -> list[ListedTask]:
    """The tasks of a list: those with a usable `id` and the seconds since 1970 as `created_at`."""
    found = []
    for row in rows if isinstance(rows, list) else []:
        ref, seconds = (row.get("id"), row.get("created_at")) if isinstance(row, dict) else (None, None)
        if is_usable(ref) and isinstance(seconds, int | float) and 0 <= seconds < MAX_UNIX_S:
            model, status = _word(row.get("model")), _word(row.get("status"))
            found.append(ListedTask(ref, datetime.fromtimestamp(seconds, UTC), model, status))
    return found


def _word(value: Any) -> str | None:
    return value[:200].encode(errors="replace").decode() if isinstance(value, str) else None


def segment(ref: str | None, *, safe: str = "") -> str:
    """An upstream's id, quoted as one path segment: the id is untrusted and must not change the path."""
    return quote(ref or "", safe=safe)


def file_url(*candidates: Any) -> str | None:
    """The first candidate that can be the URL of a file."""
    for url in candidates:
        if isinstance(url, str) and url.startswith(("http://", "https://", "/")):
            try:
                address(None, url)
            except (httpx.InvalidURL, ValueError):
                continue
            return url
    return None


def address(base: httpx.URL | None, url: str) -> httpx.URL:
    """Resolve `url` against `base`. Raises `InvalidURL` or `ValueError` for an invalid URL, also where httpx would
    only fail while connecting."""
    found = httpx.URL(url) if base is None else base.join(url)
    if "\0" in found.host or not 0 < (found.port or 1) < 65_536:
        raise ValueError("no such host or port")
    return found


def declared_size(headers: httpx.Headers) -> int | None:
    """File size in bytes from `content-length`; None if it is missing, invalid or counts encoded bytes."""
    length = headers.get("content-length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,15}", length) and "content-encoding" not in headers else None


def reported_micros(answer: Any, place: Sequence[str]) -> int | None:
    """The US dollars at `place` of an answer, in micros; None if there is no usable number."""
    for name in place:
        answer = answer.get(name) if isinstance(answer, dict) else None
    # Texts are not taken: a client's own metadata may be at the place.
    if isinstance(answer, bool) or not isinstance(answer, int | float) or not 0 <= answer <= MAX_REPORTED_DOLLARS:
        return None
    return round(answer * 1_000_000)


def percent(value: Any) -> int | None:
    """A progress between 0 and 100; None if it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -MAX_PERCENT < value < MAX_PERCENT:
        return None
    return max(0, min(100, int(value)))


def is_usable(ref: object) -> TypeGuard[str]:
    """True for an upstream's id that can be stored and used in a path."""
    if not isinstance(ref, str):
        return False
    storable = not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in ref[: MAX_REF_CHARACTERS + 1])
    return 0 < len(ref) <= MAX_REF_CHARACTERS and ref not in (".", "..") and storable


def secret_pattern(secret: str) -> re.Pattern[str]:
    """Pattern that finds the secret (printable ASCII) in text, also JSON-, HTML- or URL-escaped."""
    return re.compile("".join(_escaped_forms(character) for character in secret))


def _escaped_forms(character: str) -> str:
    if character.isalnum():
        return character
    code = ord(character)
    escaped = rf"(?i:%{code:02x}|\\+u{code:04x}|&#0*{code};|&#x0*{code:x};|&[a-z]{{2,4}};)"
    return rf"(?:\\*{re.escape(character)}|{escaped}{'|[+]' if character == ' ' else ''})"


def retry_after_s(headers: httpx.Headers) -> float | None:
    """Seconds to wait from `retry-after-ms`, else from `retry-after` in seconds or as an HTTP date."""
    try:
        if "retry-after-ms" in headers:
            return _bounded(float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        try:
            return _bounded(float(value))
        except ValueError:
            sent = headers.get("date")  # the vendor's own clock, where it shows it
            since = parsedate_to_datetime(sent).timestamp() if sent is not None else time.time()
            return _bounded(parsedate_to_datetime(value).timestamp() - since)
    except (ValueError, OverflowError):
        return None


def _bounded(seconds: float) -> float:
    """Limit to 0..86,400 s: `float` also parses `inf`."""
    return max(0.0, min(seconds, 86_400.0))


def shortened(text: str) -> str:
    """An answer for the operator: its long texts cut, and then the whole of it."""
    return _LONG_TEXT.sub(r'"\1..."', text)[:KEPT_CHARACTERS]


def decoded_headers(headers: httpx.Headers) -> list[tuple[bytes, bytes]]:
    """Headers for a decoded body: no content-encoding, no content-length. As bytes, since they need not be ASCII."""
    undone = (b"content-encoding", b"content-length")
    return [(name, value) for name, value in headers.raw if name.lower() not in undone]


def object_of(response: httpx.Response) -> dict[str, Any]:
    """The answer as a JSON object; empty for anything else."""
    try:
        document = response.json()
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def error_words(response: httpx.Response) -> tuple[str | None, str]:
    """Code and message of an error answer in any of the usual envelopes."""
    try:
        document = response.json()
    except (ValueError, RecursionError):
        return None, ""
    error = (document.get("error") or document) if isinstance(document, dict) else document
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail") or error.get("msg") or ""
        code = error.get("code") or error.get("type")
        return str(code) if code else None, message if isinstance(message, str) else json.dumps(message)
    return None, error if isinstance(error, str) else ""
