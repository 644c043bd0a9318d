"""Mistakes in the settings: reading and checks of values, and messages about unknown names, wrong values and short
secrets.

No message repeats a value, which may be secret; each names the variable, or the file and the key in it.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr, ValidationError

LEAST_SECRET = 16
"""Characters from which a secret does not count as short."""
OLD_ADMIN = "admin"
"""Name of the key in `GATEWAY_ADMIN_KEY` among those of the administration API."""
ADMIN_KEYS = 'expected names and keys, {"alice": "..."}, or with a role, {"alice": {"key": "...", "role": "read"}}'
LONGEST_S = 100 * 366 * 86_400
PREFIX = "gateway_"
NESTED = {"providers", "prices", "models", "dialects"}
"""Settings whose parts have variables of their own, `PROVIDERS__<NAME>__<FIELD>`; checked where they are used."""
ALIAS = ("routes", "unsupported", "on_unknown", "strategy", "max_cost", "retry_failed")

_SPAN = re.compile(r"(\d{1,9})([dhms])")
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:(?P<port>[1-9]\d{0,4}|0))?")
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_INJECTED = re.compile(r"gateway_(\w+_)?(service_(host|port)\w*|port_\d+_\w+)")
"""Variables that Kubernetes and Docker set in every container beside a service named `gateway` or `gateway-...`."""
_INJECTED_PORT = re.compile(r"(tcp|udp|sctp)://")
"""Beginning of the value of the variable `GATEWAY_..._PORT` that they set as well."""


def install(extra: str) -> str:
    """The command that installs an extra of this package, which no package index has."""
    return f"pip install '.[{extra}]' in a clone of the repository, or pip install 'PATH_TO_WHEEL[{extra}]'"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the most similar of the known names, None if there is no similar one."""
    found = difflib.get_close_matches(name[:200], list(known), n=1, cutoff=0.7)
    return found[0] if found else None


def seconds(field: str | None, value: Any) -> Any:
    """Read a span such as `30d` as seconds where the field is one of seconds, named `*_s`; keep any other value. Raises
    `ValueError`."""
    if field is None or not field.endswith("_s") or not isinstance(value, str | int | float):
        return value
    wanted = "expected seconds, or 30d, 12h, 15m, 90s"
    if isinstance(value, str) and (span := _SPAN.fullmatch(value.strip())):
        value = int(span[1]) * _UNITS[span[2]]
    try:
        number = float(value)
    except ValueError:
        raise ValueError(wanted) from None
    if not number <= LONGEST_S:
        raise ValueError(f"{wanted}; at most 100 years")
    return value


def check_database_url(value: SecretStr) -> SecretStr:
    """Check the scheme only; `app/db/address.py` reads the rest. Raises `ValueError`."""
    url = value.get_secret_value().strip()
    if not re.match(r"postgres(ql)?(\+\w+)?://", url):
        raise ValueError("expected postgresql://user:password@host:5432/database")
    return SecretStr(url)


def check_public_url(value: str) -> str:
    """Check an address of ours and return it without a slash at the end. Raises `ValueError`."""
    if not re.match(r"https?://[^/\s]+", value):
        raise ValueError("expected an address such as https://video.example.com")
    return value.rstrip("/")


def check_storage_url(value: str) -> str:
    """Check the scheme, and that there are no credentials in it. Raises `ValueError`."""
    if not re.match(r"(file|s3|gs|az|memory)://", value):
        raise ValueError("expected file:///path or s3://bucket/prefix")
    if re.search(r"://[^/]*@|\?", value):
        raise ValueError("credentials and options go into the AWS_ variables, not into the address")
    return value


def web_origin(value: str) -> str:
    """Read the origin of a web page and return it as browsers send it. Raises `ValueError`."""
    wanted = "expected origins such as https://app.example.com, or * for all"
    if not value.isascii():
        raise ValueError(f"{wanted}; a name with other letters is written as browsers send it, xn--...")
    match = _ORIGIN.fullmatch(value.lower())
    if match is None or int(match["port"] or 1) not in range(1, 65_536):
        reason = "; without a path, not even a slash at the end" if re.match(r"[^/]*//[^/]+/", value) else ""
        raise ValueError(wanted + reason)
    if (match["scheme"], match["port"]) in (("http", "80"), ("https", "443")):
        raise ValueError(f"{wanted}; leave out the default port, as browsers do")
    return match[0]


