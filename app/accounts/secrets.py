"""Secrets of this server: the pepper, secrets derived from it, the first API key, and generation of API keys."""

import base64
import hmac
import os
import secrets
import zlib
from collections.abc import Callable
from pathlib import Path

from app.settings import ConfigurationError, Settings, make_data_dir

PREFIX = "vgw_"


def mint_key() -> str:
    """Return a new key: `vgw_`, 43 random characters, 6 of checksum, so that scanners can detect a leaked key."""
    body = secrets.token_urlsafe(32)
    return f"{PREFIX}{body}{_checksum(body)}"


_CHECKSUM_LENGTH = 6


def _checksum(body: str) -> str:
    return base64.urlsafe_b64encode(zlib.crc32(body.encode()).to_bytes(4, "big")).decode().rstrip("=")


def derive_secret(settings: Settings, name: str) -> bytes:
    """Derive the secret `name` from the pepper; different names give unrelated secrets."""
    return hmac.digest(_pepper(settings), name.encode(), "sha256")


def _pepper(settings: Settings) -> bytes:
    if settings.pepper is not None:
        return settings.pepper.get_secret_value().encode()
    return read_or_create_secret(settings.secrets_dir / "pepper", lambda: secrets.token_urlsafe(32)).encode()


def first_key(settings: Settings) -> tuple[str, Path]:
    """Return the API key created on first start, and its file."""
    path = settings.secrets_dir / "api-key"
    return read_or_create_secret(path, mint_key), path


def existing_key(settings: Settings) -> str | None:
    """Return the API key created on first start, None if no server has started here."""
    path = settings.secrets_dir / "api-key"
    return read_or_create_secret(path, mint_key) if path.exists() else None


def read_or_create_secret(path: Path, make: Callable[[], str]) -> str:
    """Read a secret from a file; create the file, readable only by this user, if it does not exist."""
    try:
        make_data_dir(path.parent.parent)
        path.parent.mkdir(exist_ok=True)
        path.parent.chmod(0o700)
        if not path.exists():
            write_secret(path, make())
        secret = path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"the secret in {path} cannot be stored: {(error.strerror or '').lower()}") from None
    if not secret:
        raise ConfigurationError(f"{path} is empty; restore it, or delete it to create a new secret")
    return secret


def write_secret(path: Path, secret: str) -> None:
    # A random name: process ids are the same in different containers.
    temporary = path.with_suffix(f".{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
    try:
        os.link(temporary, path)  # atomic: the first of several processes wins, with a complete file
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def is_well_formed(key: str) -> bool:
    """Check prefix and checksum of a key; any other key is wrong."""
    body, checksum = key[len(PREFIX) : -_CHECKSUM_LENGTH], key[-_CHECKSUM_LENGTH:]
    return key.startswith(PREFIX) and key.isascii() and hmac.compare_digest(_checksum(body), checksum)
