"""Mistakes of an operator, each answered by one message that names the next step."""

import asyncio
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import ALICE, StartGateway
from processes import ran
from refusals import refused

pytestmark = pytest.mark.anyio

TOML = """
[models.lost]
routes = ["nope/x", "lumen/seedance-2"]
[models.half]
routes = ["sandbox/testcard", "nope/x"]
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that other users may pass through, as the database's user must."""
    with tempfile.TemporaryDirectory(prefix="video-gateway-") as name:
        Path(name).chmod(0o711)
        yield Path(name).resolve()


async def test_models_shows_aliases_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(TOML)
    child = await ran("models", cwd=tmp_path)
    (lost,) = (" ".join(line.split()) for line in child.out if line.split()[:1] == ["lost"])
    assert lost == (
        "lost left out: there is no provider nope; the provider lumen is not configured; set "
        "GATEWAY_PROVIDERS__LUMEN__API_KEY"
    )
    assert any(line.split()[:2] == ["half", "sandbox/testcard"] for line in child.out)
    assert sum("alias left out" in line for line in child.err) == 1


async def test_a_client_that_names_such_an_alias_learns_that_it_is_configured(start_gateway: StartGateway) -> None:
    async with start_gateway(models={"lost": {"routes": ["nope/x"]}}) as gateway:
        answer = await gateway.client.post("/v1/videos", json={"prompt": "x", "model": "lost"})
        assert "'lost' is configured, but none of its providers is" in refused(answer, "model", 404)
        listed = (await gateway.client.get("/v1/models")).json()["data"]
        assert "lost" not in {model["id"] for model in listed}


async def test_an_unknown_variable_is_reported_once_by_every_command(tmp_path: Path) -> None:
    child = await ran("models", cwd=tmp_path, databse_url="sekret")
    (line,) = (line for line in child.err if "GATEWAY_DATABSE_URL" in line)
    assert "GATEWAY_DATABSE_URL is not a setting; did you mean GATEWAY_DATABASE_URL?" in line
    assert "sekret" not in child.printed
    (tmp_path / ".env").write_text("GATEWAY_DATABSE_URL=sekret\n")
    commands = (("serve",), ("worker",), ("migrate",), ("keys", "list"), ("generate", "x"))
    for other in await asyncio.gather(*(ran(*command, cwd=tmp_path, code=1) for command in commands)):
        assert other.err == [
            "video-gateway: .env, line 1: GATEWAY_DATABSE_URL is not a setting; did you mean GATEWAY_DATABASE_URL?"
        ]
    assert not (tmp_path / "data").exists(), "no embedded database was started instead"


async def test_a_wrong_address_is_distinguished_from_a_port_that_is_taken(database_url: str, tmp_path: Path) -> None:
    shared: dict[str, Any] = {"database_url": database_url, "pepper": "a pepper of the tests", "api_keys": ALICE}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        commands: list[tuple[tuple[str, ...], dict[str, Any]]] = [
            (("serve", "--host", "192.0.2.1"), {}),
            (("serve", "--host", "no such host"), {}),
            (("serve", "--host", "x" * 70), {}),
            (("worker",), {"host": "192.0.2.1", "worker_metrics_port": port}),
            (("serve", "--port", str(port)), {}),
            (("worker",), {"worker_metrics_port": port}),
        ]
        children = await asyncio.gather(*(ran(*c, cwd=tmp_path, code=1, **shared, **more) for c, more in commands))
    for child in children:
        assert "Traceback" not in child.printed
    for child in children[:4]:
        assert child.err[-2].startswith("video-gateway: cannot listen on ")
        assert child.err[-1].startswith("Choose an address of this machine by --host or GATEWAY_HOST: 127.0.0.1")
    for child, hint in zip(children[4:], ("video-gateway serve --port ", "GATEWAY_WORKER_METRICS_PORT="), strict=True):
        assert child.err[-2].startswith(f"video-gateway: cannot listen on port {port} of 127.0.0.1: ")
        assert child.err[-1].startswith(f"Another port: {hint}")


async def test_text_that_cannot_be_sent_is_not_a_server_that_cannot_be_reached(tmp_path: Path) -> None:
    not_utf8 = os.fsdecode(b"a kite \xff")
    wrong = [
        ((not_utf8, "--key", "x"), "prompt is not UTF-8 text; check the encoding of the terminal"),
        (("x", "--model", not_utf8, "--key", "x"), "model is not UTF-8 text"),
        (("x", "--key", "kéy"), "the API key has characters that no key has; check --key and OPENAI_API_KEY"),
        (("x", "--key", "x", "--url", f"http://{'a' * 80}é.example/v1"), "is not an address; --url expects"),
        (("x", "--key", "x", "--url", "127.0.0.1/v1"), "is not an address; --url expects http://host:port/v1"),
    ]
    children = await asyncio.gather(*(ran("generate", *arguments, cwd=tmp_path, code=1) for arguments, _ in wrong))
    for child, (_, message) in zip(children, wrong, strict=True):
        assert message in child.err[-1]
        assert "cannot be reached" not in child.printed
        assert "Traceback" not in child.printed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
async def test_a_database_of_another_user_is_named_with_its_owner(home: Path) -> None:
    pgdata = home / "data" / "postgres"
    pgdata.mkdir(parents=True)
    os.chown(pgdata, 4242, 4242)
    child = await ran("keys", "list", cwd=home, code=1)
    assert child.err[-1].startswith(f"video-gateway: {pgdata} belongs to uid 4242, and PostgreSQL would run as ")
    assert f" {pgdata}" in child.err[-1].partition("chown -R ")[2]


async def test_a_data_directory_that_cannot_be_written_is_named(database_url: str, tmp_path: Path) -> None:
    media = tmp_path / "data" / "media"
    media.parent.mkdir()
    media.write_text("a file in the way")
    settings = {
        "database_url": database_url,
        "data_dir": media.parent,
        "api_keys": ALICE,
        "pepper": "a pepper of the tests",
    }
    child = await ran("worker", cwd=tmp_path, code=1, **settings)
    assert child.err[-1].startswith(f"video-gateway: GATEWAY_DATA_DIR: cannot write to {media}: ")
