"""Outbound proxies on the command line: shown without passwords, named by checks, and left out for this machine."""

import pytest
from commands import Command
from fakes.openai import FakeOpenAI
from fakes.proxy import forward_proxy
from fakes.server import closed_port, serve
from harness import ALICE, StartGateway
from processes import provider

from app.cli.generate import ClientError
from app.settings import ConfigurationError

pytestmark = pytest.mark.anyio

API = "api.vendor.invalid"
PASSWORD, SENT = "p@ss-word", "c2l0ZTpwQHNzLXdvcmQ="
IN_URL = "site:p%40ss-word"


def vendor(**values: str) -> dict[str, str]:
    return provider("", base_url=f"http://{API}/v1", **values)


async def test_passwords_of_proxies_are_not_shown(command: Command) -> None:
    settings = {
        "http_proxy": f"http://{IN_URL}@one.example:3128",
        "webhook_proxy": "none",
        **vendor(proxy=f"https://{IN_URL}@two.example"),
    }
    found = await command("config", "show", "--json", **settings)
    shown = {row["name"]: row["value"] for row in found.document["settings"]}
    assert shown["GATEWAY_HTTP_PROXY"] == "http://***@one.example:3128"
    assert shown["GATEWAY_WEBHOOK_PROXY"] == "none"
    assert shown["GATEWAY_PROVIDERS__UP__PROXY"] == "https://***@two.example:443"
    assert "word" not in found.out.replace("password", "")
    with pytest.raises(ConfigurationError, match="GATEWAY_HTTP_PROXY: proxies by socks5 are not supported") as refused:
        await command("config", "check", http_proxy=f"socks5://{IN_URL}@one.example:1080")
    assert "ss-word" not in str(refused.value)


async def test_checks_go_through_the_proxy_and_name_it(command: Command) -> None:
    fake = FakeOpenAI()
    async with serve(fake) as url, forward_proxy({API: url}, credentials=f"site:{PASSWORD}") as proxy:
        good = await command("doctor", "--json", **vendor(), http_proxy=proxy.with_password(IN_URL))
        assert good.one("provider up", "ok") == f"answers through the proxy {proxy.name} and accepts the key -> "
        bad = await command("doctor", "--json", **vendor(proxy=proxy.with_password("site:another-word")))
        text = bad.one("provider up", "failed")
        assert f"no answer through the proxy {proxy.name}: it refuses the request (407 Proxy Auth" in text
        assert "the proxy, which GATEWAY_PROVIDERS__UP__PROXY names" in text
        away = closed_port().removeprefix("http://")
        gone = await command("providers", "--check", **vendor(), environment={"HTTP_PROXY": f"http://{away}"})
        assert f"no answer through the proxy {away}: it cannot be reached: the connection is refused" in gone.out
        assert "the proxy, which HTTP_PROXY names" in gone.out
    assert proxy.passed
    for printed in (good.out, bad.out):
        assert PASSWORD not in printed
        assert "another-word" not in printed
        assert SENT not in printed


async def test_generate_calls_this_machine_directly_and_names_a_proxy(
    command: Command, start_gateway: StartGateway
) -> None:
    away = closed_port().removeprefix("http://")
    environment = {"HTTP_PROXY": f"http://site:{PASSWORD}@{away}".replace("p@", "p%40"), "NO_PROXY": ""}
    async with start_gateway(run_worker=True, worker_tick_s=0.05) as gateway, serve(gateway.app) as url:
        ask = ("generate", "a boat", "--model", "sandbox/reject", "--key", ALICE, "--url")
        with pytest.raises(ClientError, match="sandbox/reject refuses every request"):
            await command(*ask, f"{url}/v1", environment=environment)
        with pytest.raises(ClientError) as raised:
            await command(*ask, "http://gateway.example/v1", environment=environment)
    error = str(raised.value)
    assert f"http://gateway.example/v1 cannot be reached through the proxy {away}: it cannot be reached" in error
    assert "HTTP_PROXY of the environment names it; NO_PROXY=gateway.example calls without it." in error
    assert "ss-word" not in error
