"""The table of error codes in docs/clients.md is that of the code."""

import re
from collections.abc import Iterator
from pathlib import Path

from app import errors
from app.providers.lumenfall import FAILED_CODES

ROOT = Path(__file__).parents[2]
CLIENTS = (ROOT / "docs" / "clients.md").read_text("utf-8")
OF_VIDEO = "`error.code` of the video"


def rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def classes_below(parent: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    yield parent
    for child in parent.__subclasses__():
        yield from classes_below(child)


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
