"""Prefixed, time-ordered identifiers.

`video_` and 26 characters of Crockford base 32: 48 bits of milliseconds, 80 random bits. What stands in a log is what
stands in the table, and sorting by id is sorting by time of birth.
"""

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26


def new(prefix: str) -> str:
    """Return a fresh id such as `video_01jd3c8m2v9x4y6z8a0b2c4d6e` for `prefix="video"`."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    text = "".join(_ALPHABET[value >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))
    return f"{prefix}_{text}"


def is_id(value: str, prefix: str) -> bool:
    """Say whether `value` could have been made by `new(prefix)`; anything else need not reach the database."""
    head, _, tail = value.rpartition("_")
    return head == prefix and len(tail) == _LENGTH and all(character in _ALPHABET for character in tail)
