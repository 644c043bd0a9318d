"""`video-gateway providers`: the variables of keys, the line for a key at hand, and whether a vendor answers; and the
line that a start logs."""

from pathlib import Path
from typing import Any

import pytest
from commands import Command, Done
from fakes.fal import FakeFal
from fakes.server import KEY, closed_port, serve
from fakes.vertex import FakeVertex, key_file, new_key, pem
from processes import provider, running

from app.providers import KINDS
from app.settings import ConfigurationError

pytestmark = pytest.mark.anyio

AT_HAND = "fal-key-at-hand-0123456789"
LINE = "GATEWAY_PROVIDERS__FAL__API_KEY=${FAL_KEY}"


def kinds(done: Done) -> dict[str, dict[str, Any]]:
    return {kind["kind"]: kind for kind in done.document["kinds"]}


def instances(done: Done) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for kind in done.document["kinds"] for one in kind["instances"]}


async def test_each_kind_has_its_variables_and_the_page_of_its_keys(command: Command) -> None:
    found = await command("providers", "--json", database_url=None)
    assert (found.code, found.document["ok"]) == (0, True)
    assert list(kinds(found)) == [kind.kind for kind in KINDS]
    assert kinds(found)["fal"] == {
        "kind": "fal",
        "title": "fal",
        "tried_live": None,
        "settings": {"GATEWAY_PROVIDERS__FAL__API_KEY": False},
        "vendor_variables": {"FAL_KEY": False},
        "add": None,
        "key_page": "https://fal.ai/dashboard/keys",
        "instances": [],
    }
    assert list(kinds(found)["openai"]["settings"]) == [
        "GATEWAY_PROVIDERS__OPENAI__BASE_URL",
        "GATEWAY_PROVIDERS__OPENAI__API_KEY",
    ]
    assert kinds(found)["sandbox"]["tried_live"] == "2026-11-26"
    assert list(instances(found)) == ["sandbox"]


async def test_a_key_at_hand_is_named_with_the_line_that_makes_a_provider_of_it(
    command: Command, tmp_path: Path
) -> None:
    found = await command("providers", "--json", environment={"FAL_KEY": AT_HAND})
    assert (kinds(found)["fal"]["vendor_variables"], kinds(found)["fal"]["add"]) == ({"FAL_KEY": True}, LINE)
    (tmp_path / ".env").write_text(f"{LINE}\n")
    added = await command("providers", "--json", environment={"FAL_KEY": AT_HAND})
    assert (kinds(added)["fal"]["add"], instances(added)["fal"]["key_set"]) == (None, True)
    (tmp_path / ".env").write_text(f"FAL_KEY={AT_HAND}\n")
    beside = await command("providers")
    assert f"add {LINE}" in beside.out
    assert AT_HAND not in found.out + found.err + added.out + added.err + beside.out + beside.err


async def test_the_line_gives_the_key_to_the_gateway_and_one_without_braces_is_refused(
    command: Command, tmp_path: Path
) -> None:
    async with serve(FakeFal()) as url:
        (tmp_path / ".env").write_text(f"{LINE}\nGATEWAY_PROVIDERS__FAL__BASE_URL={url}\n")
        found = await command("providers", "--check", "--json", environment={"FAL_KEY": KEY})
    assert [check["text"] for check in instances(found)["fal"]["checks"]] == ["answers and accepts the key"]
    (tmp_path / ".env").write_text(LINE.replace("{", "").replace("}", ""))
    with pytest.raises(ConfigurationError, match=r"GATEWAY_PROVIDERS__FAL__API_KEY: .*\$\{NAME\}, with braces"):
        await command("providers", environment={"FAL_KEY": AT_HAND})


async def test_a_key_that_alone_makes_no_provider_has_no_line(command: Command) -> None:
    found = await command("providers", "--json", environment={"OPENAI_API_KEY": AT_HAND})
    assert kinds(found)["openai"]["vendor_variables"] == {"OPENAI_API_KEY": True}
    assert kinds(found)["openai"]["add"] is None, "the address of the server is missing, too"


async def test_instances_are_listed_under_their_kind(command: Command) -> None:
    settings = {
        **provider("http://user.example", called="mine"),
        "providers__lunos__timeout_s": 5,
        "providers__ark__api_key": AT_HAND,
        "providers__ark__enabled": "false",
    }
    found = await command("providers", "--json", environment={"ARK_API_KEY": AT_HAND}, **settings)
    (mine,) = kinds(found)["openai"]["instances"]
    assert mine == {
        "name": "mine",
        "base_url": "http://user.example/v1",
        "enabled": True,
        "key_set": True,
        "credentials": "API_KEY",
        "missing": None,
        "checks": [],
    }
    assert instances(found)["lunos"]["missing"] == "GATEWAY_PROVIDERS__LUNOS__API_KEY"
    assert (instances(found)["ark"]["enabled"], kinds(found)["ark"]["add"]) == (False, None)
    screen = await command("providers", environment={"ARK_API_KEY": AT_HAND}, **settings)
    for words in (
        "provider mine: http://user.example/v1, enabled, key set",
        "provider lunos: left out, missing GATEWAY_PROVIDERS__LUNOS__API_KEY",
        "bytepluses.com/api/v3, disabled, key set",
        "needs no key",
    ):
        assert words in screen.out
    assert max(map(len, screen.out.splitlines())) <= 100
    assert AT_HAND not in screen.out + screen.err + found.out + found.err


