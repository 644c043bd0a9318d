"""Lunos' own client, from npm, drives the gateway; and what its habit of repeating a create would cost."""

import asyncio
import json
import textwrap
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fakes.server import serve
from harness import ALICE, Clock, RealClock, Running, StartGateway
from programs import need

pytestmark = pytest.mark.anyio

PATIENCE_S = 60
HEAD = """
const { LunosClient } = require("@lunos/client");
const options = { apiKey: process.env.KEY, baseUrl: process.env.URL, retryDelay: 100 };
const asked = { model: "sandbox/testcard", prompt: "a paper boat", parameters: { aspectRatio: "16:9" } };

// The first answer to a create is lost on its way back, as by a connection that breaks.
function losing() {
  let lost = 0;
  return async (url, init) => {
    const response = await fetch(url, init);
    if (init.method === "POST" && lost++ === 0) throw new TypeError("fetch failed");
    return response;
  };
}

async function main() {
  const client = new LunosClient({ ...options, appId: "shop" });
"""
TAIL = """
}
main().then((found) => console.log(JSON.stringify(found)), (error) => { console.error(error); process.exit(1); });
"""


@pytest.fixture
def clock() -> Clock:
    """The client waits in real time, so the gateway's time has to pass too."""
    return RealClock()


@pytest.fixture
def package(node_modules: Path, tmp_path: Path) -> Path:
    """A directory in which the client is installed."""
    (tmp_path / "node_modules").symlink_to(node_modules)
    return tmp_path


@dataclass
class Served:
    gateway: Running
    url: str

    async def run(self, package: Path, script: str) -> Any:
        """Run the body of an async function in Node, with `client` and `asked` at hand; returns what it returns."""
        (package / "script.cjs").write_text(HEAD + textwrap.indent(textwrap.dedent(script), "  ") + TAIL)
        process = await asyncio.create_subprocess_exec(
            need("node"),
            "script.cjs",
            cwd=package,
            env={"URL": self.url, "KEY": ALICE},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode == 0, err.decode()
        return json.loads(out)

    async def jobs(self) -> int:
        return len((await self.gateway.client.get("/v1/videos")).json()["data"])


@pytest.fixture
async def served(start_gateway: StartGateway) -> AsyncIterator[Served]:
    quick = {"sandbox": {"testcard_s": 0, "poll_interval_s": 0.05}}
    async with (
        start_gateway(run_worker=True, worker_tick_s=0.02, providers=quick) as gateway,
        serve(gateway.app) as url,
    ):
        yield Served(gateway, url)


@pytest.mark.slow
async def test_the_client_makes_a_video_and_waits_for_it(served: Served, package: Path) -> None:
    found = await served.run(
        package,
        """
        const created = await client.video.generateVideo({ ...asked, response_format: "mp4", user: "u1" });
        const status = await client.video.getVideoStatus(created.id);
        const done = await client.video.generateVideoAndWait(asked, 100, 30000);
        const content = Buffer.from(await (await fetch(done.video_url)).arrayBuffer());
        const wide = await client.video.generateWidescreen({ prompt: "a boat", model: "sandbox/testcard" });
        const mp4 = await client.video.generateMP4({ prompt: "a boat", model: "sandbox/testcard" });
        return { created, status, done, kind: content.toString("latin1", 4, 8), wide, mp4 };
        """,
    )
    created, done = found["created"], found["done"]
    operation = f"operations/sandbox/testcard/{created['id']}"
    assert created == {"id": created["id"], "operation_name": operation, "status": "pending"}
    assert found["status"]["id"] == created["id"]
    assert found["status"]["status"] in ("pending", "completed")
    assert done == {"id": done["id"], "status": "completed", "video_url": done["video_url"]}
    assert found["kind"] == "ftyp"
    assert found["wide"]["status"] == found["mp4"]["status"] == "pending"


@pytest.mark.slow
async def test_the_client_lists_the_models_and_finds_one(served: Served, package: Path) -> None:
    found = await served.run(
        package,
        """
        const names = (models) => models.map((model) => model.id);
        const one = await client.models.getModelById("sandbox/testcard");
        const none = await client.models.getModelById("sandbox/testcrad");
        const video = names(await client.models.getModelsByCapability("video-generation"));
        const chat = await client.models.getChatModels();
        return { all: names(await client.models.getModels()), one, none, video, chat };
        """,
    )
    assert "sandbox/testcard" in found["all"]
    assert found["video"] == found["all"]
    assert (found["one"]["provider"], found["one"]["status"]) == ("sandbox", "available")
    assert (found["none"], found["chat"]) == (None, [])


@pytest.mark.slow
async def test_errors_of_the_client_carry_our_messages(served: Served, package: Path) -> None:
    found = await served.run(
        package,
        """
        const said = {};
        const tell = (name) => (error) => { said[name] = [error.constructor.name, error.status, error.message]; };
        await client.video.generateAndWait({ model: "sandbox/fail", prompt: "p" }, 100, 30000).catch(tell("failed"));
        const once = new LunosClient({ ...options, retries: 0 });
        await once.video.generate({ model: "unknown/model", prompt: "p" }).catch(tell("model"));
        await once.video.getVideoStatus("video-op:user123:1703123456789").catch(tell("id"));
        const stranger = new LunosClient({ ...options, apiKey: "sk-unknown-0123456789" });
        await stranger.video.generate(asked).catch(tell("key"));
        return said;
        """,
    )
    assert "always fails" in found["failed"][2]
    assert found["model"] == ["LunosError", 404, "HTTP 404"]  # it looks for `message`, also in its own string errors
    assert found["id"] == ["LunosError", 404, "HTTP 404"]
    assert found["key"][:2] == ["AuthenticationError", 401]


@pytest.mark.slow
async def test_a_create_that_is_repeated_makes_one_job_with_a_key(served: Served, package: Path) -> None:
    header = """
        const keyed = new LunosClient({ ...options, fetch: losing(), headers: { "Idempotency-Key": "order 17" } });
        return await keyed.video.generateVideo(asked);
    """
    body = """
        const losingOne = new LunosClient({ ...options, fetch: losing() });
        return await losingOne.video.generateVideo({ ...asked, idempotency_key: "order 18" });
    """
    for jobs, script in enumerate((header, body), 1):
        created = await served.run(package, script)
        assert created["id"].startswith("video_")
        assert await served.jobs() == jobs
    without = "return await new LunosClient({ ...options, fetch: losing() }).video.generateVideo(asked);"
    await served.run(package, without)
    assert await served.jobs() == 4  # what a key is for


async def test_a_create_whose_answer_was_lost_is_replayed_by_its_key(served: Served) -> None:
    """The same with nothing between: the connection is closed before the answer is read."""
    address = urlsplit(served.url)
    body = json.dumps({"model": "sandbox/testcard", "prompt": "a paper boat"}).encode()
    headers = {"content-type": "application/json", "idempotency-key": "order 19"}
    head = f"POST /v1/video/generations HTTP/1.1\r\nhost: {address.netloc}\r\nauthorization: Bearer {ALICE}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    async with asyncio.timeout(PATIENCE_S):
        while not await served.jobs():
            pass
    writer.transport.abort()
    again = [await served.gateway.client.post("/v1/video/generations", content=body, headers=headers) for _ in range(3)]
    assert {answer.status_code for answer in again} == {200}
    assert {answer.headers["idempotent-replayed"] for answer in again} == {"true"}
    assert len({answer.json()["id"] for answer in again}) == 1
    assert await served.jobs() == 1
