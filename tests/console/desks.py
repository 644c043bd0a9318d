"""Browsers of the operator at gateways with vendors behind them, and texts of their pages."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from typing import Any

from console.conftest import Visitor, visitor_at
from harness import Running, StartGateway
from money import ADMIN, Operator, operator_of

READER = "adm-reader-0123456789"
HOSTILE = "<img src=x onerror=alert(1)> {{ 7*7 }} </pre><script>"


@asynccontextmanager
async def signed_in(gateway: Running, key: str = ADMIN) -> AsyncIterator[Visitor]:
    """A browser signed in with this key."""
    found = visitor_at(gateway)
    async with found.client:
        assert (await found.sign_in(key)).status_code == 303
        yield found


@asynccontextmanager
async def desk(start_gateway: StartGateway, **settings: Any) -> AsyncIterator[tuple[Running, Visitor, Operator]]:
    """A gateway with a browser of its operator, and its administration API beside it. The admin key READER may only
    read."""
    keys = {"viewer": {"key": READER, "role": "read"}}
    async with (
        start_gateway(admin_key=ADMIN, admin_keys=keys, **settings) as gateway,
        signed_in(gateway) as visitor,
        operator_of(gateway) as admin,
    ):
        yield gateway, visitor, admin


async def words(visitor: Visitor, path: str, *, status: int = 200) -> str:
    """The words of a page, without its markup and with single blanks."""
    page = await visitor.get(path)
    assert page.status_code == status, page.text
    return words_of(page.text)


def words_of(markup: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", markup)).split())


def panel(markup: str, name: str) -> str:
    """The panel with this id, up to the next one."""
    found = [part for part in markup.split('<li class="panel') if f'id="{name}"' in part.partition(">")[0]]
    assert len(found) == 1, markup
    return found[0]


async def audited(admin: Operator, action: str) -> list[tuple[str, str]]:
    """Kind and name of the actor of each audit entry of an action."""
    found = await admin.ask("GET", f"audit?action={action}")
    return [(entry["actor"]["kind"], entry["actor"]["name"]) for entry in found["data"]]
