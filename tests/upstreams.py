"""Several OpenAI-shaped upstreams behind one gateway, shared by several folders."""

from typing import Any

from fakes.openai import FakeOpenAI
from fakes.server import KEY


class Upstreams:
    """Several OpenAI-shaped upstreams, each a provider of its own."""

    def __init__(self, **fakes: FakeOpenAI) -> None:
        self.fakes = fakes
        self.urls: dict[str, str] = {}

    def providers(self, **config: Any) -> dict[str, Any]:
        return {
            name: {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, **config}
            for name, url in self.urls.items()
        }
