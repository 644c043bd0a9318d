"""The commands of docs/console.md."""

import re

import pages
import pytest
from commands import Command
from console.conftest import visitor_at
from harness import ALICE, StartGateway
from money import ADMIN, operator_of

pytestmark = pytest.mark.anyio

LINES = [re.sub(" +#.*", "", line).split()[1:] for line in pages.read("docs/console.md").one("sh").splitlines()]


async def test_each_link_signs_in_its_holder(start_gateway: StartGateway, command: Command, database_url: str) -> None:
    async with start_gateway(admin_key=ADMIN) as gateway, operator_of(gateway) as admin:
        key = await admin.key("web")
        for line, start in ((LINES[0], "playground"), (LINES[1], "overview"), ([*LINES[0], key["id"]], "playground")):
            done = await command(
                *line, database_url=database_url, api_keys=ALICE, admin_key=ADMIN, pepper="a pepper of the tests"
            )
            assert done.code == 0, done.err
            address = done.out.strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:8080/console/login\?code=[\w-]{32}", address)
            visitor = visitor_at(gateway)
            async with visitor.client:
                signed_in = await visitor.post("/console/login", {"code": address.partition("=")[2]})
                assert signed_in.status_code == 303
                assert (await visitor.get("/console")).headers["location"] == f"/console/{start}"
