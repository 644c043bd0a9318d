"""One trace over several processes, each with spans of its own, and log lines that lead to it."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pages
import pytest
from fakes.openai import FakeOpenAI
from fakes.otlp import Collector
from fakes.receiver import Receiver
from fakes.server import serve
from harness import ALICE
from processes import provider, running, served

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PAGE = pages.read("docs/tracing.md")
EXPORT, SERVE, WORKER = pages.commands(PAGE.one("sh", "export"))
CREATE, GREP = PAGE.one("sh", "curl"), PAGE.one("sh", "grep")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OF_JOB = {"video.submit", "video.generate", "video.store", "ledger.settle", "video.job", "webhook.deliver"}


async def test_a_server_and_a_worker_make_one_trace(
    database_url: str, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the commands of docs/tracing.md."""
    assert EXPORT[1].partition("=")[0] in os.environ
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")  # it would make server spans of its own
    fake, receiver = FakeOpenAI(polls_until_working=0, polls_until_done=0), Receiver()
    settings: dict[str, Any] = {
        "database_url": database_url, "data_dir": tmp_path / "data", "api_keys": ALICE, "log_format": "json",
        "pepper": "a pepper of the tests", "worker_tick_s": 0.05, "poll_interval_s": 0.1,
        "allow_networks": "127.0.0.0/8", "providers__sandbox__testcard_s": 0,
    }  # fmt: skip
    async with serve(fake) as url, serve(receiver) as hook:
        settings |= provider(url)
        async with (
            served(*SERVE[2:], cwd=tmp_path, **settings) as api,
            running(*WORKER[1:], cwd=tmp_path, **settings) as worker,
        ):
            joined = json.loads(await pages.shell(CREATE, folder=tmp_path, URL=api.url, KEY=ALICE))
            assert (await api.finished(joined["id"]))["status"] == "completed"
            video = await api.create(model="up/sora-2", webhook_url=hook)
            assert (await api.finished(video))["status"] == "completed"
            await receiver.wait_for(1)
            await collector.wait_for({"video.create", *OF_JOB})
            assert await worker.stop() == 0
            assert await api.child.stop() == 0
    made = {span.name: span for span in collector.spans if span.trace != TRACE}
    create = made["video.create"]
    assert set(collector.tree(create.trace)) == {"video.create"}
    assert {span.name for span in collector.spans if span.trace == create.trace} == {
        "video.create",
        "POST submit",
        *OF_JOB,
    }
    assert {span.resource["gateway.role"] for span in collector.spans if span.name in OF_JOB} == {"worker"}
    assert create.resource["gateway.role"] == "server"
    assert create.resource["service.instance.id"] != made["video.job"].resource["service.instance.id"]
    assert {span.resource["service.name"] for span in collector.spans} == {"video-gateway"}
    assert [span.name for span in collector.spans if span.kind == "server" and span.trace == create.trace] == [
        "video.create"
    ]
    lines = [json.loads(line) for line in (*api.child.err, *worker.err) if line.startswith("{")]
    of_job = [line for line in lines if line.get("trace_id") == create.trace]
    assert [line["event"] for line in of_job] == ["request", "submitted", "video ended", "webhook delivered"]
    spans = [made[name].id for name in ("video.create", "video.submit", "video.store", "webhook.deliver")]
    assert [line["span_id"] for line in of_job] == spans
    assert all("trace_id" in line for line in lines if line["event"] == "request")
    started = [line for line in lines if line["event"] == "worker started"]
    assert started
    assert not [line for line in started if "trace_id" in line]
    assert [*collector.tree(TRACE)["remote"]] == ["video.create"]
    await asyncio.to_thread((tmp_path / "gateway.log").write_text, "\n".join((*api.child.err, *worker.err)))
    found = [json.loads(line) for line in (await pages.shell(GREP, folder=tmp_path)).splitlines()]
    assert {line["video"] for line in found} == {joined["id"]}
    assert {"request", "submitted", "video ended"} <= {line["event"] for line in found}
