"""The providers of four vendors against the dialects of the same vendors."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakes.server import serve
from harness import ALICE, Running, StartGateway
from starlette.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio


@pytest.fixture
async def looped(start_gateway: StartGateway) -> AsyncIterator[Running]:
    """A gateway whose providers for four vendors call its own dialects, which lead to the sandbox."""
    apps: list[Any] = []

    async def own_app(scope: Scope, receive: Receive, send: Send) -> None:
        await apps[0](scope, receive, send)

    async with serve(own_app) as url:
        vendors = {kind: {"base_url": url, "api_key": ALICE} for kind in ("lunos", "lumen", "gptge", "apilaplas")}
        cards = {"routes": ["sandbox/testcard"]}
        names = ("google/veo-3.0-generate-preview", "seedance-2", "ray-1-6")
        async with start_gateway(
            providers={**vendors, "sandbox": {"testcard_s": 0}},
            models=dict.fromkeys(names, cards),
            default_model="sandbox/testcard",
        ) as gateway:
            apps.append(gateway.app)
            yield gateway


@pytest.mark.parametrize(
    "model", ["lunos/google/veo-3.0-generate-preview", "lumen/seedance-2", "gptge/luma", "apilaplas/ray-1-6"]
)
async def test_our_providers_understand_our_dialects(looped: Running, model: str) -> None:
    video = await looped.create(model=model)
    done = await looped.finish(video["id"])
    assert done["status"] == "completed", done
    assert done["output"]["duration_seconds"] in (4, 5)
    if not model.startswith("lu"):
        again = {"video": {"id": video["id"]}, "prompt": "further", "seconds": "4"}
        longer = (await looped.client.post("/v1/videos/extensions", json=again)).json()
        assert (await looped.finish(longer["id"]))["status"] == "completed"


async def test_our_providers_read_the_reason_of_a_failure(looped: Running) -> None:
    looped.gateway.router.aliases["seedance-2"].routes[:] = ["sandbox/fail"]
    done = await looped.finish((await looped.create(model="lumen/seedance-2"))["id"])
    assert done["status"] == "failed"
    assert "always fails" in done["error"]["message"]
