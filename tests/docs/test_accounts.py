"""The commands and calls of docs/accounts.md, and the prices of docs/providers.md."""

import json
import tomllib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pages
import pytest
from commands import Command
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Elsewhere, Reset, serve
from harness import Clock, StartGateway
from money import ADMIN, Operator, operator_of

from app.settings import Settings

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PAGE = pages.read("docs/accounts.md")
KEYS, CALL = PAGE.one("sh", "keys create"), PAGE.one("sh", "/admin/v1/keys")
BALANCE, CREDIT = json.loads(PAGE.one("json")), PAGE.one("sh", "projects credit")
OWN = PAGE.one("sh", "/v1/me")
USAGE = PAGE.one("sh", "usage --by")
LISTS = PAGE.one("sh", "/admin/v1/videos?")
FIND, FETCH = PAGE.one("sh", '"find"'), PAGE.one("sh", '"fetch"')
PRICES = pages.read("docs/providers.md").one("toml")


@pytest.fixture
def clock() -> Clock:
    """Time that moves on when the test waits for the end of a job."""
    return Clock()


@dataclass(frozen=True)
class Desk:
    """An operator with a shell."""

    admin: Operator
    fake: FakeOpenAI
    folder: Path
    env: dict[str, str]

    async def paste(self, code: str) -> str:
        return await pages.shell(code, folder=self.folder, **self.env)

    async def repair(self, video_id: str, code: str) -> dict[str, object]:
        """Paste a call for the only attempt that needs a decision; returns the video at its end."""
        (entry,) = (await self.admin.ask("GET", "repairs"))["data"]
        assert entry["video"] == video_id
        await self.paste(pages.replaced(code.replace("curl ", "curl -f "), att_=entry["id"]))
        return await self.admin.gateway.finish(video_id)


@pytest.fixture
async def desk(start_gateway: StartGateway, database_url: str, fake: FakeOpenAI, tmp_path: Path) -> AsyncIterator[Desk]:
    folder = tmp_path / "pasted"
    folder.mkdir()
    async with serve(fake) as upstream:
        up = {"kind": "openai", "base_url": f"{upstream}/v1", "api_key": KEY}
        async with (
            start_gateway(providers={"up": up}, admin_key=ADMIN) as gateway,
            serve(gateway.app) as url,
            operator_of(gateway) as admin,
        ):
            env = {"GATEWAY": url, "GATEWAY_ADMIN_KEY": ADMIN}
            yield Desk(admin, fake, folder, env)


async def test_projects_keys_credit_and_usage(desk: Desk, command: Command, tmp_path: Path) -> None:
    async def paste(code: str) -> str:
        """Run the commands of a block; returns what they print."""
        printed = ""
        for program, *words in pages.commands(code):
            assert program == "video-gateway"
            words = [printed[printed.index("key_") :].split()[0] if word == "key_..." else word for word in words]
            done = await command(*words, pepper="a pepper of the tests")
            assert done.code == 0, done.err
            printed += done.out
        return printed

    printed = await paste(KEYS)
    assert "proj_" in printed
    assert "vgw_" in printed
    made = json.loads(await desk.paste(CALL.replace("curl ", "curl -sf ")))
    assert (made["name"], made["models"], made["monthly_budget_usd"]) == ("studio backend", ["lumen/*", "sora-2"], 50)
    await paste(CREDIT)
    async with desk.admin.user({"key": made["key"]}) as client:
        balance = (await client.get("/v1/balance")).json()
    assert pages.shape(balance) == pages.shape(BALANCE)
    assert (balance["billing_type"], balance["available"]["amount"]) == ("prepaid", 50)
    await desk.admin.gateway.create(model="up/sora-2")
    code = LISTS.replace("curl ", "curl -sf ").replace("project=default", f"project={made['project']}")
    failed, boats = (json.loads(line) for line in (await desk.paste(code)).replace("}{", "}\n{").splitlines())
    assert (failed["data"], failed["summary"]["count"]) == ([], 0)
    assert (boats["data"], boats["searched"]) == ([], {"rows": 0, "complete": True})
    assert "up/sora-2" in await paste(USAGE)
    assert (tmp_path / "usage.csv").read_text("utf-8").startswith("day,provider,")


async def test_a_key_asks_about_itself(desk: Desk) -> None:
    key = await desk.admin.key("shop", monthly_budget_usd=3)
    desk.env["KEY"] = key["key"]
    printed = await desk.paste(OWN.replace("curl ", "curl -sf "))
    assert '"available_usd":3.0' in printed
    assert '"by":["day","model"]' in printed
    assert "app,jobs,outputs," in printed


async def test_an_unknown_outcome_is_found(desk: Desk) -> None:
    desk.fake.script("submit", Reset())
    video_id = (await desk.admin.gateway.create(model="up/sora-2"))["id"]
    await desk.admin.gateway.worker.run_once()
    (task,) = desk.fake.jobs
    video = await desk.repair(video_id, FIND.replace("the vendor's id of the task", task))
    assert video["status"] == "completed"


async def test_the_file_of_a_finished_task_is_fetched(desk: Desk) -> None:
    desk.fake.content_call = False
    video_id = (await desk.admin.gateway.create(model="up/sora-2"))["id"]
    assert (await desk.admin.gateway.finish(video_id))["error"]["code"] == "no_output"
    async with serve(Elsewhere()) as url:
        video = await desk.repair(video_id, FETCH.replace("https://cdn.example.com", url))
    assert (video["status"], video["cost"]) == ("completed", 0)


def test_the_prices_are_settings() -> None:
    prices = Settings(_env_file=None, **tomllib.loads(PRICES)).prices
    assert prices["gpu/Wan-AI/Wan2.2-T2V-A14B-Diffusers"] == 0
    assert set(prices) == {"lumen/seedance-2", "gpu/Wan-AI/Wan2.2-T2V-A14B-Diffusers"}
