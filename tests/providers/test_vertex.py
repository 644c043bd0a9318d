"""Vertex AI: only what the provider contract suite and the recordings do not cover."""

import base64
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from contract.stage import NOW, read
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.server import KEY, Answer, Elsewhere, Reset, sample_mp4, serve
from fakes.upstream import ask
from fakes.vertex import FakeVertex, key_file, new_key, pem
from harness import Running, StartGateway
from pydantic import ValidationError
from structlog.testing import capture_logs

from app import errors
from app.providers.base import MAX_DATA_URL_BYTES, NotBegun, Outbound, Task
from app.providers.embedded import PIECE_BYTES
from app.providers.gemini import Vertex, tokens
from app.video import Status

pytestmark = pytest.mark.anyio

OMNI, VEO, VEO_LITE = "vertex/gemini-omni-1.2-flash", "vertex/veo-3.1-generate-001", "vertex/veo-3.1-lite-generate-001"
LOOPBACK = ip_network("127.0.0.0/8")
PLACE = "/v1beta1/projects/my-proj/locations/us-central1"
Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def fake() -> FakeVertex:
    return FakeVertex()


@pytest.fixture
def start(start_gateway: StartGateway, tmp_path: Path) -> Start:
    """Start a gateway with a service account in front of a fake."""

    @asynccontextmanager
    async def started(fake: FakeVertex, **config: Any) -> AsyncIterator[Running]:
        async with serve(fake) as url:
            values = {"credentials_file": str(key_file(tmp_path)), "location": "us-central1", "token_url": url}
            values |= {"base_url": url, "metadata_url": url, **config}
            async with start_gateway(providers={"vertex": values}, allow_networks=[str(LOOPBACK)]) as running:
                yield running

    return started


@pytest.fixture
async def gateway(fake: FakeVertex, start: Start) -> AsyncIterator[Running]:
    async with start(fake) as running:
        yield running


@pytest.fixture
async def vertex(fake: FakeVertex, tmp_path: Path) -> AsyncIterator[Vertex]:
    async with serve(fake) as url:
        config = Vertex.Config.model_validate(
            {"credentials_file": key_file(tmp_path), "base_url": url, "token_url": url, "timeout_s": 5}
        )
        provider = Vertex("up", config, Outbound((LOOPBACK,)))
        yield provider
        await provider.aclose()


def task(**fields: Any) -> Task:
    values = {"id": "attempt_1", "model": "gemini-omni-1.2-flash", "request": ask(), "read": read, "now": NOW}
    return Task(**{**values, **fields})


async def submitted(gateway: Running, fake: FakeVertex, **fields: Any) -> tuple[str, str]:
    """Ids of a new video here and upstream."""
    video = await gateway.create(**fields)
    await gateway.worker.run_once()
    return video["id"], [*fake.jobs][-1]


# Settings


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "https://aiplatform.googleapis.com"),
        ("europe-west4", "https://europe-west4-aiplatform.googleapis.com"),
    ],
)
def test_the_location_decides_on_the_host(location: str, host: str) -> None:
    assert Vertex.Config(project="my-proj", location=location).base_url == host
    assert Vertex.Config(project="p", location=location, base_url="https://x.example").base_url == "https://x.example"


def test_what_is_set_as_empty_is_not_set() -> None:
    config = Vertex.Config.model_validate({"api_key": "", "credentials_file": "", "project": "my-proj", "location": ""})
    assert (config.api_key, config.credentials_file, config.location) == (None, None, "global")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "project\n  Field required"),
        ({"location": "us-central1"}, "project\n  Field required"),
        ({"api_key": "k", "project": "p"}, "either API_KEY alone"),
        ({"api_key": "k", "credentials_file": "/nowhere"}, "either API_KEY alone"),
        ({"credentials_file": "/nowhere/key.json"}, r"CREDENTIALS_FILE: the file cannot be read \(FileNotFoundError\)"),
        ({"project": "a/b"}, "project"),
        ({"project": "p", "location": "us.evil.example/"}, "location"),
        ({"project": "p", "token_url": "ftp://x.example"}, "expected an address"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Vertex.Config.model_validate(config)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"type": "authorized_user"}, "not the key of a service account"),
        ({"token_uri": "https://evil.example/token"}, "another token_uri than https://oauth2.googleapis.com/token"),
        ({"private_key": None}, "no client_email and private_key"),
        ({"client_email": 7}, "no client_email and private_key"),
        ({"private_key": "SEKRET"}, "not an RSA key in PEM"),
        ({"private_key": pem(ec.generate_private_key(ec.SECP256R1()))}, "not an RSA key in PEM"),
    ],
)
def test_a_key_file_of_another_kind_is_refused_by_name(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        Vertex.Config.model_validate({"credentials_file": key_file(tmp_path, **fields)})
    assert "SEKRET" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 60_000, b'{"type":"service_account"}'])
