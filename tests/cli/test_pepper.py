"""The pepper, the first key and short secrets: one database, processes that do not agree."""

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import ALICE
from processes import address_of, ran, running, served

pytestmark = pytest.mark.anyio

PEPPER, OTHER = "a pepper of sixteen characters", "another pepper of that length"
MISMATCH = (
    "video-gateway: GATEWAY_PEPPER is not the one that this database's keys were made with. Set that of the other"
)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> dict[str, Any]:
    return {"database_url": database_url, "data_dir": tmp_path / "data", "pepper": PEPPER, "log_format": "json"}


def without(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


async def test_a_process_with_another_pepper_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    (key,) = (await ran("keys", "create", "first", cwd=tmp_path, **settings)).out
    wrong = {**settings, "pepper": OTHER}
    none = {**without(settings, "pepper"), "data_dir": tmp_path / "fresh"}
    serve = ("serve", "--port", "0")
    commands = (serve, (*serve, "--workers", "2"), ("worker",), ("keys", "create", "second"))
    children = await asyncio.gather(
        *(ran(*command, cwd=tmp_path, code=1, **values) for values in (wrong, none) for command in commands)
    )
    for child in children:
        assert "Traceback" not in child.printed
        assert child.out == []
    for child in children[:4]:
        assert child.err[-1].startswith(MISMATCH)
        assert "video-gateway pepper adopt" in child.err[-1]
    for child in children[4:]:
        assert child.err[-1].startswith(
            "video-gateway: this database was set up with another pepper, and there is none here."
        )
    assert not (tmp_path / "fresh" / "secrets" / "pepper").exists()
    listed = await ran("keys", "list", cwd=tmp_path, **settings)
    assert not any("second" in line for line in listed.out)
    async with served(cwd=tmp_path, **settings, api_keys=ALICE) as gateway, gateway.client() as client:
        answer = await client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 200


async def test_another_pepper_is_adopted_on_demand_only(settings: dict[str, Any], tmp_path: Path) -> None:
    await ran("keys", "create", "first", cwd=tmp_path, **settings)
    wrong = {**settings, "pepper": OTHER}
    asked, same, missing = await asyncio.gather(
        ran("pepper", "adopt", cwd=tmp_path, code=1, **wrong),  # there is no terminal that could say yes
        ran("pepper", "adopt", "--yes", cwd=tmp_path, **settings),
        ran("pepper", "adopt", "--yes", cwd=tmp_path, code=1, **without(settings, "pepper")),
    )
    assert "stop working" in asked.printed
    assert same.out == ["It is this database's pepper already; nothing is changed."]
    assert "there is no pepper here to adopt; set GATEWAY_PEPPER" in missing.err[-1]
    done = await ran("pepper", "adopt", "--yes", cwd=tmp_path, **wrong)
    assert done.out[0].startswith("The pepper is adopted; keys that are useless now: 1. ")
    refused, _ = await asyncio.gather(
        ran("keys", "create", "second", cwd=tmp_path, code=1, **settings),
        ran("keys", "create", "second", cwd=tmp_path, **wrong),
    )
    assert refused.err[-1].startswith(MISMATCH)
    listed = await ran("keys", "list", cwd=tmp_path, **wrong)
    assert [name in listed.printed for name in ("first", "second")] == [True, True]


async def test_a_database_of_an_older_release_gets_its_fingerprint_from_a_server(
    settings: dict[str, Any], database_url: str, tmp_path: Path
) -> None:
    """Not from a command: that may be the one with the wrong pepper."""
    await ran("keys", "create", "old", cwd=tmp_path, **settings)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("delete from deployment")
        await ran("keys", "create", "elsewhere", cwd=tmp_path, **{**settings, "pepper": OTHER})
        assert (await (await connection.execute("select * from deployment")).fetchall()) == []
    async with served(cwd=tmp_path, **settings, api_keys=ALICE):
        pass
    refused = await ran("worker", cwd=tmp_path, code=1, **{**settings, "pepper": OTHER})
    assert refused.err[-1].startswith(MISMATCH)


async def test_no_first_key_is_made_for_a_shared_database(settings: dict[str, Any], tmp_path: Path) -> None:
    shown = {**settings, "log_format": "console"}
    async with running("serve", "--port", "0", "--no-worker", cwd=tmp_path, **shown) as child:
        await child.line("Ctrl-C")
        assert "No API key yet: video-gateway keys create NAME" in child.out
        assert "No worker runs here: start `video-gateway worker`." in child.out
        assert "Try it" not in child.printed
    assert not (tmp_path / "data" / "secrets" / "api-key").exists()
    await ran("keys", "create", "first", cwd=tmp_path, **settings)
    assert len((await ran("projects", "list", cwd=tmp_path, **settings)).out) == 2, "the table's head, and the key's"
    async with running("serve", "--port", "0", "--workers", "2", cwd=tmp_path, **shown) as child:
        await child.line("Ctrl-C")
        assert "API keys: those created with `video-gateway keys create`" in child.out
        assert "Try it in another terminal:" in child.out


async def test_projects_of_static_keys_have_the_names_of_the_settings(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(f'[api_keys]\n"web shop" = "{ALICE}"\n')
    for name in ("web shop", "shop"):
        (tmp_path / "gateway.toml").write_text(f'[api_keys]\n"{name}" = "{ALICE}"\n')
        async with running("serve", "--port", "0", "--no-worker", cwd=tmp_path, **settings) as child:
            url = await address_of(child)
            made = await ran("generate", "x", "--url", f"{url}/v1", "--model", "none", cwd=tmp_path, code=1, **settings)
            assert "the model 'none' does not exist" in made.printed, "the key of the settings is sent and accepted"
        listed = await ran("projects", "list", cwd=tmp_path, **settings)
        (row,) = (line for line in listed.out if "static_" in line)
        assert f" {name}  " in row


async def test_short_secrets_are_refused_on_a_new_external_address(settings: dict[str, Any], tmp_path: Path) -> None:
    weak = {**settings, "pepper": "x", "admin_key": "abc", "metrics_key": "m", "api_keys": "a,b"}
    weak["admin_keys"] = '{"alice": "abcd"}'
    serve = ("serve", "--port", "0", "--no-worker")
    refused = await ran(*serve, "--host", "0.0.0.0", cwd=tmp_path, code=1, **weak)
    assert [line.partition(" fewer ")[0] for line in refused.err[-3:]] == [
        "video-gateway: GATEWAY_PEPPER: it has",
        "GATEWAY_ADMIN_KEY: it has",
        "GATEWAY_ADMIN_KEYS: a key in it has",
    ]
    assert refused.err[-1].endswith("openssl rand -hex 32")
    for host in ("127.0.0.1", "0.0.0.0"):  # now it is an installation that runs, which is not stopped
        async with running(*serve, "--host", host, cwd=tmp_path, **weak) as child:
            await address_of(child)
            warned = {name for line in child.err for name in line.split('"') if name.startswith("GATEWAY_")}
            assert {name.partition(":")[0] for name in warned} == {
                f"GATEWAY_{name}" for name in ("PEPPER", "ADMIN_KEY", "ADMIN_KEYS", "METRICS_KEY", "API_KEYS")
            }


async def test_a_set_up_that_makes_a_new_pepper_at_each_start_goes_on(settings: dict[str, Any], tmp_path: Path) -> None:
    """As containers without a volume do, whose keys are in the settings; a new installation has to name its pepper."""
    keys = without(settings, "pepper") | {"api_keys": ALICE}
    async with served(cwd=tmp_path, **keys) as gateway:
        assert "pepper made for a shared database" in gateway.child.printed
    fresh = keys | {"data_dir": tmp_path / "second"}
    refused = await ran("serve", "--port", "0", cwd=tmp_path, code=1, **fresh)
    assert "this database was set up with another pepper" in refused.err[-1]
    async with await psycopg.AsyncConnection.connect(settings["database_url"], autocommit=True) as connection:
        await connection.execute(b"delete from deployment")  # an older release has used it
    for name in ("third", "fourth"):
        async with (
            served(cwd=tmp_path, **keys | {"data_dir": tmp_path / name}) as gateway,
            gateway.client() as client,
        ):
            assert (await client.get("/v1/models")).status_code == 200
            assert "pepper made for a shared database" in gateway.child.printed
