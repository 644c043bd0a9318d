"""HMAC signatures of webhooks: Standard Webhooks (standardwebhooks.com), and the plain form of some vendors. Pure."""

import base64
import hmac
from collections.abc import Mapping
from datetime import datetime

PREFIX = "whsec_"
TOLERANCE_S = 300
"""Age up to which a signed webhook is accepted, as Standard Webhooks advises."""


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return one entry of `webhook-signature`, `v1,<base64>`, as Standard Webhooks defines it.

    The key is what the part after `whsec_` decodes to, or the text itself without that prefix.
    """
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(secret_bytes(secret), signed, 'sha256')).decode()}"


def secret_bytes(secret: str) -> bytes:
    """Return the HMAC key of a secret. Raises `ValueError` if the part after `whsec_` is not base 64."""
    return base64.b64decode(secret.removeprefix(PREFIX)) if secret.startswith(PREFIX) else secret.encode()


def is_standard_webhook(secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> bool:
    """True if one of the signatures in `headers` (lower-case names) is that of the body, and is not old."""
    webhook_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        return False
    expected = sign(secret, webhook_id, int(timestamp), body)
    is_fresh = abs(now.timestamp() - int(timestamp)) <= TOLERANCE_S
    return is_fresh and any(_same(given, expected) for given in headers.get("webhook-signature", "").split(" "))


def is_hex_digest(secret: str, given: str, body: bytes) -> bool:
    """True if `given` is `sha256=` and the HMAC-SHA256 of the body in hexadecimal digits."""
    return _same(given, f"sha256={hmac.digest(secret.encode(), body, 'sha256').hex()}")


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
