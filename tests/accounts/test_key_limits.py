"""The limits of a key: models, requests per minute and concurrent jobs."""

import asyncio

import httpx
import pytest
from harness import StartGateway
from money import ADMIN, Operator, operator_of, status

pytestmark = pytest.mark.anyio


async def test_a_key_may_use_the_models_it_may(start_gateway: StartGateway) -> None:
    models = {"clip": {"routes": ["sandbox/testcard"]}, "slow": {"routes": ["sandbox/slow"]}}
    async with start_gateway(admin_key=ADMIN, models=models) as gateway, operator_of(gateway) as operator:
        key = await operator.key(models=["clip", "sandbox/f*"])
        async with operator.user(key) as client:

            async def create(model: str | None, path: str = "/v1/videos") -> httpx.Response:
                return await client.post(path, json={"prompt": "x", **({"model": model} if model else {})})

            for model, allowed in (
                ("clip", True),
                ("sandbox/fail", True),
                ("fail", True),  # the bare name leads to sandbox/fail
                ("slow", False),
                ("sandbox/testcard", False),
                (None, False),  # the default model
            ):
                answer = await create(model)
                assert answer.status_code == (202 if allowed else 403), model
            assert answer.json()["error"] == {
                "message": "this key may not use the model 'sandbox/testcard'; GET /v1/models lists those it may",
                "type": "permission_error",
                "param": "model",
                "code": "model_not_allowed",
            }
            assert (await create("sandbox/slow", "/v1/video/generations")).json() == {
                "error": "this key may not use the model 'sandbox/slow'; GET /v1/models lists those it may"
            }
            assert (await client.post("/v1/videos?dryRun=true", json={"prompt": "x"})).status_code == 403
            listed = {model["id"] for model in (await client.get("/v1/models")).json()["data"]}
            assert listed == {"clip", "sandbox/fail"}
            assert (await client.get("/v1/models/clip")).status_code == 200
            assert (await client.get("/v1/models/sandbox/slow")).status_code == 403

            made = (await create("clip")).json()
            for _ in range(8):
                gateway.clock.advance(5)
                await gateway.worker.run_once()
            remixed = await client.post(f"/v1/videos/{made['id']}/remix", json={"prompt": "y"})
            assert (remixed.status_code, remixed.json()["model"]) == (202, "clip"), "by the name it was allowed by"
            edited = await client.post(
                "/v1/videos/edits", json={"prompt": "y", "video": {"id": made["id"]}, "model": "sandbox/slow"}
            )
            assert edited.status_code == 403


async def test_requests_per_minute_are_counted_over_all_processes(
    operator: Operator, start_gateway: StartGateway
) -> None:
    key = await operator.key(requests_per_minute=6)
    headers = {"authorization": f"Bearer {key['key']}"}
    async with start_gateway() as other:
        seen = []
        for number in range(6):
            gateway = (operator.gateway, other)[number % 2]
            answer = await gateway.client.get("/v1/models", headers=headers)
            assert answer.status_code == 200
            seen.append(
                {name: answer.headers[f"x-ratelimit-{name}-requests"] for name in ("limit", "remaining", "reset")}
            )
        assert seen[0] == {"limit": "6", "remaining": "5", "reset": "10s"}
        assert seen[5] == {"limit": "6", "remaining": "0", "reset": "60s"}
        refused = await other.client.get("/v1/models", headers=headers)
    assert refused.status_code == 429
    assert {name: refused.headers.get(name) for name in ("retry-after", "retry-after-ms")} == {
        "retry-after": "10",
        "retry-after-ms": "10000",
    }
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert await status(operator.gateway, key["key"]) == 429
    operator.gateway.clock.advance(10)
    assert await status(operator.gateway, key["key"]) == 200
    assert await status(operator.gateway, key["key"]) == 429
    answer = await operator.gateway.client.get("/v1/models")
    assert "x-ratelimit-limit-requests" not in answer.headers, "a key without a limit has no such header"


async def test_simultaneous_requests_are_counted_each(operator: Operator) -> None:
    key = await operator.key(requests_per_minute=7)
    answers = await asyncio.gather(*(status(operator.gateway, key["key"]) for _ in range(30)))
    assert sorted(answers) == [200] * 7 + [429] * 23


async def test_a_refused_create_leaves_nothing(operator: Operator) -> None:
    key = await operator.key(requests_per_minute=1)
    async with operator.user(key) as client:
        assert (await client.get("/v1/models")).status_code == 200
        for path in ("/v1/videos", "/v1/video/generations", "/luma/generations"):
            assert (await client.post(path, json={"prompt": "x"})).status_code == 429
        operator.gateway.clock.advance(60)
        assert (await client.get("/v1/videos")).json()["data"] == []


async def test_a_clock_that_jumps_locks_no_key_out(operator: Operator) -> None:
    key = await operator.key(requests_per_minute=2)
    codes = []
    for jump in (0, 0, 0, 86_400, -86_400, 0, -5_000, 0, 30):
        operator.gateway.clock.advance(jump)
        codes.append(await status(operator.gateway, key["key"]))
    assert codes == [200, 200, 429, 200, 200, 429, 429, 429, 200]


async def test_a_clock_that_is_set_back_delays_a_client_by_a_minute_at_most(operator: Operator) -> None:
    key = await operator.key(requests_per_minute=2)
    codes = []
    for jump in (0, 0, 0, -7_200, 30, 0, 60):  # two hours
        operator.gateway.clock.advance(jump)
        codes.append(await status(operator.gateway, key["key"]))
    assert codes == [200, 200, 429, 429, 200, 429, 200]


async def test_requests_that_arrive_out_of_order_are_counted_once(operator: Operator) -> None:
    key = await operator.key(requests_per_minute=60)
    codes = []
    for number in range(80):
        operator.gateway.clock.advance(1 if number % 2 else -1)
        codes.append(await status(operator.gateway, key["key"]))
    assert codes == [200] * 61 + [429] * 19


async def test_concurrent_jobs_are_counted_over_all_processes(operator: Operator, start_gateway: StartGateway) -> None:
    key = await operator.key(concurrent_jobs=3)
    headers = {"authorization": f"Bearer {key['key']}"}
    body = {"prompt": "x", "model": "sandbox/testcard"}
    async with start_gateway() as other:
        answers = await asyncio.gather(
            *(
                gateway.client.post("/v1/videos", json=body, headers=headers)
                for gateway in (operator.gateway, other) * 6
            )
        )
    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [429] * 9
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "concurrent_jobs_exceeded"
    assert refused.headers["retry-after"] == "10"
    assert refused.headers["x-ratelimit-limit-concurrent-jobs"] == "3"
    assert refused.headers["x-ratelimit-remaining-concurrent-jobs"] == "0"
    made = next(answer for answer in answers if answer.status_code == 202).json()
    async with operator.user(key) as client:
        assert (await client.post("/v1/videos", json=body)).status_code == 429
        await client.delete(f"/v1/videos/{made['id']}")
        assert (await client.post("/v1/videos", json=body)).status_code == 202
        assert (await client.post("/v1/videos", json=body)).status_code == 429
    for _ in range(8):
        operator.gateway.clock.advance(5)
        await operator.gateway.worker.run_once()
    async with operator.user(key) as client:
        assert (await client.post("/v1/videos", json=body)).status_code == 202, "all others have ended"
