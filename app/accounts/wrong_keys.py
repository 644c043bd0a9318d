"""Wrong keys by the address that sends them, counted per process and in memory.

Counting refuses no right key, whatever its address has sent before: behind a proxy, many clients may have one address.
"""

from collections import OrderedDict
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from threading import Lock

from app import errors

WINDOW = timedelta(minutes=1)
MAX_ADDRESSES = 1_000


class WrongKeys:
    """Counts the wrong keys of each address within a minute. For several threads."""

    def __init__(self, most: int) -> None:
        self.most = most
        """Wrong keys of one address in a minute that are a 401; more are a 429."""
        self._wrong: OrderedDict[str, tuple[datetime, int]] = OrderedDict()
        """Start of the minute and wrong keys in it, by address; the latest start last."""
        self._lock = Lock()

    def count(self, address: str, now: datetime) -> tuple[int, errors.RateLimited | None]:
        """Count one more; returns the number before it, and from `most` on the error to raise."""
        group = group_of(address)
        with self._lock:
            start, before = self._current(group, now)
            if before == 0:
                self._wrong.pop(group, None)
            self._wrong[group] = start, before + 1
            if len(self._wrong) > MAX_ADDRESSES:
                self._wrong.popitem(last=False)
        if before < self.most:
            return before, None
        error = errors.RateLimited(
            f"{self.most} wrong keys came from this address within a minute; wait, and check the key",
            retry_after_s=(start + WINDOW - now).total_seconds(),
            code="too_many_wrong_keys",
        )
        return before, error

    def is_over(self, address: str, now: datetime) -> bool:
        """True if the address has sent so many that the next one is refused."""
        with self._lock:
            return self._current(group_of(address), now)[1] >= self.most

    def _current(self, group: str, now: datetime) -> tuple[datetime, int]:
        start, wrong = self._wrong.get(group, (now, 0))
        is_current = timedelta() <= now - start < WINDOW  # the clock may have been set back
        return (start, wrong) if is_current else (now, 0)


@lru_cache(4_096)
def group_of(address: str) -> str:
    """The address, of IPv6 its network of 64 bits, which one client has for itself."""
    try:
        found = ip_address(address)
    except ValueError:  # a Unix socket has none
        return address[:100]
    if not isinstance(found, IPv6Address):
        return address
    return str(found.ipv4_mapped or int(found) >> 64)
