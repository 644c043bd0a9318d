"""Metrics of jobs: causes of failures, durations, costs, refusals of accounts; gauges read from the database."""

import ast
import math
import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from shutil import rmtree

import psycopg
import pytest
import sqlalchemy as sa
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, Reset, closed_port, serve
from harness import Running, StartGateway
from money import ADMIN, Operator, operator_of
from prometheus_client.parser import text_string_to_metric_families

from app import errors
from app.accounts import ledger
from app.accounts.pricing import Cost
from app.db.models import Attempt, Video
from app.jobs import download
from app.jobs.metrics import CAUSES, cause_of
from app.media.store import OPERATIONS
from app.providers.lumenfall import FAILED_CODES
from app.telemetry.labels import MAX_PROJECTS, OTHER, Labels
from app.telemetry.metrics import REGISTRY
from app.video import AttemptState

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
FAILS = {"Failure", "fail", "failure", "learned"}
"""Calls that name the code of a failed job, by their last name; errors of upstreams, too."""


def seen(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def shown(gateway: Running) -> dict[str, float]:
    """The samples of a scrape, by their text."""
    gateway.gateway.gauges.read_at = -math.inf
    page = (await gateway.client.get("/metrics")).text
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


# Causes


def codes_in_the_code() -> Iterator[str]:
    """Codes that the code gives to failed jobs."""
    found = [errors.UpstreamError, download.OutputIncomplete]
    for kind in found:
        found += kind.__subclasses__()
        yield kind.default_code
    yield from filter(None, FAILED_CODES.values())
    for path in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in FAILS or called.startswith("Upstream"):
                given = [word.value for word in node.keywords if word.arg == "code"]
                given += node.args[1:2] if called == "fail" else []
                yield from (str(code.value) for code in given if isinstance(code, ast.Constant) and code.value)


def codes_in_the_documents() -> Iterator[str]:
    readme = (ROOT / "README.md").read_text("utf-8")
    table = readme.partition("A failed job carries `error.code`:")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        yield from re.findall(r"`(\w+)`", row)
    clients = (ROOT / "docs" / "clients.md").read_text("utf-8")
    for row in re.findall(r"^\| `[A-Z_]+` \| (.*?) \| `error.code` of the video \|", clients, re.MULTILINE):
        yield from re.findall(r"`(\w+)`", row)


def test_every_code_of_a_failed_job_has_a_cause() -> None:
    named = {code for codes in CAUSES.values() for code in codes}
    assert len(named) == sum(map(len, CAUSES.values()))
    code, documents = set(codes_in_the_code()), set(codes_in_the_documents())
    assert {"output_too_large", "invalid_size", "no_output"} <= code
    assert "deadline_exceeded" in documents
    assert (code | documents) - named == {"cancelled"}
    # Raised while a task is built or read: its character, or its upload, is gone.
    assert named - code - documents == {"expired", "file_not_found", "not_found"}
    assert cause_of("a_word_of_the_vendor") == "upstream"


# Counters


@pytest.fixture
async def priced(start_gateway: StartGateway, fake: FakeOpenAI) -> AsyncIterator[Operator]:
    """A gateway with one provider of a price, and its administration API."""
    async with serve(fake) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]}
        settings = {"providers": {"priced": up}, "prices": {"priced/sora-2": 0.1}, "admin_key": ADMIN}
        async with start_gateway(**settings) as gateway, operator_of(gateway) as operator:
            yield operator


CLIP = {"model": "priced/sora-2", "seconds": "4"}


async def test_counters_of_a_provider_begin_at_zero(priced: Operator) -> None:
    page = await shown(priced.gateway)
    for cause in CAUSES:
        assert page[f"gateway_jobs_total {cause} other priced failed"] >= 0
    for name in (
        "gateway_creates_total other priced",
        "gateway_creates_total sora-2 priced",
        "gateway_jobs_total  other priced completed",
        "gateway_jobs_total  other priced cancelled",
        "gateway_upstream_errors_total upstream_unavailable priced poll",
        "gateway_upstream_request_duration_seconds_count priced submit",
        "gateway_account_refusals_total upstream_insufficient_credit priced",
        "gateway_underpriced_costs_total priced",
        "gateway_webhook_deliveries_total retried",
        "gateway_database_errors_total disk_full",
        "gateway_store_errors_total write",
        "gateway_attempts priced pending",
        "gateway_provider_open priced all",
        "gateway_provider_queue_age_seconds priced",
        "gateway_held_usd priced",
    ):
        assert name in page, name
    assert not [name for name in page if "_created" in name]
    assert page["process_resident_memory_bytes"] > 10_000_000


