"""Model names and their routes: order, weights, and candidates that cannot express a request."""

import pytest
from fakes.server import Answer
from harness import StartGateway
from upstreams import Upstreams

pytestmark = pytest.mark.anyio


async def test_a_bare_name_goes_to_every_provider_that_lists_it_in_order(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    two.fakes["one"].script("submit", Answer(429))
    async with start_gateway(providers=two.providers(models=["sora-2"])) as gateway:
        video = await gateway.create(model="sora-2")
        assert (await gateway.finish(video["id"]))["status"] == "completed"
        assert [a.provider for a in await gateway.attempts(video["id"])] == ["one", "two"]


async def test_a_name_with_its_provider_never_fails_over(start_gateway: StartGateway, two: Upstreams) -> None:
    two.fakes["one"].script("submit", Answer(401))
    async with start_gateway(providers=two.providers(models=["sora-2"])) as gateway:
        video = await gateway.create(model="one/sora-2")
        assert (await gateway.finish(video["id"]))["error"]["code"] == "upstream_account_refused"
    assert two.fakes["two"].submits == []


async def test_weights_draw_the_order(start_gateway: StartGateway, two: Upstreams) -> None:
    routes = [{"to": "one/sora-2", "weight": 1}, {"to": "two/sora-2", "weight": 3}]
    async with start_gateway(providers=two.providers(), models={"clip": {"routes": routes}}) as gateway:
        for _ in range(200):
            await gateway.create(model="clip")
        await gateway.worker.run_once()
    share = len(two.fakes["two"].submits) / 200
    assert 0.6 < share < 0.9
    assert len(two.fakes["one"].submits) + len(two.fakes["two"].submits) == 200


async def test_candidates_that_cannot_express_the_request_are_left_out(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    models = {"clip": {"routes": ["sandbox/testcard", "one/sora-2"]}}
    async with start_gateway(providers=two.providers(), models=models) as gateway:
        video = await gateway.create(model="clip", seconds="90")  # longer than the sandbox renders
        assert (await gateway.finish(video["id"]))["status"] == "completed"
        assert [a.provider for a in await gateway.attempts(video["id"])] == ["one"]


async def test_a_parameter_that_no_candidate_can_express_is_a_400_or_dropped(start_gateway: StartGateway) -> None:
    models = {
        "strict": {"routes": ["sandbox/testcard"]},
        "loose": {"routes": ["sandbox/testcard"], "unsupported": "drop"},
    }
    async with start_gateway(models=models) as gateway:
        answer = await gateway.client.post("/v1/videos", json={"prompt": "p", "model": "strict", "seconds": "90"})
        assert answer.status_code == 400
        assert answer.json()["error"] == {
            "message": "sandbox/testcard cannot express seconds: it makes whole seconds from 1 to 60",
            "type": "invalid_request_error",
            "param": "seconds",
            "code": "unsupported_parameter",
        }
        video = await gateway.create(model="loose", seconds="90")
        assert video["warnings"] == ["seconds became 60 instead of 90: sandbox/testcard makes nothing nearer"]
