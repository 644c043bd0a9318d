"""A gateway that listens, with a folder in which commands are pasted."""

from dataclasses import dataclass
from pathlib import Path

import pages
from harness import ALICE, Running

NODE = ("node", "--require", str(pages.ROOT / "tests" / "clients" / "node18.cjs"))


@dataclass(frozen=True)
class Listening:
    gateway: Running
    url: str
    folder: Path
    """Of the commands that are run."""

    async def bash(self, code: str, **env: str) -> str:
        """Run a shell block with the gateway's address and key."""
        return await pages.shell(code, folder=self.folder, **{"URL": self.url, "KEY": ALICE, **env})

    async def finished(self, **fields: object) -> str:
        """Create a video, wait for its end, return its id."""
        video = await self.gateway.create(**fields)
        while video["status"] in ("queued", "in_progress"):
            answer = await self.gateway.client.get(f"/v1/videos/{video['id']}", params={"wait": "25"})
            video = answer.json()
        assert video["status"] == "completed", video
        return str(video["id"])


def is_a_video(path: Path) -> bool:
    return path.read_bytes()[4:8] == b"ftyp"
