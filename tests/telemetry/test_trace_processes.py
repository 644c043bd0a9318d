"""One trace over several processes, each with spans of its own, and log lines that lead to it."""

import json
from pathlib import Path

import pytest
from fakes.openai import FakeOpenAI
from fakes.otlp import Collector
from fakes.receiver import Receiver
from fakes.server import serve
from harness import ALICE
from processes import provider, running, served

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

OF_JOB = {"video.submit", "video.generate", "video.store", "ledger.settle", "video.job", "webhook.deliver"}


async def test_a_server_and_a_worker_make_one_trace(
    database_url: str, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")  # it would make server spans of its own
    fake, receiver = FakeOpenAI(polls_until_working=0, polls_until_done=0), Receiver()
    settings = {
        "database_url": database_url, "data_dir": tmp_path / "data", "api_keys": ALICE, "log_format": "json",
        "pepper": "a pepper of the tests", "worker_tick_s": 0.05, "poll_interval_s": 0.1,
        "allow_networks": "127.0.0.0/8",
    }  # fmt: skip
    async with serve(fake) as url, serve(receiver) as hook:
        settings |= provider(url)
        async with (
            served("--no-worker", cwd=tmp_path, **settings) as api,
            running("worker", cwd=tmp_path, **settings) as worker,
        ):
            video = await api.create(model="up/sora-2", webhook_url=hook)
            assert (await api.finished(video))["status"] == "completed"
            await receiver.wait_for(1)
            await collector.wait_for({"video.create", *OF_JOB})
            assert await worker.stop() == 0
            assert await api.child.stop() == 0
    create = collector.one("video.create")
    assert set(collector.tree(create.trace)) == {"video.create"}
    assert {span.name for span in collector.spans if span.trace == create.trace} == {
        "video.create",
        "POST submit",
        *OF_JOB,
    }
    assert {span.resource["gateway.role"] for span in collector.spans if span.name in OF_JOB} == {"worker"}
    assert create.resource["gateway.role"] == "server"
    assert create.resource["service.instance.id"] != collector.one("video.job").resource["service.instance.id"]
    assert {span.resource["service.name"] for span in collector.spans} == {"video-gateway"}
    assert [span.name for span in collector.spans if span.kind == "server" and span.trace == create.trace] == [
        "video.create"
    ]
    lines = [json.loads(line) for line in (*api.child.err, *worker.err) if line.startswith("{")]
    of_job = [line for line in lines if line.get("trace_id") == create.trace]
    assert [line["event"] for line in of_job] == ["request", "submitted", "video ended", "webhook delivered"]
    spans = [collector.one(name).id for name in ("video.create", "video.submit", "video.store", "webhook.deliver")]
    assert [line["span_id"] for line in of_job] == spans
    assert all("trace_id" in line for line in lines if line["event"] == "request")
    started = [line for line in lines if line["event"] == "worker started"]
    assert started
    assert not [line for line in started if "trace_id" in line]
