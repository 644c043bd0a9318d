"""The OpenAI dialect: repeated creates, and videos made from videos."""

import asyncio
from typing import Any

import httpx
import pytest
from dialects.openai_wire import MULTIPART, PNG, Upstream, error_of, form, part
from harness import Running, StartGateway

pytestmark = pytest.mark.anyio


async def test_an_idempotency_key_is_read_from_header_or_body(gateway: Running) -> None:
    body = {"prompt": "p", "seconds": 8, "loop": True, "metadata": {"k": "v"}}
    header = {"idempotency-key": "order-17"}
    first = await gateway.client.post("/v1/videos", json=body, headers=header)
    assert first.status_code == 202
    assert "idempotent-replayed" not in first.headers
    parts = form(part("prompt", "p"), part("seconds", "8"), part("loop", "true"), part("metadata[k]", "v"))
    for again in (
        await gateway.client.post("/v1/videos", json=body, headers=header),
        await gateway.client.post("/v1/videos", json={**body, "idempotency_key": "order-17"}),
        await gateway.client.post("/v1/videos", content=parts, headers={**MULTIPART, **header}),
    ):
        assert again.status_code == 200
        assert again.headers["idempotent-replayed"] == "true"
        assert again.json() == first.json()
    other = await gateway.client.post("/v1/videos", json={**body, "prompt": "q"}, headers=header)
    error = error_of(other, 409)
    assert (error["code"], error["param"]) == ("idempotency_key_reused", "idempotency_key")
    assert other.headers["x-should-retry"] == "false"
    assert (await gateway.bob.post("/v1/videos", json=body, headers=header)).status_code == 202
    assert len((await gateway.client.get("/v1/videos")).json()["data"]) == 1


async def test_an_idempotency_key_counts_files_by_their_bytes(gateway: Running) -> None:
    async def send(content: bytes) -> httpx.Response:
        body = form(part("prompt", "p"), part("input_reference", content, filename="a.png"))
        return await gateway.client.post("/v1/videos", content=body, headers={**MULTIPART, "idempotency-key": "k"})

    large = PNG + bytes(3 * 2**20)
    first, again, other = await send(large), await send(large), await send(large + b"x")
    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 409)
    uploads = gateway.gateway.settings.data_dir / "media" / "uploads"
    assert [path.name for path in uploads.iterdir() if any(path.iterdir())] == [first.json()["id"]]


async def test_two_creates_at_once_with_one_key_make_one_job(gateway: Running) -> None:
    def send() -> Any:
        return gateway.client.post("/v1/videos", json={"prompt": "p"}, headers={"idempotency-key": "k"})

    answers = await asyncio.gather(*[send() for _ in range(8)])
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_remix_and_an_edit_take_an_idempotency_key(up: Upstream) -> None:
    source = await up.completed()
    header = {"idempotency-key": "k"}
    remix = f"/v1/videos/{source['id']}/remix"
    first = await up.client.post(remix, json={"prompt": "p"}, headers=header)
    again = await up.client.post(remix, json={"prompt": "p"}, headers=header)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    edit = {"prompt": "p", "video": {"id": source["id"]}}
    error_of(await up.client.post("/v1/videos/edits", json=edit, headers=header), 409)
    header = {"idempotency-key": "k2"}
    made = [await up.client.post("/v1/videos/edits", json=edit, headers=header) for _ in range(2)]
    assert [answer.status_code for answer in made] == [202, 200]
    assert made[1].headers["idempotent-replayed"] == "true"


async def test_a_remix_goes_by_the_model_name_of_its_source(start_gateway: StartGateway) -> None:
    models = {"boats": {"routes": ["sandbox/testcard"]}}
    async with start_gateway(models=models, providers={"sandbox": {"testcard_s": 0}}) as gateway:
        source = await gateway.finish((await gateway.create(model="boats", seconds=1, size="64x64"))["id"])
        body = {"prompt": "p", "video": {"id": source["id"]}}
        edit = (await gateway.client.post("/v1/videos/edits", json=body)).json()
        named = (await gateway.client.post("/v1/videos/edits", json={**body, "model": "sandbox/testcard"})).json()
        remix = (await gateway.client.post(f"/v1/videos/{source['id']}/remix", json=body)).json()
        assert [video["model"] for video in (edit, named, remix)] == ["boats", "sandbox/testcard", "boats"]
        assert {video["remixed_from_video_id"] for video in (edit, named, remix)} == {source["id"]}


@pytest.mark.parametrize("path", ["edits", "extensions"])
async def test_edits_and_extensions_need_a_video(gateway: Running, path: str) -> None:
    body = {"prompt": "p", **({"seconds": "4"} if path == "extensions" else {})}
    error = error_of(await gateway.client.post(f"/v1/videos/{path}", json=body), 400)
    assert (error["param"], error["code"]) == ("video", "missing_parameter")
    wrong: list[Any] = ["x", {}, [], 5]
    for video in wrong:
        error = error_of(await gateway.client.post(f"/v1/videos/{path}", json={**body, "video": video}), 400)
        assert error["param"] == "video"
    error_of(await gateway.client.post(f"/v1/videos/{path}", json={**body, "video": {"id": "video_x"}}), 404)