async def test_a_check_tells_a_good_key_a_refused_one_and_a_dead_address_apart(command: Command) -> None:
    fake = FakeFal()
    wrong = "fal-key-of-another-account-0123"
    async with serve(fake) as url:
        settings: dict[str, Any] = {
            "providers__fal__api_key": KEY,
            "providers__fal__base_url": url,
            "providers__wrong__kind": "fal",
            "providers__wrong__api_key": wrong,
            "providers__wrong__base_url": url,
            "providers__off__kind": "fal",
            "providers__off__api_key": wrong,
            "providers__off__base_url": url,
            "providers__off__enabled": "false",
        }
        away = {
            "providers__away__kind": "fal",
            "providers__away__api_key": KEY,
            "providers__away__base_url": closed_port(),
        }
        found = await command("providers", "--check", "--json", **settings, **away)
        screen = await command("providers", "--check", **settings, **away)
        good = await command("providers", "--check", **{name: settings[name] for name in list(settings)[:2]})
    checks = {
        name: [(check["status"], check["text"]) for check in one["checks"]] for name, one in instances(found).items()
    }
    assert checks == {
        "fal": [("ok", "answers and accepts the key")],
        "wrong": [("failed", "wrong refuses the gateway's credentials (401)")],
        "off": [],
        "away": [("failed", "no answer: the connection is refused")],
        "sandbox": [],
    }
    assert (found.code, found.document["ok"], screen.code, good.code) == (1, False, 1, 0)
    assert "next step: set the right key in GATEWAY_PROVIDERS__WRONG__API_KEY" in screen.out
    assert "next step: check GATEWAY_PROVIDERS__AWAY__BASE_URL" in screen.out
    assert fake.submits == []
    for done in (found, screen, good):
        assert wrong not in done.out + done.err
        assert KEY not in done.out + done.err


async def test_credentials_other_than_a_key_are_named_and_checked(command: Command, tmp_path: Path) -> None:
    fake = FakeVertex()
    async with serve(fake) as url:
        shared = {"base_url": url, "token_url": url, "metadata_url": url}
        own: dict[str, dict[str, Any]] = {
            "vertex": {"credentials_file": key_file(tmp_path)},
            "another": {"credentials_file": key_file(tmp_path, "another.json", private_key=pem(new_key()))},
            "machine": {"project": "my-proj"},
        }
        settings = {
            f"providers__{name}__{setting}": str(value)
            for name, values in own.items()
            for setting, value in ({"kind": "vertex"} | shared | values).items()
        }
        settings["allow_networks"] = "127.0.0.0/8"
        found = await command("providers", "--check", "--json", **settings)
        screen = await command("providers", "--check", **settings)
    assert kinds(found)["vertex"]["settings"] == {"GATEWAY_PROVIDERS__VERTEX__PROJECT": True}, "the file has it"
    shown = {name: one for name, one in instances(found).items() if name != "sandbox"}
    assert {name: (one["credentials"], one["key_set"]) for name, one in shown.items()} == {
        "vertex": ("CREDENTIALS_FILE", False),
        "another": ("CREDENTIALS_FILE", False),
        "machine": ("METADATA_URL", False),
    }
    good = {"status": "ok", "text": "answers and accepts the key", "hint": ""}
    assert shown["vertex"]["checks"] == shown["machine"]["checks"] == [good]
    assert "another is refused a token: invalid_grant" in shown["another"]["checks"][0]["text"]
    assert "GATEWAY_PROVIDERS__ANOTHER__CREDENTIALS_FILE" in shown["another"]["checks"][0]["hint"]
    assert f"provider machine: {url}, enabled, credentials by METADATA_URL" in screen.out


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"vertex__credentials_file": "/nowhere/key.json"},
            "GATEWAY_PROVIDERS__VERTEX: CREDENTIALS_FILE: the file cannot be read (FileNotFoundError)",
        ),
        (
            {"kling__access_key": AT_HAND},
            "GATEWAY_PROVIDERS__KLING: expected either API_KEY, or ACCESS_KEY and SECRET_KEY together",
        ),
    ],
)
async def test_settings_that_do_not_go_together_are_one_message(
    command: Command, settings: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await command("providers", **{f"providers__{name}": value for name, value in settings.items()})
    assert str(caught.value) == said


async def test_without_a_vendor_there_is_nothing_to_check(command: Command) -> None:
    found = await command("providers", "--check")
    assert (found.code, found.out.splitlines()[-1]) == (0, "Nothing was checked: no vendor is configured.")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("serve", "--port", "0", "--workers", "2"), ("worker",)])
async def test_a_start_logs_one_line_for_a_key_at_hand_and_none_for_one_in_use(
    arguments: tuple[str, ...], database_url: str, tmp_path: Path
) -> None:
    environment = {
        "FAL_KEY": AT_HAND,
        "ARK_API_KEY": AT_HAND,
        "STABILITY_API_KEY": AT_HAND,  # of no kind
        "OPENAI_API_KEY": AT_HAND,
    }
    settings: dict[str, Any] = {
        "database_url": database_url,
        "data_dir": tmp_path / "data",
        "providers__seedance__kind": "ark",
        "providers__seedance__api_key": AT_HAND,
    }
    async with running(*arguments, cwd=tmp_path, environment=environment, **settings) as child:
        await child.line('"started"|worker started')
        await child.stop()
    lines = [line for line in child.printed.splitlines() if "vendor key not used" in line]
    assert len(lines) == 1, child.printed
    assert LINE in lines[0]
    assert AT_HAND not in child.printed
