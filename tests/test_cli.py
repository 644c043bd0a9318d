"""The command line as a person meets it: help that teaches, keys, models, and a film from one command."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ALICE
from processes import Served, ran, served, until
from typer.testing import CliRunner

from app.cli import cli

pytestmark = pytest.mark.anyio

HELP = {
    "": ["serve", "worker", "migrate", "models", "generate", "keys", ".env.example", "in another terminal"],
    "serve": ["--host", "--port", "--workers", "--no-worker", "GATEWAY_DATABASE_URL", "sandbox/testcard", "8080"],
    "worker": ["without serving requests", "as many as you like"],
    "migrate": ["schema", "Safe to run at any time"],
    "models": ["every model that a request can name"],
    "keys": ["create", "list", "revoke"],
    "keys create": ["NAME", "--owner", "once only", "default: an owner of its own"],
    "keys list": ["without the keys themselves"],
    "keys revoke": ["KEY_ID", "keys list", "within a second"],
    "generate": ["PROMPT", "--model", "--seconds", "--size", "--out", "OPENAI_BASE_URL", "default: the server's"],
}


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> dict[str, Any]:
    return {
        "database_url": database_url,
        "data_dir": tmp_path / "data",
        "api_keys": ALICE,
        "pepper": "test pepper",
        "worker_tick_s": 0.05,
    }


@pytest.fixture
async def gateway(settings: dict[str, Any], tmp_path: Path) -> AsyncIterator[Served]:
    async with served(cwd=tmp_path, **settings) as running:
        yield running


@pytest.mark.parametrize("command", HELP)
def test_help_teaches(command: str) -> None:
    result = CliRunner().invoke(cli, [*command.split(), "--help"], env={"COLUMNS": "160", "TERM": "dumb"})
    assert result.exit_code == 0
    shown = " ".join(result.output.replace("│", " ").split()).lower()
    assert [words for words in HELP[command] if words.lower() not in shown] == []


@pytest.mark.parametrize("arguments", [["serv"], ["serve", "--port", "99999"], ["keys", "revoke"], ["generate"]])
def test_wrong_usage_is_told_with_exit_code_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.output
    assert "Traceback" not in result.output


async def test_life_of_a_key(gateway: Served, settings: dict[str, Any], tmp_path: Path) -> None:
    async def status(key: str) -> int:
        async with gateway.client() as client:
            return (await client.get("/v1/videos", headers={"authorization": f"Bearer {key}"})).status_code

    names = ["for [/bold] reports", "unused"]
    used, unused = await asyncio.gather(
        *(ran("keys", "create", name, "--owner", "acme", cwd=tmp_path, **settings) for name in names)
    )
    keys = used.out + unused.out
    assert [len(child.out) for child in (used, unused)] == [1, 1], "the key alone goes to standard output"
    assert "owner acme" in used.err[0]
    assert await status(keys[0]) == 200

    listed = await ran("keys", "list", cwd=tmp_path, **settings)
    rows = {line.split()[0]: line for line in listed.out if line.strip().startswith("key_")}
    assert len(rows) == 2
    for name, key in zip(names, keys, strict=True):
        assert any(name in row and f"…{key[-4:]}" in row and "acme" in row for row in rows.values())
        assert key not in listed.printed

    gone = await asyncio.gather(*(ran("keys", "revoke", key_id, cwd=tmp_path, **settings) for key_id in rows))
    assert {f"The key {name} is revoked." for name in names} == {child.out[0] for child in gone}
    assert await status(keys[1]) == 401, "never seen by this server, so nothing to forget"

    async def refused() -> bool | None:
        return await status(keys[0]) == 401 or None

    async with asyncio.timeout(5):
        await until(refused)


async def test_keys_that_cannot_be(settings: dict[str, Any], tmp_path: Path) -> None:
    wrong = [
        (("keys", "create", "two\nlines"), "a key's name is 1 to 100 printable characters"),
        (("keys", "create", " "), "a key's name is 1 to 100 printable characters"),
        (("keys", "create", "x", "--owner", "\x1b[31m"), "a key's owner is 1 to 100 printable characters"),
        (("keys", "revoke", "key_[/x]\x07"), "no key has the id"),
    ]
    children = await asyncio.gather(*(ran(*arguments, cwd=tmp_path, code=1, **settings) for arguments, _ in wrong))
    for child, (_, message) in zip(children, wrong, strict=True):
        assert child.out == []
        assert child.err[-1].startswith(f"video-gateway: {message}")
        assert child.printed.replace("\n", "").isprintable()


async def test_models_lists_names_and_where_they_go(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("""
[models."[/sora]-2"]
routes = ["sandbox/testcard", "studio/wan"]
[providers.studio]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
""")
    child = await ran("models", cwd=tmp_path)
    rows = [line.split() for line in child.out]
    assert rows[0] == ["Model", "Goes", "to", "Seconds", "Sizes"]
    assert rows[1][:3] == ["[/sora]-2", "sandbox/testcard,", "studio/wan"]
    assert [row[0] for row in rows[2:]] == ["sandbox/testcard", "sandbox/slow", "sandbox/fail", "sandbox/reject"]


async def test_generate_saves_the_film_and_prints_only_its_path(
    gateway: Served, settings: dict[str, Any], tmp_path: Path
) -> None:
    film = ("generate", "a kite", "--seconds", "1", "--size", "128x128", "--url", f"{gateway.url}/v1/")
    folder = tmp_path / "films"
    folder.mkdir()
    named, placed = await asyncio.gather(
        ran(*film, "--out", "kite.mp4", cwd=tmp_path, **settings),
        ran(*film, "--model", "sandbox/testcard", "--out", str(folder), cwd=tmp_path, **settings),
    )
    assert named.out == ["kite.mp4"]
    assert is_film(tmp_path / "kite.mp4")
    (path,) = placed.out
    assert Path(path).parent == folder
    assert Path(path).name.startswith("video_")
    assert is_film(Path(path))
    assert {".part"} & {name[-5:] for name in os.listdir(tmp_path)} == set()


def is_film(path: Path) -> bool:
    return path.read_bytes()[4:8] == b"ftyp"


async def test_generate_says_what_went_wrong(gateway: Served, settings: dict[str, Any], tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    url = f"{gateway.url}/v1"
    wrong = [
        (("--url", nobody), f"{nobody} cannot be reached (ConnectError); is the server running there?"),
        (("--url", url, "--model", "sandbox/fail"), "video_"),
        (("--url", url, "--model", "sandbox/testcart"), "the model 'sandbox/testcart' does not exist; did you mean"),
        (("--url", url, "--key", "nope"), "the API key is not valid"),
        (("--url", gateway.url), "there is nothing at this address"),
        (("--url", url, "--out", "none/film.mp4"), "none/film.mp4 cannot be written: there is no directory"),
    ]
    children = await asyncio.gather(
        *(ran("generate", "a kite", *arguments, cwd=tmp_path, code=1, **settings) for arguments, _ in wrong)
    )
    for child, (_, message) in zip(children, wrong, strict=True):
        assert child.out == []
        assert any(line.startswith(f"video-gateway: {message}") for line in child.err), child.printed
        assert "Traceback" not in child.printed
    assert "failed: " in children[1].err[-1]
    assert children[0].err[1] == "  video-gateway serve"


async def test_generate_makes_no_key_where_no_server_ever_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-somebody-else")
    child = await ran("generate", "a kite", cwd=tmp_path, code=1)
    assert child.err[0].startswith(f"video-gateway: there is no API key in {tmp_path / 'data'}. Give one with --key")
    assert not (tmp_path / "data").exists()
