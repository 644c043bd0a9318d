"""Provider contract: submits, their refusals, and submits with an unknown outcome."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl

import pytest
from contract.stage import UNKNOWN, UPSTREAMS, Stage
from fakes.server import Answer, Hang, Reset, closed_port, segments, serve_bytes
from fakes.upstream import Upstream, ask
from fakes.wire import Wire, wire

from app import errors
from app.media.uploads import Upload
from app.providers.base import NotBegun, Provider
from app.video import Media, VideoRequest

pytestmark = pytest.mark.anyio


async def test_an_accepted_submit_returns_the_upstreams_id(stage: Stage, provider: Provider) -> None:
    submission = await provider.send(stage.task())
    assert submission.ref in stage.fake.jobs
    assert submission.status is stage.upstream.words[stage.fake.waiting]
    assert submission.raw_status == stage.fake.waiting


async def test_a_submit_begins_once_and_before_it_arrives(stage: Stage, provider: Provider) -> None:
    begun: list[int] = []

    async def begin() -> None:
        begun.append(len(stage.fake.submits))

    await provider.send(stage.task(begin=begin))
    assert (begun, len(stage.fake.submits)) == ([0], 1)


@pytest.mark.parametrize("request_", [ask(), ask("long " * 4_000)], ids=["short", "long"])
async def test_nothing_arrives_of_a_submit_that_must_not_be_sent(
    stage: Stage, provider: Provider, request_: VideoRequest
) -> None:
    async def begin() -> None:
        raise NotBegun("the job was cancelled")

    for _ in range(3):
        with pytest.raises(NotBegun, match="the job was cancelled"):
            await provider.send(stage.task(request_, begin=begin))
    assert stage.fake.submits == []
    assert (await provider.send(stage.task())).ref in stage.fake.jobs


@pytest.mark.parametrize(
    ("upstream", "wire"),
    [pytest.param(one, name, id=f"{one.name}-{name.replace(' ', '_')}") for one in UPSTREAMS for name in one.wires],
)
async def test_a_submit_sends_exactly_the_expected_request(stage: Stage, upstream: Upstream, wire: str) -> None:
    expected = upstream.wires[wire]
    await stage.provider(**expected.config).send(stage.task(expected.request, **expected.task))
    (call,) = stage.fake.submits
    assert (call.method, call.path, call.query) == ("POST", expected.path, "")
    assert (call.json, call.form) == (expected.json, expected.form)
    sent = {name: value for name, value in call.headers.items() if name not in ("host", "content-length", "user-agent")}
    kind = sent.pop("content-type")
    assert kind == "application/json" if expected.form is None else kind.startswith("multipart/form-data; boundary=")
    common = {"accept": "*/*", "accept-encoding": "identity", "connection": "keep-alive"}
    assert sent == {**common, **upstream.auth, **expected.headers}
    assert "content-length" in call.headers
    assert call.headers["user-agent"].startswith("video-gateway/")


@pytest.mark.parametrize("upstream", [one for one in UPSTREAMS if one.streams], ids=lambda upstream: upstream.name)
async def test_an_upload_is_never_in_memory_as_a_whole(stage: Stage, upstream: Upstream) -> None:
    size = 48 * 2**20

    @asynccontextmanager
    async def large(media: Media) -> AsyncIterator[Upload]:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(size // 2**20):
                yield bytes(2**20)

        yield Upload("a.png", "image/png", size, chunks())

    body = b'{"id":"video_1","status":"queued"}'
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body)
    async with serve_bytes(answer) as origin:
        task = stage.task(ask(first_frame=Media(key="large")), read=large)
        tracemalloc.start()
        try:
            await stage.provider(origin).send(task)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < size / 3


@pytest.mark.parametrize(
    ("upstream", "config"), [(upstream, config) for upstream in UPSTREAMS for config in upstream.idempotent]
)
async def test_the_same_submit_twice_makes_one_task(stage: Stage, upstream: Upstream, config: dict[str, Any]) -> None:
    provider = stage.provider(**config)
    stage.fake.script("submit", Reset())
    with pytest.raises(errors.UpstreamUnknown):
        await provider.send(stage.task())
    assert provider.can_resubmit or provider.looks_up
    submission = await provider.send(stage.task())
    assert list(stage.fake.jobs) == [submission.ref]


async def test_a_submit_is_repeated_only_where_configured(upstream: Upstream, provider: Provider) -> None:
    assert provider.can_resubmit is upstream.resubmits


async def test_a_rejected_submit_carries_the_upstreams_message(stage: Stage, provider: Provider) -> None:
    refusal = stage.fake.refusal(400, "seconds must be one of 4, 8", "invalid_value")
    stage.fake.script("submit", refusal)
    with pytest.raises(errors.UpstreamRejected) as caught:
        await provider.send(stage.task())
    assert type(caught.value) is errors.UpstreamRejected
    assert caught.value.message == "seconds must be one of 4, 8"
    assert caught.value.upstream_status == refusal.status
    assert not caught.value.next_candidate


async def test_a_moderated_submit_is_a_content_policy_error(stage: Stage, provider: Provider) -> None:
    stage.fake.script("submit", stage.fake.refusal(*stage.upstream.moderation))
    with pytest.raises(errors.ContentPolicy) as caught:
        await provider.send(stage.task())
    assert caught.value.message == stage.upstream.moderation[1]


async def test_a_wrong_key_is_an_account_error(stage: Stage) -> None:
    with pytest.raises(errors.UpstreamAccount) as caught:
        await stage.provider(api_key="sk-wrong-000000").send(stage.task())
    assert type(caught.value) is errors.UpstreamAccount
    assert caught.value.next_candidate
    assert stage.fake.jobs == {}


async def test_missing_credit_is_a_credit_error(stage: Stage, provider: Provider) -> None:
    stage.fake.script("submit", stage.fake.refusal(*stage.upstream.credit))
    with pytest.raises(errors.UpstreamCredit):
        await provider.send(stage.task())


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry-after": "7"}, 7, 7),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5, 1.5),
        ({"retry-after": "DATE"}, 60, 91),
        ({"retry-after": "soon"}, None, None),
        ({"retry-after": "inf"}, 1, 86_400),
        ({}, None, None),
    ],
    ids=["seconds", "milliseconds", "date", "nonsense", "for_ever", "nothing"],
)
async def test_a_rate_limit_carries_its_retry_after(
    stage: Stage, provider: Provider, headers: dict[str, str], low: float | None, high: float | None
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    headers = {name: value.replace("DATE", date) for name, value in headers.items()}
    stage.fake.script("submit", stage.fake.refusal(429, "Rate limit reached", "rate_limit_exceeded", headers))
    with pytest.raises(errors.UpstreamRateLimited) as caught:
        await provider.send(stage.task())
    after = caught.value.retry_after_s
    assert after is None if low is None or high is None else after is not None and low <= after <= high


@pytest.mark.parametrize("fault", UNKNOWN.values(), ids=[name.replace(" ", "_") for name in UNKNOWN])
async def test_an_unreadable_answer_to_a_submit_is_an_unknown_outcome(
    stage: Stage, provider: Provider, fault: Any
) -> None:
    stage.fake.script("submit", fault)
    with pytest.raises(errors.UpstreamUnknown) as caught:
        await provider.send(stage.task())
    assert len(stage.fake.submits) == 1
    assert not caught.value.retryable
    assert not caught.value.next_candidate


async def test_a_submit_without_an_answer_is_an_unknown_outcome(stage: Stage) -> None:
    stage.fake.script("submit", Hang())
    with pytest.raises(errors.UpstreamUnknown):
        await stage.provider(timeout_s=0.15).send(stage.task())
    assert len(stage.fake.jobs) == 1


async def test_an_upload_that_is_broken_off_is_not_an_unreachable_upstream(stage: Stage) -> None:
    """The next request may well be taken, so the circuit of all projects must not open."""

    async def reset(server: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2**16)

    async with wire(reset) as server:
        provider = stage.provider(server.url + stage.upstream.prefix)
        task = stage.task(ask(prompt="a" * 2**21))
        with pytest.raises(errors.UpstreamError) as caught:
            await provider.send(task)
    assert not isinstance(caught.value, errors.UpstreamUnreachable)


async def test_a_refused_connection_leads_to_the_next_candidate(stage: Stage) -> None:
    provider = stage.provider(closed_port() + stage.upstream.prefix)
    with pytest.raises(errors.UpstreamUnreachable) as caught:
        await provider.send(stage.task())
    assert caught.value.next_candidate
    with pytest.raises(errors.UpstreamUnavailable):
        await provider.poll(stage.task(ref="video_1"))


@pytest.mark.parametrize("ref", ["../../etc", "a/b?c=d#e", "a\nb c", "é🐢", "%2e%2e", "x" * 512])
async def test_a_hostile_id_cannot_change_the_path(stage: Stage, provider: Provider, ref: str) -> None:
    stage.fake.script("submit", Answer(200, stage.upstream.accepted(ref)))
    submission = await provider.send(stage.task())
    assert submission.ref == ref
    with pytest.raises(errors.UpstreamGone):
        await provider.poll(stage.task(ref=ref))
    await provider.cancel(stage.task(ref=ref))
    assert stage.fake.calls["other"] == []
    call = stage.fake.polls[0]
    assert ref in [*segments(call.path), *(value for _, value in parse_qsl(call.query)), *call.fields.values()]


@pytest.mark.parametrize("ref", ["", ".", "..", "x" * 513, "x" * 10_000, 7, None, ["x"], {}, "a\0b", "\ud800"])
async def test_an_unusable_id_is_an_unknown_outcome(stage: Stage, provider: Provider, ref: Any) -> None:
    stage.fake.script("submit", Answer(200, stage.upstream.accepted(ref)))
    with pytest.raises(errors.UpstreamUnknown):
        await provider.send(stage.task())
