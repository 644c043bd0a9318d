"""The operator's keys, of the administration API and of metrics: checks them, and slows down addresses that guess."""

import hmac
from collections.abc import Mapping
from datetime import datetime

from pydantic import SecretStr

from app import errors
from app.accounts.wrong_keys import WINDOW, WrongKeys
from app.telemetry.logs import log

MAX_WRONG = 10


class OperatorKeys:
    """Checks keys, and counts the wrong ones of each address. For several threads."""

    def __init__(self) -> None:
        self._wrong = WrongKeys(MAX_WRONG)

    def require(self, keys: Mapping[str, SecretStr], header: str, *, what: str, address: str, now: datetime) -> str:
        """Check an Authorization header; returns the name of its key. Raises `AuthenticationFailed` when it has none of
        the keys, `RateLimited` after too many wrong ones from this address."""
        scheme, _, given = header.partition(" ")
        sent = given.strip().encode()
        # A list, so that it takes as long whichever key is right.
        right = [name for name, key in keys.items() if hmac.compare_digest(sent, key.get_secret_value().encode())]
        if scheme.lower() == "bearer" and right:
            return right[0]
        if header:
            self._count(what, address, now)
        raise errors.AuthenticationFailed(f"send the {what} key as `Authorization: Bearer <key>`")

    def _count(self, what: str, address: str, now: datetime) -> None:
        before, refusal = self._wrong.count(address, now)
        if refusal is None:
            log.info("wrong operator key", address=address, key=what)
            return
        if before == MAX_WRONG:
            log.warning("wrong operator keys", address=address, key=what, within_s=WINDOW.total_seconds())
        raise refusal
