"""What operators see: /healthz, /readyz, /metrics, and logs with ids and without secrets."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, serve
from harness import ALICE, Running, StartGateway
from processes import served
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.anyio


async def samples(gateway: Running) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    gateway.app.state.queue_read_at = -math.inf  # else a count of some seconds ago is shown
    response = await gateway.client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


async def test_healthz_and_readyz_need_no_key(gateway: Running) -> None:
    health = await gateway.client.get("/healthz", headers={"authorization": ""})
    assert health.status_code == 200
    assert health.json()["status"] == "ok"
    ready = await gateway.client.get("/readyz", headers={"authorization": ""})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


async def test_metrics_of_jobs_upstreams_and_the_queue(start_gateway: StartGateway) -> None:
    fake = FakeOpenAI()
    fake.script("submit", fake.refusal(400, "no such size", "bad_size"))
    fake.script("poll", Answer(500))
    async with (
        serve(fake) as url,
        start_gateway(
            providers={
                "metered": {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]},
            }
        ) as gateway,
    ):
        refused = await gateway.create(model="metered/sora-2")
        assert (await gateway.finish(refused["id"]))["status"] == "failed"
        made = await gateway.create(model="metered/sora-2")
        unlisted = await gateway.create(model="metered/whatever-a-client-invents")
        gateway.clock.advance(7)
        waiting = await samples(gateway)
        assert waiting[key("gateway_attempts", provider="metered", state="pending")] == 2
        assert waiting[key("gateway_queue_age_seconds")] == 7
        for video in (made, unlisted):
            assert (await gateway.finish(video["id"]))["status"] == "completed"
        seen = await samples(gateway)
    assert key("gateway_attempts", provider="metered", state="pending") not in seen
    assert seen[key("gateway_queue_age_seconds")] == 0
    jobs = {
        dict(labels)["model"] + " " + dict(labels)["status"]: value
        for (name, labels), value in seen.items()
        if name == "gateway_jobs_total" and ("provider", "metered") in labels
    }
    assert jobs == {"sora-2 failed": 1, "sora-2 completed": 1, "other completed": 1}
    calls = "gateway_upstream_request_duration_seconds_count"
    assert seen[key(calls, provider="metered", verb="submit")] == 3
    assert seen[key(calls, provider="metered", verb="poll")] == len(fake.polls)
    errors = {
        name_and_labels: value
        for name_and_labels, value in seen.items()
        if name_and_labels[0] == "gateway_upstream_errors_total" and ("provider", "metered") in name_and_labels[1]
    }
    assert errors == {
        key("gateway_upstream_errors_total", provider="metered", verb="submit", code="upstream_rejected"): 1,
        key("gateway_upstream_errors_total", provider="metered", verb="poll", code="upstream_unavailable"): 1,
    }


def templates(routes: Iterable[Any]) -> Iterator[str]:
    """The paths of routes as they were written, those of included routers too."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from templates(route.original_router.routes)
        elif hasattr(route, "path"):
            yield route.path


async def test_http_metrics_have_labels_that_nobody_outside_chooses(gateway: Running) -> None:
    paths = [
        "/v1/videos/video_" + "0" * 26,
        "/etc/passwd-nobodys",
        "/v1/no-such-thing-nobodys",
        "/v1/videos/a%2Fb-nobodys",
    ]
    for path in paths:
        await gateway.client.get(path)
        await gateway.client.request("BREWnobodys", path)
    await gateway.client.put("/v1/videos")
    text = (await gateway.client.get("/metrics")).text
    assert "nobodys" not in text
    assert "video_0" not in text
    labels = set(re.findall(r'request_duration_seconds_count\{method="(\w+)",route="([^"]+)",status="(\d+)"', text))
    assert ("GET", "/v1/videos/{video_id}", "404") in labels
    assert ("GET", "none", "404") in labels
    assert {method for method, _, _ in labels} <= {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}
    assert {route for _, route, _ in labels} <= {*templates(gateway.app.routes), "none"}


async def test_logs_lead_to_the_job_and_tell_no_secret(database_url: str, tmp_path: Path) -> None:
    fake = FakeOpenAI(polls_until_working=0, polls_until_done=0)
    fake.script("submit", Answer(401, {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "nope"}}))
    database = sa.make_url(database_url).set(password="sekret-database").render_as_string(hide_password=False)
    async with serve(fake) as url:
        settings = {
            "database_url": database, "data_dir": tmp_path / "data", "api_keys": ALICE, "pepper": "sekret-pepper",
            "providers__up__kind": "openai", "providers__up__base_url": f"{url}/v1", "providers__up__api_key": KEY,
            "worker_tick_s": 0.05, "poll_interval_s": 0.1, "log_level": "debug",
        }  # fmt: skip
        async with served(cwd=tmp_path, **settings) as gateway:
            hook = {"webhook_url": "http://127.0.0.1:9/?token=sekret-token", "webhook_secret": "sekret-hook"}
            failed = await gateway.create(model="up/sora-2", **hook)
            assert (await gateway.finished(failed))["error"]["code"] == "upstream_account_refused"
            fake.script("submit", Answer(500, f"<h1>{KEY}</h1>"))
            unknown = await gateway.create(model="up/sora-2")
            assert (await gateway.finished(unknown))["error"]["code"] == "upstream_outcome_unknown"
            fake.script("poll", Answer(500, {"error": KEY}))
            made = await gateway.create(model="up/sora-2")
            assert (await gateway.finished(made))["status"] == "completed"
            async with gateway.client() as client:
                answer = await client.get(f"/v1/videos/{made}")
            await gateway.child.stop()
    child = gateway.child
    hooks = ("sekret-token", "sekret-hook", "webhook_secret")
    for secret in (ALICE, KEY, "sekret-database", "sekret-pepper", "authorization", "Bearer vgw_", *hooks):
        assert secret not in "\n".join(child.err)
        assert secret not in "\n".join(child.out).replace('-H "Authorization', "")
    lines: list[dict[str, Any]] = [json.loads(line) for line in child.err]
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)
    assert not [line for line in lines if "exception" in line]
    for video in (failed, unknown, made):
        of_job = [line for line in lines if line.get("video") == video and "delivery" not in line]
        assert {line["provider"] for line in of_job} == {"up"}
        assert "video ended" in {line["event"] for line in of_job}
    requests = {line["request"]: line for line in lines if line["event"] == "request"}
    line = requests[answer.headers["x-request-id"]]
    assert (line["method"], line["path"], line["status"]) == ("GET", f"/v1/videos/{made}", 200)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_traceback_does_not_show_the_variables_on_its_way(log_format: str) -> None:
    script = f"""
from app import settings, telemetry
telemetry.configure_logging(settings.load(log_format={log_format!r}))
def fail(api_key):
    raise RuntimeError("broken")
try:
    fail("sek" + "ret")
except RuntimeError:
    telemetry.log.exception("oops")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "RuntimeError" in done.stderr
    assert "broken" in done.stderr
    assert "sekret" not in done.stderr
