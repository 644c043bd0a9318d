"""The command line: help with examples, keys, models, and a video from one command."""

import asyncio
import os
import socket
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from harness import ALICE
from processes import Child, Served, ran, served, until
from typer.testing import CliRunner

from app.cli.main import cli

pytestmark = pytest.mark.anyio

HELP = {
    "": ["serve", "worker", "migrate", "models", "generate", "keys", ".env.example", "in another terminal"],
    "serve": ["--host", "--port", "--workers", "--no-worker", "GATEWAY_DATABASE_URL", "sandbox/testcard", "8080"],
    "worker": ["without serving requests", "on any number of machines", "--once", "--concurrency", "--metrics-port"],
    "migrate": ["schema", "Safe to run at any time"],
    "models": ["the models that a request can name"],
    "keys": ["create", "list", "update", "revoke"],
    "projects": ["create", "list", "update", "credit"],
    "audit": ["--actor", "--since", "--json", "newest first"],
    "usage": ["--by", "--since", "--csv", "project,model"],
    "keys create": ["NAME", "--project", "only once", "default: a project of its own", "--monthly-budget", "none"],
    "doctor": ["--strict", "--json", "Exit code 1 if a check failed", "no call costs money"],
    "status": ["--json", "decisions that wait for you", "Exit code 1 if the database cannot be reached"],
    "config show": ["--all", "--json", "Secrets are masked"],
    "config check": ["no database and no network", "Exit code 1 if a start would be refused"],
    "pepper adopt": ["--yes", "give up what was made with another", "Keys stay listed"],
    "keys list": ["without their secrets"],
    "keys revoke": ["KEY", "Id or name", "within a second"],
    "cancel": ["VIDEO_ID", "stays as it is"],
    "generate": [
        "PROMPT",
        "--resume",
        "printed first",
        "not the video",
        "--model",
        "--seconds",
        "--size",
        "--out",
        "OPENAI_BASE_URL",
        "default: the server's",
    ],
}


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> dict[str, Any]:
    return {
        "database_url": database_url,
        "data_dir": tmp_path / "data",
        "api_keys": ALICE,
        "pepper": "a pepper of the tests",
        "worker_tick_s": 0.05,
    }


@pytest.fixture
async def gateway(settings: dict[str, Any], tmp_path: Path) -> AsyncIterator[Served]:
    async with served(cwd=tmp_path, **settings) as running:
        yield running


@pytest.mark.parametrize("command", HELP)
def test_help_explains_each_command(command: str) -> None:
    result = CliRunner().invoke(cli, [*command.split(), "--help"], env={"COLUMNS": "160", "TERM": "dumb"})
    assert result.exit_code == 0
    shown = " ".join(result.output.replace("│", " ").split()).lower()
    assert [words for words in HELP[command] if words.lower() not in shown] == []


@pytest.mark.parametrize("arguments", [["serv"], ["serve", "--port", "99999"], ["keys", "revoke"], ["generate"]])
def test_wrong_usage_ends_with_a_message_and_exit_code_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.output
    assert "Traceback" not in result.output


async def test_a_key_is_created_listed_changed_and_revoked(
    gateway: Served, settings: dict[str, Any], tmp_path: Path
) -> None:
    async def status(key: str) -> int:
        async with gateway.client() as client:
            return (await client.get("/v1/videos", headers={"authorization": f"Bearer {key}"})).status_code

    project = await ran("projects", "create", "acme", cwd=tmp_path, **settings)
    names = ["for [/bold] reports", "unused"]
    used, unused = await asyncio.gather(
        *(ran("keys", "create", name, "--project", "acme", cwd=tmp_path, **settings) for name in names)
    )
    keys = used.out + unused.out
    assert [len(child.out) for child in (used, unused)] == [1, 1], "the key alone goes to standard output"
    assert f"project {project.out[0]}" in used.err[0]
    assert await status(keys[0]) == 200

    listed = await ran("keys", "list", cwd=tmp_path, **settings)
    rows = {line.split()[0]: line for line in listed.out if line.strip().startswith("key_")}
    assert len(rows) == 2
    for name, key in zip(names, keys, strict=True):
        assert any(name in row and f"…{key[-4:]}" in row and project.out[0] in row for row in rows.values())
        assert key not in listed.printed

    gone = await asyncio.gather(*(ran("keys", "revoke", key_id, cwd=tmp_path, **settings) for key_id in rows))
    assert {f"The key {name} is revoked." for name in names} == {child.out[0] for child in gone}
    assert await status(keys[1]) == 401, "never seen by this server, so nothing to forget"

    async def refused() -> bool | None:
        return await status(keys[0]) == 401 or None

    async with asyncio.timeout(5):
        await until(refused)


