"""Rows of the dialect contract suite, collected from `CASES` in `tests/dialects/test_<name>.py` of every dialect."""

from importlib import import_module

from dialects.case import DialectCase

from app.dialects import DIALECTS, name_of

CASES: dict[str, DialectCase] = {
    prefix: case
    for dialect in DIALECTS
    for prefix, case in import_module(f"dialects.test_{name_of(dialect)}").CASES.items()
}
"""Prefix to case."""
