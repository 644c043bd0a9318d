"""Traces: one for each job, whoever asks and whatever happens to it; they join the client's, and are passed on."""

from typing import Any

import httpx
import pytest
from fakes.lumen import FakeLumen
from fakes.openai import FakeOpenAI
from fakes.otlp import Collector
from fakes.receiver import Receiver
from fakes.server import KEY, Answer, Fake, serve
from harness import Running, StartGateway
from webhooks.registration import register

pytestmark = pytest.mark.anyio

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VERBS = ("submit", "poll", "content")
CLIENTS = f"00-{TRACE}-{PARENT}-01"


def upstream(url: str, kind: str = "openai", **fields: Any) -> dict[str, Any]:
    return {"up": {"kind": kind, "base_url": f"{url}/v1", "api_key": KEY, **fields}}


async def create(gateway: Running, *traceparents: str, **fields: Any) -> httpx.Response:
    headers = [("traceparent", value) for value in traceparents]
    body = {"prompt": "a paper boat", "model": "up/sora-2", **fields}
    return await gateway.client.post("/v1/videos", json=body, headers=headers)


async def test_a_job_is_one_trace(start_gateway: StartGateway, collector: Collector) -> None:
    """Created by one application and made by another one."""
    fake, receiver = FakeOpenAI(polls_until_working=1, polls_until_done=2), Receiver()
    async with serve(fake) as url, serve(receiver) as hook, start_gateway(providers=upstream(url)) as api:
        await register(api, f"{hook}/endpoint")
        video = (await create(api, webhook_url=f"{hook}/given?token=T0KEN")).json()
        async with start_gateway(providers=upstream(url)) as other:
            await other.finish(video["id"])
        (attempt,) = await api.attempts(video["id"])
    root = collector.one("video.create")
    assert collector.tree(root.trace) == {
        "video.create": {
            "video.submit": {"POST submit": {}},
            "video.generate": {},
            "video.store": {"ledger.settle": {}},
            "video.job": {},
            "webhook.deliver": {},
        }
    }
    about = {"gateway.video": video["id"], "gateway.project": attempt.project_id, "gateway.model": "up/sora-2"}
    made = {"gateway.attempt": attempt.id, "gateway.provider": "up", "gateway.upstream_model": "sora-2"}
    http = {"http.request.method": "POST", "http.response.status_code": 202, "http.route": "/v1/videos"}
    assert root.facts.items() >= {**about, **http, "gateway.dialect": "openai", "url.scheme": "http"}.items()
    assert {"gateway.request", "gateway.key"} <= root.facts.keys()
    for name in ("video.submit", "video.generate", "video.store"):
        assert collector.one(name).facts.items() >= {**about, **made}.items()
    assert collector.one("video.generate").facts["gateway.polls"] == 3
    assert [(name, facts["gateway.status"]) for name, facts in collector.one("video.generate").events] == [
        ("poll", "queued"),
        ("poll", "in_progress"),
        ("poll", "completed"),
    ]
    stored = collector.one("video.store").facts
    assert (stored["gateway.store"], stored["gateway.bytes"], len(stored["gateway.sha256"])) == ("file", 2170, 64)
    call = collector.one("POST submit").facts
    assert (call["server.address"], call["http.response.status_code"]) == ("127.0.0.1", 200)
    assert collector.one("video.job").facts["gateway.status"] == "completed"
    tries = {span.id: span.facts for span in collector.named("webhook.deliver")}
    assert [(facts["server.address"], facts["http.response.status_code"]) for facts in tries.values()] == [
        ("127.0.0.1", 204)
    ] * 2
    assert {received.headers["traceparent"] for received in receiver.received} == {
        f"00-{root.trace}-{span}-01" for span in tries
    }
    (submit,), polls, (content,) = ([call.headers["traceparent"] for call in fake.calls[verb]] for verb in VERBS)
    assert submit == f"00-{root.trace}-{collector.one('POST submit').id}-01"
    assert polls == [f"00-{root.trace}-{root.id}-01"] * 3
    assert content == f"00-{root.trace}-{collector.one('video.store').id}-01"
    kinds = {span.name: span.kind for span in collector.spans}
    assert [kinds[name] for name in ("video.create", "video.submit", "POST submit", "webhook.deliver")] == [
        "server",
        "internal",
        "client",
        "client",
    ]
    assert not any(span.failed for span in collector.spans)
    # Each other request is a trace of its own, which is linked to the job's.
    reads = collector.named("GET /v1/videos/{video_id}")
    assert {(span.parent, *span.links) for span in reads} == {("", root.trace)}


