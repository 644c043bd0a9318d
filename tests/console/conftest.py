"""A browser's requests to the console: its cookie, the origin it comes from, and the token of its forms."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
import sqlalchemy as sa
from harness import ALICE, ORIGIN, Running, StartGateway
from money import ADMIN

from app import ids
from app.db.models import Video


@dataclass
class Visitor:
    """A browser without scripts: it keeps cookies, follows no redirect, and sends forms of the page it has open."""

    client: httpx.AsyncClient

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers=headers)

    async def post(self, path: str, form: dict[str, str], **headers: str) -> httpx.Response:
        return await self.client.post(path, data=form, headers={"sec-fetch-site": "same-origin", **headers})

    async def sign_in(self, key: str, **more: str) -> httpx.Response:
        return await self.sign_in_at("", key, **more)

    async def sign_in_at(self, root: str, key: str, **more: str) -> httpx.Response:
        """Sign in to a gateway below the path `root`."""
        return await self.post(f"{root}/console/login", {"key": key, **more})

    async def token(self) -> str:
        """The form token of the page that is open."""
        page = await self.get("/console/nowhere")
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page.text)
        assert found, page.text
        return found[1]


def visitor_at(gateway: Running, origin: str = ORIGIN, root: str = "") -> Visitor:
    transport = httpx.ASGITransport(gateway.app, root_path=root, client=("192.0.2.7", 4_000))
    return Visitor(httpx.AsyncClient(transport=transport, base_url=origin))


async def copy_video(gateway: Running, video_id: str, count: int) -> None:
    """Add so many copies of the row of a video, each with an id of its own."""
    columns = ", ".join(name for name in Video.__table__.columns.keys() if name != "id")  # noqa: SIM118  # not a dict
    query = (
        f"insert into videos (id, {columns}) select new.id, {columns} from videos, unnest((:ids)::text[]) as new (id) "
    )
    async with gateway.gateway.db.transaction() as session:
        made = [ids.new("video") for _ in range(count)]
        await session.execute(sa.text(query + "where videos.id = :of"), {"ids": made, "of": video_id})


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> AsyncIterator[Running]:
    """A gateway with the sandbox and an admin key."""
    async with start_gateway(admin_key=ADMIN) as running:
        yield running


@pytest.fixture
async def visitor(gateway: Running) -> AsyncIterator[Visitor]:
    """A browser that is not signed in."""
    found = visitor_at(gateway)
    async with found.client:
        yield found


@pytest.fixture
async def alice(gateway: Running) -> AsyncIterator[Visitor]:
    """A browser signed in with Alice's key."""
    found = visitor_at(gateway)
    async with found.client:
        assert (await found.sign_in(ALICE)).status_code == 303
        yield found


@pytest.fixture
async def operator(gateway: Running) -> AsyncIterator[Visitor]:
    """A browser signed in with the admin key."""
    found = visitor_at(gateway)
    async with found.client:
        assert (await found.sign_in(ADMIN)).status_code == 303
        yield found
