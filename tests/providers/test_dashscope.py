"""DashScope: only what the provider contract suite and the recordings do not cover."""

from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import pytest
from contract.stage import NOW, read
from fakes.dashscope import FakeDashScope
from fakes.recorded import recorded
from fakes.server import KEY, Answer, Fault, Reset, sample_mp4, serve
from fakes.upstream import ask
from harness import Running, StartGateway
from money import ADMIN, Operator, operator_of

from app import errors
from app.capabilities import fit
from app.providers.base import Task
from app.providers.dashscope import DashScope, adapter, families
from app.video import Media, Operation, VideoRequest

pytestmark = pytest.mark.anyio

TEXT = "dashscope/wan2.7-t2v"
CHINA = ("https://dashscope.aliyuncs.com", "https://ws-1.cn-beijing.maas.aliyuncs.com/api/v1")
ELSEWHERE = ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "https://cn-beijing.maas.aliyuncs.com.x.example")
SHAPE = {"resolution": "720P", "duration": 5}
SIZE = {"size": "1280*720", "duration": 5}
PICTURE = {"image_url": "https://x.example/a.png"}
WRONG_MEDIA: tuple[Any, ...] = ("x", {}, 7, ["https://x.example/a.png"], [None], [[]])


@pytest.fixture
def fake() -> FakeDashScope:
    return FakeDashScope()


@pytest.fixture
async def gateway(fake: FakeDashScope, start_gateway: StartGateway) -> AsyncIterator[Running]:
    async with serve(fake) as url:
        providers = {"dashscope": {"api_key": KEY, "base_url": f"{url}/api/v1"}}
        async with start_gateway(providers=providers, allow_networks=["127.0.0.0/8"]) as running:
            yield running


@pytest.fixture
async def provider(fake: FakeDashScope) -> AsyncIterator[DashScope]:
    async with serve(fake) as url:
        provider = DashScope("up", DashScope.Config(api_key=KEY, base_url=url, timeout_s=5))
        yield provider
        await provider.aclose()


def task(request: VideoRequest | None = None, model: str = "wan2.7-t2v", **fields: Any) -> Task:
    return Task("attempt_1", model, request or ask(), read=read, now=NOW, **fields)


# Errors with the status 200


def said(code: str, message: str = "m") -> Answer:
    return Answer(200, recorded("dashscope", "poll_200_with_code") | {"code": code, "message": message})


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("Throttling", errors.UpstreamRateLimited),
        ("Throttling.RateQuota", errors.UpstreamRateLimited),
        ("InvalidApiKey", errors.UpstreamAccount),
        ("AccessDenied.Unpurchased", errors.UpstreamAccount),
        ("Arrearage", errors.UpstreamCredit),
        ("InvalidParameter.DataType", errors.UpstreamRejected),
        ("Model.NotExist", errors.UpstreamRejected),
        ("DataInspectionFailed", errors.ContentPolicy),
        ("IPInfringementSuspect", errors.ContentPolicy),
        ("InternalError", errors.UpstreamUnknown),
        ("Throttled", errors.UpstreamUnknown),
        ("InvalidParameters", errors.UpstreamUnknown),
    ],
)
async def test_a_200_with_a_code_is_a_refusal_only_if_the_code_is_known_as_one(
    provider: DashScope, fake: FakeDashScope, code: str, kind: type[errors.UpstreamError]
) -> None:
    fake.script("submit", said(code))
    with pytest.raises(errors.UpstreamError) as caught:
        await provider.send(task())
    assert type(caught.value) is kind
    assert caught.value.upstream_status == 200


@pytest.mark.parametrize(
    "document",
    [
        {"code": "Throttling", "output": {"task_id": "task-1", "task_status": "PENDING"}},
        {"code": "", "message": "", "output": {"task_id": "task-1", "task_status": "PENDING"}},
        {"code": None, "output": {"task_id": "task-1"}},
        {"output": {"task_id": "task-1", "task_status": "SUCCEEDED"}},
    ],
)
async def test_a_task_counts_whatever_stands_beside_its_id(
    provider: DashScope, fake: FakeDashScope, document: dict[str, Any]
) -> None:
    """The task exists and is paid for."""
    fake.script("submit", Answer(200, document))
    submission = await provider.send(task())
    assert (submission.ref, submission.status.ended) == ("task-1", False)


