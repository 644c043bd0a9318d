"""Tokens that open the event stream of a project for a web page, whose EventSource cannot send a key.

A token names a key and the time until which a stream may be opened with it, and is signed; nothing is stored. It is
worth less than the key: it reads, at one path, for minutes."""

import hmac
import re
from base64 import urlsafe_b64encode
from datetime import datetime, timedelta

PREFIX = "evt_"
LIFETIME = timedelta(minutes=5)
_FORM = re.compile(rf"{PREFIX}([1-9][0-9]{{0,11}})\.([A-Za-z0-9_-]{{1,100}})\.([A-Za-z0-9_-]{{43}})")


class StreamTokens:
    """Signs and verifies tokens."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def mint(self, key_id: str, *, now: datetime) -> tuple[str, int]:
        """Return a token of a key, and the Unix time at which it expires."""
        expires = int((now + LIFETIME).timestamp())
        return f"{PREFIX}{expires}.{key_id}.{self._signature(expires, key_id)}", expires

    def key_id_of(self, token: str, *, now: datetime) -> str | None:
        """Return the key's id; None for a token that is wrong or has expired."""
        found = _FORM.fullmatch(token)
        if found is None:
            return None
        expires, key_id = int(found[1]), found[2]
        genuine = hmac.compare_digest(self._signature(expires, key_id), found[3])
        return key_id if genuine and now.timestamp() < expires else None

    def _signature(self, expires: int, key_id: str) -> str:
        digest = hmac.digest(self._secret, f"{expires}\n{key_id}".encode(), "sha256")
        return urlsafe_b64encode(digest).rstrip(b"=").decode()
