"""The cheapest text-to-video of each vendor, and its way through the gateway to a file."""

import asyncio
import os
from dataclasses import dataclass, replace
from typing import Any

from harness import StartGateway
from pydantic import SecretStr

from app.media.sniff import sniff
from app.providers.base import Provider

PROMPT = "A paper boat drifts across a calm pond, seen from above."
ENDED = ("completed", "failed")


@dataclass(frozen=True)
class Case:
    """One request, as cheap as the vendor makes a video of a text."""

    model: str
    fields: dict[str, Any]
    why: str
    """The price, and where it is from."""


CASES = {
    "lunos": Case("google/veo-3.0-generate-preview", {}, "the only model; its length cannot be chosen"),
    "lumenfall": Case("p-video", {}, "from 0.02 dollars a video, the vendor's page of the model, read 2026-11-27"),
    "lumen": Case(
        "seedance-2-fast",
        {"seconds": "4", "resolution": "480p"},
        "no prices are published; the fast model at its least length and resolution",
    ),
    "gptge": Case("luma", {}, "the only model; its length cannot be chosen"),
    "apilaplas": Case(
        "ray-flash-2",
        {"seconds": "5", "resolution": "540p"},
        "no prices are published; Luma's fast model at its least length and resolution",
    ),
    "ark": Case(
        "seedance-1-0-pro-fast-251015",
        {"seconds": "2", "resolution": "480p"},
        "0.0097 dollars a second, the lowest list price in the table of models",
    ),
    "dashscope": Case(
        "wan3.0-video",
        {"seconds": "2", "resolution": "480p"},
        "0.05 dollars a second, the cheapest with a list price in the table of models",
    ),
    "fal": Case(
        "xai/grok-imagine-video/v1.5/lite/text-to-video",
        {"seconds": "1", "resolution": "480p"},
        "0.02 dollars a second, the lowest list price in the table of endpoints",
    ),
    "gemini": Case(
        "gemini-omni-1.1-flash",
        {"seconds": "3", "resolution": "360p"},
        "0.034 dollars a second, the lowest list price in the table of models",
    ),
    "minimax": Case(
        "MiniMax-H3-Max",
        {"seconds": "5", "resolution": "480p"},
        "0.25 dollars a video, the lowest list price of a text-to-video in the tables of models",
    ),
    "kling": Case(
        "kling-2.6",
        {"seconds": "5", "resolution": "720p", "generate_audio": False},
        "0.042 dollars a second, the lowest list price in the table of models",
    ),
    "xai": Case(
        "grok-imagine-video-1.5-lite",
        {"seconds": "1", "resolution": "480p"},
        "0.02 dollars a second, the lowest list price in the table of models",
    ),
    "replicate": Case(
        "prunaai/p-video",
        {"seconds": "1", "resolution": "720p"},
        "0.02 dollars a second, the lowest list price in the table of models",
    ),
    "runway": Case(
        "h3_max",
        {"seconds": "5", "resolution": "480p"},
        "0.05 dollars a second, the lowest list price of a text-to-video in the table of models",
    ),
    "vertex": Case(
        "gemini-omni-1.1-flash",
        {"seconds": "3", "resolution": "360p"},
        "0.034 dollars a second, the lowest price with sound in the table of models",
    ),
    "openrouter": Case(
        "x-ai/grok-imagine-video-1.5-lite",
        {"seconds": "1", "resolution": "480p"},
        "0.02 dollars a second, the lowest list price in the table of models",
    ),
    "openai": Case("", {"seconds": "4"}, "the server decides; the least length of OpenAI's own models"),
}
"""By kind; a model that is not known here is named by LIVE_<KIND>_MODEL."""


@dataclass(frozen=True)
class Live:
    """A case with the settings of the real vendor."""

    kind: str
    case: Case
    config: dict[str, Any]


def live_case(kind: type[Provider]) -> Live | str:
    """The case of a kind with the key from the environment, or the reason why it cannot be tried."""
    prefix = f"LIVE_{kind.kind.upper()}_"
    names = (f"{prefix}API_KEY", *kind.key_variables)
    key = next((value for name in names if (value := os.environ.get(name))), None)
    if key is None:
        return f"set {' or '.join(names)}"
    case = CASES[kind.kind]
    case = replace(case, model=os.environ.get(f"{prefix}MODEL") or case.model)
    if not case.model:
        return f"set {prefix}MODEL to the model to try"
    base_url = os.environ.get(f"{prefix}BASE_URL")
    if base_url is None and kind.Config.model_fields["base_url"].is_required():
        return f"set {prefix}BASE_URL to the address of the server"
    address = {"base_url": base_url} if base_url else {}
    return Live(kind.kind, case, {"api_key": SecretStr(key), **address})  # pytest prints the arguments of what fails


async def make_video(start_gateway: StartGateway, live: Live, *, patience_s: float) -> bytes:
    """Create the video of a case through the gateway's API, wait for its end, and return the file, which is a video."""
    settings: dict[str, Any] = {"run_worker": True, "providers": {live.kind: {"kind": live.kind, **live.config}}}
    async with start_gateway(worker_tick_s=0.05, **settings) as gateway:
        model = f"{live.kind}/{live.case.model}"
        video = await gateway.create(model=model, **{**live.case.fields, "prompt": PROMPT})
        async with asyncio.timeout(patience_s):
            while video["status"] not in ENDED:
                answer = await gateway.client.get(f"/v1/videos/{video['id']}", params={"wait": "25"})
                assert answer.status_code == 200, answer.text
                video = answer.json()
        attempts = [attempt.upstream_status for attempt in await gateway.attempts(video["id"])]
        assert video["status"] == "completed", (video["error"], attempts)
        response = await gateway.client.get(f"/v1/videos/{video['id']}/content")
    assert response.status_code == 200, response.text
    assert sniff(response.content[:512]) == response.headers["content-type"]
    assert response.headers["content-type"].startswith("video/")
    return response.content
