"""PostgreSQL's own programs on this machine: `pg_dump` and `pg_restore` of a version that fits."""

import asyncio
import os
import re
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from app.db import embedded
from app.settings import ConfigurationError, child_process_env

PACKAGED = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
"""Folders in which distributions install versions beside each other, apart from PATH."""
WRAPPER = "pg_wrapper"
"""Debian's stand-in for the programs in PATH: it chooses one of `PACKAGED` anew at each call, so it has no version."""
VERSION_S = 20
"""Time limit of a program that prints its version."""
MAX_SAID_BYTES = 4096


@dataclass(frozen=True)
class Program:
    path: Path
    version: str

    @property
    def major(self) -> int:
        return major_of(self.version)


def major_of(version: str) -> int:
    """The main version, also of a beta such as 19beta1."""
    found = re.match(r"\d{1,4}", version)
    return int(found[0]) if found else 0


async def find_program(name: str, least: int, reason: str) -> Program:
    """Return the oldest installed version of a program that is at least `least`, since a newer version may write what
    an older one cannot read. Raises `ConfigurationError` with the `reason` and the package to install."""
    found = [program for path in _candidates(name) if (program := await _read_version(path)) is not None]
    fitting = [program for program in found if program.major >= least]
    if fitting:
        return min(fitting, key=lambda program: program.major)  # the first in PATH among equals
    newest = max(found, key=lambda program: program.major, default=None)
    there = "none is installed here" if newest is None else f"the newest here is {newest.version} ({newest.path})"
    raise ConfigurationError(
        f"{reason} needs {name} {least} or newer, and {there}. Install it, on Debian and Ubuntu the package "
        f"postgresql-client-{least} (see apt.postgresql.org), or add its folder to PATH."
    )


def _candidates(name: str) -> Iterator[Path]:
    folders = [Path(folder) for folder in child_process_env().get("PATH", "").split(os.pathsep) if folder]
    for pattern in PACKAGED:
        folders += sorted(Path("/").glob(pattern.removeprefix("/")))
    for folder in dict.fromkeys([*folders, *embedded.program_folders()]):
        path = folder / name
        if path.is_file() and os.access(path, os.X_OK) and path.resolve().name != WRAPPER:
            yield path


async def _read_version(path: Path) -> Program | None:
    """The program with its version; None if it does not say one."""
    try:
        async with running(path, "--version", environment={}) as (process, _), asyncio.timeout(VERSION_S):
            out, _ = await process.communicate()
    except (OSError, TimeoutError):
        return None
    found = re.search(rb"\(PostgreSQL\) (\d+[.\w]*)", out)
    return None if found is None else Program(path, found[1].decode())


@asynccontextmanager
async def running(
    path: Path, *arguments: str, environment: Mapping[str, str], stdin: int = DEVNULL
) -> AsyncIterator[tuple[Process, IO[bytes]]]:
    """Start a program with a pipe for its output and a file for its complaints; it ends with the block."""
    with tempfile.TemporaryFile() as complaints:
        process = await asyncio.create_subprocess_exec(
            path,
            *arguments,
            stdin=stdin,
            stdout=PIPE,
            stderr=complaints,
            env={**child_process_env(), **environment},
        )
        try:
            yield process, complaints
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()  # `wait` alone waits for ever while unread output is in the pipe


def said(complaints: IO[bytes]) -> str:
    """The last lines that a program wrote to its error output."""
    complaints.seek(max(0, complaints.seek(0, os.SEEK_END) - MAX_SAID_BYTES))
    lines = complaints.read().decode(errors="replace").splitlines()
    return " ".join(line.strip() for line in lines[-3:]) or "it gave no reason"