@pytest.mark.parametrize(
    "document",
    [
        {"output": "text"},
        {"output": [], "code": 7},
        {"output": {"task_id": 7}, "code": {"a": 1}},
        {"output": {"task_id": "x" * 600}, "code": ["Throttling"]},
        {"code": "x" * 100_000},
        {"code": "\ud800.\0", "message": {"deep": [1]}},
    ],
)
async def test_a_strange_answer_to_a_submit_is_an_unknown_outcome(
    provider: DashScope, fake: FakeDashScope, document: dict[str, Any]
) -> None:
    fake.script("submit", Answer(200, document))
    with pytest.raises(errors.UpstreamUnknown) as caught:
        await provider.send(task())
    assert len(caught.value.message) < 1_000


async def test_a_200_with_a_code_is_no_verdict_on_a_task(gateway: Running, fake: FakeDashScope) -> None:
    video = await gateway.create(model=TEXT)
    await gateway.worker.run_once()
    fake.script("poll", said("Throttling"), said("InternalError"), said("IPInfringementSuspect"))
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert len(fake.submits) == 1


async def test_a_refused_submit_with_the_status_200_is_sent_again(gateway: Running, fake: FakeDashScope) -> None:
    fake.script("submit", said("Throttling.RateQuota"))
    video = await gateway.create(model=TEXT)
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert (len(fake.submits), len(fake.jobs)) == (2, 1)


@pytest.mark.parametrize("fault", [said("InternalError"), Answer(503, {"code": "ServiceUnavailable"}), Reset()])
async def test_an_unknown_outcome_is_never_sent_again(gateway: Running, fake: FakeDashScope, fault: Fault) -> None:
    fake.script("submit", fault)
    video = await gateway.create(model=TEXT)
    for _ in range(5):
        await gateway.worker.run_once()
        gateway.clock.advance(60)
    assert len(fake.submits) == 1
    [attempt] = await gateway.attempts(video["id"])
    assert attempt.state == "lost"


# Words of tasks


async def test_a_task_that_the_vendor_does_not_have_any_more_fails(gateway: Running, fake: FakeDashScope) -> None:
    video = await gateway.create(model=TEXT)
    await gateway.worker.run_once()
    fake.show(next(iter(fake.jobs)), "UNKNOWN")
    done = await gateway.finish(video["id"])
    assert done["status"] == "failed"
    assert len(fake.submits) == 1


@pytest.mark.parametrize("code", ["DataInspectionFailed", "IPInfringementSuspect", "DataInspectionFailed.Output"])
async def test_a_task_that_fails_for_its_content_says_so(gateway: Running, fake: FakeDashScope, code: str) -> None:
    video = await gateway.create(model=TEXT)
    await gateway.worker.run_once()
    message = recorded("dashscope", "poll_failed_ip")["output"]["message"]
    fake.fail(next(iter(fake.jobs)), code, message)
    done = await gateway.finish(video["id"])
    assert done["error"] == {"code": "content_policy_violation", "message": message}


@pytest.mark.parametrize("code", ["DataInspectionFailed", "IPInfringementSuspect"])
async def test_a_prompt_that_is_refused_for_its_content_fails_at_once(
    gateway: Running, fake: FakeDashScope, code: str
) -> None:
    fake.script("submit", fake.refusal(400, "Input data is suspected of being involved in IP infringement.", code))
    video = await gateway.create(model=TEXT)
    done = await gateway.finish(video["id"])
    assert (done["status"], done["error"]["code"]) == ("failed", "content_policy_violation")
    assert len(fake.submits) == 1


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ({"task_status": "FAILED", "code": {"a": 1}, "message": ["m"]}, "generation_failed"),
        ({"task_status": "FAILED"}, "Top"),
        ({"task_status": "SUCCEEDED", "video_url": "ftp://x"}, "no_output"),
        ({"task_status": "SUCCEEDED", "video_url": ["https://x.example/a.mp4"] * 2}, None),
        ({"task_status": ["SUCCEEDED"], "video_url": "https://x.example/a.mp4"}, "running"),
        ({"task_status": "NEWWORD", "code": "Bad"}, "Bad"),
        ({"task_status": "unknown_word", "video_url": "https://x.example/a.mp4"}, "running"),
    ],
)
async def test_a_strange_answer_to_a_poll_raises_nothing(
    provider: DashScope, fake: FakeDashScope, output: dict[str, Any], code: str | None
) -> None:
    fake.script("poll", Answer(200, {"output": output, **({"code": "Top"} if code == "Top" else {})}))
    progress = await provider.poll(task(ref="task-1"))
    found = progress.failure.code if progress.failure is not None else None if progress.status.ended else "running"
    assert found == code


