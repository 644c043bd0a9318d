"""The code in docs/events.md is run while videos are made."""

import asyncio
import json
from typing import Any

import pages
import pytest
from docs.listening import Listening
from harness import ALICE

from app.accounts.stream_tokens import LIFETIME
from app.http import stream
from app.jobs import changes

pytestmark = pytest.mark.anyio

PAGE = pages.read("docs/events.md")
CURL, TOKEN = PAGE.one("sh", "curl -sN"), PAGE.one("sh", "events/token")
PYTHON, MADE = PAGE.one("python"), PAGE.one("json")


async def making(listening: Listening) -> None:
    """Make videos until cancelled, so that one comes after the example has connected."""
    while True:
        await listening.finished(seconds=1, size="128x128")


async def test_curl_prints_events(listening: Listening) -> None:
    others = asyncio.create_task(making(listening))
    out = await listening.bash(CURL)
    others.cancel()
    await asyncio.wait({others})
    assert "event: video.status\n" in out
    assert pages.shape(json.loads(await listening.bash(TOKEN))) == pages.shape(json.loads(MADE))


async def test_the_python_example_follows_a_video_to_its_end(
    listening: Listening, capsys: pytest.CaptureFixture[str]
) -> None:
    code = pages.replaced(PYTHON, vgw_=ALICE).replace("http://localhost:8080", listening.url)
    others = asyncio.create_task(making(listening))
    names: dict[str, Any] = {}
    await asyncio.to_thread(exec, compile(code, "docs/events.md", "exec"), names)
    others.cancel()
    await asyncio.wait({others})
    assert names["data"]["status"] == "completed"
    assert "video.status" in capsys.readouterr().out


def test_numbers_in_the_page_are_those_of_the_code() -> None:
    assert (stream.PACE.seconds, stream.MAX_SHOWN_RUNNING, stream.MAX_MISSED, stream.KEEP_ALIVE_S) == (5, 200, 500, 15)
    assert (LIFETIME.seconds, changes.REMEMBERED.seconds, changes.LATE.seconds) == (300, 3_600, 10)