def split_list(field: str | None, value: Any) -> Any:
    """Read a list that is comma separated or JSON; of keys also a JSON object with their names. Raises `ValueError`."""
    if isinstance(value, str):
        is_json = value.lstrip().startswith(("[", "{") if field == "api_keys" else "[")
        value = json.loads(value) if is_json else [part.strip() for part in value.split(",") if part.strip()]
    is_networks = field in ("allow_networks", "trusted_proxies") and isinstance(value, list)
    if is_networks and any(isinstance(entry, int | float) for entry in value):
        raise ValueError("not a network")  # 1 would be the address 0.0.0.1
    return value


def without_mapping(network: Any) -> Any:
    """An IPv4 network instead of the IPv6 form that it has at a socket for both: addresses are compared without it."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return network if mapped is None else IPv4Network((mapped, network.prefixlen - 96))


def web_origins(values: list[str]) -> list[str]:
    """Read origins of web pages, or `*` for all. Raises `ValueError`."""
    return [value if value == "*" else web_origin(value) for value in values]


Keys = TypeVar("Keys", bound=list[SecretStr] | Mapping[str, SecretStr])


def check_keys(given: Keys) -> Keys:
    """Return the keys. Raises `ValueError` for a key that fits no header, a name that cannot be shown, and a key with
    two names."""
    names, secrets = (list(given), given.values()) if isinstance(given, Mapping) else ([], given)
    keys = [secret.get_secret_value() for secret in secrets]
    if any(not key or not key.isprintable() or not key.isascii() for key in keys):
        raise ValueError("a key must be one line of printable ASCII characters")
    if any(not name.strip() or not name.isprintable() or len(name) > 100 for name in names):
        raise ValueError("a name is 1 to 100 printable characters")
    if names and len(set(keys)) < len(keys):
        raise ValueError("one key has two names")
    return given


def read_admin_keys(value: Any) -> Any:
    """Read named keys from JSON or a table: each is a key, or a table with a key and a role. Raises `ValueError`."""
    if isinstance(value, str):
        try:
            value = json.loads(value, object_pairs_hook=_each_once)
        except json.JSONDecodeError:
            raise ValueError(ADMIN_KEYS) from None
    if not isinstance(value, Mapping):
        raise ValueError(ADMIN_KEYS)
    named = [(str(name).strip(), {"key": given} if isinstance(given, str) else given) for name, given in value.items()]
    return _each_once(named)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without repeated names, of which Python would keep the last. Raises `ValueError`."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found


def check_admin_keys(named: Mapping[str, SecretStr], single: SecretStr | None) -> None:
    """Check the named keys of the administration API, with the one of `GATEWAY_ADMIN_KEY` beside them. Raises
    `ValueError`."""
    check_keys(named)
    keys = [key.get_secret_value() for key in named.values()]
    if any(key != key.strip() for key in keys):
        raise ValueError("a key begins and ends with another character than a blank")
    if single is not None and OLD_ADMIN in named:
        raise ValueError(f"{OLD_ADMIN} is the name of GATEWAY_ADMIN_KEY; choose another one, or remove that setting")
    if single is not None and single.get_secret_value() in keys:
        raise ValueError("one key has two names: it is that of GATEWAY_ADMIN_KEY, too")


def too_short(name: str) -> str:
    """A sentence about a short secret."""
    which = "a key in it has" if name in ("GATEWAY_API_KEYS", "GATEWAY_ADMIN_KEYS") else "it has"
    return (
        f"{name}: {which} fewer than {LEAST_SECRET} characters and can be guessed; make one with openssl rand -hex 32"
    )


# Unknown names


def unknown_variables(environment: Mapping[str, str], fields: Iterable[str]) -> list[str]:
    """Sentences about the variables of the environment that have our prefix and are not settings."""
    given = {name.lower(): value for name, value in environment.items() if value}
    return [
        _not_a_setting(name, fields)
        for name, value in given.items()
        if _is_unknown(name, fields) and not _is_injected(name, value)
    ]


def _is_injected(name: str, value: str) -> bool:
    return bool(_INJECTED.fullmatch(name)) or (name.endswith("_port") and bool(_INJECTED_PORT.match(value)))


def unknown_in_files(
    dotenv: tuple[Path, Iterable[str]], toml: tuple[Path, Iterable[str]], fields: Iterable[str]
) -> list[str]:
    """Sentences about the names of `.env` and of the TOML file that are not settings, each with its line. Names of
    `.env` without our prefix are those of other programs."""
    file, variables = dotenv
    found = []
    for variable in variables:
        if _is_unknown(variable, fields):
            place = _place(file, rf"(export\s+)?{re.escape(variable)}\s*=")
            found.append(f"{place}: {_not_a_setting(variable, fields)}")
    file, names = toml
    for name in sorted(set(names).difference(fields)):
        near = nearest(name.lower().removeprefix(PREFIX), fields)
        hint = f"did you mean {near}?" if near else ".env.example lists them all"
        place = _place(file, rf"""\[*\s*["']?{re.escape(name)}\b""")
        found.append(f"{place}: {_quoted(name)} is not a setting; {hint}")
    return found


def _is_unknown(variable: str, fields: Iterable[str]) -> bool:
    """Return True for a name, in lower case, that starts like a setting and is none."""
    field, nested, _ = variable.removeprefix(PREFIX).partition("__")
    known = field in NESTED if nested else field in fields
    return variable.startswith(PREFIX) and variable != "gateway_config" and not known


def _not_a_setting(variable: str, fields: Iterable[str]) -> str:
    field, nested, rest = variable.removeprefix(PREFIX).partition("__")
    near = nearest(field, NESTED if nested else fields)
    hint = f"did you mean {f'{PREFIX}{near}{nested}{rest}'.upper()}?" if near else ".env.example lists them all"
    return f"{variable.upper()} is not a setting; {hint}"


def _place(file: Path, pattern: str) -> str:
    """The file, and the number of the line that begins with the pattern."""
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        if re.match(rf"\s*{pattern}", line, re.IGNORECASE):
            return f"{file}, line {number}"
    return str(file)


# Wrong values


def explain(
    error: ValidationError, prefix: str, file: Path | None = None, document: Mapping[str, Any] | None = None
) -> str:
    """Describe the errors, one line for each variable. Aliases and prices of the TOML document are named as they are
    written in the file."""
    lines: dict[str, None] = {}  # a value that may be of several types has several errors
    for problem in error.errors(include_input=False, include_context=False, include_url=False):
        path, message = _problem(problem["loc"], problem["type"], problem["msg"].removeprefix("Value error, "))
        variable = (prefix + "__".join(str(part).upper() for part in path)).removesuffix("__")  # none: of all together
        name = _in_file(file, document, path) or variable
        lines[f"{name}: {message}"] = None
    return "\n".join(lines)


def _problem(path: tuple[int | str, ...], kind: str, message: str) -> tuple[tuple[int | str, ...], str]:
    """The place and the words of an error, where pydantic's would name types of ours."""
    match path:
        case ("prices", model, *_):
            return ("prices", model), "expected US dollars per second, 0 or more, or a table of them by resolution"
        case ("models", alias, "routes", int(number), *_):
            wanted = 'expected "provider/model", or { to = "provider/model", weight = 3 } with a weight above 0'
            return ("models", alias, "routes", number + 1), wanted
        case ("admin_keys", _, *_):
            return ("admin_keys",), ADMIN_KEYS  # without the name, which may be a key by mistake
        case ("allow_networks" | "trusted_proxies" as field, *_):
            wanted = "expected networks such as 10.1.0.0/16, with no bit set behind the prefix, or addresses"
            return (field,), wanted + ("; or *" if field == "trusted_proxies" else "")
        case ("models", _, field) if kind == "extra_forbidden":
            near = nearest(str(field), ALIAS)
            return path, f"not a field of an alias{f'; did you mean {near}?' if near else ''}"
    return path, message


def _in_file(file: Path | None, document: Mapping[str, Any] | None, path: tuple[int | str, ...]) -> str | None:
    """The place of an alias or a price in the TOML file, None if it is not from there."""
    head, *rest = path or ("",)
    table = (document or {}).get(str(head))
    if not rest or not isinstance(table, dict) or rest[0] not in table:
        return None
    names = [_quoted(part) for part in rest]
    where = [f"[{head}]", *names] if head == "prices" else [f"[{head}.{names[0]}]", *names[1:]]
    return f"{file}: {' '.join(where)}"


def _quoted(name: int | str) -> str:
    """A key as TOML writes it."""
    return str(name) if re.fullmatch(r"[\w-]+", str(name), re.ASCII) else json.dumps(str(name))