async def test_only_a_task_that_waits_is_stopped(provider: DashScope, fake: FakeDashScope) -> None:
    ref = (await provider.send(task())).ref
    fake.script("cancel", said("UnsupportedOperation"), Answer(200, []))
    assert [await provider.cancel(task(ref=ref)) for _ in range(2)] == [False, False]
    assert await provider.cancel(task(ref=ref)) is True
    running = (await provider.send(task())).ref
    fake.show(running, "RUNNING")
    assert await provider.cancel(task(ref=running)) is False


# Shapes of requests


async def test_a_video_costs_what_was_sent(gateway: Running, fake: FakeDashScope) -> None:
    video = await gateway.create(model=TEXT)
    assert video["cost_estimate"] == pytest.approx(5 * 0.1)
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert fake.submits[0].headers["x-dashscope-async"] == "enable"
    assert fake.submits[0].json["parameters"] == {"resolution": "720P", "duration": 5}


async def test_without_the_header_the_vendor_takes_no_task(provider: DashScope, fake: FakeDashScope) -> None:
    """The fake would notice if the header were left out."""
    prepared = await provider.prepare(task())
    with pytest.raises(errors.UpstreamAccount, match="does not support synchronous calls"):
        await provider.call("check", "POST", adapter.SUBMIT, json=prepared)
    assert fake.jobs == {}


@pytest.mark.parametrize("model", families.MODELS)
async def test_every_format_that_a_model_has_is_one_that_its_generation_takes(
    provider: DashScope, fake: FakeDashScope, model: str
) -> None:
    picture, clip = Media(url="https://x.example/a.png"), Media(url="https://x.example/a.mp4")
    given: dict[str, Any] = {
        name: (picture,) if name == "reference_images" else picture for name in families.MODELS[model].required
    }
    if families.MODELS[model].operations == {Operation.edit}:
        given |= {"operation": Operation.edit, "source": clip}
    sized = model.startswith(("wan2.5-t", "wan2.6-t", "wan2.6-r"))
    for resolution, ratio in product((None, *families.ALL), (None, *families.RATIOS)):
        request = ask(aspect_ratio=ratio, resolution=resolution, **given)
        able = provider.capabilities_for(model, request)
        assert able is not None
        fitted = fit(request, able, can_link=False)
        if fitted.problems:
            assert fitted.problems.keys() <= {"aspect_ratio", "resolution"}
            continue
        await provider.send(task(fitted.request, model))
        parameters = fake.submits[-1].json["parameters"]
        shown = families.SIZES[resolution or "720p"][ratio or "16:9"] if sized else (resolution or "720p").upper()
        assert parameters["size" if sized else "resolution"] == shown
    assert len(fake.submits) >= len(families.MODELS[model].resolutions or ())


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("wanx2.1-t2v-turbo", {"size": "832*480"}),
        ("wan9.0-video", {"resolution": "480P", "ratio": "16:9"}),
        ("happyhorse-2.0-t2v", {"resolution": "480P", "ratio": "16:9"}),
    ],
)
async def test_a_model_that_is_not_in_the_table_has_the_shape_of_its_generation(
    provider: DashScope, fake: FakeDashScope, model: str, parameters: dict[str, Any]
) -> None:
    extra = {"input": {"a": 1, "prompt": "not this"}, "parameters": {"b": 2}, "c": 3}
    assert provider.capabilities(model) is families.ANYTHING
    await provider.send(task(ask(aspect_ratio="16:9", resolution="480p", extra=extra), model))
    assert fake.submits[0].json == {
        "model": model,
        "input": {"a": 1, "prompt": "a paper boat"},
        "parameters": {"b": 2, **parameters, "c": 3},
    }