async def test_a_projects_money_is_credited_limited_and_reported(
    gateway: Served, settings: dict[str, Any], tmp_path: Path
) -> None:
    async def run(*arguments: str) -> Child:
        return await ran(*arguments, cwd=tmp_path, **settings)

    project = (await run("projects", "create", "Studio", "--billing", "prepaid")).out[0]
    credited = await run("projects", "credit", "Studio", "12.50", "--reference", "invoice 1")
    assert credited.out == ["$12.5 credited to Studio; it may spend $12.5."]
    limits = ("--model", "sandbox/*", "--requests-per-minute", "600", "--concurrent-jobs", "2", "--max-cost", "3.5")
    budget = ("--monthly-budget", "5", "--expires", "90d")
    key = (await run("keys", "create", "cutter", "--project", "Studio", *limits, *budget)).out[0]
    async with gateway.client() as client:
        headers = {"authorization": f"Bearer {key}", "x-app-id": "[31mred"}
        body = {"prompt": "x", "model": "sandbox/testcard", "seconds": "1", "user": "evil\x1b]0;title"}
        created = await client.post("/v1/videos", json=body, headers=headers)
        assert created.status_code == 202, created.text
        assert (await client.get("/v1/balance", headers=headers)).json()["available"]["amount"] == 5
    listed, keys = await asyncio.gather(run("projects", "list"), run("keys", "list", "--project", "Studio"))
    (row,) = (line for line in listed.out if project in line)
    assert row.split()[:4] == [project, "Studio", "prepaid", "$12.5"]
    (row,) = (line for line in keys.out if "cutter" in line)
    assert all(limit in row for limit in ("sandbox/*", "600", "2", "$5", "$3.5"))
    key_id = row.split()[0]
    await asyncio.gather(
        run("keys", "update", key_id, "--monthly-budget", "none", "--model", "none", "--name", "editor"),
        run("projects", "update", "Studio", "--name", "Movies", "--monthly-budget", "7", "--kind", "sandbox"),
    )
    again, used, sheet = await asyncio.gather(
        run("keys", "list"), run("usage", "--by", "project,app,user"), run("usage", "--by", "project", "--csv", "-")
    )
    (row,) = (line for line in again.out if key_id in line)
    assert "editor" in row
    assert "sandbox/*" not in row
    (row,) = (line for line in used.out if "Movies" in line)
    assert next(line for line in used.out if "Total" in line).split()[:2] == ["Total", "1"]
    assert "[31mred" in row
    assert used.printed.replace("\n", "").isprintable()
    money = "cost_usd,held_usd,unpriced_outputs,reported_usd,underpriced_usd"
    assert sheet.out[0] == f"project,jobs,outputs,seconds,{money},completed,failed,cancelled,mean_duration_s"
    assert any(line.startswith(f"{project},1,") for line in sheet.out)


async def test_invalid_keys_and_projects_are_refused_with_one_message(settings: dict[str, Any], tmp_path: Path) -> None:
    wrong = [
        (("keys", "create", "two\nlines"), "a name is 1 to 100 printable characters"),
        (("keys", "create", " "), "a name is 1 to 100 printable characters"),
        (("keys", "create", "x", "--project", "\x1b[31m"), "no project has the id or name"),
        (("keys", "create", "x", "--monthly-budget", "a lot"), "monthly-budget: expected US dollars such as 25"),
        (("keys", "create", "x", "--expires", "soon"), "expires: expected 90d, 12h or 2027-01-31"),
        (("keys", "create", "x", "--expires", "9999-12-31T23:59:59-12:00"), "expires_at: expected a moment from the"),
        (("keys", "update", "key_x", "--concurrent-jobs", "0"), "no key has the id"),
        (("keys", "create", "x", "--max-cost", "-1"), "max-cost: expected 0 or more"),
        (("projects", "create", "x", "--kind", "sora"), "kinds: expected one or more of lunos, lumenfall"),
        (("projects", "credit", "unknown", "5"), "no project has the id or name"),
        (("usage", "--by", "colour"), "by: expected any of project, key, model"),
        (("keys", "revoke", "key_[/x]\x07"), "no key has the id"),
    ]
    children = await asyncio.gather(*(ran(*arguments, cwd=tmp_path, code=1, **settings) for arguments, _ in wrong))
    for child, (_, message) in zip(children, wrong, strict=True):
        assert child.out == []
        assert child.err[-1].startswith(f"video-gateway: {message}")
        assert child.printed.replace("\n", "").isprintable()


async def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    child = await ran("--version", cwd=tmp_path)
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    assert child.out == [f"video-gateway {project['version']}"]


async def test_models_lists_providers_that_serve_any_model(tmp_path: Path) -> None:
    keys: dict[str, Any] = {
        "providers__lumenfall__api_key": "x",
        "providers__lumen__api_key": "y",
        "providers__lunos__api_key": "z",
    }
    child = await ran("models", cwd=tmp_path, **keys)
    rows = [line.split() for line in child.out]
    assert ["lumenfall/<any", "model>", "lumenfall", "any", "any"] in rows
    assert ["lumen/<any", "model>", "lumen", "4–3600", "480p,", "720p,", "1080p"] in rows
    assert not any(row[0].startswith(("lunos/<", "sandbox/<")) for row in rows if row)


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
    assert rows[0] == ["Model", "Goes", "to", "Seconds", "Sizes", "$", "per", "second"]
    assert rows[1] == ["[/sora]-2", "sandbox/testcard", "1–60", "any", "0"]
    assert rows[2] == ["studio/wan", "any", "any", "not", "known"]
    names = ["sandbox/testcard", "sandbox/slow", "sandbox/fail", "sandbox/reject", "studio/<any"]
    assert [row[0] for row in rows[3:]] == names


