"""Queries about changed videos read indexes, whatever the number of videos."""

from datetime import timedelta
from typing import Any

import pytest
from db.test_request_log import NOW, large, plans
from sqlalchemy.ext.asyncio import AsyncConnection

from app.jobs.changes import changed_since, count_running
from app.jobs.overview import read_counts

__all__ = ["large"]

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("project_id", ["mine", None])
async def test_changes_and_counts_cost_what_they_find(large: str, project_id: str | None) -> None:
    async def ask(connection: AsyncConnection) -> None:
        await changed_since(connection, NOW + timedelta(hours=1), project_id=project_id, limit=501)
        await count_running(connection, project_id=project_id)

    nodes = await plans(large, ask)
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
    indexes = {node.get("Index Name") for node in nodes} - {None}
    assert {"ix_videos_ended_at", "ix_videos_deleted_at"} <= indexes
    assert max(node.get("Rows Removed by Filter", 0) for node in nodes) <= 21


async def test_the_day_of_the_status_command_is_read_from_an_index(large: str) -> None:
    async def ask(connection: AsyncConnection) -> None:
        await read_counts(connection, NOW + timedelta(days=1, hours=1))

    nodes: list[dict[str, Any]] = await plans(large, ask)
    assert "ix_videos_ended_at" in {node.get("Index Name") for node in nodes}