def test_a_file_that_is_no_key_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValidationError, match="CREDENTIALS_FILE: the file"):
        Vertex.Config.model_validate({"credentials_file": path})


def test_without_its_extra_a_service_account_is_refused_by_the_name_of_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ValidationError, match=r"pip install '\.\[vertex\]'"):
        Vertex.Config.model_validate({"credentials_file": key_file(tmp_path)})
    assert Vertex.Config(project="my-proj").project == "my-proj"
    assert Vertex.Config.model_validate({"api_key": KEY}).api_key is not None


# Tokens


@pytest.mark.parametrize(
    ("model", "polled"),
    [
        (OMNI, ("GET", f"{PLACE}/interactions/v1_0001")),
        (VEO, ("POST", f"{PLACE}/publishers/google/models/veo-3.1-generate-001:fetchPredictOperation")),
    ],
)
async def test_a_service_account_makes_a_video_with_one_token(
    gateway: Running, fake: FakeVertex, model: str, polled: tuple[str, str]
) -> None:
    padding = bytes(4 * PIECE_BYTES)
    fake.file = sample_mp4() + (len(padding) + 8).to_bytes(4) + b"free" + padding
    video = await gateway.create(model=model)
    ended = await gateway.finish(video["id"])
    assert ended["status"] == "completed", ended
    assert (await gateway.client.get(f"/v1/videos/{video['id']}/content")).content == fake.file
    assert {(call.method, call.path) for call in [*fake.polls, *fake.contents]} == {polled}
    assert len(fake.contents) == len(fake.calls["token"]) == 1
    assert fake.submits[0].headers["authorization"] == f"Bearer {fake.tokens[0]}"


async def test_a_machine_gets_its_token_from_the_metadata_server(start: Start) -> None:
    fake = FakeVertex()
    async with start(fake, credentials_file="", project="my-proj") as gateway:
        video = await gateway.create(model=OMNI)
        assert (await gateway.finish(video["id"]))["status"] == "completed"
    [call] = fake.calls["token"]
    assert call.path == "/computeMetadata/v1/instance/service-accounts/default/token"
    assert "authorization" not in call.headers


async def test_only_a_machine_without_credentials_asks_the_metadata_server(fake: FakeVertex, tmp_path: Path) -> None:
    metadata = FakeVertex()
    async with serve(fake) as url, serve(metadata) as other:
        shared = {"base_url": url, "token_url": url, "metadata_url": other}
        for config in ({"api_key": KEY}, {"credentials_file": key_file(tmp_path)}):
            provider = Vertex("up", Vertex.Config.model_validate({**config, **shared}), Outbound((LOOPBACK,)))
            assert (await provider.send(task())).ref in fake.jobs
            await provider.aclose()
    assert metadata.calls["token"] == []
    assert len(fake.calls["token"]) == 1


async def test_the_metadata_server_is_the_only_private_address_that_is_asked() -> None:
    fake = FakeVertex()
    async with serve(fake) as url:
        provider = Vertex("up", Vertex.Config(project="my-proj", base_url=url, metadata_url=url))
        with pytest.raises(errors.UpstreamUnreachable, match="set CREDENTIALS_FILE"):
            await provider.send(task())
        await provider.aclose()
    assert fake.calls["token"] == fake.submits == []


async def test_a_token_is_fetched_anew_before_it_ends(vertex: Vertex, fake: FakeVertex) -> None:
    fake.lives_s = tokens.MARGIN_S
    ref = (await vertex.send(task())).ref
    await vertex.poll(task(ref=ref))
    fake.lives_s = 3_599
    for _ in range(3):
        await vertex.poll(task(ref=ref))
    sent = [call.headers["authorization"] for call in fake.polls]
    assert len({fake.submits[0].headers["authorization"], *sent[:2]}) == 3
    assert sent[1:] == [f"Bearer {fake.tokens[-1]}"] * 3


