"""Generates what the documents say about the code: the tables of the README, the layout in CONTRIBUTING, the pages of
providers.

python -m tools.docs
"""

import ast
import re
import textwrap
from pathlib import Path
from types import ModuleType

from app.dialects import DIALECTS, create_paths, name_of
from app.providers import KINDS
from app.providers.base import Provider
from tools import provider_pages
from tools.provider_pages import SHARED, length, table, tried

ROOT = Path(__file__).resolve().parent.parent
APP = ROOT / "app"
PACKAGES = (
    "cli",
    "console",
    "dialects",
    "admin",
    "http",
    "jobs",
    "accounts",
    "providers",
    "webhooks",
    "media",
    "db",
    "telemetry",
    "net",
)
"""From the top of the layers to the bottom; `make lint` checks the arrows."""
DATA = ("functions", "static", "templates")
"""Folders of data inside packages."""
INDENT, WIDTH = 17, 118


def blocks() -> dict[tuple[str, str], str]:
    """The generated text by document and name of its block."""
    return {
        ("README.md", "providers"): providers_table(),
        ("README.md", "dialects"): dialects_table(),
        ("CONTRIBUTING.md", "layout"): f"```\n{layout()}\n```",
        ("docs/networks.md", "hosts"): hosts_table(),
        **provider_pages.blocks(),
    }


def written(text: str, name: str, block: str) -> str:
    """The document with the block between its markers replaced."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{block}\n{end}", text, flags=re.DOTALL)


# Providers


def providers_table() -> str:
    """One row per kind, from its class attributes."""
    columns = (
        *("kind", "vendor", "models", "length in seconds", "inputs besides prompt", "other operations", "status by"),
        *("settings", "tried live"),
    )
    return table(columns, [_provider_row(kind) for kind in KINDS])


def hosts_table() -> str:
    """The addresses that each kind calls by default, from its settings."""
    rows = []
    for kind in KINDS:
        defaults = [str(field.default) for name, field in kind.Config.model_fields.items() if name.endswith("_url")]
        addresses = [f"`{address}`" for address in defaults if address.startswith("http")]
        if kind.kind != "sandbox":
            rows.append((f"`{kind.kind}`", kind.title, ", ".join(addresses) or "the one of `BASE_URL`"))
    return table(("kind", "vendor", "addresses"), rows)


def _provider_row(kind: type[Provider]) -> tuple[str, ...]:
    able = [*kind.models.values(), *([kind.any_model] if kind.any_model else [])]
    models = ", ".join(f"`{kind.kind}/{name}`" for name in kind.models)
    if kind.any_model is not None:
        models = f"{models}, any other" if models else f"any: `{kind.kind}/<model>`"
    inputs = sorted({name for one in able for name in one.parameters})
    operations = sorted({str(operation) for one in able for operation in one.operations} - {"generate"})
    lengths, others = " or ".join(dict.fromkeys(length(one) for one in able)), ", ".join(operations) or "–"
    if not kind.models and kind.capabilities_for is not Provider.capabilities_for:
        lengths = others = "by endpoint"
    return (
        f"`{kind.kind}`",
        kind.title,
        models,
        lengths,
        "any" if any(one.passes_extra for one in able) else ", ".join(inputs) or "none",
        others,
        "callbacks and polls" if kind.callbacks else "polls",
        _settings(kind),
        tried(kind),
    )


def _settings(kind: type[Provider]) -> str:
    fields = kind.Config.model_fields
    required = [f"**`{name.upper()}`**" for name, field in fields.items() if field.is_required()]
    special = [f"`{name.upper()}`" for name, field in fields.items() if name not in SHARED and not field.is_required()]
    return ", ".join([*required, *special]) or "–"


# Dialects


def dialects_table() -> str:
    """One row per dialect, OpenAI's first."""
    rows = [_dialect_row(dialect) for dialect in (DIALECTS[-1], *DIALECTS[:-1])]
    return table(("dialect", "API of", "videos are created at", "model"), rows)


def _dialect_row(dialect: ModuleType) -> tuple[str, ...]:
    name = name_of(dialect)
    in_settings = "model" in dialect.Config.model_fields if hasattr(dialect, "Config") else False
    default = ", else `GATEWAY_DEFAULT_MODEL`" if dialect is DIALECTS[-1] else ""
    return (
        f"`{name}`",
        dialect.TITLE,
        ", ".join(f"`{path}`" for path in create_paths(dialect)),
        f"`GATEWAY_DIALECTS__{name.upper()}__MODEL`" if in_settings else f"in the body{default}",
    )


# Layout


def layout() -> str:
    """The packages of `app/` with their modules, and the modules beside them, from their docstrings."""
    lines = ["app/"]
    for package in PACKAGES:
        modules = [path.stem for path in sorted((APP / package).iterdir()) if _is_shown(path)]
        lines += _entry(f"  {package}/", f"{_summary(APP / package / '__init__.py')} Files: {', '.join(modules)}.")
    for path in sorted(APP.glob("*.py")):
        if path.stem != "__init__":
            lines += _entry(f"  {path.name}", _summary(path))
    return "\n".join(lines)


def _is_shown(path: Path) -> bool:
    if path.is_dir():
        return (path / "__init__.py").exists() or path.name in DATA
    return path.suffix == ".py" and path.stem != "__init__"


def _entry(name: str, text: str) -> list[str]:
    wrapped = textwrap.wrap(text, WIDTH - INDENT - 4, break_long_words=False, break_on_hyphens=False)
    return [f"{name if index == 0 else '':{INDENT + 3}} {line}" for index, line in enumerate(wrapped)]


def _summary(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n\n")[0]
    return re.split(r"(?<=\.) (?=[A-Z`])", " ".join(text.split()))[0].rstrip(".") + "."


def main() -> None:
    for (document, name), block in blocks().items():
        path = ROOT / document
        text = path.read_text("utf-8") if path.exists() else provider_pages.empty_page(document)
        path.write_text(written(text, name, block), "utf-8")


if __name__ == "__main__":
    main()
