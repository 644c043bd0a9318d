"""The commands of docs/providers: a key at hand becomes a provider."""

from pathlib import Path

import pages
import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PAGE = pages.read("docs/providers/README.md")
LOOK, ADD = PAGE.one("sh", "video-gateway providers"), PAGE.one("sh", "export")
KEY = "fal-key-at-hand-0123456789"


async def test_the_line_that_is_printed_makes_a_provider_of_a_key_at_hand(tmp_path: Path) -> None:
    (line,) = (words[1] for words in pages.commands(ADD) if words[0] == "export")
    before = await pages.shell(LOOK, folder=tmp_path, FAL_KEY=KEY)
    assert f"add {line}" in before
    after = await pages.shell(f"{ADD}\n{LOOK}", folder=tmp_path, FAL_KEY=KEY)
    assert "provider fal: https://queue.fal.run, enabled, key set" in after
    assert "add GATEWAY" not in after
    assert KEY not in before + after
