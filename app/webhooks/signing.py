"""Webhook secrets and signatures: Standard Webhooks (standardwebhooks.com)."""

import base64
import hmac
from collections.abc import Sequence
from datetime import datetime
from secrets import token_bytes

STANDARD = "standard"
"""Name of the style of Standard Webhooks: a signed event with the video in it. Registered endpoints use no other."""
PREFIX = "whsec_"

MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
"""Length of a secret by Standard Webhooks. Minted ones have the shorter one, a multiple of three, so that the base 64
has no padding."""


def mint_secret() -> str:
    """Return a new secret: `whsec_` and 32 random characters of base 64."""
    return PREFIX + base64.b64encode(token_bytes(MIN_SECRET_BYTES)).decode()


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return one entry of `webhook-signature`, `v1,<base64>`, as Standard Webhooks defines it.

    The key is what the part after `whsec_` decodes to, or the text itself without that prefix.
    """
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(secret_bytes(secret), signed, 'sha256')).decode()}"


def secret_bytes(secret: str) -> bytes:
    """Return the HMAC key of a secret. Raises `ValueError` if the part after `whsec_` is not base 64."""
    return base64.b64decode(secret.removeprefix(PREFIX)) if secret.startswith(PREFIX) else secret.encode()


def is_standard(secret: str) -> bool:
    """Return True for a secret as Standard Webhooks defines it: `whsec_` and the base 64 of 24 to 64 bytes."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError:
        return False
    return secret.startswith(PREFIX) and MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES


def standard_headers(secrets: Sequence[str], webhook_id: str, body: bytes, now: datetime) -> dict[str, str]:
    """Return the headers of Standard Webhooks, with one signature for each of `secrets`."""
    timestamp = int(now.timestamp())
    signatures = " ".join(sign(secret, webhook_id, timestamp, body) for secret in secrets)
    return {"webhook-timestamp": str(timestamp), "webhook-signature": signatures}
