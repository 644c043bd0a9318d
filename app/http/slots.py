"""Limits of what one key or project may have under way at once in this process."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app import errors


class Slots:
    """At most `per_holder` slots for each holder; one more is refused, not queued."""

    def __init__(self, per_holder: int, refusal: str, code: str) -> None:
        self._per_holder = per_holder
        self._refusal = refusal
        self._code = code
        self._held: Counter[str] = Counter()

    @contextmanager
    def slot(self, holder: str) -> Iterator[None]:
        """Hold one slot while the block lasts. Raises `RateLimited` when the holder has all of its own in use."""
        if self._held[holder] >= self._per_holder:
            raise errors.RateLimited(f"{self._per_holder} {self._refusal}", retry_after_s=1, code=self._code)
        self._held[holder] += 1
        try:
            yield
        finally:
            self._held[holder] -= 1
            self._held += Counter()  # forgets holders of none
