"""Secrets of this server: the pepper and what is derived from it, the first API key, and how API keys are made."""

import base64
import hmac
import os
import secrets
import zlib
from collections.abc import Callable
from pathlib import Path

from app.settings import ConfigurationError, Settings

PREFIX = "vgw_"


def mint_key() -> str:
    """Return a new key: `vgw_`, 43 random characters, 6 of checksum, so that a scanner can tell a leaked one."""
    body = secrets.token_urlsafe(32)
    return f"{PREFIX}{body}{_checksum(body)}"


_CHECKSUM_LENGTH = 6


def _checksum(body: str) -> str:
    return base64.urlsafe_b64encode(zlib.crc32(body.encode()).to_bytes(4, "big")).decode().rstrip("=")


def derive_secret(settings: Settings, name: str) -> bytes:
    """Return the server's secret `name`, derived from the pepper; another name gives an unrelated secret."""
    return hmac.digest(_pepper(settings), name.encode(), "sha256")


def _pepper(settings: Settings) -> bytes:
    if settings.pepper is not None:
        return settings.pepper.get_secret_value().encode()
    return read_or_create_secret(settings.secrets_dir / "pepper", lambda: secrets.token_urlsafe(32)).encode()


def first_key(settings: Settings) -> tuple[str, Path]:
    """Return the key made on first start and the file it is kept in."""
    path = settings.secrets_dir / "api-key"
    return read_or_create_secret(path, mint_key), path


def existing_key(settings: Settings) -> str | None:
    """Return the key made on first start, if a server ever started here."""
    path = settings.secrets_dir / "api-key"
    return read_or_create_secret(path, mint_key) if path.exists() else None


def read_or_create_secret(path: Path, make: Callable[[], str]) -> str:
    """Read a secret from a file only we can read, which is made first where there is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        if not path.exists():
            write_secret(path, make())
        kept = path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"the secret in {path} cannot be kept: {(error.strerror or '').lower()}") from None
    if not kept:
        raise ConfigurationError(f"{path} is empty; restore it, or delete it to have a new secret made")
    return kept


def write_secret(path: Path, secret: str) -> None:
    # Not named by the process: those of two containers have the same number.
    temporary = path.with_suffix(f".{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
    try:
        os.link(temporary, path)  # the first of several processes wins, with a whole file
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def is_well_formed(key: str) -> bool:
    """Say whether `mint` could have made the key; any other is a wrong one."""
    body, checksum = key[len(PREFIX) : -_CHECKSUM_LENGTH], key[-_CHECKSUM_LENGTH:]
    return key.startswith(PREFIX) and key.isascii() and hmac.compare_digest(_checksum(body), checksum)
