"""MiniMax's own `minimax-mcp` with version 1 at the fake: a whole task, a failure and refusals, as it reads them."""

import json
import os
import re
import tempfile
from typing import Any

import requests

os.environ |= {
    "MINIMAX_API_KEY": os.environ["KEY"],
    "MINIMAX_API_HOST": os.environ["URL"],
    "MINIMAX_MCP_BASE_PATH": tempfile.gettempdir(),
    "MINIMAX_API_RESOURCE_MODE": "url",
}

from minimax_mcp import server  # it reads the variables when it is imported

MODEL = "MiniMax-Hailuo-02"


def said(answer: Any) -> str:
    """The words of an answer, without ids and addresses."""
    return re.sub(r"\d{10,}|https?://\S+", "...", answer.text)


def submit(prompt: str, **fields: Any) -> Any:
    return server.generate_video(prompt=prompt, async_mode=True, **{"model": MODEL, **fields})


def ref_of(answer: Any) -> str:
    return str(re.findall(r"Task ID: (\w+)", answer.text)[0])


def main() -> None:
    created = submit("a paper boat", duration=6, resolution="768P")
    words: list[str] = []
    while not words or "still processing" in words[-1]:
        shown = server.query_video_generation(ref_of(created))
        words.append(said(shown))
    failed = server.query_video_generation(ref_of(submit("a boat that fails")))
    url = re.findall(r"https?://\S+", shown.text)[0]
    invalid = submit("a paper boat", duration=7)
    server.api_client.session.headers["Authorization"] = "Bearer wrong"
    saw = {
        "created": said(created),
        "polls": len(words),
        "finished": words[-1],
        "bytes": len(requests.get(url, timeout=10).content),
        "failed": said(failed),
        "invalid": said(invalid),
        "wrong key": said(submit("a paper boat")),
    }
    print(json.dumps(saw))


main()
