"""Wishes about the choice of a route, `routing` and `max_cost`, which every dialect reads from its body or headers."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from contract.dialect_cases import CASES
from dialects.case import DialectCase
from harness import StartGateway
from money import ADMIN, Operator, operator_of

pytestmark = pytest.mark.anyio
DEAR, CHEAP = "dear/testcard", "cheap/testcard"


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> DialectCase:
    return CASES[request.param]


@pytest.fixture
async def operator(start_gateway: StartGateway) -> AsyncIterator[Operator]:
    """The operator of a gateway with two vendors of one model, at 30 and 10 cents a second."""
    settings: dict[str, Any] = {
        "providers": {name: {"kind": "sandbox"} for name in ("dear", "cheap")},
        "prices": {DEAR: 0.3, CHEAP: 0.1},
        "models": {"clip": {"routes": [DEAR, CHEAP]}},
        "default_model": "clip",
        "admin_key": ADMIN,
    }
    async with start_gateway(**settings) as gateway, operator_of(gateway) as operator:
        yield operator


async def create(
    operator: Operator, case: DialectCase, headers: dict[str, str] | None = None, **wishes: Any
) -> httpx.Response:
    body = {**case.body, **({"model": "clip"} if "model" in case.body else {}), **wishes}
    return await operator.gateway.client.post(case.create, json=body, headers=headers)


async def routes(operator: Operator, case: DialectCase, response: httpx.Response) -> list[str]:
    """The kept routes of the created video, in the order in which they are tried."""
    assert response.status_code == case.created, response.text
    shown = await operator.ask("GET", f"videos/{case.id_of(response.json())}")
    assert not {"routing", "max_cost"} & {*shown["request"], *shown["request"]["extra"]}
    return [choice["route"] for choice in shown["choices"] if choice["kept"]]


async def test_the_order_is_the_one_wished_for(operator: Operator, case: DialectCase) -> None:
    assert await routes(operator, case, await create(operator, case)) == [DEAR, CHEAP]
    by_body = await create(operator, case, routing="cheapest")
    by_header = await create(operator, case, {"X-Gateway-Routing": "cheapest"})
    by_both = await create(operator, case, {"X-Gateway-Routing": "order"}, routing="cheapest")
    for response in (by_body, by_header, by_both):
        assert await routes(operator, case, response) == [CHEAP, DEAR]


async def test_no_route_costs_more_than_wished(operator: Operator, case: DialectCase) -> None:
    for response in (
        await create(operator, case, max_cost=0.9),
        await create(operator, case, max_cost="0.9"),
        await create(operator, case, {"X-Gateway-Max-Cost": "0.9"}),
        await create(operator, case, {"X-Gateway-Max-Cost": "5"}, max_cost=0.9),
        await create(operator, case, {"X-Gateway-Max-Cost": "0.9"}, max_cost=5),
    ):
        assert await routes(operator, case, response) == [CHEAP]
    for refused in (
        await create(operator, case, max_cost=0.1),
        await create(operator, case, {"X-Gateway-Max-Cost": "0.1"}),
    ):
        assert refused.status_code == 402
        message = case.message_of(refused.json())
        assert message.startswith("the cheapest route, cheap/testcard, costs $0.")
        assert message.endswith("and max_cost is $0.1")


async def test_wishes_that_mean_nothing_are_refused(operator: Operator, case: DialectCase) -> None:
    wrong_ones: list[tuple[dict[str, str], dict[str, Any]]] = [
        ({"X-Gateway-Routing": "dearest"}, {}),
        ({"X-Gateway-Max-Cost": "much"}, {}),
        *(({}, {"routing": wrong}) for wrong in ("dearest", 7, ["cheapest"], {"by": "price"}, "x" * 10_000)),
        *(({}, {"max_cost": wrong}) for wrong in (-1, "much", True, "NaN", "1e999", [1], {"usd": 1}, 0.0000001)),
    ]
    for headers, wishes in wrong_ones:
        refused = await create(operator, case, headers, **wishes)
        assert refused.status_code == 400, (headers, wishes)
        assert case.message_of(refused.json()).startswith(("routing: expected", "max_cost: expected"))
