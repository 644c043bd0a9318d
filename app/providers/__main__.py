"""Generates the provider table of the README from the classes: `python -m app.providers README.md`."""

import re
import sys
from pathlib import Path

from app.capabilities import Capabilities
from app.providers import KINDS
from app.providers.base import Provider, ProviderConfig

BEGIN, END = "<!-- providers -->", "<!-- /providers -->"
SHARED = frozenset(ProviderConfig.model_fields)
HEADER = (
    "| kind | vendor | models | length in seconds | inputs besides prompt | other operations | status by | settings |\n"
    + "| --- " * 8
    + "|"
)


def table() -> str:
    """The Markdown table: one row per kind, from its class attributes."""
    return "\n".join([HEADER, *(_row(kind) for kind in KINDS)])


def _row(kind: type[Provider]) -> str:
    able = [*kind.models.values(), *([kind.any_model] if kind.any_model else [])]
    models = ", ".join(f"`{kind.kind}/{name}`" for name in kind.models)
    if kind.any_model is not None:
        models = f"{models}, any other" if models else f"any: `{kind.kind}/<model>`"
    inputs = sorted({name for one in able for name in one.parameters})
    operations = sorted({str(operation) for one in able for operation in one.operations} - {"generate"})
    cells = (
        f"`{kind.kind}`",
        kind.title,
        models,
        " or ".join(dict.fromkeys(_length(one) for one in able)),
        "any" if any(one.passes_extra for one in able) else ", ".join(inputs) or "none",
        ", ".join(operations) or "–",
        "callbacks and polls" if kind.callbacks else "polls",
        _settings(kind),
    )
    return f"| {' | '.join(cells)} |"


def _length(able: Capabilities) -> str:
    if able.seconds is None:
        return "passed on"
    if not able.seconds:
        return "fixed by the vendor"
    numbers = [f"{seconds:g}" for seconds in able.seconds]
    return " to ".join(numbers) if able.seconds_range else ", ".join(numbers)


def _settings(kind: type[Provider]) -> str:
    fields = kind.Config.model_fields
    required = [f"**`{name.upper()}`**" for name, field in fields.items() if field.is_required()]
    special = [f"`{name.upper()}`" for name, field in fields.items() if name not in SHARED and not field.is_required()]
    return ", ".join([*required, *special]) or "–"


def main(path: Path) -> None:
    text = path.read_text("utf-8")
    block = f"{BEGIN}\n{table()}\n{END}"
    path.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: block, text, flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