async def test_a_job_is_counted_with_its_duration_and_its_cost(priced: Operator) -> None:
    gateway, labels = priced.gateway, {"provider": "priced", "model": "sora-2"}
    project = (await gateway.client.get("/v1/me")).json()["project"]["id"]
    jobs = {**labels, "status": "completed", "cause": ""}
    before = [
        seen("gateway_creates_total", **labels),
        seen("gateway_jobs_total", **jobs),
        seen("gateway_job_duration_seconds_sum", **labels),
        seen("gateway_cost_usd_total", project=project, **labels),
    ]
    video = await gateway.create(**CLIP)
    created_at = gateway.clock.now
    await gateway.worker.run_once()
    assert (await shown(gateway)).get(f"gateway_cost_usd_total sora-2 {project} priced") == before[3], "a zero first"
    await gateway.finish(video["id"])
    taken = (gateway.clock.now - created_at).total_seconds()
    after = [
        seen("gateway_creates_total", **labels),
        seen("gateway_jobs_total", **jobs),
        seen("gateway_job_duration_seconds_sum", **labels),
        seen("gateway_cost_usd_total", project=project, **labels),
    ]
    assert [round(b - a, 6) for a, b in zip(before, after, strict=True)] == [1, 1, taken, 0.025]


async def test_a_cancelled_job_has_a_status_of_its_own(priced: Operator) -> None:
    labels = {"provider": "priced", "model": "other", "status": "cancelled", "cause": ""}
    before = seen("gateway_jobs_total", **labels)
    video = await priced.gateway.create(**{**CLIP, "model": "priced/invented-by-a-client"})
    assert (await priced.gateway.client.delete(f"/v1/videos/{video['id']}")).status_code == 200
    assert seen("gateway_jobs_total", **labels) == before + 1
    assert not [name for name in await shown(priced.gateway) if "invented" in name]


async def test_a_job_that_the_upstream_cancelled_has_failed(priced: Operator, fake: FakeOpenAI) -> None:
    labels = {"provider": "priced", "model": "sora-2", "status": "failed", "cause": "upstream"}
    before = seen("gateway_jobs_total", **labels)
    video = await priced.gateway.create(**CLIP)
    await priced.gateway.worker.run_once()
    [ref] = fake.jobs
    fake.script("poll", Answer(200, {"id": ref, "object": "video", "status": "cancelled"}))
    assert (await priced.gateway.finish(video["id"]))["error"]["code"] == "cancelled"
    assert seen("gateway_jobs_total", **labels) == before + 1


@pytest.mark.parametrize(("status", "code"), [(401, "upstream_account_refused"), (402, "upstream_insufficient_credit")])
async def test_refusals_of_the_account_are_counted(priced: Operator, fake: FakeOpenAI, status: int, code: str) -> None:
    refusals = {"provider": "priced", "code": code}
    jobs = {"provider": "priced", "model": "sora-2", "status": "failed", "cause": "gateway"}
    before = seen("gateway_account_refusals_total", **refusals), seen("gateway_jobs_total", **jobs)
    fake.script("submit", fake.refusal(status, "no"))
    video = await priced.gateway.create(**CLIP)
    assert (await priced.gateway.finish(video["id"]))["error"]["code"] == code
    after = seen("gateway_account_refusals_total", **refusals), seen("gateway_jobs_total", **jobs)
    assert after == (before[0] + 1, before[1] + 1)


async def test_a_cost_is_counted_when_it_is_committed(priced: Operator) -> None:
    gateway, counted = priced.gateway, {"provider": "priced", "model": "sora-2"}
    video_id = (await gateway.create(**CLIP))["id"]
    project = (await gateway.client.get("/v1/me")).json()["project"]["id"]
    before = seen("gateway_cost_usd_total", project=project, **counted)
    cost = Cost(100_000, None)

    async def settle(*, fails: bool) -> None:
        async with gateway.gateway.db.transaction() as session:
            video = await session.get_one(Video, video_id)
            attempt = (await session.scalars(sa.select(Attempt).where(Attempt.video_id == video_id))).one()
            attempt.state, attempt.ended_at = AttemptState.succeeded, gateway.clock.now
            await session.flush()
            await ledger.settle(session, video, attempt, cost, now=gateway.clock.now)
            if fails:
                raise RuntimeError("before the commit")

    with pytest.raises(RuntimeError):
        await settle(fails=True)
    assert seen("gateway_cost_usd_total", project=project, **counted) == before
    await settle(fails=False)
    assert round(seen("gateway_cost_usd_total", project=project, **counted) - before, 6) == 0.1


