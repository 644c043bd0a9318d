"""Provider contract: the key and other secrets reach the upstream and nothing else."""

import pytest
from contract.stage import UPSTREAMS, Stage, content
from fakes.server import KEY, Answer, Elsewhere, serve
from structlog.testing import capture_logs

from app import errors
from app.providers.base import Provider
from app.providers.rest import RestProvider
from app.video import Status

pytestmark = pytest.mark.anyio

ADDRESSED = [one for one in UPSTREAMS if one.addressed]


@pytest.mark.parametrize("upstream", ADDRESSED, ids=lambda upstream: upstream.name)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["other_port", "other_host"])
async def test_a_file_at_another_origin_is_fetched_without_the_key(stage: Stage, host: str) -> None:
    provider = stage.provider(stage.origin.replace("127.0.0.1", host) + stage.upstream.prefix)
    task = await stage.submitted(provider)
    elsewhere = Elsewhere()
    async with serve(elsewhere) as other:
        stage.fake.elsewhere(task.ref or "", f"{other}/file.mp4?sig=1")
        progress = await provider.poll(task)
        assert await content(provider, task, progress.output) == elsewhere.file
    (call,) = elsewhere.calls
    assert (call.path, call.query) == ("/file.mp4", "sig=1")
    assert KEY not in str(call)


@pytest.mark.parametrize("upstream", ADDRESSED, ids=lambda upstream: upstream.name)
async def test_a_file_at_a_private_address_is_not_fetched(stage: Stage) -> None:
    home = stage.origin.replace("127.0.0.1", "localhost") + stage.upstream.prefix
    provider = stage.provider(home, allow=False)
    task = await stage.submitted(provider)
    elsewhere = Elsewhere()
    async with serve(elsewhere) as other:
        stage.fake.elsewhere(task.ref or "", f"{other}/latest/meta-data")
        progress = await provider.poll(task)
        with pytest.raises(errors.UpstreamGone):
            await content(provider, task, progress.output)
    assert elsewhere.calls == []


@pytest.mark.parametrize("upstream", ADDRESSED, ids=lambda upstream: upstream.name)
@pytest.mark.parametrize("url", ["http://[::1", "http://a\0b/", "https://x.example:99999999/"])
async def test_a_file_at_an_invalid_address_is_an_error(stage: Stage, provider: Provider, url: str) -> None:
    task = await stage.submitted(provider)
    stage.fake.elsewhere(task.ref or "", url)
    progress = await provider.poll(task)
    if progress.failure is not None:
        assert (progress.status, progress.output, progress.failure.code) == (Status.failed, None, "no_output")
        return
    with pytest.raises((errors.UpstreamUnavailable, errors.UpstreamGone)):
        await content(provider, task, progress.output)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_does_not_leak_the_key(stage: Stage, provider: Provider, status: int) -> None:
    task = await stage.submitted(provider)
    elsewhere = Elsewhere()
    async with serve(elsewhere) as other:
        for verb in ("submit", "poll"):
            stage.fake.script(verb, Answer(status, headers={"location": f"{other}/v1/videos"}))
        with pytest.raises((errors.UpstreamUnknown, errors.UpstreamAccount)):
            await provider.send(task)
        with pytest.raises((errors.UpstreamUnavailable, errors.UpstreamAccount)):
            await provider.poll(task)
    assert elsewhere.calls == []


async def test_a_call_that_sends_the_key_goes_to_configured_addresses_only(stage: Stage, provider: Provider) -> None:
    assert isinstance(provider, RestProvider)
    elsewhere = Elsewhere()
    async with serve(elsewhere) as other:
        for origin in (other, stage.origin.replace("127.0.0.1", "localhost"), ""):
            with pytest.raises(AssertionError, match="configured addresses only"):
                await provider.call("prepare", "GET", "/x", origin=origin)
    assert (elsewhere.calls, stage.fake.calls["other"]) == ([], [])


@pytest.mark.parametrize("upstream", [one for one in UPSTREAMS if one.worded], ids=lambda upstream: upstream.name)
async def test_a_key_in_place_of_a_status_is_not_logged(stage: Stage, provider: Provider) -> None:
    task = await stage.submitted(provider)
    stage.fake.show(task.ref or "", f"unauthorized: {'x' * 70} {KEY}")
    with capture_logs() as logs:
        progress = await provider.poll(task)
    assert "unauthorized" in str(logs)
    assert KEY[:8] not in f"{logs} {progress}"


async def test_secrets_are_in_no_error_and_no_repr(stage: Stage, provider: Provider) -> None:
    link = "https://me:T0KEN@gw.example/media/uploads/video_1/0?exp=1&sig=T0KEN"
    text = f"key {KEY} refused by {stage.origin}{stage.upstream.prefix}/videos and {stage.origin[7:]}"
    text += f" for {link} and https://gw.example/callbacks/att_1/T0KEN"
    caught: list[errors.UpstreamError] = []
    task = await stage.submitted(provider)
    for status in (400, 401, 402, 404, 429, 500):
        stage.fake.script("submit", stage.fake.refusal(status, text))
        stage.fake.script("poll", stage.fake.refusal(status, text))
        for call in (provider.send, provider.poll):
            with pytest.raises(errors.UpstreamError) as error:
                await call(task)
            caught.append(error.value)
    stage.fake.fail(task.ref or "", message=text)
    progress = await provider.poll(task)
    words = [repr(provider), repr(provider.config), str(provider.config), repr(progress.failure)]
    words += [word for error in caught for word in (str(error), repr(error), error.message, str(error.body))]
    assert [word for word in words if KEY in word or "T0KEN" in word] == []
    assert [word for word in words[3:] if stage.origin[7:] in word] == []
    assert provider.fingerprint
    assert provider.fingerprint not in KEY
