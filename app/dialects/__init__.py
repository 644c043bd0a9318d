"""The explicit list of dialects, and which of them speaks on a path."""

from types import ModuleType

from app.dialects import openai

DIALECTS: tuple[ModuleType, ...] = (openai,)
"""Each has `PREFIXES`, `routes` and `render_error`; the first is spoken where no other claims the path."""


def dialect_of(path: str) -> ModuleType:
    """The dialect whose longest prefix the path has: errors outside any route have to be rendered too."""
    claims = [(len(prefix), dialect) for dialect in DIALECTS for prefix in dialect.PREFIXES if path.startswith(prefix)]
    return max(claims, key=lambda claim: claim[0])[1] if claims else DIALECTS[0]
