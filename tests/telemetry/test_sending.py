"""Sending of traces: off by default, and nothing that goes wrong with it stops or slows the gateway."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes.otlp import Collector
from fakes.server import Answer, Hang, closed_port, serve
from harness import StartGateway
from structlog.testing import capture_logs

pytestmark = pytest.mark.anyio

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
FLUSH_S = 3
"""As docs/tracing.md has it."""

OFF = """
import asyncio, sys
from asgi_lifespan import LifespanManager
from app import settings
from app.cli import main, serve
from app.main import create_app

async def run():
    async with LifespanManager(create_app(settings.load(run_worker=True))):
        pass

asyncio.run(run())
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "requests"))])
"""


async def test_without_an_endpoint_nothing_of_the_sdk_is_loaded(database_url: str, tmp_path: Path) -> None:
    env = {"GATEWAY_DATABASE_URL": database_url, "GATEWAY_DATA_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", OFF]
    done = await asyncio.to_thread(subprocess.run, command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


MISSING = "pip install '.[otel]' in a clone of the repository"
WRONG = {
    "protocol": ({ENDPOINT: "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
    "exporter": ({ENDPOINT: "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "zipkin"}, "http/protobuf"),
    "no scheme": ({ENDPOINT: "collector:4318"}, "not a URL"),
    "port": ({ENDPOINT: "http://me:SEKRET@collector:x"}, "not a URL"),
    "queue": ({ENDPOINT: "http://127.0.0.1:4318", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "an OTEL_ variable (ValueError)"),
    "no extra": ({ENDPOINT: "http://127.0.0.1:4318"}, MISSING),
}


@pytest.mark.parametrize("name", WRONG, ids=[name.replace(" ", "_") for name in WRONG])
async def test_what_is_wrong_is_a_warning(
    name: str, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables, said = WRONG[name]
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    if name == "no extra":
        monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
        monkeypatch.delitem(sys.modules, "app.telemetry.otel", raising=False)
    with capture_logs() as logs:
        async with start_gateway() as gateway:
            assert (await gateway.client.get("/v1/models")).status_code == 200
    (line,) = (line for line in logs if line["event"] == "traces not sent")
    assert (line["log_level"], said in f"{line['reason']} {line.get('hint')}") == ("warning", True)
    assert "SEKRET" not in str(logs)


async def test_variables_in_env_files_are_not_read(start_gateway: StartGateway, tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / ".env").write_text, f"{ENDPOINT}=http://127.0.0.1:4318\n")
    with capture_logs() as logs:
        async with start_gateway():
            pass
    (line,) = (line for line in logs if line["event"] == "traces not sent")
    assert ".env" in line["reason"]


@pytest.mark.parametrize("off", [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
async def test_switches_of_the_sdk(
    off: tuple[str, str], start_gateway: StartGateway, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*off)
    async with start_gateway() as gateway:
        await gateway.client.get("/v1/models")
    assert collector.calls == []


async def test_the_other_variables_are_the_sdks(
    start_gateway: StartGateway, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{os.environ[ENDPOINT]}/v1/traces")
    monkeypatch.setenv(ENDPOINT, closed_port())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=SEKRET")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "studio")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.version=9")
    async with start_gateway() as gateway:
        await gateway.client.get("/v1/models")
        for quiet in ("/healthz", "/readyz", "/metrics"):
            await gateway.client.get(quiet)
    (span,) = collector.spans
    assert collector.calls[0]["api-key"] == "SEKRET"
    assert "SEKRET" not in span.text
    named = {"service.name": "studio", "service.version": "9", "deployment.environment.name": "test"}
    assert span.resource.items() >= {**named, "gateway.role": "server"}.items()
    assert span.resource["service.instance.id"]


async def test_a_sampler_decides(
    start_gateway: StartGateway, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with start_gateway() as gateway:
        await gateway.client.get("/v1/models")
    assert collector.spans == []


async def test_a_receiver_that_refuses_is_logged_once(start_gateway: StartGateway, collector: Collector) -> None:
    collector.always = Answer(401, "SEKRET")
    with capture_logs() as logs:
        async with start_gateway() as gateway:
            for calls in (1, 2, 3):
                await gateway.client.get("/v1/models")
                await collector.wait_for((), calls=calls)
            collector.always = None
            await gateway.client.get("/v1/models")
            await collector.wait_for({"GET /v1/models"})
    about = [(line["event"], line.get("reason")) for line in logs if line["event"].startswith("traces")]
    assert about == [
        ("traces are sent", None),
        ("traces not sent", "answered 401"),
        ("traces are sent again", None),
    ]
    assert "SEKRET" not in str(logs)


@pytest.mark.parametrize("away", ["hangs", "closed"])
async def test_a_receiver_that_is_away_slows_nothing(
    away: str, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = Hang()
    async with serve(Collector(always=hang)) as url:
        monkeypatch.setenv(ENDPOINT, url if away == "hangs" else closed_port())
        if away == "closed":  # the other one shows how long the end may take
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "5")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
        with capture_logs() as logs:
            async with start_gateway() as gateway:
                video = await gateway.create(model="sandbox/testcard", seconds="1", size="128x128")
                if away == "hangs":
                    await hang.reached.wait()
                assert (await gateway.finish(video["id"]))["status"] == "completed"
                stopping = time.perf_counter()
            assert time.perf_counter() - stopping < FLUSH_S + 5
        (reason,) = (line["reason"] for line in logs if line["event"] == "traces not sent")
        assert reason == {"closed": "ConnectionError"}.get(away, "the process ended before the receiver had answered")
        hang.release.set()
