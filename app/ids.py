"""Prefixed, time-ordered identifiers.

`video_` and 26 characters of Crockford base 32: 48 bits of milliseconds, 80 random bits. Logs and tables show
the same id, and sorting by id sorts by creation time.
"""

import secrets
import time
from datetime import datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26


def new(prefix: str) -> str:
    """Return a fresh id such as `video_01jd3c8m2v9x4y6z8a0b2c4d6e` for `prefix="video"`."""
    return _written(prefix, (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80))


def least(prefix: str, moment: datetime) -> str:
    """Return the smallest id that `new` makes at or after a moment: a range of ids is a range of time."""
    milliseconds = int(moment.timestamp() * 1_000)
    return _written(prefix, min(max(0, milliseconds), 2**48 - 1) << 80)


def _written(prefix: str, value: int) -> str:
    text = "".join(_ALPHABET[value >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))
    return f"{prefix}_{text}"


def is_id(value: str, prefix: str) -> bool:
    """Return True if `new(prefix)` could have made `value`; other values need no database query."""
    head, _, tail = value.rpartition("_")
    return head == prefix and len(tail) == _LENGTH and all(character in _ALPHABET for character in tail)
