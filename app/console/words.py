"""Sentences of the API as pages show them: pages of the console in place of addresses, and no command to type."""

import re

_PAGES = re.compile(r"(^|[.?!] )?GET /(?:admin/)?v1/(models|providers|repairs)\b")
_COMMAND = re.compile(r"; see `video-gateway \w+ list`(?:, or make one with `[^`]*`)?")
_OTHERS = {' with {"enabled": true} first': " first", "deleted or purged": "deleted or erased"}


def plain(message: str) -> str:
    """The words of a message for people who look at a page."""
    message = _COMMAND.sub("", message)
    for words, others in _OTHERS.items():
        message = message.replace(words, others)
    return _PAGES.sub(_page, message)


def _page(found: re.Match[str]) -> str:
    """A page of the menu, which has the same things; at the start of a sentence in capitals."""
    start, name = found.groups()
    return f"{'the' if start is None else f'{start}The'} page {name.capitalize()}"
