"""`video-gateway backup`: database and secrets in one file, also while the gateway runs."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from app.accounts import secrets
from app.accounts.pepper import require_fingerprint
from app.cli.archive import DUMP, MANIFEST, SECRETS, Manifest, Writer
from app.cli.manage import cell, complaints, console, load
from app.db.address import read_address
from app.db.database import running_database
from app.db.dump import Snapshot, dump, taken_snapshot
from app.db.faults import explained
from app.db.programs import find_program
from app.media.store import directory_of
from app.settings import ConfigurationError, Settings

STDOUT = "-"
NAMED = ("projects", "keys", "videos")
"""Tables whose counts are shown."""


def backup(
    file: Annotated[str, typer.Argument(help="File to write; - for standard output.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write the database and the secrets to one file, readable by this user alone. The gateway may run meanwhile.

    The files of videos are not in it: back up the bucket or the directory after it. See docs/backup.md.
    """
    config = load()
    if config.database_url is None and not (config.data_dir / "postgres" / "PG_VERSION").exists():
        raise ConfigurationError(f"there is no database in {config.data_dir} yet; set GATEWAY_DATA_DIR to the server's")
    if file == STDOUT and sys.stdout.isatty():
        raise ConfigurationError("a backup is not for a terminal; name a file, or send it on: backup - > FILE")
    with files_explained(), _opened(file, config, force=force) as opened:
        manifest, size = asyncio.run(_write(config, opened))
    say = complaints if file == STDOUT else console
    name = "the backup" if file == STDOUT else cell(Path(file))
    say.print(f"{name}: {decimal(size)}, {described(manifest)}.", highlight=False, soft_wrap=True)
    pepper = {"setting": "GATEWAY_PEPPER", "file": "the pepper", None: None}[manifest.pepper]
    inside = f"It holds {pepper}: keep it as secret as that. " if pepper else "There was no pepper yet. "
    files = f"The files of videos are not in it; back up {cell(manifest.files)}, too."
    say.print(inside + files, highlight=False, soft_wrap=True)


def described(manifest: Manifest) -> str:
    """A backup in words."""
    counted = ((name, manifest.counts[name]) for name in NAMED if name in manifest.counts)
    counts = ", ".join(f"{number} {name.removesuffix('s') if number == 1 else name}" for name, number in counted)
    return f"{counts}, as of {at_second(manifest.at)}, schema {manifest.revision}, PostgreSQL {manifest.server}"


def at_second(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


async def _write(config: Settings, file: IO[bytes]) -> tuple[Manifest, int]:
    """Write a backup. Returns its manifest and size. Raises `ConfigurationError`."""
    async with running_database(config) as url:
        address = read_address(url)
        with explained():
            async with taken_snapshot(address) as snapshot:
                if snapshot.fingerprint is not None:
                    require_fingerprint(snapshot.fingerprint, config)
                program = await find_program("pg_dump", snapshot.major, f"PostgreSQL {snapshot.server}")
                manifest = _manifest(config, snapshot, program.major)
                writer = Writer(file, snapshot.at.timestamp())
                writer.add(MANIFEST, manifest.model_dump_json(indent=2).encode() + b"\n")
                for name, secret in secrets.secrets_to_keep(config).items():
                    writer.add(SECRETS + name, secret.encode())
                with progress("Reading the database") as show:
                    async for size in writer.add_stream(DUMP, dump(program, address, snapshot)):
                        show.update(show.task_ids[0], completed=size)
                writer.finish()
    file.flush()
    return manifest, file.tell()


def _manifest(config: Settings, snapshot: Snapshot, pg_dump: int) -> Manifest:
    has_file = secrets.pepper_file(config).exists()
    return Manifest(
        release=version("video-gateway"),
        revision=snapshot.revision,
        at=snapshot.at,
        server=snapshot.server,
        pg_dump=pg_dump,
        database_schema=snapshot.schema,
        tables=snapshot.tables,
        counts=snapshot.counts,
        pepper="setting" if config.pepper is not None else "file" if has_file else None,
        files=_place_of_files(config),
    )


def _place_of_files(config: Settings) -> str:
    """The bucket or directory of the video files, without what may be secret in an address."""
    url = urlsplit(config.storage_url or "")
    if url.scheme in ("", "file"):
        return str(directory_of(config))
    return f"{url.scheme}://{url.hostname or ''}{url.path}"


@contextmanager
def progress(text: str, total: int | None = None) -> Iterator[Progress]:
    """Show the bytes of one task, on a terminal alone."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as shown:
        shown.add_task(text, total=total)
        yield shown


@contextmanager
def files_explained() -> Iterator[None]:
    """Turn an error of a file into a `ConfigurationError` with its path."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or 'the backup'}: {(error.strerror or str(error)).lower()}"
        ) from None


@contextmanager
def _opened(name: str, config: Settings, *, force: bool) -> Iterator[IO[bytes]]:
    """Open the file that is written first: beside the wanted one, which it replaces once it is complete."""
    if name == STDOUT:
        with tempfile.TemporaryFile(dir=config.data_dir if config.data_dir.is_dir() else None) as file:
            yield file
            file.seek(0)
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        return
    path = Path(name)
    part = path.with_name(f"{path.name}.part")
    _require_new(path, force=force)
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigurationError(
            f"{part} exists: another backup is being written, or one was killed. Delete it if none runs."
        ) from None
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _require_new(path, force=force)
        part.replace(path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _require_new(path: Path, *, force: bool) -> None:
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path} is a directory or a device; name a file in it, or - for standard output")
    if path.exists() and not force:
        raise ConfigurationError(f"{path} exists already; name another file, or give --force to replace it")
