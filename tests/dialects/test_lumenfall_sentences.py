"""Sentences of Lumenfall's documentation, with OpenAI's SDK at `/openai/v1`; docs/compatibility.md lists all."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from dialects.openai_wire import error_of
from dialects.vendors import stored
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import ALICE, Running, StartGateway
from openai import AsyncOpenAI

pytestmark = pytest.mark.anyio

PICTURE = "https://images.example.com/a.png"


@pytest.fixture
async def served(start_gateway: StartGateway) -> AsyncIterator[tuple[Running, str]]:
    """A gateway on a real socket in front of an upstream that is done at its first poll; its worker is the test's."""
    fake = FakeOpenAI(polls_until_working=0, polls_until_done=0)
    async with serve(fake) as upstream:
        providers = {"up": {"kind": "openai", "base_url": f"{upstream}/v1", "api_key": KEY}}
        aliases = {"boat": {"routes": ["up/sora-2"]}}
        async with (
            start_gateway(providers=providers, prices={"up/sora-2": 0.1}, models=aliases) as gateway,
            serve(gateway.app) as url,
        ):
            yield gateway, url


@pytest.fixture
async def sdk(served: tuple[Running, str]) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{served[1]}/openai/v1", api_key=ALICE) as client:
        yield client


@pytest.fixture
def gateway(served: tuple[Running, str]) -> Running:
    return served[0]


async def test_the_sample_of_the_vendors_sdk_page_runs(sdk: AsyncOpenAI, gateway: Running) -> None:
    video: Any = await sdk.post("/videos", body={"model": "boat", "prompt": "a capybara swimming"}, cast_to=object)
    assert (video["object"], video["status"], video["model"]) == ("video", "queued", "boat")
    await gateway.finish(video["id"])
    status: Any = await sdk.get(f"/videos/{video['id']}", cast_to=object)
    assert status["status"] == "completed"
    assert (await gateway.client.get(status["output"]["url"])).content[4:8] == b"ftyp"


async def test_every_documented_field_is_taken(sdk: AsyncOpenAI, gateway: Running) -> None:
    extra = {
        "duration": "10",
        "n": 2,
        "aspect_ratio": "16:9",
        "resolution": "720p",
        "input_reference": [{"image_url": PICTURE}, {"image_url": "data:image/png;base64,iVBORw0KGgo="}],
        "negative_prompt": "x" * 5_000,
        "media_retention": "7d",
        "webhook_url": "https://app.example.com/events",
        "idempotency_key": "k" * 256,
        "metadata": {"order": "17"},
        "user": "end user 5",
        "mode": "pro",
    }
    raw = await sdk.videos.with_raw_response.create(model="boat", prompt="p" * 32_000, extra_body=extra)
    video = raw.parse()
    assert raw.http_response.status_code == 202
    assert raw.headers["x-gateway-provider"] == "up"
    short = {"object": "video", "status": "queued", "model": "boat", "seconds": "10", "size": "1280x720"}
    assert video.to_dict().items() >= short.items()
    assert video.created_at == int(gateway.clock().timestamp())
    request = await stored(gateway, video.id)
    assert (request.seconds, request.n, request.size, request.retention_s) == (10, 2, "1280x720", 7 * 86_400)
    assert (len(request.reference_images), request.negative_prompt) == (2, "x" * 5_000)
    assert (request.user, request.metadata, request.extra) == ("end user 5", {"order": "17"}, {"mode": "pro"})
    assert request.webhook is not None
    again = await sdk.videos.with_raw_response.create(model="boat", prompt="p" * 32_000, extra_body=extra)
    assert (again.http_response.status_code, again.parse().id) == (200, video.id)
    done = await gateway.finish(video.id)
    assert len(done["output"]["files"]) == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "p" * 32_001}, "prompt"),
        ({"negative_prompt": "x" * 5_001}, "negative_prompt"),
        ({"idempotency_key": "k" * 257}, "idempotency_key"),
        ({"n": 5}, "n"),
        ({"metadata": {"a": ["b"]}}, "metadata.a"),
        ({"input_reference": {"image_url": "ftp://x.example/a.png"}}, "input_reference"),
    ],
)
async def test_limits_of_the_documented_fields_are_kept(gateway: Running, fields: dict[str, Any], param: str) -> None:
    body = {"model": "boat", "prompt": "p", **fields}
    assert error_of(await gateway.client.post("/openai/v1/videos", json=body), 400)["param"] == param


async def test_a_dry_run_of_the_sdk_answers_an_estimate(sdk: AsyncOpenAI) -> None:
    body = {"model": "boat", "prompt": "p", "seconds": 8}
    estimate = await sdk.post("/videos", body=body, cast_to=object, options={"params": {"dryRun": "true"}})
    assert estimate == {
        "estimated": True,
        "model": "boat",
        "provider": "up",
        "total_cost_micros": 800_000,
        "currency": "USD",
        "components": [
            {
                "type": "output",
                "metric": "second",
                "quantity": 8,
                "billable_quantity": 8,
                "unit_price": 0.1,
                "total_cost": 800_000,
            }
        ],
        "cost_estimate": 0.8,
        "cost_at_most": 0.8,
        "routes": [
            {
                "route": "up/sora-2",
                "cost_estimate": 0.8,
                "median_seconds": None,
                "kept": True,
                "reason": "number 1 as written",
            }
        ],
    }
    assert [video async for video in sdk.videos.list()] == []


async def test_strict_validation_takes_the_routing_in_metadata(served: tuple[Running, str]) -> None:
    strict = AsyncOpenAI(base_url=f"{served[1]}/openai/v1", api_key=ALICE, _strict_response_validation=True)
    async with strict:
        video = await strict.videos.create(model="boat", prompt="p", seconds="4", size="1280x720")
        assert video.model_extra is not None
        assert (video.model_extra["url"], video.model_extra["metadata"]["executed_model"]) == (None, "up/sora-2")
        deleted = await strict.videos.delete(video.id)
        assert (await strict.videos.delete(video.id)).to_dict() == deleted.to_dict()
        cancelled = await strict.videos.retrieve(video.id)
        assert cancelled.error is not None
        assert (cancelled.status, cancelled.error.code) == ("failed", "cancelled")


async def test_errors_have_one_shape_and_the_sdk_raises_its_classes(sdk: AsyncOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        await sdk.with_options(api_key="lmnfl_wrong.key").videos.create(model="boat", prompt="p")
    with pytest.raises(openai.NotFoundError) as unknown:
        await sdk.videos.create(model="baot", prompt="p")
    assert (unknown.value.code, unknown.value.type) == ("model_not_found", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as blank:
        await sdk.videos.create(model="boat", prompt=" ")
    assert (blank.value.code, blank.value.param) == ("invalid_value", "prompt")
    with pytest.raises(openai.BadRequestError) as replay:
        await sdk.videos.create(model="boat", prompt="p", extra_headers={"X-Lumenfall-Replay": "mock"})
    assert replay.value.code == "unsupported_header"


async def test_native_paths_answer_at_v1_without_the_prefix(gateway: Running) -> None:
    """The vendor's model pages create at `/v1/videos`; balance and the webhook secret are there, too."""
    made = await gateway.client.post("/v1/videos", json={"model": "boat", "prompt": "p"})
    assert made.status_code == 202
    assert (await gateway.client.get("/v1/balance")).json()["object"] == "balance"
    assert (await gateway.client.get("/v1/webhooks/secret")).json()["key"].startswith("whsec_")
    for path in ("/v1/requests", "/v1/keys"):
        assert (await gateway.client.get(path)).json()["object"] == "list"