@pytest.mark.parametrize("lives_s", ["soon", -1, 0, None, True, 10**30, [3_599], 1e308])
async def test_a_life_that_cannot_be_believed_is_over_at_once(vertex: Vertex, fake: FakeVertex, lives_s: Any) -> None:
    fake.lives_s = lives_s
    ref = (await vertex.send(task())).ref
    before = len(fake.tokens)
    assert (await vertex.poll(task(ref=ref))).status is Status.in_progress
    assert len(fake.tokens) == before + 1


async def test_a_token_that_has_been_revoked_is_replaced_once(vertex: Vertex, fake: FakeVertex) -> None:
    begun: list[int] = []

    async def begin() -> None:
        begun.append(len(fake.submits))

    await vertex.check(NOW)
    fake.tokens.clear()
    made = task(ref=(await vertex.send(task(begin=begin))).ref)
    assert (begun, len(fake.submits), len(fake.jobs)) == ([0], 2, 1)
    fake.tokens.clear()
    assert (await vertex.poll(made)).status is Status.in_progress
    fake.finish(made.ref or "")
    output = (await vertex.poll(made)).output
    assert output is not None
    fake.tokens.clear()
    async with vertex.fetch(made, output) as download:
        assert b"".join([chunk async for chunk in download.chunks]) == fake.file
    fake.tokens.clear()
    fake.show(made.ref or "", "in_progress")
    assert await vertex.cancel(made) is True
    assert len(fake.calls["token"]) == 5


async def test_a_second_401_is_a_matter_of_the_account(vertex: Vertex, fake: FakeVertex) -> None:
    made = task(ref=(await vertex.send(task())).ref)
    fake.finish(made.ref or "")
    output = (await vertex.poll(made)).output
    assert output is not None
    for verb in ("submit", "poll", "content"):
        fake.script(verb, *[Answer(401, {"error": {"code": 401, "message": "no"}})] * 2)
    with pytest.raises(errors.UpstreamAccount):
        await vertex.send(task())
    with pytest.raises(errors.UpstreamAccount):
        await vertex.poll(made)
    with pytest.raises(errors.UpstreamAccount):
        async with vertex.fetch(made, output):
            pass
    assert [len(fake.submits), len(fake.jobs)] == [3, 1]


async def test_a_missing_role_is_a_matter_of_the_account(vertex: Vertex, fake: FakeVertex) -> None:
    resource = "//aiplatform.googleapis.com/projects/p/locations/global/publishers/google/models/veo"
    text = f"Permission 'aiplatform.endpoints.predict' denied on resource '{resource}' (or it may not exist)."
    refused = Answer(403, {"error": {"code": 403, "message": text, "status": "PERMISSION_DENIED"}})
    made = task(ref=(await vertex.send(task())).ref)
    fake.script("submit", refused)
    fake.script("poll", refused, refused)
    for call in (vertex.send(task()), vertex.poll(made), vertex.check(NOW)):
        with pytest.raises(errors.UpstreamAccount):
            await call


@pytest.mark.parametrize(
    ("second", "kind"),
    [
        (Reset(), errors.UpstreamUnknown),
        (Answer(500), errors.UpstreamUnknown),
        (Answer(200, {}), errors.UpstreamUnknown),
        (Answer(429, {"error": {"code": 429, "message": "busy"}}), errors.UpstreamRateLimited),
    ],
)
async def test_the_second_try_of_a_submit_is_as_careful_as_the_first(
    vertex: Vertex, fake: FakeVertex, second: Any, kind: type[errors.UpstreamError]
) -> None:
    fake.script("submit", Answer(401, {"error": {"code": 401, "message": "no"}}), second)
    with pytest.raises(kind) as caught:
        await vertex.send(task())
    assert type(caught.value) is kind
    assert len(fake.submits) == 2


