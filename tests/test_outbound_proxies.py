"""Calls through an outbound proxy: providers, downloads and webhooks, by settings and by the environment; what is sent
when the proxy refuses or dies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from certificates import trusted_tls
from fakes.openai import FakeOpenAI
from fakes.proxy import ForwardProxy, forward_proxy
from fakes.receiver import Receiver
from fakes.server import KEY, Elsewhere, Hang, closed_port, serve
from fakes.wire import OK, Wire, answering, wire
from harness import Running, StartGateway
from names import resolve_names
from structlog.testing import capture_logs

from app import net
from app.net.transport import TAIL_BYTES, Once, hold_until
from app.providers import build
from app.settings import ConfigurationError, load

pytestmark = pytest.mark.anyio

API, FILES = "api.vendor.invalid", "files.vendor.invalid"
USER = "site:p@ss word"
IN_URL = "site:p%40ss%20word"
LONG = bytes(range(256)) * 4 * 2**10


def vendor(scheme: str = "http", **values: Any) -> dict[str, Any]:
    """A provider whose name only the proxy knows."""
    base = {"kind": "openai", "base_url": f"{scheme}://{API}/v1", "api_key": KEY, "models": ["sora-2"]}
    return {"up": {**base, **values}}


@pytest.fixture
async def fake() -> FakeOpenAI:
    return FakeOpenAI(polls_until_working=0, polls_until_done=0)


@pytest.fixture
async def proxy(fake: FakeOpenAI) -> AsyncIterator[ForwardProxy]:
    """A proxy that knows the vendor by its name, without TLS."""
    async with serve(fake) as url, forward_proxy({API: url}, credentials=USER) as found:
        yield found


@asynccontextmanager
async def over_tls(
    fake: FakeOpenAI, folder: Path, monkeypatch: pytest.MonkeyPatch, *, proxy_tls: bool = False
) -> AsyncIterator[ForwardProxy]:
    """A proxy that opens tunnels to the vendor, which has a certificate."""
    with trusted_tls(folder, monkeypatch, API, FILES) as tls:
        async with (
            serve(fake, tls=tls) as url,
            serve(Elsewhere(fake.file), tls=tls) as files,
            forward_proxy(
                {f"{API}:443": url, f"{FILES}:443": files}, tls=tls if proxy_tls else None, credentials=USER
            ) as found,
        ):
            yield found


async def attempt_of(gateway: Running, video: dict[str, Any]) -> Any:
    (found,) = await gateway.attempts(video["id"])
    return found


async def test_a_video_is_made_through_the_proxy_for_all(
    start_gateway: StartGateway, fake: FakeOpenAI, proxy: ForwardProxy
) -> None:
    with capture_logs() as logs:
        async with start_gateway(providers=vendor(), http_proxy=proxy.with_password(IN_URL)) as gateway:
            video = await gateway.finish((await gateway.create(model="up/sora-2"))["id"])
            assert video["status"] == "completed"
            assert (await gateway.client.get(f"/v1/videos/{video['id']}/content")).content == fake.file
    assert proxy.passed[0] == f"POST http://{API}/v1/videos"
    assert proxy.passed == proxy.asked
    assert len(fake.submits) == 1
    assert "proxy-authorization" not in fake.submits[0].headers
    (line,) = [entry for entry in logs if entry["event"] == "outbound proxy used"]
    assert (line["proxy"], line["source"], line["providers"]) == (proxy.name, "GATEWAY_HTTP_PROXY", ["up"])
    assert "p@ss" not in str(logs)


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["http proxy", "https proxy"])
async def test_calls_with_tls_and_files_of_other_hosts_go_through_tunnels(
    start_gateway: StartGateway, fake: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy_tls: bool
) -> None:
    async with (
        over_tls(fake, tmp_path, monkeypatch, proxy_tls=proxy_tls) as proxy,
        start_gateway(providers=vendor("https", proxy=proxy.with_password(IN_URL))) as gateway,
    ):
        video = await gateway.create(model="up/sora-2")
        await gateway.worker.run_once()
        fake.elsewhere(list(fake.jobs)[-1], f"https://{FILES}/clip.mp4")
        assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert set(proxy.passed) == {f"CONNECT {API}:443", f"CONNECT {FILES}:443"}
    assert len(fake.submits) == 1
    assert "proxy-authorization" not in str([call.headers for call in fake.submits])


async def test_the_setting_of_a_provider_wins_and_none_is_direct(
    start_gateway: StartGateway, fake: FakeOpenAI, proxy: ForwardProxy
) -> None:
    other = FakeOpenAI(polls_until_working=0, polls_until_done=0)
    async with serve(other, host="127.0.0.9") as direct:
        providers = vendor(proxy=proxy.with_password(IN_URL)) | {
            "near": {**vendor()["up"], "base_url": f"{direct}/v1", "proxy": "none"}
        }
        async with start_gateway(providers=providers, http_proxy=closed_port()) as gateway:
            for model in ("up/sora-2", "near/sora-2"):
                video = await gateway.finish((await gateway.create(model=model))["id"])
                assert video["status"] == "completed"
    assert len(other.submits) == len(fake.submits) == 1


# Nothing is sent twice, and nothing that was not sent is lost

NOT_SENT = {
    "away": "cannot be reached: the connection is refused",
    "hangs up": "called through the proxy",
    "no password": "refuses the {what} (407 Proxy Authentication Required)",
    "wrong password": "refuses the {what} (407 Proxy Authentication Required)",
    "forbids": "refuses the connection (403 Forbidden)",
    "no such host": "refuses the connection (502 Bad Gateway)",
}


BOTH = ("away", "no password", "wrong password")
"""The others are an unknown outcome without a tunnel: a proxy that passes on whole requests may have done so."""


@pytest.mark.parametrize(
    ("scheme", "case"), [*(("https", case) for case in NOT_SENT), *(("http", case) for case in BOTH)]
)
async def test_what_a_proxy_refuses_was_not_sent_and_is_repeated(
    start_gateway: StartGateway,
    fake: FakeOpenAI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    case: str,
) -> None:
    async with over_tls(fake, tmp_path, monkeypatch) as proxy, serve(fake) as plain:
        proxy.hosts = {} if case == "no such host" else {**proxy.hosts, API: plain}
        proxy.hangs_up = case == "hangs up"
        proxy.refuses = 403 if case == "forbids" else None
        passwords = {"no password": "", "wrong password": "site:guess"}
        address = closed_port() if case == "away" else proxy.with_password(passwords.get(case, IN_URL))
        async with start_gateway(providers=vendor(scheme, proxy=address.replace("//@", "//"))) as gateway:
            video = await gateway.create(model="up/sora-2")
            with capture_logs() as logs:
                await gateway.worker.run_once()
            attempt = await attempt_of(gateway, video)
            shown = await gateway.get(video["id"])
            assert (attempt.state, fake.submits) == ("pending", [])
            words = NOT_SENT[case].format(what="request" if scheme == "http" else "connection")
            assert words in attempt.error_body
            assert "127.0.0.1" in attempt.error_body
            assert "127.0.0.1" not in str(shown)
            for secret in ("p@ss", "p%40ss", "guess", "evil"):
                assert secret not in f"{logs}{attempt.error_body}{attempt.error_message}"


async def test_a_job_that_a_proxy_refused_is_made_when_it_works_again(
    start_gateway: StartGateway, fake: FakeOpenAI, proxy: ForwardProxy
) -> None:
    proxy.credentials = "site:another"
    async with start_gateway(providers=vendor(), http_proxy=proxy.with_password(IN_URL)) as gateway:
        video = await gateway.create(model="up/sora-2")
        await gateway.worker.run_once()
        assert fake.submits == []
        proxy.credentials = USER
        assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert len(fake.submits) == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_dies_after_the_request_leaves_the_outcome_unknown(
    start_gateway: StartGateway, fake: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    hang = Hang()
    fake.script("submit", hang)
    async with over_tls(fake, tmp_path, monkeypatch) as proxy, serve(fake) as plain:
        proxy.hosts = dict(proxy.hosts) | {API: plain}
        async with start_gateway(providers=vendor(scheme, proxy=proxy.with_password(IN_URL))) as gateway:
            video = await gateway.create(model="up/sora-2")
            step = asyncio.create_task(gateway.worker.run_once())
            async with asyncio.timeout(20):
                await hang.reached.wait()
                await proxy.die()
                await step
            assert (await gateway.finish(video["id"]))["error"]["code"] == "upstream_outcome_unknown"
    assert len(fake.submits) == 1


async def test_a_503_of_the_proxy_itself_is_an_unknown_outcome(
    start_gateway: StartGateway, fake: FakeOpenAI, proxy: ForwardProxy
) -> None:
    """It may have passed the request on, which only an own refusal of the vendor rules out."""
    proxy.refuses = 503
    async with start_gateway(providers=vendor(), http_proxy=proxy.with_password(IN_URL)) as gateway:
        video = await gateway.create(model="up/sora-2")
        assert (await gateway.finish(video["id"]))["error"]["code"] == "upstream_outcome_unknown"
    assert len(proxy.asked) == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_hooks_hold_what_leaves_through_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    seen: list[tuple[int, int]] = []
    with trusted_tls(tmp_path, monkeypatch, API) as tls:
        async with (
            wire(answering, tls=tls if scheme == "https" else None) as found,
            forward_proxy({API: found.url, f"{API}:443": found.url}) as proxy,
            net.upstream(timeout_s=20, connections=2, proxies=net.through(proxy.url, "")) as http,
        ):

            async def nothing_yet() -> None:
                seen.append((len(found.received), len(found.requests)))

            async def last_piece() -> None:
                async with asyncio.timeout(20):
                    while len(found.received) < len(LONG) - TAIL_BYTES:  # noqa: ASYNC110  # the server's own pace
                        await asyncio.sleep(0.001)
                seen.append((len(LONG) - len(found.received.partition(b"\r\n\r\n")[2]), len(found.requests)))

            async def refuses() -> None:
                raise LookupError("the job was cancelled")

            for hook in (nothing_yet, last_piece, refuses):
                found.received.clear()
                found.requests.clear()
                request = http.build_request("POST", f"{scheme}://{API}/", content=LONG)
                hold_until(Once(hook), request, whole_body=hook is not nothing_yet)
                if hook is refuses:
                    with pytest.raises(LookupError):
                        await http.send(request)
                else:
                    assert (await http.send(request)).status_code == 200
            assert seen == [(0, 0), (TAIL_BYTES, 0)]
            assert found.requests == []


async def test_the_tls_of_a_proxy_is_the_proxys_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with trusted_tls(tmp_path, monkeypatch, API) as tls:
        async with forward_proxy({}, tls=tls) as proxy:
            address = proxy.url.replace("127.0.0.1", "localhost")  # a name that its certificate lacks
            async with net.upstream(timeout_s=20, connections=1, proxies=net.through(address, "")) as http:
                with pytest.raises(net.ProxyRefused) as refused:
                    await http.get(f"https://{API}/")
    assert refused.value.reason == "cannot be reached: its TLS or its certificate is not valid"
    assert proxy.asked == []


async def test_a_refusal_after_the_request_was_sent_is_no_refusal_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GET or PUT whose connection was closed would be sent anew, for which the proxy is asked again."""

    async def once(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await found.request(reader)
        writer.write(OK)
        await found.request(reader)
        between.refuses = 403

    with trusted_tls(tmp_path, monkeypatch, API) as tls:
        async with (
            wire(once, tls=tls) as found,
            forward_proxy({f"{API}:443": found.url}) as between,
            net.upstream(timeout_s=20, connections=1, proxies=net.through(between.url, "")) as http,
        ):
            assert (await http.put(f"https://{API}/a", content=b"x")).status_code == 200
            with pytest.raises(httpx.RemoteProtocolError):
                await http.put(f"https://{API}/b", content=b"x")
    assert between.asked == [f"CONNECT {API}:443"] * 2


PATHS = ("/a%2Fb%2fc?sig=a%2Bb+c%20d&x=%7E~%27'", "/%41%7e%2e%2E/x?q=%41%61", "/a//b/%2e%2e/c?x=//", "/%zz%?100%&%2")


async def test_a_proxy_gets_urls_byte_for_byte() -> None:
    sent = [httpx.URL(f"http://{API}{path}") for path in PATHS]
    async with wire(answering) as found, forward_proxy({API: found.url}) as proxy:
        for url in sent:
            async with net.upstream(timeout_s=20, connections=1, proxies=net.through(proxy.url, "")) as http:
                await http.get(url)
    assert proxy.asked == [f"GET http://{API}{url.raw_path.decode()}" for url in sent]
    assert [request.split(b" ")[1] for request in found.requests] == [url.raw_path for url in sent]


# Addresses that a vendor or a client names

PRIVATE = (
    *("http://127.0.0.1/clip.mp4", "http://10.0.0.1/clip.mp4", "http://2130706433/", "http://localhost./clip.mp4"),
    *("http://inside.vendor.example/clip.mp4", "http://169.254.169.254/latest"),
)


async def test_no_proxy_is_asked_for_a_private_address(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_names(monkeypatch, {"inside.vendor.example": ["10.0.0.1"]})
    fake = FakeOpenAI(polls_until_working=0, polls_until_done=0, content_call=False)
    async with (
        serve(fake) as url,
        forward_proxy({API: url}) as proxy,
        start_gateway(providers=vendor(proxy=proxy.url), allow_networks=[]) as gateway,
    ):
        for private in PRIVATE:
            video = await gateway.create(model="up/sora-2")
            await gateway.worker.run_once()
            ref = list(fake.jobs)[-1]
            fake.finish(ref)
            fake.jobs[ref].raw["url"] = private
            assert (await gateway.finish(video["id"], step_s=600))["error"]["code"] == "output_gone"
        assert all(API in target for target in proxy.asked)


async def test_an_allowed_network_is_called_directly(
    start_gateway: StartGateway, fake: FakeOpenAI, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Elsewhere()
    resolve_names(monkeypatch, {"inside.vendor.example": ["127.0.0.1"]})
    async with (
        serve(files) as url,
        start_gateway(providers=vendor(proxy=proxy.with_password(IN_URL))) as gateway,
    ):
        video = await gateway.create(model="up/sora-2")
        await gateway.worker.run_once()
        fake.elsewhere(list(fake.jobs)[-1], url.replace("127.0.0.1", "inside.vendor.example"))
        assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert len(files.calls) == 1
    assert not any("inside" in target for target in proxy.asked)


async def test_webhooks_have_a_proxy_of_their_own(start_gateway: StartGateway) -> None:
    receiver = Receiver()
    async with (
        serve(receiver) as url,
        forward_proxy({"hooks.client.invalid": url}, credentials=USER) as proxy,
        start_gateway(webhook_proxy=proxy.with_password(IN_URL), http_proxy=closed_port()) as gateway,
    ):
        for hook in ("http://hooks.client.invalid/a", "http://elsewhere.invalid/b"):
            video = await gateway.create(model="sandbox/slow", webhook_url=hook)
            await gateway.client.delete(f"/v1/videos/{video['id']}")
        proxy.refuses = None
        await gateway.worker.run_once()
        shown = (await gateway.client.get("/v1/webhook_deliveries")).json()["data"]
    assert [received.path for received in receiver.received] == ["/a"]
    assert sorted(proxy.asked) == ["POST http://elsewhere.invalid/b", "POST http://hooks.client.invalid/a"]
    assert proxy.name not in str(shown)
    assert "proxy-authorization" not in receiver.received[0].headers


# The environment


def environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        for form in (name, name.lower()):
            monkeypatch.delenv(form, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


async def test_the_proxies_of_the_environment_are_used_and_named(
    start_gateway: StartGateway, fake: FakeOpenAI, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, HTTP_PROXY=proxy.with_password(IN_URL), NO_PROXY="127.0.0.0/8")
    files = Elsewhere()
    async with serve(files) as url:
        proxy.hosts = {**proxy.hosts, FILES: url}
        with capture_logs() as logs:
            async with start_gateway(providers=vendor()) as gateway:
                video = await gateway.create(model="up/sora-2")
                await gateway.worker.run_once()
                fake.elsewhere(list(fake.jobs)[-1], f"http://{FILES}/clip.mp4")
                assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert f"GET http://{FILES}/clip.mp4" in proxy.passed
    (line,) = [entry for entry in logs if entry["event"] == "outbound proxy used"]
    assert (line["proxy"], line["source"]) == (proxy.name, "HTTP_PROXY")
    environment(monkeypatch, HTTP_PROXY=proxy.url, NO_PROXY="vendor.invalid")
    with capture_logs() as logs:
        async with start_gateway(providers=vendor()) as gateway:
            await gateway.create(model="up/sora-2")
            before = len(proxy.asked)
            await gateway.worker.run_once()
    assert len(proxy.asked) == before
    assert "outbound proxy used" not in str(logs)


async def test_a_setting_takes_the_place_of_the_environment(
    start_gateway: StartGateway, fake: FakeOpenAI, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, ALL_PROXY="socks5://127.0.0.1:1080", NO_PROXY="*")
    async with start_gateway(providers=vendor(), http_proxy=proxy.with_password(IN_URL)) as gateway:
        assert (await gateway.finish((await gateway.create(model="up/sora-2"))["id"]))["status"] == "completed"
    assert proxy.passed


EXCEPTIONS = {
    "vendor.invalid": (True, True, False),
    ".vendor.invalid": (True, True, False),
    "*.vendor.invalid": (True, True, False),
    "api.vendor.invalid": (True, False, False),
    "api.vendor.invalid:443": (False, False, False),
    "api.vendor.invalid:80, 10.0.0.0/8": (True, False, True),
    "10.1.2.3": (False, False, True),
    "10.1.2.3:80": (False, False, True),
    "endor.invalid": (False, False, False),
    "*": (True, True, True),
    "": (False, False, False),
    "10.0.0.0/33": (False, False, False),
    "[fd00::1], fd00::/8": (False, False, False),
}


@pytest.mark.parametrize("exceptions", EXCEPTIONS)
def test_exceptions_are_read_as_other_programs_do(exceptions: str) -> None:
    proxies = net.of_environment({"http": "proxy.example:3128", "no": exceptions})
    hosts = (API, FILES, "10.1.2.3")
    assert tuple(proxies.of(httpx.URL(f"http://{host}/")) is None for host in hosts) == EXCEPTIONS[exceptions]
    for host in ("127.0.0.1:8080", "localhost", "api.localhost.", "[::1]", "[::ffff:127.0.0.1]"):
        assert proxies.of(httpx.URL(f"http://{host}/")) is None


UNUSABLE = {
    "socks5://user:secret@proxy:1080": "proxies by socks5 are not supported",
    "proxy.example:3128": "expected http://host:port",
    "http://user:sec#ret@proxy:3128": "percent-encoded",
    "http://user:sec/ret@proxy:3128": "percent-encoded",
    "http://proxy:99999": "expected http://host:port",
    "http://proxy:0": "expected http://host:port",
    "http://:3128": "expected http://host:port",
    "http://proxy:3128/path": "expected http://host:port",
    "http://pro xy:3128": "expected http://host:port",
}


@pytest.mark.parametrize("address", UNUSABLE)
def test_a_proxy_that_cannot_be_used_is_an_error_that_names_the_setting(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases: dict[str, dict[str, Any]] = {
        "GATEWAY_HTTP_PROXY": {"http_proxy": address},
        "GATEWAY_WEBHOOK_PROXY": {"webhook_proxy": address},
        "GATEWAY_PROVIDERS__UP__PROXY": {"providers": vendor(proxy=address)},
    }
    for name, values in cases.items():
        with pytest.raises(ConfigurationError, match=name) as raised:
            build(load(_env_file=None, **values))
        assert UNUSABLE[address] in str(raised.value)
        assert "sec" not in str(raised.value)
    if "://" in address:
        environment(monkeypatch, HTTPS_PROXY=address)
        with pytest.raises(ConfigurationError, match=r"HTTPS_PROXY: .*GATEWAY_HTTP_PROXY, a proxy or none"):
            build(load(_env_file=None, providers=vendor()))