async def test_a_model_with_a_date_is_the_one_without(provider: DashScope) -> None:
    for model in ("wan2.7-t2v-2026-06-12", "wan2.7-r2v-2026-06-12", "wan2.7-i2v-2026-04-25"):
        assert provider.capabilities(model) == families.MODELS[model[: len("wan2.7-t2v")]]


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        ("wan2.7-t2v", {"resolution": "480p"}, "resolution"),
        ("wan2.7-t2v", {"generate_audio": False}, "generate_audio"),
        ("wan2.7-i2v", {}, "input_reference"),
        ("wan2.7-r2v", {"seconds": 12}, "seconds"),
        ("wan2.6-t2v", {"seconds": 7}, "seconds"),
        ("wan2.5-t2v-preview", {"resolution": "480p", "aspect_ratio": "4:3"}, "aspect_ratio"),
        ("wan2.5-t2v-preview", {"resolution": "720p", "aspect_ratio": "21:9"}, "aspect_ratio"),
        ("happyhorse-1.1-t2v", {"negative_prompt": "blur"}, "negative_prompt"),
        ("wan3.0-video", {"seconds": 31}, "seconds"),
    ],
)
async def test_what_a_model_does_not_make_is_refused_before_it_is_sent(
    gateway: Running, fake: FakeDashScope, model: str, fields: dict[str, Any], param: str
) -> None:
    body = {"prompt": "a boat", "model": f"dashscope/{model}", **fields}
    refused = await gateway.client.post("/v1/videos", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert fake.submits == []


async def test_a_video_is_taken_by_its_address_only(gateway: Running, provider: DashScope, fake: FakeDashScope) -> None:
    form = {"prompt": "at night", "model": "dashscope/happyhorse-1.0-video-edit"}
    edit = await gateway.client.post("/v1/videos/edits", data=form, files={"video": ("a.mp4", fake.file, "video/mp4")})
    assert edit.status_code == 400
    assert "GATEWAY_PUBLIC_URL" in edit.json()["error"]["message"]
    request = ask(operation=Operation.edit, source=Media(key="clip"))
    with pytest.raises(errors.UpstreamRejected, match="GATEWAY_PUBLIC_URL"):
        await provider.send(task(request, "happyhorse-1.0-video-edit"))
    assert fake.submits == []


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("wan3.0-video", {"reference_video": "https://x.example/in.mp4"}),
        ("wan3.0-video", {"media": [{"type": "reference_video", "url": "https://x.example/in.mp4"}]}),
        ("wan3.0-video", {"media": []}),
        ("wan3.0-video", {"media": [{"type": "reference_image", "url": "https://x.example/a.png"}]}),
        ("wan2.7-i2v", {"input_reference": PICTURE, "media": []}),
        (
            "wan2.7-i2v",
            {"input_reference": PICTURE, "media": [{"type": "driving_audio", "url": "https://x.example/a"}]},
        ),
        ("wan2.7-i2v", {"media": [{"type": "first_clip", "url": "https://x.example/in.mp4"}]}),
        ("wan2.6-r2v", {"reference_urls": []}),
        ("wan2.6-r2v", {"reference_urls": ["https://x.example/in.mp4"]}),
    ],
)
async def test_the_vendors_own_media_never_make_a_video_free(
    admin: Operator, fake: FakeDashScope, model: str, fields: dict[str, Any]
) -> None:
    """A clip of unknown length is charged at least the output, and at most what was held."""
    fake.file = sample_mp4(6)
    key = await admin.key(max_cost_usd=0.5)
    async with admin.user(key) as client:
        made = await client.post("/v1/videos", json={"prompt": "x", "model": f"dashscope/{model}", **fields})
        assert (made.status_code, made.json()["cost_estimate"]) == (202, 0.5), made.text
    await admin.gateway.worker.run_once()
    for _ in range(4):
        admin.gateway.clock.advance(20)
        await admin.gateway.worker.run_once()
    assert await admin.ledger(made.json()["id"]) == [("reserve", -500_000), ("settle", 0)]
    await admin.check_sums()
    given = fake.submits[0].json["input"]
    assert all(given.get(name) for name in given.keys() & {"media", "reference_urls"})


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        ("wan2.7-i2v", {"media": []}, "input_reference"),
        ("wan2.7-i2v", {"media": [{"type": "driving_audio", "url": "https://x.example/a.mp3"}]}, "input_reference"),
        *(("wan3.0-video", {"media": wrong}, "media") for wrong in WRONG_MEDIA),
        ("wan9.0-video", {"media": "x", "other": 1}, "media"),
        ("wan2.6-r2v", {"reference_urls": "https://x.example/a.png"}, "reference_urls"),
        ("wan2.6-r2v", {"reference_urls": [{"url": "https://x.example/a.png"}]}, "reference_urls"),
        ("wan3.0-video", {"input_reference": PICTURE, "reference_images": ["https://x.example/b"]}, "reference_images"),
        (
            "wan3.0-video",
            {"last_frame": "https://x.example/z", "reference_video": "https://x.example/v"},
            "reference_video",
        ),
        (
            "wan3.0-video",
            {"input_reference": PICTURE, "media": [{"type": "reference_video", "url": "https://x.example/v"}]},
            "input_reference",
        ),
    ],
)
async def test_media_that_the_vendor_refuses_are_refused_at_create(
    gateway: Running, fake: FakeDashScope, model: str, fields: dict[str, Any], param: str
) -> None:
    answer = await gateway.client.post("/v1/videos", json={"prompt": "x", "model": f"dashscope/{model}", **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert await gateway.worker.run_once() is not None
    assert fake.submits == []


@pytest.mark.parametrize(
    ("path", "fields", "cost"),
    [
        ("edits", {"model": "dashscope/wan3.0-video"}, (2 + 2) * 0.2),
        ("extensions", {"model": "dashscope/wan2.7-i2v", "seconds": "4"}, (2 + 4) * 0.15),
    ],
)
async def test_the_seconds_of_a_source_of_this_gateway_are_charged_too(
    fake: FakeDashScope, start_gateway: StartGateway, path: str, fields: dict[str, Any], cost: float
) -> None:
    fake.file = sample_mp4(2)
    async with serve(fake) as url:
        providers = {"dashscope": {"api_key": KEY, "base_url": url}}
        options: dict[str, Any] = {"public_url": "https://gateway.example", "admin_key": ADMIN}
        async with start_gateway(providers=providers, **options) as gateway, operator_of(gateway) as admin:
            first = await gateway.create(model="dashscope/wan3.0-video", resolution="1080p", seconds=2)
            await gateway.finish(first["id"])
            body = {"prompt": "on", "video": {"id": first["id"]}, **fields}
            made = await gateway.client.post(f"/v1/videos/{path}", json=body)
            assert (made.status_code, made.json()["cost_estimate"]) == (202, pytest.approx(cost)), made.text
            assert (await gateway.finish(made.json()["id"]))["cost"] == pytest.approx(cost)
            await admin.check_sums()


async def test_an_edit_of_unknown_length_costs_at_least_its_output(
    fake: FakeDashScope, start_gateway: StartGateway
) -> None:
    fake.file = sample_mp4(2)
    async with serve(fake) as url:
        providers = {"dashscope": {"api_key": KEY, "base_url": url}}
        async with start_gateway(providers=providers, public_url="https://gateway.example") as gateway:
            form = {"prompt": "at night", "model": "dashscope/wan3.0-video"}
            files = {"video": ("a.mp4", fake.file, "video/mp4")}
            made = await gateway.client.post("/v1/videos/edits", data=form, files=files)
            assert (made.status_code, made.json()["cost_estimate"]) == (202, None), made.text
            assert (await gateway.finish(made.json()["id"]))["cost"] == pytest.approx(2 * 0.1)


async def test_a_video_of_this_gateway_is_extended_to_its_whole_length(
    fake: FakeDashScope, start_gateway: StartGateway
) -> None:
    async with serve(fake) as url:
        providers = {"dashscope": {"api_key": KEY, "base_url": url}}
        options: dict[str, Any] = {"public_url": "https://gateway.example", "allow_networks": ["127.0.0.0/8"]}
        async with start_gateway(providers=providers, **options) as gateway:
            first = await gateway.create(model="dashscope/wan3.0-video", aspect_ratio="21:9", resolution="480p")
            await gateway.finish(first["id"])
            body = {"prompt": "on", "model": "dashscope/wan2.7-i2v", "video": {"id": first["id"]}, "seconds": "4"}
            extension = await gateway.client.post("/v1/videos/extensions", json=body)
            assert extension.status_code == 202, extension.text
            assert (await gateway.finish(extension.json()["id"]))["status"] == "completed"
            body |= {"seconds": "15"}
            refused = await gateway.client.post("/v1/videos/extensions", json=body)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "seconds")
            sent = fake.submits[-1].json
            (clip,) = sent["input"]["media"]
            assert clip["type"] == "first_clip"
            path = clip["url"].removeprefix("https://gateway.example")
            assert (await gateway.bob.get(path, headers={"authorization": ""})).content == fake.file
            assert (await gateway.client.get(path.partition("?")[0])).status_code in (401, 403, 404)
    assert sent["parameters"] == {"resolution": "720P", "duration": 1 + 4}  # the file of the fake is shorter than 1 s


async def test_a_video_of_unknown_length_is_not_extended(provider: DashScope, fake: FakeDashScope) -> None:
    request = ask(operation=Operation.extend, seconds=4, source=Media(url="https://x.example/in.mp4"))
    with pytest.raises(errors.UpstreamRejected, match="needs the length"):
        await provider.send(task(request, "wan2.7-i2v"))
    assert fake.submits == []


@pytest.mark.parametrize(
    ("name", "fields", "model", "parameters"),
    [
        ("wan-2.7", {}, "wan2.7-t2v", {"resolution": "720P", "ratio": "16:9", "duration": 5}),
        ("wan-2.7", {"input_reference": {"image_url": "https://x.example/a.png"}}, "wan2.7-i2v", SHAPE),
        ("wan-2.6", {"reference_images": ["https://x.example/a.png"]}, "wan2.6-r2v", SIZE),
        ("happyhorse-1.1", {"seconds": "3"}, "happyhorse-1.1-t2v", {**SHAPE, "ratio": "16:9", "duration": 3}),
    ],
)
async def test_a_model_of_the_catalogue_goes_to_the_id_for_its_input(
    gateway: Running, fake: FakeDashScope, name: str, fields: dict[str, Any], model: str, parameters: dict[str, Any]
) -> None:
    video = await gateway.create(model=name, **fields)
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert (fake.submits[0].json["model"], fake.submits[0].json["parameters"]) == (model, parameters)


# Regions, workspaces, lists


@pytest.mark.parametrize("url", [*CHINA, *ELSEWHERE])
async def test_prices_are_those_of_the_region(url: str) -> None:
    provider = DashScope("up", DashScope.Config(api_key=KEY, base_url=url))
    able = provider.capabilities("wan3.0-video")
    assert able is not None
    assert (provider.region, able.prices["720p"]) == (("cn", 82_513) if url in CHINA else ("intl", 100_000))
    assert not provider.config.base_url.endswith("/v1")
    await provider.aclose()


@pytest.mark.parametrize("workspace", ["a b", "a\r\nx: y", "é"])
def test_a_workspace_is_a_word(workspace: str) -> None:
    with pytest.raises(ValueError, match="workspace"):
        DashScope.Config(api_key=KEY, workspace=workspace)


async def test_a_workspace_goes_with_every_call_but_not_to_files(
    fake: FakeDashScope, start_gateway: StartGateway
) -> None:
    async with serve(fake) as url:
        providers = {"dashscope": {"api_key": KEY, "base_url": url, "workspace": "ws-1"}}
        async with start_gateway(providers=providers, allow_networks=["127.0.0.0/8"]) as gateway:
            video = await gateway.create(model=TEXT)
            assert (await gateway.finish(video["id"]))["status"] == "completed"
    headers = [call.headers.get("x-dashscope-workspace") for call in (*fake.submits, *fake.polls, *fake.contents)]
    assert headers == ["ws-1"] * (len(headers) - 1) + [None]


async def test_a_key_of_another_region_is_explained_to_the_operator(gateway: Running, fake: FakeDashScope) -> None:
    fake.key = "another"
    video = await gateway.create(model=TEXT)
    assert (await gateway.finish(video["id"]))["status"] == "failed"
    [attempt] = await gateway.attempts(video["id"])
    assert "another region needs its base URL" in str(attempt.error_message)


@pytest.fixture
async def admin(fake: FakeDashScope, start_gateway: StartGateway) -> AsyncIterator[Operator]:
    async with serve(fake) as url:
        providers = {"dashscope": {"base_url": url, "api_key": KEY}}
        async with start_gateway(providers=providers, admin_key=ADMIN) as gateway, operator_of(gateway) as operator:
            yield operator


async def candidates(admin: Operator) -> Any:
    found = await admin.client.get("/admin/v1/repairs", params={"candidates": "true"})
    [row] = found.json()["data"]
    return row["candidates"] and [task["upstream_ref"] for task in row["candidates"]]


@pytest.mark.parametrize("new_list", [False, True])
async def test_tasks_of_that_minute_are_candidates_by_the_time_of_china(
    admin: Operator, fake: FakeDashScope, new_list: bool
) -> None:
    fake.new_list = new_list
    fake.script("submit", Reset())
    await admin.gateway.create(model=TEXT)
    await admin.gateway.worker.run_once()
    (its,) = fake.jobs
    submitted_ms = int(admin.gateway.clock.now.timestamp() * 1000)
    fake.jobs[its].raw["created_ms"] = submitted_ms + 5_000
    for number, hours in enumerate((1, 8)):
        fake.job(f"later-{number}", {"input": {}}).raw["created_ms"] = submitted_ms + hours * 3_600_000
    assert await candidates(admin) == [its]


@pytest.mark.parametrize(
    ("most_rows", "has_total", "pages"), [(100, True, 1), (100, False, 2), (15, True, 3), (15, False, 4), (10, True, 4)]
)
async def test_a_list_in_smaller_pages_than_asked_for_is_read_to_its_end(
    admin: Operator, fake: FakeDashScope, most_rows: int, has_total: bool, pages: int
) -> None:
    fake.most_rows, fake.has_total = most_rows, has_total
    fake.script("submit", Reset())
    await admin.gateway.create(model=TEXT)
    await admin.gateway.worker.run_once()
    (its,) = fake.jobs
    submitted_ms = int(admin.gateway.clock.now.timestamp() * 1000)
    fake.jobs[its].raw["created_ms"] = submitted_ms
    for number in range(1, 38 if most_rows == 10 else 36):
        fake.job(f"later-{number}", {"input": {}}).raw["created_ms"] = submitted_ms + 3_600_000 + number
    assert await candidates(admin) == [its]
    assert len(fake.calls["list"]) == pages


UNREADABLE = {
    "no list": {"data": None},
    "no time": {"tasks": [{"task_id": "task-1", "task_status": "RUNNING"}]},
    "no id": {"data": [{"gmt_create": 1_795_600_800_123}]},
    "other time": {"tasks": [{"task_id": "task-1", "submit_time": "yesterday"}]},
    "out of range": {"data": [{"task_id": "task-1", "gmt_create": 10**40}]},
    "oldest first": {"data": [{"task_id": f"task-{at}", "gmt_create": at} for at in (1_795_600_000, 1_795_600_001)]},
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_a_list_that_cannot_be_read_is_not_an_empty_one(
    provider: DashScope, fake: FakeDashScope, name: str
) -> None:
    """An operator would take it for proof that there is no task, and have it made again."""
    fake.script("list", Answer(200, UNREADABLE[name]))
    with pytest.raises(errors.UpstreamUnavailable):
        await provider.list_tasks(None)