async def test_a_submit_that_must_not_be_sent_is_not_tried_again(vertex: Vertex, fake: FakeVertex) -> None:
    async def begin() -> None:
        raise NotBegun("the job was cancelled")

    with pytest.raises(NotBegun, match="the job was cancelled"):
        await vertex.send(task(begin=begin))
    assert fake.submits == []


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (Answer(200, {"expires_in": 3599}), errors.UpstreamUnavailable, "without a token"),
        (Answer(200, {"access_token": "a\r\nb: 1", "expires_in": 9}), errors.UpstreamUnavailable, "without a token"),
        (Answer(200, {"access_token": "x" * 10_000}), errors.UpstreamUnavailable, "without a token"),
        (Answer(200, {"access_token": ""}), errors.UpstreamUnavailable, "without a token"),
        (Answer(200, {"access_token": 7}), errors.UpstreamUnavailable, "without a token"),
        (Answer(200, []), errors.UpstreamUnavailable, "without a token"),
        (Answer(200, b"<html>"), errors.UpstreamUnavailable, "without a token"),
        (Answer(400, {"error": "invalid_grant", "error_description": "off"}), errors.UpstreamAccount, "off"),
        (Answer(401, {"error": {"x": 1}}), errors.UpstreamAccount, "refused a token: 401"),
        (Answer(302, b"", {"location": "https://evil.example/"}), errors.UpstreamAccount, "refused a token: 302"),
        (Answer(429), errors.UpstreamUnavailable, "no token at present"),
        (Answer(503), errors.UpstreamUnavailable, "no token at present"),
        (Reset(), errors.UpstreamUnavailable, "no answer"),
    ],
)  # fmt: skip
async def test_without_a_token_nothing_is_sent(
    vertex: Vertex, fake: FakeVertex, answer: Any, kind: type[errors.UpstreamError], said: str
) -> None:
    fake.script("token", answer)
    with pytest.raises(kind, match=said) as caught:
        await vertex.send(task())
    assert type(caught.value) is kind
    assert fake.submits == []
    assert (await vertex.send(task())).ref in fake.jobs


async def test_a_key_that_is_not_the_accounts_is_refused_and_a_new_file_is_read(
    vertex: Vertex, fake: FakeVertex, tmp_path: Path
) -> None:
    key_file(tmp_path, private_key=pem(new_key()))
    with pytest.raises(errors.UpstreamAccount, match="Invalid JWT Signature"):
        await vertex.send(task())
    key_file(tmp_path).write_text("{}", "utf-8")
    with pytest.raises(errors.UpstreamAccount, match="no usable credentials"):
        await vertex.send(task())
    key_file(tmp_path)
    assert (await vertex.send(task())).ref in fake.jobs


async def test_tokens_and_assertions_are_in_no_error_and_no_log(vertex: Vertex, fake: FakeVertex) -> None:
    with capture_logs() as logs:
        fake.script("token", Answer(200, {"access_token": "an-opaque-one", "expires_in": 3_599}))
        fake.tokens.append("an-opaque-one")
        made = task(ref=(await vertex.send(task())).ref)
        fake.script("poll", fake.refusal(400, f"Bearer an-opaque-one and {KEY}"))
        with pytest.raises(errors.UpstreamError) as refused:
            await vertex.poll(made)
        fake.tokens.clear()
        await vertex.poll(made)
        fake.fail(made.ref or "", message="an-opaque-one, ya29.t0ken-2")
        progress = await vertex.poll(made)
        fake.tokens.clear()
        sent = fake.calls["token"][-1].json.decode().partition("assertion=")[2]
        fake.script("token", Answer(400, {"error": "invalid_grant", "error_description": f"{sent} is bad"}))
        with pytest.raises(errors.UpstreamAccount) as denied:
            await vertex.poll(made)
    shown = f"{logs} {progress} {vertex!r} {vertex.config!r}"
    shown += "".join(f"{error.value.message} {error.value.body} {error.value!r}" for error in (refused, denied))
    assert "[key]" in shown
    assert [secret for secret in ("opaque", "t0ken", sent[:40], "PRIVATE KEY") if secret in shown] == []


async def test_a_token_is_not_sent_to_where_a_file_is(vertex: Vertex, fake: FakeVertex) -> None:
    elsewhere = Elsewhere()
    made = task(ref=(await vertex.send(task())).ref)
    async with serve(elsewhere) as other:
        fake.elsewhere(made.ref or "", f"{other}/file.mp4?sig=1")
        output = (await vertex.poll(made)).output
        assert output is not None
        async with vertex.fetch(made, output) as download:
            assert b"".join([chunk async for chunk in download.chunks]) == elsewhere.file
    assert "t0ken" not in str(elsewhere.calls)


