"""Log lines: they name the job and contain no secret."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, serve
from harness import ALICE
from processes import provider, served

pytestmark = pytest.mark.anyio


JOINED = ("request", "video", "project", "model")
"""Fields by which the line of a create and the worker's lines about its job are joined."""


async def test_logs_lead_to_the_job_and_tell_no_secret(database_url: str, tmp_path: Path) -> None:
    fake = FakeOpenAI(polls_until_working=0, polls_until_done=0)
    fake.script("submit", Answer(401, {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "nope"}}))
    database = sa.make_url(database_url).set(password="sekret-database").render_as_string(hide_password=False)
    async with serve(fake) as url:
        settings = {
            "database_url": database, "data_dir": tmp_path / "data", "api_keys": ALICE, "pepper": "sekret-pepper",
            "providers__up__kind": "openai", "providers__up__base_url": f"{url}/v1", "providers__up__api_key": KEY,
            "worker_tick_s": 0.05, "poll_interval_s": 0.1, "log_level": "debug", "allow_networks": "127.0.0.0/8",
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
        about = [line for line in lines if line.get("video") == video and line["event"] != "request"]
        of_job = [line for line in about if "delivery" not in line and line["event"] != "video ended"]
        (ended,) = [line for line in about if line["event"] == "video ended"]
        (create,) = [line for line in lines if line.get("video") == video and line.get("method") == "POST"]
        assert (create["event"], create["model"], create["dialect"]) == ("request", "up/sora-2", "openai")
        for line in [*of_job, ended]:
            assert [line[name] for name in JOINED] == [create[name] for name in JOINED]
        assert ended["seconds"] >= 0
        assert ("submitted" in {line["event"] for line in of_job}) == (video == made)
        assert {line["provider"] for line in of_job} == {"up"}
    requests = {line["request"]: line for line in lines if line["event"] == "request"}
    line = requests[answer.headers["x-request-id"]]
    assert (line["method"], line["path"], line["status"]) == ("GET", f"/v1/videos/{made}", 200)


async def test_no_line_of_the_log_is_written_by_a_client_or_an_upstream(database_url: str, tmp_path: Path) -> None:
    """The format for terminals, where a line break or a colour would pass as the gateway's own."""
    forged = "\n2026-11-26 00:00:00 [error    ] forged\x1b[31m\r\u2028"
    fake = FakeOpenAI()
    fake.script("submit", Answer(400, {"error": {"message": forged, "code": forged}}))
    async with serve(fake) as url:
        settings = {"database_url": database_url, "data_dir": tmp_path / "data", "api_keys": ALICE}
        settings |= provider(url) | {"log_format": "console", "worker_tick_s": 0.05}
        async with served(cwd=tmp_path, **settings) as gateway, gateway.client() as client:
            assert (await client.get(f"/v1/videos/{quote(forged)}")).status_code == 404
            assert (await client.post(f"/{quote(forged)}", headers={"x-app-id": "a\tb"})).status_code == 404
            escape = "forged\x1b[31m"  # alone it is no white space, which the renderer would quote
            assert (
                await client.get(f"/{quote(escape)}", headers=[(b"x-request-id", b"forged\x85")])
            ).status_code == 404
            named = await client.post("/v1/videos", json={"prompt": "x", "model": escape})
            assert named.status_code in (400, 404)
            failed = await gateway.create(model="up/sora-2", prompt=forged, user=forged)
            assert (await gateway.finished(failed))["status"] == "failed"
            await gateway.child.stop()
    lines = [line for line in gateway.child.err if "forged" in line]
    assert len(lines) >= 5
    for line in lines:
        assert not line.startswith("2026-11-26 00:00:00")
        assert "\x1b[31m" not in line
        assert "\u2028" not in line


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_traceback_does_not_show_the_variables_on_its_way(log_format: str) -> None:
    script = f"""
from app import settings
from app.telemetry import logs
logs.configure_logging(settings.load(log_format={log_format!r}))
def fail(api_key):
    raise RuntimeError("broken")
try:
    fail("sek" + "ret")
except RuntimeError:
    logs.log.exception("oops")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "RuntimeError" in done.stderr
    assert "broken" in done.stderr
    assert "sekret" not in done.stderr