async def test_models_shows_what_vendors_without_a_key_would_serve(tmp_path: Path) -> None:
    keys: dict[str, Any] = {
        "providers__fal__api_key": "x",
        "providers__gemini__api_key": "y",
        "providers__gemini__enabled": "false",
    }
    listed, everything = await asyncio.gather(
        ran("models", cwd=tmp_path, **keys), ran("models", "--all", cwd=tmp_path, **keys)
    )
    rows = [" ".join(line.split()) for line in listed.out]
    dimmed = "ark/dreamina-seedance-2-0-260128 (off: no key) 4–15 480p, 720p, 1080p, 2160p 0.0703–0.7776"
    assert f"seedance-2.0 {dimmed}" in rows
    assert "fal/bytedance/seedance-2.0 4–15 480p, 720p, 1080p, 2160p 0.1346–1.5552" in rows
    assert any("gemini/veo-3.1-generate-001 (off: disabled)" in row for row in rows)
    assert not any(row.startswith(("gemini-omni-1.2-flash", "ark/dreamina-seedance-2-0-fast")) for row in rows)
    assert any(line.split()[:1] == ["gemini-omni-1.2-flash"] for line in everything.out)
    assert rows[-1] == "`video-gateway providers` has the settings of those that are off."


async def test_an_alias_is_written_to_the_file_once(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text('log_level = "error"\n')
    child = await ran("alias", "sora-2", "sandbox/slow", cwd=tmp_path)
    assert "sora-2 goes to sandbox/slow after the next start." in child.out
    written = (tmp_path / "gateway.toml").read_text()
    assert written.endswith('[models."sora-2"]\nroutes = ["sandbox/slow"]\nunsupported = "drop"\n')
    listed = await ran("models", cwd=tmp_path)
    assert listed.out[1].split()[:2] == ["sora-2", "sandbox/slow"]
    for name, model, words in (
        ("sora-2", "sandbox/fail", "the alias sora-2 exists"),
        ("clip", "sandbox/gone", "sandbox has no model gone"),
        ("clip", "sora-2", "expected provider/upstream-model, or a model of the catalogue"),
        ("clip", "seedance-2.0", "expected provider/upstream-model, or a model of the catalogue that a provider here"),
        ("two\nlines", "sandbox/fail", "printable characters"),
    ):
        refused = await ran("alias", name, model, cwd=tmp_path, code=1)
        assert words in " ".join(refused.err)
    assert (tmp_path / "gateway.toml").read_text() == written


async def test_generate_saves_the_video_and_prints_only_its_path(
    gateway: Served, settings: dict[str, Any], tmp_path: Path
) -> None:
    generate = ("generate", "a kite", "--seconds", "1", "--size", "128x128", "--url", f"{gateway.url}/v1/")
    folder = tmp_path / "videos"
    folder.mkdir()
    named, placed = await asyncio.gather(
        ran(*generate, "--out", "kite.mp4", cwd=tmp_path, **settings),
        ran(*generate, "--model", "sandbox/testcard", "--out", str(folder), cwd=tmp_path, **settings),
    )
    assert named.out == ["kite.mp4"]
    assert is_video(tmp_path / "kite.mp4")
    (path,) = placed.out
    assert Path(path).parent == folder
    assert Path(path).name.startswith("video_")
    assert is_video(Path(path))
    assert {".part"} & {name[-5:] for name in os.listdir(tmp_path)} == set()


def is_video(path: Path) -> bool:
    return path.read_bytes()[4:8] == b"ftyp"


async def test_generate_prints_the_reason_of_a_failure(
    gateway: Served, settings: dict[str, Any], tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        unreachable = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    url = f"{gateway.url}/v1"
    wrong = [
        (("--url", unreachable), f"{unreachable} cannot be reached (ConnectError); is the server running there?"),
        (("--url", url, "--model", "sandbox/fail"), "video_"),
        (("--url", url, "--model", "sandbox/testcart"), "the model 'sandbox/testcart' does not exist; did you mean"),
        (("--url", url, "--key", "nope"), "the API key is not valid"),
        (("--url", gateway.url), "there is nothing at this address"),
        (("--url", url, "--out", "none/clip.mp4"), "none/clip.mp4 cannot be written: there is no directory"),
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
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-another-server")
    child = await ran("generate", "a kite", cwd=tmp_path, code=1)
    assert child.err[0].startswith(f"video-gateway: there is no API key in {tmp_path / 'data'}. Give one with --key")
    assert not (tmp_path / "data").exists()
