"""The generated parts of `docs/providers/`: the head of each kind's page, and the tables of the index."""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import PydanticUndefined

from app.capabilities import OPTIONAL_PARAMETERS, Capabilities
from app.providers import KINDS
from app.providers.base import Provider, ProviderConfig
from app.providers.fal import Fal, endpoints
from app.providers.rest import RestProvider
from app.video import Operation

SHARED = frozenset(ProviderConfig.model_fields)
SHOWN_IN_INDEX = SHARED - {"base_url", "api_key"}


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = tuple(columns)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ("---",) * len(columns), *rows))


def length(able: Capabilities) -> str:
    """The lengths of a model in words."""
    if able.seconds is None:
        return "passed on"
    if not able.seconds:
        return "fixed by the vendor"
    numbers = [f"{seconds:g}" for seconds in able.seconds]
    every = [f"{able.seconds[0] + step:g}" for step in range(len(numbers))]
    if len(numbers) > 3 and numbers == every:
        return f"{numbers[0]} to {numbers[-1]}"
    return " to ".join(numbers) if able.seconds_range else ", ".join(numbers)


# The page of one kind


def head(kind: type[Provider]) -> str:
    """The generated head of the page of one kind."""
    parts = [_facts(kind), "## Settings", _settings(kind), "## Models", _models(kind)]
    return "\n\n".join([*parts, "## Not supported", _unsupported(kind)])


def _facts(kind: type[Provider]) -> str:
    prefix = f"GATEWAY_PROVIDERS__{kind.kind.upper()}__"
    lines = [f"- Vendor: {kind.title}. Tried live: {tried(kind)}."]
    required = [f"`{prefix}{name.upper()}`" for name, field in kind.Config.model_fields.items() if field.is_required()]
    lines.append(f"- Required: {', '.join(required)}." if required else "- Needs no setting.")
    if kind.key_page:
        lines.append(f"- Keys are made at <{kind.key_page}>.")
    named = "- A key that you have as `{0}`: `{1}API_KEY=${{{0}}}`."
    lines += [named.format(variable, prefix) for variable in kind.key_variables]
    if kind.prices_read is not None:
        lines.append(
            f"- Prices: list prices in US dollars per second, read on {kind.prices_read}. `[prices]` replaces them."
        )
    return "\n".join(lines)


def tried(kind: type[Provider]) -> str:
    return kind.tried.isoformat() if kind.tried is not None else "not yet"


def _settings(kind: type[Provider]) -> str:
    fields = kind.Config.model_fields
    hidden = SHOWN_IN_INDEX if issubclass(kind, RestProvider) else SHARED
    names = sorted((name for name in fields if name not in hidden), key=lambda name: not fields[name].is_required())
    shared = "All kinds have the [other settings](README.md#settings-of-every-kind), too."
    return f"{settings_table(kind.Config, names)}\n\n{shared}"


def settings_table(config: type[ProviderConfig], names: Iterable[str]) -> str:
    meanings = _meanings(config)
    rows = [(f"`{name.upper()}`", _default(config, name), meanings[name]) for name in names]
    return table(("setting", "default", "meaning"), rows)


def _meanings(config: type[ProviderConfig]) -> dict[str, str]:
    """The docstrings below the fields of a class; those of its base class for fields without one."""
    found: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        if issubclass(cls, ProviderConfig):
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
            assert isinstance(tree, ast.ClassDef)
            for field, below in zip(tree.body, tree.body[1:], strict=False):
                match field, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                        found[name] = " ".join(text.split())
    return found


