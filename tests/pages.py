"""The code blocks of the documentation, and the claims of the tests that run them.

A test file claims the blocks that it runs with `pages.read("docs/x.md").claim("sh")` at its top level. A block that no
test runs has a comment with the reason directly above it: `<!-- not run: needs Docker -->`.
`tests/docs/test_pages.py` fails for a block that is neither.
"""

import asyncio
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from programs import TOOLS_PATH, need

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
PATIENCE_S = 300
"""Time limit of a command, long enough for an installation on a busy machine."""


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    code: str
    reason: str | None
    """The reason why no test runs it."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.language or 'no language'})"


@dataclass
class Page:
    name: str
    text: str
    claimed: set[Block] = field(default_factory=set)

    @property
    def blocks(self) -> list[Block]:
        return [
            Block(self.name, self.text.count("\n", 0, match.start()) + 1, *match.group("language", "code", "reason"))
            for match in BLOCK.finditer(self.text)
        ]

    def claim(self, language: str, *words: str) -> list[str]:
        """The code of all blocks of a language that have these words and no reason not to be run; at least one."""
        found = [
            block
            for block in self.blocks
            if block.language == language and block.reason is None and all(word in block.code for word in words)
        ]
        assert found, f"{self.name} has no {language} block with {words}"
        self.claimed.update(found)
        return [block.code for block in found]

    def one(self, language: str, *words: str) -> str:
        """As `claim`, for the only block that has these words."""
        (code,) = self.claim(language, *words)
        return code


@cache
def read(name: str) -> Page:
    """A document by its path in the repository."""
    return Page(name, (ROOT / name).read_text("utf-8"))


def documents() -> Iterator[str]:
    """The pages whose blocks have to be run or marked."""
    yield "README.md"
    for folder in (ROOT / "docs", ROOT / "docs" / "providers"):
        yield from (path.relative_to(ROOT).as_posix() for path in sorted(folder.glob("*.md")))


def replaced(code: str, **words: str) -> str:
    """The code with placeholders replaced; each has to be there. `vgw_=KEY` replaces `vgw_...`."""
    for placeholder, word in words.items():
        assert f"{placeholder}..." in code, placeholder
        code = code.replace(f"{placeholder}...", word)
    return code


def commands(code: str) -> list[list[str]]:
    """The commands of a shell block, one a line, as argument lists without comments."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


async def run(*command: str | Path, folder: Path, **env: str) -> str:
    """Run a command, which has to succeed, with this environment and no other; returns all it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={"PATH": TOOLS_PATH, "HOME": str(folder), **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, out.decode()
    return out.decode()


async def shell(code: str, *, folder: Path, **env: str) -> str:
    """Run a shell block as if it were pasted, up to the first command that fails."""
    for program in ("bash", "curl"):
        need(program)
    return await run("bash", "-c", f"set -euo pipefail\n{code}", folder=folder, **env)


def shape(value: Any) -> Any:
    """The names of a JSON document, without its values."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return None
