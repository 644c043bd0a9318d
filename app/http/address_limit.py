"""Limit of requests by address, before anything of a request is looked at; per process and in memory."""

from collections import OrderedDict

from starlette.types import Scope

from app import errors
from app.accounts.wrong_keys import group_of
from app.telemetry.logs import log

WINDOW_S = 60.0
MAX_ADDRESSES = 20_000
UNCOUNTED = ("/admin/", "/healthz/", "/metrics/", "/readyz/")
"""Beginnings of paths that are not counted: the operator's, and those of health checks."""


class AddressLimit:
    """A bucket of `per_minute` requests for each address, which fills evenly within a minute."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._gap_s = WINDOW_S / per_minute
        self._full_at: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Time at which the bucket of an address is full again, and of the last line in the log; the last used last."""

    def require(self, scope: Scope) -> None:
        """Count a request. Raises `RateLimited` if its address has none left."""
        if f"{scope['path']}/".startswith(UNCOUNTED):
            return
        peer = scope.get("client")
        address = peer[0] if peer is not None else ""
        now: float = scope["app"].state.gateway.clock().timestamp()
        wait_s = self._take(group_of(address), address, now)
        if wait_s > 0:
            raise errors.RateLimited(
                f"one address may send {self._per_minute} requests a minute to this gateway; wait for retry-after",
                retry_after_s=wait_s,
                code="too_many_requests_from_address",
            )

    def _take(self, group: str, address: str, now: float) -> float:
        """Take a request out of a bucket; returns the seconds until there is one, 0 if there was."""
        full_at, logged_at = self._full_at.get(group, (now, now - WINDOW_S))
        full_at = max(now, min(full_at, now + WINDOW_S))  # the clock may have been set back
        wait_s = full_at + self._gap_s - now - WINDOW_S
        if wait_s > 1e-6:
            if not 0 <= now - logged_at < WINDOW_S:
                logged_at = now
                log.warning("address limited", address=address, requests_per_minute=self._per_minute)
        else:
            wait_s, full_at = 0, full_at + self._gap_s
        self._full_at[group] = full_at, logged_at
        self._full_at.move_to_end(group)
        if len(self._full_at) > MAX_ADDRESSES:
            self._full_at.popitem(last=False)
        return wait_s
