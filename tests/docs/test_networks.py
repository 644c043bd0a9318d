"""The settings of docs/networks.md; its proxies are run by tests/fleet/test_behind_proxies.py."""

from pathlib import Path

import pages
from pydantic import SecretStr

from app.setting_types import read_proxy
from app.settings import load

PROXIES = pages.read("docs/networks.md").one("sh", "GATEWAY_HTTP_PROXY")


def test_the_settings_for_outbound_proxies_are_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(pages.replaced(PROXIES, **{"site:": "site:a-password"}), "utf-8")
    settings = load(_env_file=tmp_path / ".env")

    def name(setting: SecretStr | None) -> str | None:
        found = None if setting is None else read_proxy(setting.get_secret_value())
        return None if found is None else str(found)

    assert name(settings.http_proxy) == "http://***@proxy.example.com:3128"
    assert name(settings.webhook_proxy) == "http://proxy.example.com:3128"
    assert settings.providers == {"studio": {"proxy": "none"}}
