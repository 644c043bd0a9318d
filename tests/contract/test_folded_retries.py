"""`GATEWAY_FOLD_RETRIES`: a create that an SDK repeats without an idempotency key is the job it has already made."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from contract.dialect_cases import CASES
from dialects.case import DialectCase
from fakes.server import serve
from harness import ALICE, Running, StartGateway
from money import ADMIN, operator_of
from openai import AsyncOpenAI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.db.models import Video
from app.jobs.enqueue import FOLD_S

pytestmark = pytest.mark.anyio

RETRY = {"x-stainless-retry-count": "1"}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(250))


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> DialectCase:
    return CASES[request.param]


@pytest.fixture
async def folding(start_gateway: StartGateway) -> AsyncIterator[Running]:
    async with start_gateway(fold_retries=True, providers={"sandbox": {"testcard_s": 0}}) as gateway:
        yield gateway


async def jobs(gateway: Running) -> int:
    return len((await gateway.client.get("/v1/videos")).json()["data"])


async def test_a_retry_returns_the_video_of_the_first_try(folding: Running, case: DialectCase) -> None:
    first = await folding.client.post(case.create, json=case.body)
    assert first.status_code == case.created, first.text
    folding.clock.advance(FOLD_S)
    parts = {name: (None, value) for name, value in case.body.items()}
    for again in (
        await folding.client.post(case.create, json=case.body, headers=RETRY),
        await folding.client.post(case.create, files=parts, headers={"x-stainless-retry-count": "2"}),
    ):
        assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true"), again.text
        assert again.json() == first.json()
    assert await jobs(folding) == 1


async def test_what_is_no_retry_of_the_same_request_is_a_new_job(folding: Running, case: DialectCase) -> None:
    first = await folding.client.post(case.create, json=case.body)
    video_id = case.id_of(first.json())
    changed = {name: "another" if name.endswith("prompt") else value for name, value in case.body.items()}
    seen = {video_id}
    for body, headers in (
        (case.body, {}),
        (case.body, {"x-stainless-retry-count": "0"}),
        (case.body, {"x-stainless-retry-count": "\u00b2"}),
        (case.body, {"x-stainless-retry-count": "-1"}),
        (changed, RETRY),
        (case.body, {**RETRY, "idempotency-key": "order 17"}),
    ):
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        made = await folding.client.post(case.create, json=body, headers=raw)
        assert made.status_code == case.created, made.text
        seen.add(case.id_of(made.json()))
    theirs = await folding.bob.post(case.create, json=case.body, headers=RETRY)
    assert theirs.status_code == case.created, theirs.text
    assert len(seen) == await jobs(folding) == 7


async def test_without_the_setting_a_retry_is_a_new_job(gateway: Running, case: DialectCase) -> None:
    made = [await gateway.client.post(case.create, json=case.body, headers=RETRY) for _ in range(2)]
    assert [answer.status_code for answer in made] == [case.created] * 2
    async with gateway.gateway.db.transaction() as session:
        assert set((await session.scalars(sa.select(Video.idempotency_hash))).all()) == {None}


async def test_a_retry_after_two_minutes_is_a_new_job(folding: Running) -> None:
    body = {"prompt": "a paper boat"}
    await folding.client.post("/v1/videos", json=body)
    folding.clock.advance(FOLD_S + 1)
    assert (await folding.client.post("/v1/videos", json=body, headers=RETRY)).status_code == 202
    assert await jobs(folding) == 2


async def test_a_retry_of_a_deleted_video_is_a_new_job(folding: Running) -> None:
    first = await folding.client.post("/v1/videos", json={"prompt": "p", "model": "sandbox/reject"})
    await folding.finish(first.json()["id"])
    again = await folding.client.post("/v1/videos", json={"prompt": "p", "model": "sandbox/reject"}, headers=RETRY)
    assert (again.status_code, again.json()["status"]) == (200, "failed")
    assert (await folding.client.delete(f"/v1/videos/{first.json()['id']}")).status_code == 200
    again = await folding.client.post("/v1/videos", json={"prompt": "p", "model": "sandbox/reject"}, headers=RETRY)
    assert again.status_code == 202


async def test_a_retry_after_a_cancellation_is_a_new_job(folding: Running) -> None:
    """The first try was refused or lost; the client has stopped the equal video before it, and wants another one."""
    body = {"prompt": "p", "model": "sandbox/slow"}
    first = await folding.client.post("/v1/videos", json=body)
    assert (await folding.client.delete(f"/v1/videos/{first.json()['id']}")).status_code == 200
    assert (await folding.client.get(f"/v1/videos/{first.json()['id']}")).json()["error"]["code"] == "cancelled"
    again = await folding.client.post("/v1/videos", json=body, headers=RETRY)
    assert again.status_code == 202
    third = await folding.client.post("/v1/videos", json=body, headers=RETRY)
    assert (third.status_code, third.json()["id"]) == (200, again.json()["id"])


async def test_of_several_equal_videos_a_retry_returns_the_newest(folding: Running) -> None:
    body = {"prompt": "p"}
    for _ in range(3):
        folding.clock.advance(1)
        newest = await folding.client.post("/v1/videos", json=body)
    assert (await folding.client.post("/v1/videos", json=body, headers=RETRY)).json()["id"] == newest.json()["id"]


async def test_the_hash_of_a_create_without_a_key_is_purged(folding: Running) -> None:
    body = {"prompt": "p", "model": "sandbox/reject"}
    for key in ({}, {"idempotency-key": "order 17"}):
        video_id = (await folding.client.post("/v1/videos", json=body, headers=key)).json()["id"]
        await folding.finish(video_id)
        assert (await folding.client.delete(f"/v1/requests/{video_id}/payloads")).status_code == 200
        async with folding.gateway.db.transaction() as session:
            video = await session.get_one(Video, video_id)
            assert (video.idempotency_hash is not None) == bool(key)


async def test_a_retry_with_another_key_of_the_project_is_a_new_job(start_gateway: StartGateway) -> None:
    async with start_gateway(fold_retries=True, admin_key=ADMIN) as gateway, operator_of(gateway) as operator:
        first = await operator.key("till")
        second = await operator.key("web", project=first["project"])
        async with operator.user(first) as till, operator.user(second) as web:
            made = [await client.post("/v1/videos", json={"prompt": "p"}, headers=RETRY) for client in (till, web)]
            assert [answer.status_code for answer in made] == [202, 202]
            again = await web.post("/v1/videos", json={"prompt": "p"}, headers=RETRY)
            assert (again.status_code, again.json()["id"]) == (200, made[1].json()["id"])


@pytest.mark.parametrize("operation", ["remix", "edits", "extensions", "upload"])
async def test_a_retry_of_a_derived_video_makes_no_second_one(folding: Running, operation: str) -> None:
    source = (await folding.finish((await folding.create(seconds=1, size="64x64"))["id"]))["id"]
    given: dict[str, Any] = {"json": {"prompt": "in snow", "video": {"id": source}}}
    path = f"/v1/videos/{operation}"
    if operation == "remix":
        path, given = f"/v1/videos/{source}/remix", {"json": {"prompt": "in snow"}}
    elif operation == "extensions":
        given["json"]["seconds"] = 2
    elif operation == "upload":
        path, given = "/v1/videos", {"data": {"prompt": "p"}, "files": {"input_reference": ("a.png", PNG)}}
    first = await folding.client.post(path, **given)
    again = await folding.client.post(path, **given, headers=RETRY)
    assert (first.status_code, again.status_code) == (202, 200), again.text
    assert again.json() == first.json()
    assert await jobs(folding) == 2
    uploads = folding.gateway.settings.data_dir / "media" / "uploads"
    kept = [entry.name for entry in uploads.iterdir() if any(entry.iterdir())] if uploads.exists() else []
    assert kept == ([first.json()["id"]] if operation == "upload" else [])


async def test_tries_at_once_make_one_job(folding: Running, case: DialectCase) -> None:
    """The first try and its retries in any order: whichever is written first makes the job."""
    tries = [folding.client.post(case.create, json=case.body, headers=RETRY) for _ in range(5)]
    answers = await asyncio.gather(folding.client.post(case.create, json=case.body), *tries)
    assert sorted(answer.status_code for answer in answers) == sorted([case.created, *[200] * 5])
    assert len({case.id_of(answer.json()) for answer in answers}) == 1
    assert await jobs(folding) == 1


async def test_a_first_try_that_is_overtaken_by_its_retry_makes_no_job(folding: Running) -> None:
    """The first try is being received while its retry is complete."""
    held = Held()
    body: dict[str, Any] = {"data": {"prompt": "p"}, "files": {"input_reference": ("a.png", PNG)}}
    async with serve(held.around(folding.app)) as url, httpx.AsyncClient(base_url=url) as client:
        client.headers["authorization"] = f"Bearer {ALICE}"
        first = asyncio.create_task(client.post("/v1/videos", **body))
        await held.arrived.wait()
        folding.clock.advance(5)
        again = await folding.client.post("/v1/videos", **body, headers=RETRY)
        assert again.status_code == 202
        held.released.set()
        late = await first
    assert late.status_code == 200
    assert late.json()["id"] == again.json()["id"]
    assert await jobs(folding) == 1
    folding.clock.advance(5)
    assert (await folding.client.post("/v1/videos", **body)).status_code == 202


class Held:
    """Holds the end of the first request until it is released."""

    def __init__(self) -> None:
        self.arrived, self.released = asyncio.Event(), asyncio.Event()

    def around(self, app: ASGIApp) -> ASGIApp:
        async def held(scope: Scope, receive: Receive, send: Send) -> None:
            async def late() -> Message:
                message = await receive()
                if message["type"] == "http.request" and not message.get("more_body"):
                    self.arrived.set()
                    await self.released.wait()
                return message

            await app(scope, late, send)

        return held


async def test_limits_hold_for_folded_creates(start_gateway: StartGateway) -> None:
    prices = {"sandbox/testcard": 0.5}
    async with (
        start_gateway(fold_retries=True, admin_key=ADMIN, prices=prices) as gateway,
        operator_of(gateway) as operator,
    ):
        key = await operator.key(monthly_budget_usd=2)
        body = {"prompt": "p", "seconds": 4, "model": "sandbox/testcard"}
        async with operator.user(key) as client:
            made = [await client.post("/v1/videos", json=body, headers=headers) for headers in ({}, RETRY, {})]
        assert [answer.status_code for answer in made] == [202, 200, 402]
        assert made[2].json()["error"]["code"] == "budget_exceeded"


class Losing:
    """A proxy that forwards each request and loses the answers to the first creates: it answers 504 in their place."""

    def __init__(self, app: ASGIApp, losses: int) -> None:
        self.app, self.losses = app, losses
        self.retries: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST" or len(self.retries) >= self.losses:
            self._note(scope)
            await self.app(scope, receive, send)
            return
        self._note(scope)

        async def lost(message: Message) -> None:
            return

        await self.app(scope, receive, lost)
        await send({"type": "http.response.start", "status": 504, "headers": [(b"retry-after-ms", b"1")]})
        await send({"type": "http.response.body", "body": b""})

    def _note(self, scope: Scope) -> None:
        if scope["method"] == "POST":
            headers = dict(scope["headers"])
            self.retries.append(headers[b"x-stainless-retry-count"].decode())


@pytest.mark.parametrize("setting", [True, False])
async def test_the_openai_sdk_makes_one_video_although_answers_are_lost(
    start_gateway: StartGateway, setting: bool
) -> None:
    async with start_gateway(fold_retries=setting) as gateway:
        proxy = Losing(gateway.app, losses=2)
        async with serve(proxy) as url, AsyncOpenAI(base_url=f"{url}/v1", api_key=ALICE, max_retries=2) as client:
            video = await client.videos.create(prompt="a paper boat", input_reference=("boat.png", PNG))
        assert proxy.retries == ["0", "1", "2"]
        listed = (await gateway.client.get("/v1/videos")).json()["data"]
    assert len(listed) == (1 if setting else 3)
    assert video.id in {entry["id"] for entry in listed}
