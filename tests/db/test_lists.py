"""Lists with filters of a large project: pages and sums are read from the index of their filters, without a sort of
what they do not show."""

from datetime import timedelta
from typing import Any

import pytest
from db.test_request_log import MIDDLE, NOW, VIDEOS, large, plans
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.models import Video
from app.jobs.filters import Filters, State
from app.jobs.search import LOOKED_AT, Found, Wanted, read_list, summarize

__all__ = ["large"]

pytestmark = pytest.mark.anyio

LIMIT = 20
FAILED = (State.failed, State.cancelled)
LATE = {"created_after": MIDDLE, "created_before": NOW - timedelta(hours=1)}
"""A range that ends before the newest videos."""

INDEXED: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": "usual"}, "log_model"),
    "rare model": ({"model": "rare"}, "log_model"),
    "unknown model": ({"model": "none"}, "log_model"),
    "model and range": ({"model": "usual", **LATE}, "log_model"),
    "model and state": ({"model": "usual", "states": (State.cancelled,)}, "log_model_cancelled"),
    "rare model, failed": ({"model": "rare", "states": (State.failed,)}, "log_model_failed"),
    "rare model, completed": ({"model": "rare", "states": (State.completed,)}, "log_model_completed"),
    "key and model": ({"key_id": "usual", "model": "usual"}, "log_key_model"),
    "key without the model": ({"key_id": "tidy", "model": "usual"}, "log_key_model"),
    "key and rare model": ({"key_id": "usual", "model": "rare"}, "log_key_model"),
    "all four": (
        {"key_id": "usual", "model": "usual", "states": (State.cancelled,), **LATE},
        "log_key_model_cancelled",
    ),
    "all four, empty": ({"key_id": "tidy", "model": "usual", "states": (State.completed,), **LATE}, "log_key_model"),
    "key and model, failed or cancelled": ({"key_id": "usual", "model": "usual", "states": FAILED}, "log_key_model"),
    "failed or cancelled": ({"states": FAILED, **LATE}, "log_"),
    "of all projects": ({"project_id": None, "model": "usual", "states": FAILED}, "log_model"),
    "rare of all projects": ({"project_id": None, "model": "rare", "key_id": "rare"}, "log_key_model"),
}
"""Filters, and how the names of the indexes begin that serve them."""
HALF = f"video_{VIDEOS // 2:026}"
PLACES: dict[str, dict[str, Any]] = {
    "first": {},
    "oldest first": {"ascending": True},
    "after": {"after": HALF},
    "after, oldest first": {"after": HALF, "ascending": True},
}


def given(filters: dict[str, Any]) -> Filters:
    return Filters(**{"project_id": "mine", **filters})


async def read(
    url: str, filters: dict[str, Any], *, options: str = "set jit = off", **wanted: Any
) -> tuple[Found, list[dict[str, Any]]]:
    found, columns = [], list(Video.__table__.columns)

    async def ask(connection: AsyncConnection) -> None:
        found.append(await read_list(connection, given(filters), Wanted(LIMIT, **wanted), columns))

    nodes = await plans(url, ask, options=options)
    return found[0], nodes


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", INDEXED)
async def test_a_page_costs_what_it_shows(large: str, name: str, place: str) -> None:
    filters, index = INDEXED[name]
    _, nodes = await read(large, filters, **PLACES[place])
    used = {node["Index Name"] for node in nodes if "Index Name" in node}
    assert all(one.startswith(f"ix_videos_{index}") or one in ("pk_videos", "pk_projects") for one in used), used
    assert {node["Node Type"] for node in nodes if node.get("Relation Name") == "videos"}.isdisjoint({"Seq Scan"})
    ranges = 2 if filters.get("states") == FAILED else 1
    projects = 2 if "project_id" in filters else 1
    shown = (LIMIT + 1) * ranges * projects
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in nodes) <= shown
    assert max(node.get("Rows Removed by Filter", 0) for node in nodes) <= LIMIT + 1
    sorts = [node for node in nodes if node["Node Type"].endswith("Sort")]
    assert not sorts or ranges * projects > 1
    assert sum(node.get("Shared Hit Blocks", 0) + node.get("Shared Read Blocks", 0) for node in nodes[:1]) < 300


@pytest.mark.parametrize("name", INDEXED)
async def test_a_sum_is_read_from_an_index_alone(large: str, name: str) -> None:
    totals = []

    async def ask(connection: AsyncConnection) -> None:
        totals.append(await summarize(connection, given(INDEXED[name][0])))

    nodes = await plans(large, ask)
    scans = [node for node in nodes if node.get("Relation Name") == "videos"]
    assert {node["Node Type"] for node in scans} == {"Index Only Scan"}
    assert sum(node.get("Heap Fetches", 0) for node in scans) == 0
    assert max(node.get("Rows Removed by Filter", 0) for node in scans) == 0
    assert totals[0].count == totals[0].cost_micros == totals[0].seconds


async def test_running_videos_cost_as_many_as_run(large: str) -> None:
    found, nodes = await read(large, {"states": (State.queued,), "model": "rare", "key_id": "tidy"})
    assert found.rows == []
    assert max(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in nodes) <= LIMIT


@pytest.mark.parametrize(
    "filters",
    [
        {"prompt": "no such text"},
        {"metadata": {"order": "17"}, "states": (State.cancelled,)},
        {"user": "none", "project_id": None, "model": "usual"},
    ],
    ids=["q", "metadata", "all projects"],
)
async def test_a_search_looks_at_no_more_than_it_says(large: str, filters: dict[str, Any]) -> None:
    options = "set jit = off; set enable_seqscan = off"  # of so small a table a third is read faster as a whole
    found, nodes = await read(large, filters, options=options, summary=True)
    assert found.rows == []
    assert found.has_more
    assert found.last_id is not None
    assert found.looked is not None
    assert (found.looked.rows, found.looked.complete) == (LOOKED_AT, False)
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in nodes) <= LOOKED_AT + 1
    assert max(node.get("Rows Removed by Filter", 0) for node in nodes) <= LOOKED_AT
    scans = {node["Node Type"] for node in nodes if node.get("Relation Name") == "videos"}
    assert "Seq Scan" not in scans
    rest, _ = await read(large, filters, after=found.last_id)
    assert rest.looked is not None
    assert rest.rows == []
    assert rest.looked.rows > 0
