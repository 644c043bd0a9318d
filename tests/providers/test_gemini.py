"""Gemini: only what the provider contract suite and the recordings do not cover."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from contract.stage import NOW, read
from fakes.gemini import FakeGemini
from fakes.recorded import recorded
from fakes.server import KEY, Answer, Elsewhere, sample_mp4, serve
from fakes.upstream import ask
from harness import Running, StartGateway

from app import errors
from app.providers.base import Task
from app.providers.embedded import PIECE_BYTES
from app.providers.gemini import Gemini

pytestmark = pytest.mark.anyio

OMNI, VEO = "gemini/gemini-omni-1.2-flash", "gemini/veo-3.1-generate-preview"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
Start = Callable[[FakeGemini], AbstractAsyncContextManager[Running]]


@pytest.fixture
def fake() -> FakeGemini:
    return FakeGemini()


@pytest.fixture
def start(start_gateway: StartGateway) -> Start:
    @asynccontextmanager
    async def started(fake: FakeGemini) -> AsyncIterator[Running]:
        async with serve(fake) as url:
            providers = {"gemini": {"api_key": KEY, "base_url": url}}
            async with start_gateway(providers=providers, allow_networks=["127.0.0.0/8"]) as running:
                yield running

    return started


@pytest.fixture
async def gateway(fake: FakeGemini, start: Start) -> AsyncIterator[Running]:
    async with start(fake) as running:
        yield running


async def submitted(gateway: Running, fake: FakeGemini, **fields: Any) -> tuple[str, str]:
    """Ids of a new video here and upstream."""
    video = await gateway.create(**fields)
    await gateway.worker.run_once()
    return video["id"], [*fake.jobs][-1]


async def create(gateway: Running, model: str, *pictures: str, **fields: str) -> Any:
    """The answer to a create with uploads."""
    files = dict.fromkeys(pictures, ("a.png", PNG, "image/png"))
    return await gateway.client.post("/v1/videos", data={"prompt": "a boat", "model": model, **fields}, files=files)


# Files


async def test_a_file_within_the_answer_is_stored(start: Start) -> None:
    fake = FakeGemini(inline=True)
    padding = bytes(4 * PIECE_BYTES)
    fake.file = sample_mp4() + (len(padding) + 8).to_bytes(4) + b"free" + padding
    async with start(fake) as gateway:
        video = await gateway.create(model=OMNI)
        assert (await gateway.finish(video["id"]))["status"] == "completed"
        content = await gateway.client.get(f"/v1/videos/{video['id']}/content")
        assert content.content == fake.file
    assert fake.contents == fake.calls["result"] == []


async def test_a_file_that_is_being_processed_is_waited_for(gateway: Running, fake: FakeGemini) -> None:
    fake.script("result", *[Answer(200, recorded("google", "files_get_processing"))] * 2)
    video_id, ref = await submitted(gateway, fake, model=OMNI)
    fake.finish(ref)
    gateway.clock.advance(20)
    await gateway.worker.run_once()
    assert len(fake.calls["result"]) == 1
    assert (await gateway.get(video_id))["status"] == "in_progress"
    assert (await gateway.finish(video_id))["status"] == "completed"
    assert [call.path for call in fake.calls["result"]] == ["/v1beta/files/f1"] * 3


async def test_a_file_that_cannot_be_processed_is_a_failure(gateway: Running, fake: FakeGemini) -> None:
    fake.script("result", Answer(200, recorded("google", "files_get_failed")))
    video_id, ref = await submitted(gateway, fake, model=OMNI)
    fake.finish(ref)
    assert (await gateway.finish(video_id))["error"]["code"] == "generation_failed"
    assert fake.contents == []


@pytest.mark.parametrize("model", [OMNI, VEO])
async def test_the_key_is_sent_for_a_file_and_not_to_where_it_is_redirected(
    gateway: Running, fake: FakeGemini, model: str
) -> None:
    elsewhere = Elsewhere()
    async with serve(elsewhere) as other:
        fake.script("content", Answer(302, headers={"location": f"{other}/blob?sig=1"}))
        video = await gateway.create(model=model)
        assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert [call.headers["x-goog-api-key"] for call in fake.contents] == [KEY]
    assert [call.query for call in elsewhere.calls] == ["sig=1"]
    assert KEY not in str(elsewhere.calls)


@pytest.mark.parametrize(
    ("model", "word", "shown", "said"),
    [
        (VEO, "filtered", {}, "Your request was blocked. Support codes: 58061214"),
        (
            OMNI,
            "completed",
            {"steps": recorded("google", "omni_poll_completed_no_video")["steps"]},
            "I can't create that video.",
        ),
        (OMNI, "completed", {"steps": []}, "gemini reports the video as completed, but a filter kept it back"),
    ],
)
async def test_a_filtered_video_is_a_violation_of_the_content_policy(
    gateway: Running, fake: FakeGemini, model: str, word: str, shown: dict[str, Any], said: str
) -> None:
    video_id, ref = await submitted(gateway, fake, model=model)
    fake.show(ref, word)
    fake.jobs[ref].raw["shown"] = shown
    error = (await gateway.finish(video_id))["error"]
    assert (error["code"], error["message"]) == ("content_policy_violation", said)


async def test_an_expired_file_is_no_matter_of_the_key(gateway: Running, fake: FakeGemini) -> None:
    gone = recorded("google", "files_get_403_expired")
    fake.script("content", *[Answer(403, gone)] * 50)
    video = await gateway.create(model=VEO)
    await gateway.finish(video["id"])
    [attempt] = await gateway.attempts(video["id"])
    assert "credentials" not in str(attempt.error_message)
    assert "may not exist" in str(attempt.error_message)


# Requests


@pytest.mark.parametrize(
    ("pictures", "fields", "price"),
    [
        ((), {}, 0.4),
        ((), {"resolution": "1080p"}, 0.4),
        ((), {"resolution": "4k"}, 0.6),
        (("input_reference", "last_frame"), {}, 0.4),
        (("reference_images",), {}, 0.4),
    ],
)
async def test_veo_makes_the_eight_seconds_that_are_charged(
    gateway: Running, fake: FakeGemini, pictures: tuple[str, ...], fields: dict[str, str], price: float
) -> None:
    made = await create(gateway, VEO, *pictures, **fields)
    assert made.status_code == 202, made.text
    assert made.json()["cost_estimate"] == pytest.approx(8 * price)
    assert (await gateway.finish(made.json()["id"]))["status"] == "completed"
    sent = fake.submits[0].json["parameters"]
    assert (sent["durationSeconds"], sent["resolution"]) == (8, fields.get("resolution", "720p"))
    short = await create(gateway, VEO, *pictures, seconds="4", **fields)
    assert short.status_code == (400 if pictures or fields else 202)
    if short.status_code == 400:
        assert short.json()["error"]["param"] == "seconds"


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        (VEO, {"input_reference": "https://x.example/a.png"}, "input_reference"),
        (VEO, {"generate_audio": False}, "generate_audio"),
        ("gemini/veo-3.1-lite-generate-preview", {"resolution": "4k"}, "resolution"),
        ("gemini/gemini-omni-1.1-flash", {"seconds": 11}, "seconds"),
        ("gemini/gemini-omni-1.1-flash", {"seed": 7}, "seed"),
        (OMNI, {"negative_prompt": "blur"}, "negative_prompt"),
        (OMNI, {"previous_interaction_id": "v1_another"}, "previous_interaction_id"),
    ],
)
async def test_a_field_that_the_model_does_not_have_is_refused_before_it_is_sent(
    gateway: Running, fake: FakeGemini, model: str, fields: dict[str, Any], param: str
) -> None:
    refused = await gateway.client.post("/v1/videos", json={"prompt": "a boat", "model": model, **fields})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert fake.submits == []


@pytest.mark.parametrize("pictures", [("reference_images", "input_reference"), ("last_frame",)])
async def test_veo_has_no_references_beside_frames_and_no_last_frame_alone(
    gateway: Running, fake: FakeGemini, pictures: tuple[str, ...]
) -> None:
    refused = await create(gateway, VEO, *pictures)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input_reference")
    assert fake.submits == []


# Videos made of videos


async def derived(gateway: Running, fake: FakeGemini, path: str, source: str, **fields: Any) -> dict[str, Any]:
    """The body of the submit for a video that is made of one of ours."""
    body = {"prompt": "it snows", "video": {"id": source}, **fields}
    made = await gateway.client.post(f"/v1/videos/{path}", json=body)
    assert made.status_code == 202, made.text
    assert (await gateway.finish(made.json()["id"]))["status"] == "completed"
    sent = fake.submits[-1].json
    assert isinstance(sent, dict)
    return sent


async def test_veo_extends_its_own_video_by_the_address_of_its_file(gateway: Running, fake: FakeGemini) -> None:
    source = (await gateway.create(model=VEO))["id"]
    await gateway.finish(source)
    sent = await derived(gateway, fake, "extensions", source, seconds=4)
    [instance] = sent["instances"]
    assert instance["video"]["encoding"] == "video/mp4"
    assert instance["video"]["uri"].endswith("/v1beta/files/f1:download?alt=media")
    assert sent["parameters"] == {"resolution": "720p", "durationSeconds": 8}


async def test_omni_edits_its_own_video_by_the_id_of_the_interaction(gateway: Running, fake: FakeGemini) -> None:
    source = (await gateway.create(model=OMNI))["id"]
    await gateway.finish(source)
    sent = await derived(gateway, fake, "edits", source)
    assert sent["previous_interaction_id"] == next(iter(fake.jobs))
    assert "duration" not in sent["response_format"]


async def test_omni_edits_a_video_of_veo_by_the_address_of_its_file(gateway: Running, fake: FakeGemini) -> None:
    source = (await gateway.create(model=VEO))["id"]
    await gateway.finish(source)
    sent = await derived(gateway, fake, "edits", source, model=OMNI)
    assert "previous_interaction_id" not in sent
    assert sent["input"][0]["content"][1]["uri"].endswith("/v1beta/files/f1:download?alt=media")


async def test_a_source_that_the_vendor_has_deleted_is_refused_without_a_submit(
    gateway: Running, fake: FakeGemini
) -> None:
    source = (await gateway.create(model=VEO))["id"]
    await gateway.finish(source)
    fake.jobs.clear()
    body = {"prompt": "it snows", "video": {"id": source}, "seconds": 8}
    made = await gateway.client.post("/v1/videos/extensions", json=body)
    ended = await gateway.finish(made.json()["id"])
    assert ended["status"] == "failed"
    assert "no longer has the file" in ended["error"]["message"]
    assert len(fake.submits) == 1


OMNI_11 = "gemini/gemini-omni-1.1-flash"


@pytest.mark.parametrize(("path", "fields"), [("extensions", {"seconds": "5"}), ("edits", {})])
async def test_a_video_made_of_an_upload_has_no_price(
    gateway: Running, fake: FakeGemini, path: str, fields: dict[str, str]
) -> None:
    form, file = {"prompt": "it snows", "model": OMNI_11, **fields}, ("a.mp4", fake.file, "video/mp4")
    answer = await gateway.client.post(f"/v1/videos/{path}", data=form, files={"video": file})
    assert answer.status_code == 202, answer.text
    assert answer.json()["cost_estimate"] is None
    await gateway.worker.run_once()
    assert "resolution" not in fake.submits[-1].json["response_format"]


async def test_a_video_made_of_one_of_the_gateway_has_the_price_of_its_resolution(
    gateway: Running, fake: FakeGemini
) -> None:
    source = (await gateway.create(model=OMNI_11, resolution="1080p", seconds=4))["id"]
    await gateway.finish(source)
    body = {"prompt": "it snows", "video": {"id": source}}
    plain = await gateway.client.post("/v1/videos/edits", json=body)
    upscale = await gateway.client.post("/v1/videos/edits", json={**body, "task": "upscale"})
    assert plain.json()["cost_estimate"] == pytest.approx(4 * 0.152)
    assert upscale.json()["cost_estimate"] is None
    await gateway.worker.run_once()
    assert [call.json["response_format"]["resolution"] for call in fake.submits[1:]] == ["1080p"] * 2


# Cancels


async def test_a_task_that_a_cancel_does_not_find_is_charged_if_it_ends_well(
    gateway: Running, fake: FakeGemini
) -> None:
    video_id, ref = await submitted(gateway, fake, model=OMNI_11)
    fake.script("cancel", fault(404, "Requested entity was not found.", "NOT_FOUND"))
    assert (await gateway.client.delete(f"/v1/videos/{video_id}")).status_code == 200
    await gateway.worker.run_once()
    assert len(fake.deletes) == 1
    fake.finish(ref)
    gateway.clock.advance(600)
    await gateway.worker.run_once()
    (attempt,) = await gateway.attempts(video_id)
    assert (attempt.state, attempt.cost_micros) == ("succeeded", 808_000)


# Errors


def fault(status: int, message: str, word: str, *details: dict[str, Any]) -> Answer:
    error = {"code": status, "message": message, "status": word, "details": list(details)}
    return Answer(status, {"error": error})


QUOTA = "You exceeded your current quota, please check your plan and billing details."
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "28.5s"}


@pytest.mark.parametrize(
    ("answer", "kind", "wait_s"),
    [
        (fault(429, QUOTA, "RESOURCE_EXHAUSTED", RETRY), errors.UpstreamRateLimited, 28.5),
        (fault(429, QUOTA, "RESOURCE_EXHAUSTED", {"retryDelay": "soon"}), errors.UpstreamRateLimited, None),
        (
            fault(429, QUOTA, "RESOURCE_EXHAUSTED", {"violations": [7, {"quotaId": 7}]}),
            errors.UpstreamRateLimited,
            None,
        ),
        (
            fault(429, QUOTA, "RESOURCE_EXHAUSTED", {"violations": [{"quotaId": "RequestsPerDayPerProject"}]}, RETRY),
            errors.UpstreamAccount,
            28.5,
        ),
        (
            fault(400, "API key not valid.", "INVALID_ARGUMENT", {"reason": "API_KEY_INVALID"}),
            errors.UpstreamAccount,
            None,
        ),
        (fault(503, "The model is overloaded.", "UNAVAILABLE", RETRY), errors.UpstreamUnknown, 28.5),
        (Answer(403, recorded("google", "files_get_403_expired")), errors.UpstreamRejected, None),
        (fault(403, "Prohibited by the content policy.", "PERMISSION_DENIED"), errors.UpstreamAccount, None),
        (fault(403, "Requires billing to be enabled.", "PERMISSION_DENIED"), errors.UpstreamCredit, None),
        (Answer(429, {"error": {"message": "", "details": {"retryDelay": "1s"}}}), errors.UpstreamRateLimited, None),
    ],
)
async def test_the_details_of_an_error_say_what_it_is(
    fake: FakeGemini, answer: Answer, kind: type[errors.UpstreamError], wait_s: float | None
) -> None:
    fake.script("submit", answer)
    async with serve(fake) as url:
        provider = Gemini("up", Gemini.Config(api_key=KEY, base_url=url))
        with pytest.raises(errors.UpstreamError) as caught:
            await provider.send(Task("a1", "veo-3.1-generate-preview", ask(), read=read, now=NOW))
        await provider.aclose()
    assert type(caught.value) is kind
    assert caught.value.retry_after_s == wait_s