@pytest.mark.parametrize("status", [302, 307])
async def test_neither_a_token_nor_the_name_of_an_operation_follows_a_redirect(
    vertex: Vertex, fake: FakeVertex, status: int
) -> None:
    elsewhere = Elsewhere(json.dumps({"response": {"videos": [{"bytesBase64Encoded": "AAAA"}]}}).encode())
    made = task(model="veo-3.1-generate-001", ref=(await vertex.send(task(model="veo-3.1-generate-001"))).ref)
    fake.finish(made.ref or "")
    fake.show(made.ref or "", "completed")
    output = (await vertex.poll(made)).output
    assert output is not None
    async with serve(elsewhere) as other:
        fake.script("content", Answer(status, headers={"location": f"{other}/blob"}))
        async with vertex.fetch(made, output) as download:
            assert b"".join([chunk async for chunk in download.chunks]) == base64.b64decode("AAAA")
    [call] = elsewhere.calls
    assert (call.method, call.json, "authorization" in call.headers) == ("GET", None, False)


# Files


@pytest.mark.parametrize("model", [OMNI, VEO])
async def test_a_file_in_a_bucket_is_an_error_that_names_the_field(
    gateway: Running, fake: FakeVertex, model: str
) -> None:
    video_id, ref = await submitted(gateway, fake, model=model)
    fake.elsewhere(ref, "gs://my-bucket/out/sample_0.mp4")
    error = (await gateway.finish(video_id))["error"]
    assert error["code"] == "no_output"
    assert "leave out `storageUri`" in error["message"]


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"videos": None},
        {"videos": "AAAA"},
        {"videos": {"bytesBase64Encoded": "AAAA"}},
        {"videos": [7, None, [], {}]},
        {"videos": [{"bytesBase64Encoded": 7}, {"bytesBase64Encoded": ""}, {"gcsUri": 7}]},
        {"generateVideoResponse": 7},
        7,
    ],
)
async def test_an_operation_that_is_done_without_a_file_is_a_failure(
    vertex: Vertex, fake: FakeVertex, response: Any
) -> None:
    made = task(model="veo-3.1-generate-001", ref=(await vertex.send(task(model="veo-3.1-generate-001"))).ref)
    fake.finish(made.ref or "")
    fake.jobs[made.ref or ""].raw["shown"] = {"response": response}
    progress = await vertex.poll(made)
    assert progress.failure is not None
    assert (progress.failure.code, "storageUri" in progress.failure.message) == ("no_output", False)


async def test_the_first_of_several_videos_that_is_there_counts(vertex: Vertex, fake: FakeVertex) -> None:
    made = task(model="veo-3.1-generate-001", ref=(await vertex.send(task(model="veo-3.1-generate-001"))).ref)
    fake.finish(made.ref or "")
    videos = [7, {"gcsUri": "gs://b/a"}, {"bytesBase64Encoded": base64.b64encode(fake.file).decode()}]
    shown = {"response": {"raiMediaFilteredCount": 1, "videos": videos}}
    fake.jobs[made.ref or ""].raw["shown"] = shown
    output = (await vertex.poll(made)).output
    assert output is not None
    async with vertex.fetch(made, output) as download:
        assert b"".join([chunk async for chunk in download.chunks]) == fake.file


# Requests


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        (VEO, {"storageUri": "gs://my-bucket/"}, "storageUri"),
        (VEO, {"pubsubTopic": "projects/p/topics/t"}, "pubsubTopic"),
        (VEO, {"input_reference": "https://x.example/a.png"}, "input_reference"),
        (VEO_LITE, {"resolution": "4k"}, "resolution"),
        (OMNI, {"generate_audio": False}, "generate_audio"),
    ],
)
async def test_a_field_that_the_model_does_not_have_is_refused_before_it_is_sent(
    gateway: Running, fake: FakeVertex, model: str, fields: dict[str, Any], param: str
) -> None:
    refused = await gateway.client.post("/v1/videos", json={"prompt": "a boat", "model": model, **fields})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert fake.submits == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"seconds": 4, "resolution": "1080p"},
            "cannot express seconds: it makes 8 seconds, given the rest of the request",
        ),
        ({"seconds": 5, "resolution": "720p"}, "cannot express seconds: it makes 4, 6, 8 seconds"),
        (
            {"seconds": 8, "last_frame": "https://x.example/a.png"},
            "needs input_reference: it makes nothing without one, given the rest of the request",
        ),
    ],
)
async def test_a_refusal_says_whether_the_rest_of_the_request_is_to_blame(
    gateway: Running, fields: dict[str, Any], said: str
) -> None:
    refused = await gateway.client.post("/v1/videos", json={"prompt": "a boat", "model": VEO_LITE, **fields})
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, f"{VEO_LITE} {said}")


