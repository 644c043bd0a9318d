"""docs/compatibility.md and the table of error codes in docs/clients.md, checked against tests and code."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from app import errors
from app.providers.lumenfall import FAILED_CODES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text("utf-8")
CLIENTS = (ROOT / "docs" / "clients.md").read_text("utf-8")
COLUMNS = ["#", "sentence", "here", "shown by"]
OF_VIDEO = "`error.code` of the video"
NAMED_TEST = re.compile(r"([\w./-]*test_\w+\.py)::(test_\w+)")


def rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


@cache
def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def classes_below(parent: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    yield parent
    for child in parent.__subclasses__():
        yield from classes_below(child)


# The page of sentences


def test_each_table_has_the_same_columns() -> None:
    found = list(rows(PAGE))
    assert COLUMNS in found
    assert [row for row in found if len(row) != len(COLUMNS)] == []


def test_each_named_test_exists() -> None:
    named = NAMED_TEST.findall(PAGE)
    assert len(named) > 40
    missing = [entry for entry in named if not (ROOT / entry[0]).exists() or entry[1] not in functions_of(entry[0])]
    assert missing == []


def test_each_sentence_of_lumenfall_is_numbered_and_shown() -> None:
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    [lumenfall] = [text for text in section if text.startswith("Lumenfall\n")]
    found = [row for row in rows(lumenfall) if row != COLUMNS]
    assert [row[0] for row in found] == [str(number) for number in range(1, len(found) + 1)]
    assert [row for row in found if not row[2].startswith(("yes", "partly", "no"))] == []
    assert [row for row in found if not NAMED_TEST.search(row[3])] == []


# Error codes


def test_the_table_of_error_codes_is_that_of_the_code() -> None:
    table = re.findall(r"<!-- error codes -->(.*?)<!-- /error codes -->", CLIENTS, re.DOTALL)[0]
    found = [row for row in rows(table) if row[0].startswith("`")]
    assert {row[0].strip("`") for row in found} >= FAILED_CODES.keys()
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "app").rglob("*.py"))
    known = {one.default_code: one for one in classes_below(errors.GatewayError)}
    for _, here, seen_as in found:
        codes = re.findall(r"`(\w+)`", here)
        assert codes
        for code in codes:
            assert code in known or f'code="{code}"' in source, code
            if code not in known:
                continue
            if seen_as == OF_VIDEO:
                assert issubclass(known[code], errors.UpstreamError), code
            else:
                assert known[code].status_code == int(seen_as), code
