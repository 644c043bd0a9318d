"""The cheapest text-to-video of each vendor for which there is a key: `make test-live`. Costs money.

The name of this file keeps it out of `make test`, in which a missing key would count as a skipped test.
"""

import pytest
from harness import Clock, RealClock, StartGateway
from live.cases import Live, live_case, make_video

from app.providers import KINDS
from app.providers.sandbox import Sandbox

pytestmark = pytest.mark.anyio

PATIENCE_S = 1_800
CASES = {kind.kind: live_case(kind) for kind in KINDS if kind is not Sandbox}
"""Read when this file is collected: tests themselves see no keys of the environment."""


@pytest.fixture
def clock() -> Clock:
    return RealClock()


@pytest.mark.parametrize("kind", CASES)
async def test_the_vendor_makes_a_video(kind: str, start_gateway: StartGateway) -> None:
    case = CASES[kind]
    if not isinstance(case, Live):
        pytest.skip(case)
    assert await make_video(start_gateway, case, patience_s=PATIENCE_S)
