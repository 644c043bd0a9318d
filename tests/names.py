"""Names that a test's resolver knows, for addresses that are only looked at when they are called."""

import socket
from collections.abc import Mapping
from typing import Any

import pytest


def resolve_names(monkeypatch: pytest.MonkeyPatch, known: Mapping[str, list[str]]) -> None:
    """Let these names lead to these addresses; all others are resolved as usual."""
    really = socket.getaddrinfo

    def resolve(host: Any, port: Any, *given: Any, **options: Any) -> Any:
        found = known.get(str(host).rstrip("."))
        if found is None or options.get("flags") == socket.AI_NUMERICHOST:
            return really(host, port, *given, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
