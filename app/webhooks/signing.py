"""Webhook secrets and the headers of signed webhooks: Standard Webhooks (standardwebhooks.com)."""

import base64
from collections.abc import Sequence
from datetime import datetime
from secrets import token_bytes

from app.signatures import PREFIX, sign

STANDARD = "standard"
"""Name of the style of Standard Webhooks: a signed event with the video in it. Registered endpoints use no other."""
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
"""Length of a secret by Standard Webhooks. Minted ones have the shorter one, a multiple of three, so that the base 64
has no padding."""


def mint_secret() -> str:
    """Return a new secret: `whsec_` and 32 random characters of base 64."""
    return PREFIX + base64.b64encode(token_bytes(MIN_SECRET_BYTES)).decode()


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
