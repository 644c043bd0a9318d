"""nginx with a configuration of a test, on a free port and in a directory of its own."""

import asyncio
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from processes import until
from programs import TOOLS_PATH, need

CONFIG = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {servers}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def nginx(servers: str, port: int) -> AsyncIterator[None]:
    """Run nginx with these `server` blocks, of which one listens on the port; yields once it answers there."""
    with _running(servers) as process:
        await until(lambda: answers(process, port))
        yield


@contextmanager
def _running(servers: str) -> Iterator[subprocess.Popen[bytes]]:
    program = need("nginx", path=f"{TOOLS_PATH}:/usr/sbin")
    with tempfile.TemporaryDirectory(prefix="gateway-nginx-") as name:
        (Path(name) / "nginx.conf").write_text(CONFIG.format(servers=servers))
        command = [program, "-p", name, "-e", "stderr", "-c", "nginx.conf"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


async def answers(process: subprocess.Popen[bytes], port: int) -> bool | None:
    """True once a server listens on the port."""
    assert process.poll() is None, "the server has ended; its reason is in the test's output"
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return None
    writer.close()
    return True
