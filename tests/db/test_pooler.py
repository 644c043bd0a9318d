"""PgBouncer in transaction mode: prepared statements are switched off by the first error, and all goes on."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from fakes.pooler import pooler
from harness import StartGateway, plain

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pooled(database_url: str) -> AsyncIterator[str]:
    async with pooler(database_url) as url:
        yield url


@pytest.mark.slow
async def test_prepared_statements_are_switched_off_by_themselves(
    pooled: str, start_gateway: StartGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    async with start_gateway(database_url=pooled) as gateway:
        video = await gateway.create()

        async def round_of(requests: int) -> Counter[tuple[str, int, str | None]]:
            """The answers of so many creates and reads at once."""
            reads = [gateway.client.get(f"/v1/videos/{video['id']}") for _ in range(requests)]
            creates = [gateway.client.post("/v1/videos", json={"prompt": "a boat"}) for _ in range(requests)]
            found = await asyncio.gather(*reads, *creates)
            return Counter((a.request.method, a.status_code, a.headers.get("retry-after")) for a in found)

        seen: Counter[tuple[str, int, str | None]] = Counter()
        said = ""
        while "prepared statements switched off" not in said:
            seen += await round_of(10)
            said += plain(capsys.readouterr().out)
            assert sum(seen.values()) < 2000, "the pooler kept all connections apart"
        assert set(seen) <= {("GET", 200, None), ("POST", 202, None), ("GET", 503, "1"), ("POST", 503, "1")}
        assert await round_of(30) == {("GET", 200, None): 30, ("POST", 202, None): 30}
        created = 1 + 30 + seen["POST", 202, None]
        async with gateway.gateway.db.reading() as connection:
            assert (await connection.exec_driver_sql("select count(*) from videos")).scalar() == created
        said += plain(capsys.readouterr().out)
        (line,) = re.findall(r".*prepared statements switched off.*", said)
        assert "GATEWAY_DATABASE_PREPARE=false" in line
        assert "Traceback" not in said
