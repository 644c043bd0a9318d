"""PgBouncer in transaction mode: prepared statements are switched off by the first error, and all goes on."""

import asyncio
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import StartGateway, plain
from processes import until

from app.db import embedded
from app.db.address import read_address

pytestmark = pytest.mark.anyio

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
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


def unprivileged() -> dict[str, Any]:
    """As root, run as the user of the embedded server, whose socket only that user may open."""
    if os.geteuid() != 0:
        return {}
    for entry in pwd.getpwall():
        if entry.pw_name == embedded.SYSTEM_USER:
            return {"user": entry.pw_uid, "group": entry.pw_gid}
    return {"user": OVERFLOW_ID, "group": OVERFLOW_ID}


@contextmanager
def pooler(database_url: str) -> Iterator[str]:
    """Run a PgBouncer before the database; yields its address."""
    if PROGRAM is None:
        assert os.environ.get("CI_TOOLS") != "required", "pgbouncer is not installed"
        pytest.skip("pgbouncer is not installed")
    version = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
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
            [PROGRAM, "-q", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **unprivileged()
        )
        try:
            yield replace(address, options={**options, "host": "127.0.0.1", "port": str(port)}).url
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
async def pooled(database_url: str) -> AsyncIterator[str]:
    with pooler(database_url) as url:
        await until(lambda: answers(url), patience_s=STARTUP_PATIENCE_S)
        yield url


async def answers(url: str) -> bool | None:
    try:
        async with await psycopg.AsyncConnection.connect(read_address(url).conninfo):
            return True
    except psycopg.OperationalError:
        return None


@pytest.mark.slow
async def test_prepared_statements_are_switched_off_by_themselves(
    pooled: str, start_gateway: StartGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    async with start_gateway(database_url=pooled) as gateway:
        video = await gateway.create()

        async def round_of(requests: int) -> Counter[tuple[str, int, str | None]]:
            """The answers of so many creates and reads at once."""
            reads = [gateway.client.get(f"/v1/videos/{video['id']}") for _ in range(requests)]
            creates = [gateway.client.post("/v1/videos", json={"prompt": "a boat"}) for _ in range(requests)]
            found = await asyncio.gather(*reads, *creates)
            return Counter((a.request.method, a.status_code, a.headers.get("retry-after")) for a in found)

        seen: Counter[tuple[str, int, str | None]] = Counter()
        said = ""
        while "prepared statements switched off" not in said:
            seen += await round_of(10)
            said += plain(capsys.readouterr().out)
            assert sum(seen.values()) < 2000, "the pooler kept all connections apart"
        assert set(seen) <= {("GET", 200, None), ("POST", 202, None), ("GET", 503, "1"), ("POST", 503, "1")}
        assert await round_of(30) == {("GET", 200, None): 30, ("POST", 202, None): 30}
        created = 1 + 30 + seen["POST", 202, None]
        async with gateway.gateway.db.reading() as connection:
            assert (await connection.exec_driver_sql("select count(*) from videos")).scalar() == created
        said += plain(capsys.readouterr().out)
        (line,) = re.findall(r".*prepared statements switched off.*", said)
        assert "GATEWAY_DATABASE_PREPARE=false" in line
        assert "Traceback" not in said
