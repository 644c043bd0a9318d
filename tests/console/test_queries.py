"""The cost of pages: at most twelve queries each, however many videos there are."""

import pytest
from console.conftest import Visitor
from harness import Running, statements
from money import operator_of

from app.console.pages import MENU

pytestmark = pytest.mark.anyio

MOST = 12


async def pages(visitor: Visitor, gateway: Running, paths: list[str]) -> dict[str, int]:
    """The number of statements of each page."""
    found = {}
    for path in paths:
        with statements(gateway) as sent:
            page = await visitor.get(f"/console/{path}")
        assert page.status_code == 200, (path, page.text)
        found[path] = len(sent)
    return found


async def test_no_page_asks_much_of_the_database(gateway: Running, alice: Visitor, operator: Visitor) -> None:
    async with operator_of(gateway) as admin:
        for name in ("one", "two", "three"):
            await admin.key(name, monthly_budget_usd=5)
    for number in range(30):
        video = await gateway.create(model="sandbox/testcard", prompt=f"number {number}", seconds=1, size="128x128")
    await gateway.finish(video["id"])
    own = [*(path for path, _ in MENU[False]), f"videos/{video['id']}", "webhooks/log", "models/sandbox/testcard"]
    theirs = [*(path for path, _ in MENU[True]), f"videos/{video['id']}"]
    counts = {"own": await pages(alice, gateway, own), "operator": await pages(operator, gateway, theirs)}
    costly = {who: {path: n for path, n in found.items() if n > MOST} for who, found in counts.items()}
    assert costly == {"own": {}, "operator": {}}