async def test_a_create_joins_the_trace_of_its_client(start_gateway: StartGateway, collector: Collector) -> None:
    fake, receiver = FakeOpenAI(polls_until_working=0, polls_until_done=0), Receiver()
    async with serve(fake) as url, serve(receiver) as hook, start_gateway(providers=upstream(url)) as gateway:
        created = await create(gateway, CLIENTS, webhook_url=hook, idempotency_key="a")
        await gateway.finish(created.json()["id"])
        repeated = await create(gateway, idempotency_key="a", webhook_url=hook)
    first, second = collector.named("video.create")
    assert (first.trace, first.parent) == (TRACE, PARENT)
    assert {span.trace for span in collector.spans if span.name.startswith(("video", "webhook"))} == {
        TRACE,
        second.trace,
    }
    (received,) = receiver.received
    assert received.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert repeated.json()["id"] == created.json()["id"]
    assert (second.parent, second.links) == ("", [TRACE])


@pytest.mark.parametrize(
    "given",
    [
        [CLIENTS, CLIENTS],
        [f"00-{'0' * 32}-{PARENT}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"ff-{TRACE}-{PARENT}-01"],
        [CLIENTS.upper()],
        [f"{CLIENTS}-{'x' * 5000}"],
        ["x" * 20_000],
        [""],
        ["00-\u00e9"],
    ],
    ids=["two", "no_trace", "no_span", "version", "upper", "longer", "long", "empty", "letters"],
)
async def test_a_wrong_traceparent_is_ignored(
    given: list[str], start_gateway: StartGateway, collector: Collector
) -> None:
    async with start_gateway() as gateway:
        headers = [(b"traceparent", value.encode("latin-1")) for value in given]
        state = [(b"tracestate", b"a=b," * 2000), (b"baggage", b"user=SEKRET")]
        answer = await gateway.client.get("/v1/models", headers=[*headers, *state])
        assert answer.status_code == 200
    (span,) = collector.spans
    assert (span.parent, span.trace == TRACE, span.failed) == ("", False, False)
    assert "SEKRET" not in span.text
    assert "a=b" not in span.text


async def test_a_client_may_ask_for_no_trace(start_gateway: StartGateway, collector: Collector) -> None:
    fake = FakeOpenAI(polls_until_working=0, polls_until_done=0)
    async with serve(fake) as url, start_gateway(providers=upstream(url)) as gateway:
        created = await create(gateway, CLIENTS[:-1] + "0")
        await gateway.worker.run_once()
        (attempt,) = await gateway.attempts(created.json()["id"])
    assert attempt.state == "running"
    (passed_on,) = (call.headers["traceparent"] for call in fake.submits)
    assert (passed_on[:36], passed_on[-3:]) == (f"00-{TRACE}-", "-00")
    assert collector.spans == []


async def test_what_was_refused_or_has_failed_is_marked(start_gateway: StartGateway, collector: Collector) -> None:
    fake = FakeOpenAI(polls_until_working=0, polls_until_done=0)
    fake.script("submit", Answer(400, {"error": {"message": "SEKRET", "code": "SEKRET"}}))
    receiver = Receiver(always=Answer(500, "SEKRET"))
    async with serve(fake) as url, serve(receiver) as hook, start_gateway(providers=upstream(url)) as gateway:
        assert (await create(gateway, prompt="")).status_code == 400
        assert (await create(gateway, model="nope/x")).status_code == 404
        assert (await gateway.client.post("/v1/videos/video_x/remix", json={"prompt": "x"})).status_code == 404
        assert (await gateway.client.get("/v1/videos/video_x")).status_code == 404
        assert (await gateway.client.get("/SEKRET?a=SEKRET")).status_code == 404
        refused = (await create(gateway, webhook_url=hook)).json()["id"]
        await gateway.finish(refused)
        failing = (await create(gateway)).json()["id"]
        await gateway.worker.run_once()
        fake.fail("video_1", code="moderation_blocked", message="SEKRET")
        assert (await gateway.finish(failing))["status"] == "failed"
    creates = collector.named("video.create")
    assert [(span.failed, span.facts.get("error.type")) for span in creates] == [
        (True, "invalid_value"),
        (True, "model_not_found"),
        (True, "not_found"),
        (False, None),
        (False, None),
    ]
    read = collector.named("GET /v1/videos/{video_id}")[0]
    assert (read.failed, read.facts["error.type"]) == (False, "not_found")
    nowhere = collector.one("GET").facts
    assert (nowhere["error.type"], "http.route" in nowhere) == ("unknown_url", False)
    one, other = creates[3].trace, creates[4].trace
    failed = {(span.trace, span.name, span.facts["error.type"]) for span in collector.spans if span.failed}
    assert failed - {(span.trace, span.name, span.facts.get("error.type")) for span in creates} == {
        (one, "POST submit", "upstream_rejected"),
        (one, "video.submit", "upstream_rejected"),
        (one, "video.job", "upstream_rejected"),
        (one, "webhook.deliver", "500"),
        (other, "video.generate", "content_policy_violation"),
        (other, "video.job", "content_policy_violation"),
    }
    assert collector.tree(one)["video.create"]["video.submit"] == {"POST submit": {}, "ledger.refund": {}}
    assert "SEKRET" not in "".join(span.text for span in collector.spans)


async def test_a_cancel_is_part_of_the_trace(start_gateway: StartGateway, collector: Collector) -> None:
    fake = FakeOpenAI(polls_until_working=0, polls_until_done=9)
    async with serve(fake) as url, start_gateway(providers=upstream(url)) as gateway:
        video = (await create(gateway, model="up/on-no-list")).json()["id"]
        await gateway.worker.run_once()
        await gateway.client.delete(f"/v1/videos/{video}")
        await gateway.worker.run_once()
        assert fake.jobs == {}
    root = collector.one("video.create")
    tree = collector.tree(root.trace)["video.create"]
    assert tree["video.cancel"] == {"DELETE cancel": {}}
    assert tree.keys() >= {"video.submit", "video.generate", "video.job", "ledger.refund"}
    assert collector.one("video.cancel").facts["gateway.stopped"] is True
    assert collector.one("video.job").facts["gateway.upstream_model"] == "on-no-list", "not the label of the metrics"
    assert collector.one("DELETE /v1/videos/{video_id}").links == [root.trace]


@pytest.mark.parametrize("kind", ["lumen", "openai"])
async def test_no_vendor_gets_a_trace(kind: str, start_gateway: StartGateway, collector: Collector) -> None:
    """Nor does a reseller of OpenAI's shape that is set so."""
    of_kind: dict[str, tuple[Fake, str, dict[str, Any]]] = {
        "lumen": (FakeLumen(polls_until_working=0, polls_until_done=0), "up/seedance-2", {}),
        "openai": (FakeOpenAI(polls_until_working=0, polls_until_done=0), "up/sora-2", {"traceparent": False}),
    }
    fake, model, off = of_kind[kind]
    async with serve(fake) as url, start_gateway(providers=upstream(url, kind, **off)) as gateway:
        created = await create(gateway, CLIENTS, model=model)
        assert (await gateway.finish(created.json()["id"]))["status"] == "completed"
    assert {"video.create", "video.submit", "POST submit"} <= {span.name for span in collector.spans}
    calls = [call for verb in VERBS for call in fake.calls[verb]]
    assert len(calls) == 3
    assert TRACE not in str(calls)


async def test_a_job_from_before_has_no_trace(
    start_gateway: StartGateway, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeOpenAI(polls_until_working=0, polls_until_done=0)
    async with serve(fake) as url:
        with monkeypatch.context() as off:
            off.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
            async with start_gateway(providers=upstream(url)) as gateway:
                video = (await create(gateway, CLIENTS)).json()["id"]
        async with start_gateway(providers=upstream(url)) as gateway:
            assert (await gateway.finish(video))["status"] == "completed"
    assert {span.kind for span in collector.spans} == {"server"}
    assert "traceparent" not in str(fake.calls)
