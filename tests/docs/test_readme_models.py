"""The README's providers and aliases; a file of its own, so that it runs beside the other ones."""

from pathlib import Path

import pages
import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PAGE = pages.read("README.md")
VENDORS, ALIASES = PAGE.one("sh", "PROVIDERS__LUMEN"), PAGE.one("toml")


async def test_providers_and_aliases_appear_among_the_models(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(ALIASES, "utf-8")
    look = "video-gateway config check\nvideo-gateway models"
    listed = await pages.shell(f"{VENDORS}\n{look}", folder=tmp_path, GATEWAY_DATABASE_URL=database_url)
    assert "mistake" not in listed
    for name in ("lumen/seedance-2", "gpu/", "other/", "sora-2", "spread"):
        assert name in listed
