"""Every code block of the documentation is run by a test, or says why not."""

import re
from collections.abc import Iterator
from importlib import util
from pathlib import Path

import pages
import pytest

TESTS = Path(__file__).parents[1]
FENCE = re.compile(r"^\s*(```|~~~)", re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def claims() -> None:
    """Import each test file that claims blocks, since a run of some tests has not collected all of them."""
    for path in runners():
        spec = util.spec_from_file_location(f"claims_of_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(util.module_from_spec(spec))


def runners() -> Iterator[Path]:
    for path in sorted(TESTS.rglob("test_*.py")):
        if "pages.read(" in path.read_text("utf-8") and path != Path(__file__):
            yield path


@pytest.mark.parametrize("name", list(pages.documents()))
def test_every_block_is_run_or_says_why_not(name: str) -> None:
    page = pages.read(name)
    open_ = [str(block) for block in page.blocks if block.reason is None and block not in page.claimed]
    assert open_ == [], "claim the block in the test that runs it, or put `<!-- not run: REASON -->` directly above it"


@pytest.mark.parametrize("name", list(pages.documents()))
def test_every_fence_belongs_to_a_block(name: str) -> None:
    """An indented fence, or one with tildes, would not be found."""
    page = pages.read(name)
    assert len(FENCE.findall(page.text)) == 2 * len(page.blocks)
    assert page.text.count("<!-- not run") == len([block for block in page.blocks if block.reason is not None])


def test_a_block_without_a_runner_is_found() -> None:
    page = pages.Page("x.md", "```sh\ntrue\n```\n\n<!-- not run: needs Docker -->\n```sh\ndocker ps\n```\n")
    first, second = page.blocks
    assert (first.reason, second.reason, second.line) == (None, "needs Docker", 5)
    assert page.claim("sh") == ["true\n"]
    assert page.claimed == {first}
