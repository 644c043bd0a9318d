"""`video-gateway restore` and `restored`: a database from a backup, in which nothing is paid for twice."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.accounts import audit, secrets
from app.accounts.pepper import check_pepper
from app.cli.archive import Manifest, Reader
from app.cli.backup import STDOUT, at_second, described, files_explained, progress
from app.cli.manage import cell, complaints, console, load, with_database
from app.db.address import read_address
from app.db.database import Database, running_database
from app.db.dump import DumpFailed, Target, other_sessions, read_target, replace
from app.db.faults import explained
from app.db.migrate import is_known, newest_revision, upgrade_within
from app.db.programs import Program, find_program, major_of
from app.jobs import presence
from app.jobs.restored import mark_restored
from app.settings import ConfigurationError, Settings

STOP_S = 1
"""Seconds that connections of processes which have just ended may take to go."""
LOOK_S = 0.2
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


@dataclass(frozen=True)
class Restored:
    """The result of a restore."""

    unknown: int
    """Submits of unknown outcome."""
    secrets: list[Path]
    """Files of secrets that were written."""


def restore(
    file: Annotated[str, typer.Argument(help="A file of `backup`; - for standard input.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace what is in the database.")] = False,
    yes: Yes = False,
) -> None:
    """Restore database and secrets from a backup. All servers and workers must be stopped.

    All or nothing: after an error or a kill the database is as before. The schema is upgraded to this release. What may
    have been submitted since the backup is not sent again: it waits for your decision (docs/backup.md).
    """
    config = load()
    if file == STDOUT and not yes:
        raise ConfigurationError("a backup from standard input leaves no way to ask; give --yes")
    with files_explained(), nullcontext(sys.stdin.buffer) if file == STDOUT else Path(file).open("rb") as opened:
        reader = Reader(opened, "the backup" if file == STDOUT else file)
        manifest = reader.manifest
        if not is_known(manifest.revision):
            raise reader.error(
                f"video-gateway {manifest.release} made it, with the schema {manifest.revision}; this release knows "
                f"schemas up to {newest_revision()}. Restore it with that release or a newer one."
            )
        secrets.require_same_secrets(config, reader.secrets, file)
        done = asyncio.run(_Restore(config, reader, file, may_replace=replace, yes=yes).run())
    _show(manifest, done)


def restored(yes: Yes = False) -> None:
    """Mark what may have been submitted since a backup, in a database that was restored by other means.

    For a snapshot of a hosting provider, a restore by pg_restore, or a standby that lacks the last moments. All servers
    and workers must be stopped. What is marked is not sent again: it waits for your decision (docs/backup.md).
    """
    config = load()
    if not yes:
        complaints.print("Every job that waits or is being submitted is marked: its outcome is unknown.")
        typer.confirm("Continue?", abort=True, err=True)

    async def run(database: Database, now: datetime) -> int:
        async with database.reading() as connection:
            await _require_stopped(connection, has_workers=True)
        async with database.transaction() as session:
            return await _mark(session, None, now)

    _show_unknown(with_database(config, run))


async def _mark(session: AsyncSession, manifest: Manifest | None, now: datetime) -> int:
    """Mark the submits of unknown outcome and write the audit entry. Returns their number."""
    unknown = await mark_restored(session, backup_at=None if manifest is None else manifest.at, now=now)
    backup = {} if manifest is None else {"backup_at": manifest.at.isoformat(), "release": manifest.release}
    after = {**backup, "unknown_submits": unknown}
    await audit.record(session, audit.command_actor(), "database.restore", "database", after=after, now=now)
    return unknown


class _Restore:
    """One run of `restore`."""

    def __init__(self, config: Settings, reader: Reader, file: str, *, may_replace: bool, yes: bool) -> None:
        self._config = config
        self._reader = reader
        self._manifest = reader.manifest
        self._file = file
        self._may_replace = may_replace
        self._yes = yes

    async def run(self) -> Restored:
        """Restore. Raises `ConfigurationError`; then nothing is changed."""
        program = await find_program("pg_restore", self._manifest.pg_dump, "the backup")
        async with running_database(self._config) as url:
            database = Database(url, pool_size=1, prepare=self._config.database_prepare)
            try:
                with explained():
                    target = await self._look(database, url)
                    if not self._yes:
                        self._confirm(target, url)
                        target = await self._look(database, url)  # it may have been put to use meanwhile
                    return await self._within_one_transaction(database, program, target)
            except DumpFailed as error:
                older = target.major < major_of(self._manifest.server)
                hint = f" It is from PostgreSQL {self._manifest.server}: restore it there or to a newer one."
                reason = f"nothing was changed. {error}{hint if older else ''}"
                raise self._reader.error(reason) from None
            finally:
                await database.close()

    async def _look(self, database: Database, url: str) -> Target:
        """Look at the database. Raises `ConfigurationError` unless it can be restored into."""
        async with database.reading() as connection:
            target = await read_target(connection)
            await _require_stopped(connection, has_workers="workers" in target.tables)
        self._require_fitting(target, url)
        return target

    def _require_fitting(self, target: Target, url: str) -> None:
        if target.schema != self._manifest.database_schema:
            raise self._reader.error(
                f"it is of the schema {self._manifest.database_schema!r} in the database, and here the schema is "
                f"{target.schema!r}; create it there, or name it in GATEWAY_DATABASE_URL (docs/deploy.md, Database)"
            )
        if target.in_use and not self._may_replace:
            raise ConfigurationError(
                f"{self._place(url)} is in use: it has projects, keys, videos or another program's tables. "
                "Give --replace to replace all of it, or restore into an empty database."
            )

    def _place(self, url: str) -> str:
        if self._config.database_url is None:
            return f"the embedded database in {self._config.data_dir}"
        return f"the database {read_address(url)}"

    def _confirm(self, target: Target, url: str) -> None:
        what = f"{self._file}: {described(self._manifest)}, made by video-gateway {self._manifest.release}."
        lost = " All that is in it is lost." if target.in_use else ""
        complaints.print(cell(what), highlight=False, soft_wrap=True)
        complaints.print(cell(f"It is restored into {self._place(url)}.{lost}"), highlight=False, soft_wrap=True)
        typer.confirm("Continue?", abort=True, err=True)

    async def _within_one_transaction(self, database: Database, program: Program, target: Target) -> Restored:
        now = await database.now()
        with secrets.restored_secrets(self._config, self._reader.secrets) as written:
            async with database.transaction() as session:
                connection = await session.connection()
                with progress("Restoring", self._reader.dump_bytes) as show:
                    blocks, note = self._blocks(show), self._noting(show)
                    dumped = self._manifest.tables
                    await replace(connection, program, blocks, target=target, dumped=dumped, note=note)
                await upgrade_within(connection, audit.migrated_by(audit.command_actor()))
                unknown = await _mark(session, self._manifest, now)
                await check_pepper(session, self._config)
            return Restored(unknown, written)

    async def _blocks(self, show: Progress) -> AsyncIterator[bytes]:
        for block in self._reader.blocks():
            yield block
            show.advance(show.task_ids[0], len(block))

    def _noting(self, show: Progress) -> Callable[[str], None]:
        def note(table: str) -> None:
            show.update(show.task_ids[0], description=f"Restoring {table}")

        return note


async def _require_stopped(connection: AsyncConnection, *, has_workers: bool) -> None:
    """Raise `ConfigurationError` while processes of the gateway use the database."""
    looks = int(STOP_S / LOOK_S)
    for left in range(looks, -1, -1):
        sessions = await other_sessions(connection)
        workers = await presence.list_running(connection) if has_workers else []
        if not sessions and not workers:
            return
        if sessions and left:
            await asyncio.sleep(LOOK_S)
        elif sessions:
            places = ", ".join(sorted(set(sessions)))
            raise ConfigurationError(
                f"the gateway runs: it has {len(sessions)} connection(s) to this database, from {places}. Stop all "
                "servers and workers first. Nothing was changed."
            )
        else:
            named = ", ".join(f"process {worker.pid} on {worker.host}" for worker in workers[:5])
            raise ConfigurationError(
                f"a worker was seen within the last {presence.RUNNING_S} s: {named}. Stop it; after a kill, wait that "
                "long. Nothing was changed."
            )


# The end


def _show(manifest: Manifest, done: Restored) -> None:
    console.print(f"Restored: {described(manifest)}.", highlight=False, soft_wrap=True)
    for path in done.secrets:
        console.print(f"Written: {cell(path)}", highlight=False, soft_wrap=True)
    if any(path.name == secrets.PEPPER for path in done.secrets):
        line = "Other machines need that pepper, too: as GATEWAY_PEPPER, or the same file."
        console.print(line, highlight=False, soft_wrap=True)
    _show_unknown(done.unknown)
    for line in (
        f"Jobs created after {at_second(manifest.at)} are gone, while their upstream tasks run and are paid for: "
        "look into the vendors' consoles.",
        "Credits given since are gone: give them again. Keys that were revoked and videos that were deleted or purged "
        "since are back: revoke and delete them again.",
        f"The files of videos are no part of it: where they are lost, restore {cell(manifest.files)}, too.",
        "Next: video-gateway doctor, then start the servers and workers.",
    ):
        console.print(f"- {line}", highlight=False, soft_wrap=True)


def _show_unknown(unknown: int) -> None:
    text = (
        f"- Submits that may have been sent since the backup: {unknown}. "
        "They are not sent again, except where that makes no second task. Once a worker runs, `video-gateway status` "
        "lists those that wait for your decision."
    )
    console.print(text if unknown else "- No submit was waiting or under way.", highlight=False, soft_wrap=True)
