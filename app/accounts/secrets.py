"""Secrets of this server: the pepper, secrets derived from it, the first API key, and generation of API keys."""

import base64
import hmac
import os
import secrets
import shlex
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from app.mistakes import too_short
from app.settings import ConfigurationError, Settings, make_data_dir
from app.telemetry.logs import log

PREFIX = "vgw_"
PEPPER = "pepper"
"""Name of the file of the pepper."""
FIRST_KEY = "api-key"
"""Name of the file of the key that the first start makes."""


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
    return read_or_create_secret(pepper_file(settings), lambda: secrets.token_urlsafe(32)).encode()


def pepper_file(settings: Settings) -> Path:
    """The file of the pepper where `GATEWAY_PEPPER` is not set."""
    return settings.secrets_dir / PEPPER


def require_strong(settings: Settings, *, is_new: bool) -> None:
    """Log short secrets. Raises `ConfigurationError` for a short pepper or admin key of a new installation that can be
    reached from other machines."""
    short = settings.short_secrets()
    fatal = [name for name in short if name in ("GATEWAY_PEPPER", "GATEWAY_ADMIN_KEY", "GATEWAY_ADMIN_KEYS")]
    if fatal and is_new and not is_loopback(settings.host):
        raise ConfigurationError("\n".join(map(too_short, fatal)))
    for name in short:
        log.warning("secret too short", reason=too_short(name))


def is_loopback(host: str) -> bool:
    """True for an address that only this machine reaches."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def first_key(settings: Settings) -> tuple[str, Path]:
    """Return the API key created on first start, and its file."""
    path = settings.secrets_dir / FIRST_KEY
    return read_or_create_secret(path, mint_key), path


def own_keys(settings: Settings) -> Mapping[str, str | None]:
    """The keys that need no row in the database, each with the name of its project if it has one: those of the
    settings, else the first key. None is made for a database that others may share: they would refuse it."""
    if settings.static_keys:
        return settings.static_keys
    key = existing_key(settings) if settings.database_url is not None else first_key(settings)[0]
    return {} if key is None else {key: None}


def existing_key(settings: Settings) -> str | None:
    """Return the API key created on first start, None if no server has started here."""
    path = settings.secrets_dir / FIRST_KEY
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
        reason = (error.strerror or "").lower()
        raise ConfigurationError(f"GATEWAY_DATA_DIR: the secret in {path} cannot be stored: {reason}") from None
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


# Backups


def secrets_to_keep(settings: Settings) -> dict[str, str]:
    """The secrets that a backup needs, by the name of their file; the pepper also if it is a setting."""
    paths = [settings.secrets_dir / name for name in (FIRST_KEY, PEPPER)]
    found = {path.name: path.read_text().strip() for path in paths if path.exists()}
    if settings.pepper is not None:
        found[PEPPER] = settings.pepper.get_secret_value()
    return found


def require_same_secrets(settings: Settings, found: Mapping[str, str], backup: str) -> None:
    """Raise `ConfigurationError` if a secret here is another one than that of a backup."""
    for name, secret in found.items():
        path = settings.secrets_dir / name
        if name == PEPPER and settings.pepper is not None:
            if settings.pepper.get_secret_value() != secret:
                raise ConfigurationError(
                    "GATEWAY_PEPPER is not the one that the backup's keys and links were made with. Set it to that "
                    f"one, or leave it out; the backup has it: tar -xOf {backup} secrets/{PEPPER}"
                )
        elif path.exists() and path.read_text().strip() != secret:
            raise ConfigurationError(
                f"{path} is not the one of the backup. It belongs to what is in the database now; move it away first: "
                f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.before')}"
            )


@contextmanager
def restored_secrets(settings: Settings, found: Mapping[str, str]) -> Iterator[list[Path]]:
    """Write the secrets of a backup that are not here. Yields their files, which are removed if the block fails."""
    written: list[Path] = []
    try:
        for name, secret in found.items():
            path = settings.secrets_dir / name
            if not path.exists() and (name != PEPPER or settings.pepper is None):
                written.append(path)
                read_or_create_secret(path, partial(str, secret))
        yield written
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