def _default(config: type[ProviderConfig], name: str) -> str:
    default: Any = config.model_fields[name].default
    if default is PydanticUndefined:
        return "required"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`" if default not in (None, "") else "–"


# Models


def _models(kind: type[Provider]) -> str:
    if kind is Fal:
        return _fal_models()
    groups: dict[str, list[str]] = {}
    able_of: dict[str, Capabilities] = {}
    for name, able in {**{f"`{kind.kind}/{name}`": able for name, able in kind.models.items()}, **_any(kind)}.items():
        groups.setdefault(able.model_dump_json(), []).append(name)
        able_of[able.model_dump_json()] = able
    columns = ("model", "seconds", "resolutions", "ratios", "inputs", "operations", "vendor's own fields", "price")
    return table(columns, [(", ".join(names), *_able(able_of[key])) for key, names in groups.items()])


def _any(kind: type[Provider]) -> dict[str, Capabilities]:
    if kind.any_model is None:
        return {}
    return {"any other" if kind.models else f"any: `{kind.kind}/<model>`": kind.any_model}


def _able(able: Capabilities) -> tuple[str, ...]:
    own = "passed on" if able.passes_extra else _names(able.vendor_fields)
    return (
        length(able),
        _shape(able),
        _values(able.aspect_ratios),
        _inputs(able),
        _operations(able),
        own,
        _price(able),
    )


def _shape(able: Capabilities) -> str:
    return ", ".join(able.sizes) or "fixed" if able.sizes is not None else _values(able.resolutions)


def _values(values: tuple[str, ...] | None) -> str:
    return "passed on" if values is None else ", ".join(values) or "fixed"


def _inputs(able: Capabilities) -> str:
    names = [
        f"**{name}**" if name in able.required else name for name in OPTIONAL_PARAMETERS if name in able.parameters
    ]
    return ", ".join(names) or "–"


def _operations(able: Capabilities) -> str:
    return ", ".join(operation for operation in Operation if operation in able.operations)


def _names(names: frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "–"


def _price(able: Capabilities) -> str:
    named = {resolution: micros for resolution, micros in able.prices.items() if resolution}
    prices: Mapping[str, int] = named or able.prices
    return ", ".join(f"{resolution} ${micros / 1_000_000:g}".strip() for resolution, micros in prices.items()) or "–"


def _fal_models() -> str:
    """A row for each family, and the endpoints that belong to none."""
    rows = []
    inside = set()
    for name in endpoints.families():
        able, members = endpoints.merged(name), endpoints.family(name)
        inside |= {one.id for one in members}
        modes = ", ".join(one.id.removeprefix(name).removeprefix("/") or "the family's name" for one in members)
        rows.append((f"`{name}`", modes, length(able), _shape(able), _inputs(able), _price(able)))
    others = ", ".join(f"`{name}`" for name in sorted(endpoints.known_endpoints().keys() - inside))
    columns = ("family", "endpoints", "seconds", "resolutions", "inputs of all together", "price")
    return (
        f"{table(columns, rows)}\n\nThe fields of these are known, too, by their full id:\n\n{others}\n\nOf any other "
        "endpoint nothing is known: it gets the prompt, and the vendor's own fields as they are in the request."
    )


def _unsupported(kind: type[Provider]) -> str:
    able = [*kind.models.values(), *([kind.any_model] if kind.any_model else [])]
    if kind is Fal:
        able = [endpoints.merged(name) for name in endpoints.families()]
    parameters = [name for name in OPTIONAL_PARAMETERS if not any(name in one.parameters for one in able)]
    operations = [operation for operation in Operation if not any(operation in one.operations for one in able)]
    lines = [f"- Parameters that no model has: {', '.join(parameters)}." if parameters else ""]
    lines += [f"- Operations: {', '.join(operations)}." if operations else ""]
    if all(one.seconds == () for one in able):
        lines.append("- A choice of the length.")
    if any(one.media for one in able) and not any("upload" in one.media for one in able):
        lines.append("- Uploads as such: the vendor fetches them from this gateway, which needs `GATEWAY_PUBLIC_URL`.")
    if not kind.callbacks:
        lines.append("- Callbacks: the gateway polls.")
    if kind.cancel is Provider.cancel:
        lines.append("- Cancelling at the vendor: a cancelled task runs on there and is charged.")
    if kind.can_resubmit is Provider.can_resubmit and kind.looks_up is Provider.looks_up:
        lines.append("- Repeating a create whose outcome is unknown: it is never sent again.")
    return "\n".join(line for line in lines if line) or "Nothing that a request can ask for."


# The index


def kinds_table() -> str:
    """One row per kind, with a link to its page."""
    columns = ("kind", "vendor", "the vendor's own variable", "keys are made at", "prices read", "tried live")
    return table(
        columns,
        [
            (
                f"[`{kind.kind}`]({kind.kind}.md)",
                kind.title,
                ", ".join(f"`{variable}`" for variable in kind.key_variables) or "–",
                f"<{kind.key_page}>" if kind.key_page else "–",
                kind.prices_read.isoformat() if kind.prices_read is not None else "–",
                tried(kind),
            )
            for kind in KINDS
        ],
    )


def shared_settings() -> str:
    """The settings that every kind has."""
    return settings_table(ProviderConfig, ProviderConfig.model_fields)


def blocks() -> dict[tuple[str, str], str]:
    """The generated text by document and name of its block."""
    pages = {(f"docs/providers/{kind.kind}.md", "head"): head(kind) for kind in KINDS}
    index = "docs/providers/README.md"
    return {(index, "kinds"): kinds_table(), (index, "settings"): shared_settings(), **pages}


def empty_page(name: str) -> str:
    """A new page of a kind, to be completed by hand below its head."""
    title = next(kind.title for kind in KINDS if name == f"docs/providers/{kind.kind}.md")
    return f"# {title}\n\n<!-- head -->\n<!-- /head -->\n\n## Good to know\n"
