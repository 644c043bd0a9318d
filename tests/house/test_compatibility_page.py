"""The tables of docs/compatibility.md: each row names tests that exist, or the reason why there is none."""

import ast
import re
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "docs" / "compatibility.md").read_text("utf-8").splitlines()
VENDORS = {"Lunos", "Lumenfall", "gpt.ge (Luma)", "Apilaplas (Luma)", "Lumen"}
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
NO_TEST = re.compile(r"- \w.+")


class Row(NamedTuple):
    section: str
    cells: list[str]


def rows() -> list[Row]:
    """The rows of all tables, without their heads."""
    found, section = [], ""
    for line in LINES:
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif re.match(r"\| \d", line):
            found.append(Row(section, [cell.strip() for cell in line.strip("| ").split(" | ")]))
    return found


@cache
def defined_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_each_vendor_has_a_table_of_numbered_rows() -> None:
    tables = {section: list(table) for section, table in groupby(rows(), key=lambda row: row.section)}
    assert tables.keys() >= VENDORS
    for section, table in tables.items():
        assert [row.cells[0] for row in table] == [str(number) for number in range(1, len(table) + 1)], section
        assert all(len(row.cells) == 4 and all(row.cells) for row in table), section
    heads = [line for line in LINES if line.startswith("| #")]
    assert heads == ["| # | sentence | here | shown by |"] * len(tables)


def test_each_row_names_its_tests_or_the_reason_for_none() -> None:
    wrong = [
        f"{section} {cells[0]}: {cells[-1]}"
        for section, cells in rows()
        if not NO_TEST.fullmatch(cells[-1]) and TEST.sub("", cells[-1]).strip(", ") != ""
    ]
    assert wrong == []


def test_each_named_test_exists() -> None:
    named = [(path, name) for row in rows() for path, name in TEST.findall(row.cells[-1])]
    assert named
    assert [f"{path}::{name}" for path, name in named if name not in defined_in(path)] == []
