"""The operator's keys, of the administration API and of metrics: checks them, and slows down addresses that guess.

Counted per process, in memory. A right key always works, whatever its address has sent before.
"""

import hmac
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address
from threading import Lock

from pydantic import SecretStr

from app import errors
from app.telemetry.logs import log

MAX_WRONG = 10
"""Wrong keys of one address in a minute that are a 401; more are a 429."""
WINDOW = timedelta(minutes=1)
MAX_ADDRESSES = 1_000


class OperatorKeys:
    """Checks keys, and counts the wrong ones of each address. For several threads."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[datetime, int]] = OrderedDict()
        """Start of the minute and wrong keys in it, by address; the latest start last."""
        self._lock = Lock()

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
        group = group_of(address)
        with self._lock:
            start, wrong = self._wrong.get(group, (now, 0))
            if not timedelta() <= now - start < WINDOW:  # the clock may have been set back
                start, wrong = now, 0
                self._wrong.pop(group, None)
            self._wrong[group] = start, wrong + 1
            if len(self._wrong) > MAX_ADDRESSES:
                self._wrong.popitem(last=False)
        if wrong < MAX_WRONG:
            log.info("wrong operator key", address=address, key=what)
        if wrong == MAX_WRONG:
            log.warning("wrong operator keys", address=address, key=what, within_s=WINDOW.total_seconds())
        if wrong >= MAX_WRONG:
            raise errors.RateLimited(
                f"{MAX_WRONG} wrong keys came from this address within a minute; wait, and check the {what} key",
                retry_after_s=(start + WINDOW - now).total_seconds(),
                code="too_many_wrong_keys",
            )


def group_of(address: str) -> str:
    """The address, of IPv6 its network of 64 bits, which one client has for itself."""
    try:
        found = ip_address(address)
    except ValueError:  # a Unix socket has none
        return address[:100]
    return address if not isinstance(found, IPv6Address) else str(int(found) >> 64)
