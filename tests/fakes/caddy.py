"""Caddy with a configuration of a test, in a directory of its own."""

import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from processes import until
from programs import need

from fakes.nginx import answers

OPTIONS = """
{
    admin off
    auto_https off
    log {
        level ERROR
    }
}
"""


@asynccontextmanager
async def caddy(sites: str, port: int) -> AsyncIterator[None]:
    """Run Caddy with these sites, of which one listens on the port; yields once it answers there."""
    with _running(sites) as process:
        await until(lambda: answers(process, port))
        yield


@contextmanager
def _running(sites: str) -> Iterator[subprocess.Popen[bytes]]:
    program = need("caddy")
    with tempfile.TemporaryDirectory(prefix="gateway-caddy-") as name:
        (Path(name) / "Caddyfile").write_text(OPTIONS + sites)
        environment = {"PATH": os.environ["PATH"], "HOME": name}
        command = [program, "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
        process = subprocess.Popen(command, cwd=name, env=environment, stdout=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()
