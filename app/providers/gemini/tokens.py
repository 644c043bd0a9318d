"""Access tokens of Google Cloud: the key file of a service account, the assertion that is signed with it, and the
answer that carries a token. Pure but for the file.

The host to which an assertion goes is never taken from the file: one that names another is refused, since its token
would be made for a stranger. Source: google-auth and RFC 7523, 2026-11; the answers of a real host were not recorded.
"""

import base64
import json
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.mistakes import install

AUDIENCE = "https://oauth2.googleapis.com/token"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_S = 3_600
LONGEST_S = 12 * 3_600
"""Longest life that is believed; Google's tokens live an hour, with a policy twelve."""
MARGIN_S = 225
"""A token is fetched anew so long before it ends; a metadata server has a new one only in its last five minutes."""
MAX_FILE_BYTES = 64 * 2**10
USABLE = re.compile(r"[!-~]{1,8192}")
SHAPES = r"ya29\.[\w\-.]+|eyJ[\w\-]+\.[\w\-]+\.[\w\-]+"
"""Google's access tokens, and signed assertions."""


@dataclass(frozen=True)
class Account:
    """A service account, as its key file has it."""

    email: str
    project: str | None
    key_id: str
    private_key: str = field(repr=False)


@dataclass(frozen=True)
class Token:
    value: str = field(repr=False)
    renew_at: float
    """Seconds of the clock that was read when it was asked for."""


def read_account(path: Path) -> Account:
    """The service account of a key file. Raises `ValueError` with the reason why it is none."""
    if find_spec("cryptography") is None:
        raise ValueError(f"a service account needs the extra `vertex`: {install('vertex')}")
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(MAX_FILE_BYTES))
    except OSError as error:
        raise ValueError(f"the file cannot be read ({type(error).__name__})") from None
    except (ValueError, RecursionError):
        raise ValueError("the file is not JSON") from None
    values = document if isinstance(document, dict) else {}
    if values.get("type") != "service_account":
        raise ValueError("the file is not the key of a service account; other kinds of credentials are not supported")
    if values.get("token_uri", AUDIENCE) != AUDIENCE:
        raise ValueError(f"the file has another token_uri than {AUDIENCE}")
    email, key = values.get("client_email"), values.get("private_key")
    if not (isinstance(email, str) and email and isinstance(key, str) and key):
        raise ValueError("the file has no client_email and private_key")
    project = values.get("project_id")
    account = Account(email, project if isinstance(project, str) else None, str(values.get("private_key_id", "")), key)
    assertion(account, 0)
    return account


def assertion(account: Account, now: int) -> str:
    """A statement signed by the account, which is exchanged for a token. Takes a few milliseconds of computing; raises
    `ValueError` if the key is not an RSA key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(account.private_key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("the private_key of the file is not an RSA key in PEM")
    head = {"alg": "RS256", "typ": "JWT", "kid": account.key_id}
    claims = {"iss": account.email, "scope": SCOPE, "aud": AUDIENCE, "iat": now, "exp": now + ASSERTION_S}
    signed = f"{_encoded(json.dumps(head).encode())}.{_encoded(json.dumps(claims).encode())}"
    return f"{signed}.{_encoded(key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


def token_of(answer: dict[str, Any], now: float) -> Token | None:
    """The token in an answer; None if it has none that can be sent."""
    value, seconds = answer.get("access_token"), answer.get("expires_in")
    if not isinstance(value, str) or not USABLE.fullmatch(value):
        return None
    known = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds <= LONGEST_S
    return Token(value, now + max(0, float(seconds or 0) - MARGIN_S) if known else now)


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
