"""Helpers of the tests about money: the administration API, and the sum that has to be right at all times."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import sqlalchemy as sa
from harness import ORIGIN, Running

ADMIN = "adm-0123456789"

_WRONG_SUMS = sa.text("""
select videos.id, settlement, billed_s, seconds, cost_micros, hold_micros, held, in_ledger
from videos cross join lateral (
  select coalesce(sum(amount_micros), 0)::bigint as in_ledger,
    coalesce(sum(seconds) filter (where kind = 'settle'), 0) as seconds
  from ledger where video_id = videos.id
) as booked cross join lateral (
  select count(*) as held from attempts where video_id = videos.id and settlement = 'held'
) as open
where in_ledger <> - coalesce(cost_micros, 0) - coalesce(hold_micros, 0) * held
  or (settlement = 'held') <> (held > 0)
  or abs(coalesce(billed_s, 0) - seconds) > 0.000001
""")

_BEYOND_HOLD = sa.text("""
select attempts.id, attempts.cost_micros, hold_micros, longest_s, prices
from attempts join videos on videos.id = attempts.video_id
where attempts.cost_micros > coalesce(hold_micros, ceil(longest_s * (prices ->> attempts.route_index)::bigint))
union all
select video_id, booked.cost, booked.held, null, null
from (
  select video_id, sum(cost_micros) as cost, - sum(amount_micros) filter (where kind in ('reserve', 'hold')) as held
  from ledger where video_id is not null group by video_id
) as booked
where booked.cost > booked.held
""")


class Operator:
    """The administration API of a gateway."""

    def __init__(self, gateway: Running, client: httpx.AsyncClient) -> None:
        self.gateway = gateway
        self.client = client

    async def ask(self, method: str, path: str, *, status: int = 200, **body: Any) -> dict[str, Any]:
        response = await self.client.request(method, f"/admin/v1/{path}", json=body or None)
        assert response.status_code == status, response.text
        return cast("dict[str, Any]", response.json())

    async def key(self, name: str = "for tests", **limits: Any) -> dict[str, Any]:
        """Make a key; the key itself is in `key`."""
        return await self.ask("POST", "keys", status=201, name=name, **limits)

    def user(self, key: dict[str, Any]) -> httpx.AsyncClient:
        """A client with this key."""
        headers = {"authorization": f"Bearer {key['key']}"}
        return httpx.AsyncClient(transport=self.client._transport, base_url=ORIGIN, headers=headers)

    async def ledger(self, video_id: str) -> list[tuple[str, float | None]]:
        """Kind and micros of each entry of a video, oldest first."""
        found = await self.ask("GET", f"ledger?video={video_id}")
        return [(entry["kind"], entry["amount_micros"]) for entry in reversed(found["data"])]

    async def usage(self, by: str = "day", **query: str) -> list[dict[str, Any]]:
        found = await self.client.get("/admin/v1/usage", params={"by": by, **query})
        assert found.status_code == 200, found.text
        return cast("list[dict[str, Any]]", found.json()["data"])

    async def check_sums(self) -> None:
        """The ledger entries of a video add up to cost, length and holds of it; it never cost more than was held."""
        async with self.gateway.gateway.db.reading() as connection:
            assert (await connection.execute(_WRONG_SUMS)).mappings().all() == []
            assert (await connection.execute(_BEYOND_HOLD)).mappings().all() == []


@asynccontextmanager
async def operator_of(gateway: Running) -> AsyncIterator[Operator]:
    """The gateway has to be started with `admin_key=ADMIN`."""
    headers = {"authorization": f"Bearer {ADMIN}"}
    async with httpx.AsyncClient(transport=gateway.client._transport, base_url=ORIGIN, headers=headers) as client:
        operator = Operator(gateway, client)
        yield operator
        await operator.check_sums()


async def status(gateway: Running, key: str, path: str = "/v1/models") -> int:
    """The status code of a GET with this key."""
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=gateway.client._transport, base_url=ORIGIN, headers=headers) as client:
        return (await client.get(path)).status_code
