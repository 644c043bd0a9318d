"""The port of a separate worker: its metrics and its health, from a thread that goes on when the worker is stuck."""

import asyncio
import json
import socket
import sys
from datetime import UTC, datetime
from http import HTTPStatus
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.exposition import ThreadingWSGIServer

from app import errors
from app.accounts.operator_keys import OperatorKeys
from app.http.health import RELEASE
from app.jobs.gauges import READ_S, Gauges
from app.jobs.worker import Worker
from app.settings import Settings
from app.telemetry.logs import log
from app.telemetry.metrics import REGISTRY, forget_shared

TICKS = 3
ALLOWANCE_S = 30
"""Age of the last tick, beyond `TICKS` of them, at which a worker is stuck: a tick waits for the database, and for the
end of tries to connect to it."""
CLIENT_S = 10
"""Longest pause of a client, whose thread and connection are given up then."""
METHODS = ("GET", "HEAD")
JSON, TEXT = "application/json", "text/plain; charset=utf-8"


class WorkerPort:
    """The server of the port. Raises `OSError` or `UnicodeError` if it cannot listen."""

    def __init__(
        self, config: Settings, port: int, *, allowance_s: float = ALLOWANCE_S, client_s: float = CLIENT_S
    ) -> None:
        self._key = config.metrics_key
        self._keys = OperatorKeys()
        self._most_s = TICKS * config.worker_tick_s + allowance_s
        self._watched: tuple[Worker, Gauges, asyncio.AbstractEventLoop] | None = None

        class Server(_QuietServer):
            address_family = socket.AF_INET6 if ":" in config.host else socket.AF_INET

        class Handler(_QuietHandler):
            timeout = client_s

        self._server = make_server(config.host, port, self._answer, Server, Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()

    def watch(self, worker: Worker, gauges: Gauges) -> None:
        """Tell of this worker, from now on; called in its loop."""
        self._watched = worker, gauges, asyncio.get_running_loop()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        try:
            status, content_type, body, headers = (*self._answer_to(environ), {})
        except errors.GatewayError as error:
            status, content_type, body = error.status_code, TEXT, f"{error.message}\n".encode()
            headers = {**error.headers, **({"www-authenticate": "Bearer"} if status in (401, 429) else {})}
        values = {"content-type": content_type, "content-length": str(len(body)), **headers}
        start_response(f"{status} {HTTPStatus(status).phrase}", list(values.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer_to(self, environ: WSGIEnvironment) -> tuple[int, str, bytes]:
        path = environ.get("PATH_INFO", "")
        if path not in ("/metrics", "/healthz"):
            raise errors.NotFound("this port has /metrics and /healthz")
        if environ["REQUEST_METHOD"] not in METHODS:
            raise errors.MethodNotAllowed("only GET is answered here")
        if path == "/healthz":
            status, text = self._health()
            return status, JSON, json.dumps({"status": text, "version": RELEASE}).encode()
        if self._key is not None:
            header, address = environ.get("HTTP_AUTHORIZATION", ""), environ.get("REMOTE_ADDR", "")
            keys = {"metrics": self._key}
            self._keys.require(keys, header, what="metrics", address=address, now=datetime.now(UTC))
        self._refresh()
        return 200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY)

    def _health(self) -> tuple[int, str]:
        if self._watched is None:
            return 503, "starting"
        silence_s = self._watched[0].silence_s
        if silence_s > self._most_s:
            return 503, f"the worker's loop has been stuck for {silence_s:.0f} s"
        return 200, "ok"

    def _refresh(self) -> None:
        """Have the worker's loop read the shared gauges; without its answer there are none."""
        if self._watched is None or not self._watched[2].is_running():
            forget_shared()
            return
        _, gauges, loop = self._watched
        reading = asyncio.run_coroutine_threadsafe(gauges.refresh(), loop)
        try:
            reading.result(READ_S + 1)
        except Exception as error:
            reading.cancel()
            forget_shared()
            if not isinstance(error, TimeoutError):
                log.exception("shared gauges not read")


class _QuietServer(ThreadingWSGIServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what is no fault of the connection; a client that hangs up or sends nothing would fill the log."""
        if not isinstance(sys.exception(), OSError):
            log.exception("worker port failed")


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # named as in the base class
        """Log nothing: metrics are scraped every few seconds."""
