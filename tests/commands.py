"""The end of a command of the command line, as tests read it."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def checks(self) -> dict[str, list[dict[str, str]]]:
        """Results of `doctor --json` by the name of their check."""
        found: dict[str, list[dict[str, str]]] = {}
        for check in self.document["checks"]:
            found.setdefault(check["name"], []).append(check)
        return found

    def one(self, name: str, status: str) -> str:
        """Text and next step of the only result of a check with this status."""
        (check,) = (check for check in self.checks[name] if check["status"] == status)
        return f"{check['text']} -> {check['hint']}"


Command = Callable[..., Awaitable[Done]]
"""Runs `video-gateway` with these arguments and settings."""
