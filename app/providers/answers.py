"""What the parts of an answer mean, whoever gave it: ids, file addresses, headers. Pure; nothing here trusts a byte."""

import re
import time
from email.utils import parsedate_to_datetime
from typing import Any, TypeGuard
from urllib.parse import quote

import httpx

MAX_REF_CHARACTERS = 512


def segment(ref: str | None, *, safe: str = "") -> str:
    """An upstream's id as part of a path: it is their invention, and must not leave its place."""
    return quote(ref or "", safe=safe)


def file_url(*said: Any) -> str | None:
    """The first of these that can be the address of a file."""
    for url in said:
        if isinstance(url, str) and url.startswith(("http://", "https://", "/")):
            try:
                address(None, url)
            except (httpx.InvalidURL, ValueError):
                continue
            return url
    return None


def address(base: httpx.URL | None, said: str) -> httpx.URL:
    """Where `said` leads from `base`. Raises `InvalidURL` or `ValueError` where it is no address: what httpx would only
    see while it connects is looked at here."""
    found = httpx.URL(said) if base is None else base.join(said)
    if "\0" in found.host or not 0 < (found.port or 1) < 65_536:
        raise ValueError("no such host or port")
    return found


def declared_size(headers: httpx.Headers) -> int | None:
    """Bytes of a file, where the answer says so and counts them as they are."""
    length = headers.get("content-length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,15}", length) and "content-encoding" not in headers else None


def is_usable(ref: object) -> TypeGuard[str]:
    """Whether an upstream's id can be stored, and can stand in a path."""
    if not isinstance(ref, str):
        return False
    storable = not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in ref[: MAX_REF_CHARACTERS + 1])
    return 0 < len(ref) <= MAX_REF_CHARACTERS and ref not in (".", "..") and storable


def secret_pattern(secret: str) -> re.Pattern[str]:
    """Finds a secret of printable ASCII in what somebody says, also as JSON, HTML and addresses write it."""
    return re.compile("".join(_written(character) for character in secret))


def _written(character: str) -> str:
    if character.isalnum():
        return character
    code = ord(character)
    escaped = rf"(?i:%{code:02x}|\\+u{code:04x}|&#0*{code};|&#x0*{code:x};|&[a-z]{{2,4}};)"
    return rf"(?:\\*{re.escape(character)}|{escaped}{'|[+]' if character == ' ' else ''})"


def retry_after_s(headers: httpx.Headers) -> float | None:
    """Seconds to wait as the answer says: `retry-after-ms`, then `retry-after` in seconds or as an HTTP date."""
    try:
        if "retry-after-ms" in headers:
            return _bounded(float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        try:
            return _bounded(float(value))
        except ValueError:
            return _bounded(parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _bounded(seconds: float) -> float:
    """Between now and tomorrow: `inf` is a float too."""
    return max(0.0, min(seconds, 86_400.0))


def decoded_headers(headers: httpx.Headers) -> list[tuple[bytes, bytes]]:
    """Headers without those that describe an encoding which is already undone, as bytes: they need not be ASCII."""
    undone = (b"content-encoding", b"content-length")
    return [(name, value) for name, value in headers.raw if name.lower() not in undone]
