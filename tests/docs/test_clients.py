"""The code in docs/clients.md, run as it is written there by the clients that it is for."""

import base64
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pages
import pytest
from docs.listening import NODE, Listening, is_a_video
from fakes.server import Reset, serve
from harness import ALICE
from openai import AsyncOpenAI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.settings import Settings

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PAGE = pages.read("docs/clients.md")
TOML = PAGE.one("toml")
PYTHON = PAGE.claim("python")
SH = PAGE.claim("sh")
JS = {name: PAGE.one("js", f'from "{name}"') for name in ("openai", "@lunos/client", "@tanstack/ai")}
TS = {"typed": PAGE.one("ts", "GatewayVideo ="), "ai": PAGE.one("ts", 'from "ai"')}
TSC = ("--strict", "--target", "es2022", "--module", "nodenext", "--types", "node", "--skipLibCheck")
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def addressed(code: str, url: str) -> str:
    """The code with the address and a key of this gateway."""
    return pages.replaced(code, vgw_=ALICE).replace("https://video.example.com", url)


async def count(listening: Listening) -> int:
    return len((await listening.gateway.client.get("/v1/videos")).json()["data"])


@pytest.fixture
def project(listening: Listening, node_modules: Path) -> Path:
    """A folder of JavaScript with the packages, and a picture."""
    (listening.folder / "node_modules").symlink_to(node_modules)
    (listening.folder / "boat.png").write_bytes(PNG)
    return listening.folder


async def node(file: str, folder: Path) -> str:
    return await pages.run(*NODE, file, folder=folder)


def test_the_alias_is_a_setting() -> None:
    (routes,) = Settings(_env_file=None, **tomllib.loads(TOML)).models.values()
    assert [str(route) for route in routes.routes] == ["lumen/veo-3-1", "lunos/google/veo-3.0-generate-preview"]


async def test_the_python_examples_make_videos(listening: Listening) -> None:
    quiet = "import warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n"
    script = addressed(quiet + "\n".join(PYTHON), listening.url)
    printed = await pages.run(sys.executable, "-c", script, folder=listening.folder)
    assert f"{listening.url}/media/video_" in printed
    assert is_a_video(listening.folder / "boat.mp4")
    assert await count(listening) == 5


async def test_the_curl_examples_run(listening: Listening) -> None:
    """Each block with a finished video of its own, which it may extend or delete."""
    for block in SH:
        await listening.bash(block, ID=await listening.finished(seconds=1, size="128x128"))
    assert is_a_video(listening.folder / "boat.mp4")


async def test_the_node_example_makes_one_video_from_a_picture(listening: Listening, project: Path) -> None:
    (project / "create.mjs").write_text(addressed(JS["openai"], listening.url), "utf-8")
    await node("create.mjs", project)
    assert is_a_video(project / "boat.mp4")
    await node("create.mjs", project)
    assert await count(listening) == 1, "the second one had the same idempotency key"


@pytest.mark.parametrize("package", ["@lunos/client", "@tanstack/ai"])
async def test_other_node_examples_make_a_video(package: str, listening: Listening, project: Path) -> None:
    (project / "create.mjs").write_text(addressed(JS[package], listening.url), "utf-8")
    assert f"{listening.url}/media/video_" in await node("create.mjs", project)
    assert await count(listening) == 1


async def test_the_typescript_examples_compile_and_make_videos(listening: Listening, project: Path) -> None:
    for name, code in TS.items():
        (project / f"{name}.mts").write_text(addressed(code, listening.url), "utf-8")
    await pages.run("node_modules/.bin/tsc", *TSC, *(f"{name}.mts" for name in TS), folder=project)
    assert "undefined" in await node("typed.mjs", project), "the link comes with the end of the video"
    await node("ai.mjs", project)
    assert is_a_video(project / "boat.mp4")
    videos = (await listening.gateway.client.get("/v1/videos")).json()["data"]
    assert sorted((video["seconds"], video["prompt"]) for video in videos) == [
        ("4", "a paper boat on a pond"),
        ("5", "the boat sails on"),
    ]


@dataclass
class LostAnswer:
    """The gateway behind a connection that dies before the answer to the first POST arrives."""

    app: ASGIApp
    lost: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or self.lost:
            await self.app(scope, receive, send)
            return
        self.lost = True

        async def nowhere(message: Message) -> None:
            pass

        await self.app(scope, receive, nowhere)
        await Reset().play(scope, receive, send)


@pytest.mark.parametrize(("headers", "jobs"), [({}, 2), ({"Idempotency-Key": "order-16"}, 1)])
async def test_the_python_sdk_repeats_a_create_without_an_answer(
    headers: dict[str, str], jobs: int, listening: Listening
) -> None:
    async with serve(LostAnswer(listening.gateway.app)) as url, AsyncOpenAI(base_url=f"{url}/v1", api_key=ALICE) as sdk:
        await sdk.videos.create(model="sora-2", prompt="a paper boat", extra_headers=headers)
    assert await count(listening) == jobs


async def test_the_node_example_makes_one_video_although_the_answer_is_lost(
    listening: Listening, project: Path
) -> None:
    async with serve(LostAnswer(listening.gateway.app)) as url:
        (project / "create.mjs").write_text(addressed(JS["openai"], url), "utf-8")
        await node("create.mjs", project)
    assert is_a_video(project / "boat.mp4")
    assert await count(listening) == 1
