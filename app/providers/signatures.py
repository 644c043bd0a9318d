"""Checks of the HMAC signatures of vendors' callbacks: Standard Webhooks, and two plain forms. Pure."""

import base64
import hmac
import re
from collections.abc import Mapping
from datetime import datetime

from pydantic import SecretStr

PREFIX = "whsec_"
TOLERANCE_S = 300
"""Age up to which a signed callback is accepted, as Standard Webhooks advises."""
TIMED_DIGEST = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})")


def standard_key(secret: str) -> bytes:
    """Return the HMAC key of a secret of Standard Webhooks. Raises `ValueError` if the part after `whsec_` is not
    base 64."""
    if not secret.startswith(PREFIX):
        return secret.encode()
    return base64.b64decode(secret.removeprefix(PREFIX), validate=True)


def usable_secret(value: SecretStr | None, *, prefixed: bool = False) -> SecretStr | None:
    """The secret of a setting. Raises `ValueError` if no key can be made of it, or if it has to begin with `whsec_`
    (`prefixed`) and does not."""
    secret = value.get_secret_value() if value is not None else None
    try:
        usable = secret is None or (bool(standard_key(secret)) and (secret.startswith(PREFIX) or not prefixed))
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("expected whsec_ and base 64")
    return value


def is_standard_webhook(secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> bool:
    """True if one of the signatures in `headers` (lower-case names) is that of the body, and is not old."""
    timestamp = headers.get("webhook-timestamp", "")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        return False
    signed = f"{headers.get('webhook-id', '')}.{timestamp}.".encode() + body
    expected = f"v1,{base64.b64encode(hmac.digest(standard_key(secret), signed, 'sha256')).decode()}"
    is_fresh = abs(now.timestamp() - int(timestamp)) <= TOLERANCE_S
    return is_fresh and any(_same(given, expected) for given in headers.get("webhook-signature", "").split(" "))


def is_hex_digest(secret: str, given: str, body: bytes) -> bool:
    """True if `given` is `sha256=` and the HMAC-SHA256 of the body in hexadecimal digits."""
    return _same(given, f"sha256={hmac.digest(secret.encode(), body, 'sha256').hex()}")


def is_timed_digest(secret: str, given: str, body: bytes, now: datetime) -> bool:
    """True if `given` is `t=<Unix seconds>,v1=<hex>`, with the HMAC-SHA256 of the time, a comma and the body, and is
    not old."""
    match = TIMED_DIGEST.fullmatch(given)
    if match is None or abs(now.timestamp() - int(match[1])) > TOLERANCE_S:
        return False
    return _same(match[2], hmac.digest(secret.encode(), f"{match[1]},".encode() + body, "sha256").hex())


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
