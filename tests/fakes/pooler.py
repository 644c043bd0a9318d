"""PgBouncer in transaction mode, with two server connections and no memory of prepared statements."""

import os
import pwd
import re
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from processes import until
from programs import TOOLS_PATH, need

from app.db import embedded
from app.db.address import read_address

CONFIG = """
[databases]
* = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = 2
ignore_startup_parameters = extra_float_digits
{more}
"""
STARTUP_PATIENCE_S = 20
OVERFLOW_ID = 65534
"""The kernel's id for a user without rights."""


def _unprivileged() -> dict[str, Any]:
    """As root, run as the user of the embedded server, whose socket only that user may open."""
    if os.geteuid() != 0:
        return {}
    for entry in pwd.getpwall():
        if entry.pw_name == embedded.SYSTEM_USER:
            return {"user": entry.pw_uid, "group": entry.pw_gid}
    return {"user": OVERFLOW_ID, "group": OVERFLOW_ID}


@asynccontextmanager
async def pooler(database_url: str) -> AsyncIterator[str]:
    """Run a PgBouncer before the database; yields its address once it answers."""
    with _running(database_url) as url:
        await until(lambda: _answers(url), patience_s=STARTUP_PATIENCE_S)
        yield url


@contextmanager
def _running(database_url: str) -> Iterator[str]:
    program = need("pgbouncer", path=f"{TOOLS_PATH}:/usr/sbin")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)\.(\d+)", version)
    assert found is not None, version
    # From 1.21 on it can keep track of prepared statements; many installations do not.
    more = "max_prepared_statements = 0" if (int(found[1]), int(found[2])) >= (1, 21) else ""
    address = read_address(database_url)
    options = address.options
    server = " ".join(f"{name}={options[name]}" for name in ("host", "port") if name in options)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="gateway-pooler-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        users, config = directory / "users.txt", directory / "pgbouncer.ini"
        users.write_text(f'"{options["user"]}" "{options.get("password", "")}"\n')
        config.write_text(CONFIG.format(server=server, port=port, users=users, more=more))
        process = subprocess.Popen(
            [program, "-q", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **_unprivileged()
        )
        try:
            yield replace(address, options={**options, "host": "127.0.0.1", "port": str(port)}).url
        finally:
            process.terminate()
            process.wait()


async def _answers(url: str) -> bool | None:
    try:
        async with await psycopg.AsyncConnection.connect(read_address(url).conninfo):
            return True
    except psycopg.OperationalError:
        return None