@pytest.mark.parametrize("field", ["storageUri", "gcsOutputDirectory"])
async def test_a_bucket_is_refused_before_the_submit_of_any_model(
    gateway: Running, fake: FakeVertex, field: str
) -> None:
    video = await gateway.create(model="vertex/veo-4", **{field: "gs://my-bucket/"})
    ended = await gateway.finish(video["id"])
    assert (ended["status"], field in ended["error"]["message"]) == ("failed", True)
    assert fake.submits == fake.calls["token"] == []


@pytest.mark.parametrize(
    ("model", "fields", "price"),
    [
        (VEO, {}, 0.4),
        (VEO, {"generate_audio": False}, 0.2),
        (VEO, {"generate_audio": False, "resolution": "4k"}, 0.4),
        (VEO_LITE, {"generate_audio": True}, 0.05),
        (VEO_LITE, {"generate_audio": False, "resolution": "1080p"}, 0.05),
    ],
)
async def test_sound_is_sent_as_it_is_charged(
    gateway: Running, fake: FakeVertex, model: str, fields: dict[str, Any], price: float
) -> None:
    made = await gateway.create(model=model, **fields)
    assert made["cost_estimate"] == pytest.approx(8 * price)
    assert (await gateway.finish(made["id"]))["status"] == "completed"
    sent = fake.submits[0].json["parameters"]
    assert (sent["generateAudio"], sent["durationSeconds"]) == (fields.get("generate_audio", True), 8)


# Videos made of videos


async def derived(gateway: Running, fake: FakeVertex, path: str, source: str, **fields: Any) -> dict[str, Any]:
    """The body of the submit for a video that is made of one of ours."""
    body = {"prompt": "it snows", "video": {"id": source}, **fields}
    made = await gateway.client.post(f"/v1/videos/{path}", json=body)
    assert made.status_code == 202, made.text
    ended = await gateway.finish(made.json()["id"])
    assert ended["status"] == "completed", ended
    sent = fake.submits[-1].json
    assert isinstance(sent, dict)
    return sent


async def test_veo_extends_its_own_video_by_what_the_operation_holds(gateway: Running, fake: FakeVertex) -> None:
    source = (await gateway.create(model=VEO, generate_audio=False))["id"]
    await gateway.finish(source)
    sent = await derived(gateway, fake, "extensions", source, seconds=4)
    content = base64.b64encode(fake.file).decode()
    assert sent["instances"] == [
        {"prompt": "it snows", "video": {"bytesBase64Encoded": content, "mimeType": "video/mp4"}}
    ]
    assert sent["parameters"] == {"resolution": "720p", "durationSeconds": 8, "generateAudio": True}


async def test_omni_edits_its_own_video_by_id_and_one_of_veo_by_its_bytes(gateway: Running, fake: FakeVertex) -> None:
    for model in (OMNI, VEO):
        source = (await gateway.create(model=model))["id"]
        await gateway.finish(source)
        sent = await derived(gateway, fake, "edits", source, model=OMNI)
        if model == OMNI:
            assert sent["previous_interaction_id"] == next(iter(fake.jobs))
        else:
            assert "previous_interaction_id" not in sent
            block = sent["input"][0]["content"][1]
            assert (block["type"], base64.b64decode(block["data"])) == ("video", fake.file)


@pytest.mark.parametrize("why", ["deleted", "too large"])
async def test_a_source_that_cannot_be_sent_is_refused_without_a_submit(
    gateway: Running, fake: FakeVertex, why: str
) -> None:
    source = (await gateway.create(model=VEO))["id"]
    await gateway.finish(source)
    if why == "deleted":
        fake.jobs.clear()
    else:
        fake.file = bytes(MAX_DATA_URL_BYTES + 1)
    body = {"prompt": "it snows", "video": {"id": source}, "seconds": 8}
    made = await gateway.client.post("/v1/videos/extensions", json=body)
    ended = await gateway.finish(made.json()["id"])
    assert ended["status"] == "failed"
    said = "no longer has the file" if why == "deleted" else "at most 20 MiB"
    assert said in ended["error"]["message"]
    assert len(fake.submits) == 1
