"""Dialect contract: a purged video is shown by every dialect, whichever created it, without its content."""

from typing import Any

import pytest
from contract.dialect_cases import CASES
from dialects.case import DialectCase
from dialects.vendors import APILAPLAS, LUMA
from fakes.receiver import Receiver
from fakes.server import Answer, serve
from harness import ORIGIN, Running

pytestmark = pytest.mark.anyio

WORD = "paper boat"


async def created(gateway: Running, case: DialectCase, **fields: Any) -> str:
    response = await gateway.client.post(case.create, json={**case.body, **fields})
    assert response.status_code == case.created, response.text
    return case.id_of(response.json())


@pytest.mark.parametrize("ending", ["completed", "failed", "cancelled"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_purged_video_is_shown_by_all_without_its_content(
    gateway: Running, case: DialectCase, ending: str
) -> None:
    model = {"model": "sandbox/fail" if ending == "failed" else "sandbox/testcard"}
    video_id = await created(gateway, case, **model)
    if ending == "cancelled":
        await gateway.client.delete(f"/v1/videos/{video_id}")
    else:
        await gateway.finish(video_id)
    paths = [other.get.format(id=video_id) for other in CASES.values()]
    paths.append(f"{APILAPLAS}s?generation_ids={video_id}")
    before = [(await gateway.client.get(path)).json() for path in paths]
    assert any(WORD in str(shown) for shown in before)
    message = None if ending == "cancelled" else (await gateway.get(video_id))["error"]  # the text of a cancel is ours

    assert (await gateway.client.delete(f"/v1/requests/{video_id}/payloads")).status_code == 200
    for path, earlier in zip(paths, before, strict=True):
        response = await gateway.client.get(path)
        assert response.status_code == 200, response.text
        for said in (WORD, f"{ORIGIN}/media/", *([message["message"]] if message else [])):
            assert said not in response.text, path
        now = response.json()
        assert shape(now) == shape(earlier), path
    tasks = await gateway.client.post(LUMA.replace("generations", "tasks"), json={"ids": [video_id]})
    assert tasks.json() == [(await gateway.client.get(f"{LUMA}/{video_id}")).json()]
    assert ((await gateway.client.get("/v1/videos")).json()["data"])[0]["prompt"] == ""


def shape(body: Any) -> Any:
    """The keys of the outermost objects: a field that a client reads must not be missing."""
    if isinstance(body, list):
        return [shape(entry) for entry in body]
    return set(body)


HOOKS = {
    "/v1/": "webhook_url",
    "/openai/v1/": "webhook_url",
    "/v1/videos/generations/": "webhook_url",
    "/luma/": "notify_hook",
    next(prefix for prefix, case in CASES.items() if case.create == APILAPLAS): "callback_url",
}
"""The field for the address of a webhook; Lunos has none."""


@pytest.mark.parametrize("ending", ["completed", "failed"])
@pytest.mark.parametrize("prefix", HOOKS)
async def test_an_event_that_is_sent_after_the_purge_has_the_figures(
    gateway: Running, prefix: str, ending: str
) -> None:
    case, receiver = CASES[prefix], Receiver()
    receiver.script(Answer(500))
    async with serve(receiver) as url:
        secret = {"webhook_secret": "s" * 32} if prefix == "/v1/videos/generations/" else {}
        model = {"model": "sandbox/fail" if ending == "failed" else "sandbox/testcard"}
        video_id = await created(gateway, case, **model, **secret, **{HOOKS[prefix]: f"{url}/hook"})
        await gateway.finish(video_id)
        await gateway.worker.run_once()
        await gateway.client.delete(f"/v1/requests/{video_id}/payloads")
        gateway.clock.advance(60)
        await gateway.worker.run_once()
        first, second = receiver.received
    assert first.id == second.id
    assert video_id in second.body.decode()
    assert WORD not in second.body.decode()
    assert "/media/" not in second.body.decode()
