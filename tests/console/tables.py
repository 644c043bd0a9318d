"""Tables of the console's pages as text."""

import re
from html import unescape


def rows(page: str) -> list[list[str]]:
    """The text of each cell of each row of a page's tables, the head's too."""
    found = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [[text_of(cell) for cell in re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in found]


def row_of(page: str, first: str) -> list[str]:
    """The cells of the row whose first one begins with a text."""
    (found,) = [row for row in rows(page) if row and row[0].startswith(first)]
    return found


def text_of(markup: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", markup))).strip()


def values_of(page: str) -> dict[str, str]:
    """The values of a page's inputs by name; of several with one name the last."""
    found = {}
    for attributes in re.findall(r"<input\b([^>]*)>", page):
        given = dict(re.findall(r'([\w-]+)="([^"]*)"', attributes))
        found[given.get("name", "")] = unescape(given.get("value", ""))
    return found