async def test_connections_in_use_are_shown(gateway: Running) -> None:
    name = "gateway_database_connections_{} sqlalchemy"
    assert (await shown(gateway))[name.format("in_use")] == 0
    async with gateway.gateway.db.transaction(), gateway.gateway.db.reading():
        page = await shown(gateway)
        assert (page[name.format("in_use")], page[name.format("limit")]) == (2, 10)
    with pytest.raises(ZeroDivisionError):
        async with gateway.gateway.db.transaction():
            _ = 1 / 0
    assert (await shown(gateway))[name.format("in_use")] == 0


async def test_errors_of_the_store_are_counted_by_operation(priced: Operator, tmp_path: Path) -> None:
    before = [seen("gateway_store_errors_total", op=operation) for operation in OPERATIONS]
    video = await priced.gateway.create(**CLIP)
    rmtree(tmp_path / "data" / "media", ignore_errors=True)
    (tmp_path / "data" / "media").write_text("not a folder")
    for _ in range(3):
        await priced.gateway.worker.run_once()
        priced.gateway.clock.advance(20)
    assert (await priced.gateway.get(video["id"]))["status"] == "in_progress", "a fault of the gateway fails no job"
    after = [seen("gateway_store_errors_total", op=operation) for operation in OPERATIONS]
    grown = {operation for operation, a, b in zip(OPERATIONS, before, after, strict=True) if b > a}
    assert grown == {"list"}, "it looks for files of an earlier try first"


def test_projects_beyond_a_number_share_a_label() -> None:
    labels = Labels()
    found = [labels.project(f"project {number}") for number in range(MAX_PROJECTS + 2)]
    assert found == [*(f"project {number}" for number in range(MAX_PROJECTS)), OTHER, OTHER]
    assert labels.project("project 0") == "project 0"
    assert labels.model("nowhere", "any") == OTHER


# Gauges from the database


async def test_gauges_of_money_circuits_webhooks_and_decisions(
    priced: Operator, fake: FakeOpenAI, database_url: str
) -> None:
    gateway = priced.gateway
    project = (await gateway.client.get("/v1/me")).json()["project"]["id"]
    await priced.ask("PATCH", f"projects/{project}", monthly_budget_usd=1)
    fake.script("submit", Reset())
    lost = await gateway.finish((await gateway.create(**CLIP))["id"])
    assert lost["error"]["code"] == "upstream_outcome_unknown"
    waiting = await gateway.create(**CLIP, webhook_url=f"{closed_port()}/hook", webhook_secret="s" * 32)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for circuit in ("", "a", "b"):
            await connection.execute(
                "insert into provider_health as health (name, project_id, failures, failed_project, open_until) "
                "values ('priced', %s, 5, '', %s) on conflict (name, project_id) do update "
                "set open_until = excluded.open_until",
                [circuit, gateway.clock.now + timedelta(seconds=60)],
            )
        gateway.clock.advance(40)
        page = await shown(gateway)
        assert page["gateway_repairs_waiting"] == 1
        assert (page["gateway_held_usd priced"], page[f"gateway_budget_used_ratio {project}"]) == (0.8, 0.8)
        assert (page["gateway_provider_open priced all"], page["gateway_provider_open priced project"]) == (1, 2)
        assert page["gateway_provider_queue_age_seconds priced"] == page["gateway_queue_age_seconds"] == 40
        assert page["gateway_attempts priced pending"] == 1
        await gateway.client.delete(f"/v1/videos/{waiting['id']}")
        endpoint = {"name": "old", "url": f"{closed_port()}/hook", "event_types": ["video.completed"]}
        assert (await gateway.client.post("/v1/webhook_endpoints", json=endpoint)).status_code == 200
        await connection.execute("update webhook_endpoints set disabled_at = now(), disabled_reason = 'it failed'")
        gateway.clock.advance(30)
        page = await shown(gateway)
    assert page["gateway_provider_open priced all"] == 0, "the pause is over"
    assert (page["gateway_held_usd priced"], page["gateway_queue_age_seconds"]) == (0.4, 0)
    assert (page["gateway_webhooks_pending"], page["gateway_webhook_oldest_seconds"]) == (1, 30)
    assert page["gateway_webhook_endpoints_disabled"] == 1
