"""The cases of `make test-live`: each kind has one, it is the cheapest, and it gets a video from the vendor's fake."""

import pytest
from contract.stage import UPSTREAMS
from fakes.server import KEY, serve
from fakes.upstream import Upstream
from harness import Clock, RealClock, StartGateway
from live.cases import CASES, Live, live_case, make_video

from app.providers import KIND_NAMES, KINDS
from app.providers.ark import Ark
from app.providers.base import Provider
from app.providers.dashscope import DashScope
from app.providers.fal import Fal, endpoints
from app.providers.openai import OpenAI
from app.providers.sandbox import Sandbox
from app.providers.xai import XAI
from app.video import Operation

pytestmark = pytest.mark.anyio

ROWS = [row for row in UPSTREAMS if row.name == row.kind.kind]


@pytest.fixture
def clock() -> Clock:
    return RealClock()


def test_each_vendor_has_a_case() -> None:
    assert set(CASES) == {kind.kind for kind in KINDS} - {Sandbox.kind}, "add its cheapest video to tests/live/cases.py"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_case_makes_a_video_at_the_fake(
    row: Upstream, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = row.kind.kind.upper()
    fake = row.fake()
    async with serve(fake) as url:
        monkeypatch.setenv(f"LIVE_{name}_API_KEY", KEY)
        monkeypatch.setenv(f"LIVE_{name}_BASE_URL", f"{url}{row.prefix}")
        monkeypatch.setenv(f"LIVE_{name}_MODEL", CASES[row.kind.kind].model or row.model)
        live = live_case(row.kind)
        assert isinstance(live, Live)
        assert KEY not in repr(live)
        live.config.update(poll_interval_s=0.02, **row.config)
        assert await make_video(start_gateway, live, patience_s=60) == fake.file
    assert len(fake.submits) == 1


def test_without_a_key_the_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert live_case(Fal) == "set LIVE_FAL_API_KEY or FAL_KEY"
    monkeypatch.setenv("FAL_KEY", KEY)
    assert isinstance(live_case(Fal), Live)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert live_case(OpenAI) == "set LIVE_OPENAI_MODEL to the model to try"
    monkeypatch.setenv("LIVE_OPENAI_MODEL", "wan")
    assert live_case(OpenAI) == "set LIVE_OPENAI_BASE_URL to the address of the server"


def cost_micros(prices: dict[str, int], fields: dict[str, str]) -> float:
    return prices[fields["resolution"]] * float(fields["seconds"])


@pytest.mark.parametrize("kind", [Ark, DashScope, XAI])
def test_the_case_is_the_cheapest_with_a_list_price(kind: type[Provider]) -> None:
    case = CASES[kind.kind]
    cheapest = min(price * min(able.seconds or (0,)) for able in kind.models.values() for price in able.prices.values())
    assert cost_micros(kind.models[case.model].prices, case.fields) == cheapest


def test_the_case_of_fal_is_the_cheapest_text_to_video_with_a_list_price() -> None:
    case, known = CASES["fal"], endpoints.known_endpoints()
    makes_of_text = [
        one
        for one in known.values()
        if one.operation is Operation.generate and not one.capabilities.required and one.id.endswith("text-to-video")
    ]
    cheapest = min(price for one in makes_of_text for price in one.prices.values())
    assert known[case.model].prices[case.fields["resolution"]] == cheapest


@pytest.mark.parametrize("kind", CASES)
def test_a_model_of_a_case_is_served(kind: str) -> None:
    able = KIND_NAMES[kind].models.get(CASES[kind].model, KIND_NAMES[kind].any_model)
    assert able is not None
    seconds = CASES[kind].fields.get("seconds")
    if seconds is not None and able.seconds:
        assert able.seconds[0] <= float(seconds) <= able.seconds[-1]
