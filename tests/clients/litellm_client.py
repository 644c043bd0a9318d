"""Driver of LiteLLM as a client: the block of docs/clients.md, and the other calls."""

import os
from importlib.metadata import version
from pathlib import Path

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing from elsewhere

import litellm

from clients.steps import KEY, MODEL, PNG, URL, is_a_video, must, report, step


def main() -> None:
    report("version", version("litellm"))
    names: dict[str, object] = {}
    with step("create"):
        exec(os.environ["BLOCK"].replace("https://video.example.com", URL).replace("vgw_...", KEY), names)
    video = names["video"]
    with step("poll"):
        must(video.status == "completed", video.status)  # type: ignore[attr-defined]
    with step("download"):
        is_a_video(Path("boat.mp4").read_bytes())
    gateway = {"api_base": f"{URL}/v1", "api_key": KEY}
    with step("list"):
        listed = litellm.video_list(custom_llm_provider="openai", **gateway)
        must(listed, "the list is empty")
    with step("picture"):
        Path("boat.png").write_bytes(PNG)
        with open("boat.png", "rb") as picture:
            litellm.video_generation(
                model=f"openai/{MODEL}", prompt="a paper boat", seconds="4", input_reference=picture, **gateway
            )


main()
