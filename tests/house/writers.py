"""Finds the writers of each fact in source text: in the syntax tree, and in every SQL string of it."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from app.db.models import Base

JOBS, WEBHOOKS, ACCOUNTS, LEDGER = "app/jobs/", "app/webhooks/", "app/accounts/", "app/accounts/ledger.py"
AUDIT = "app/accounts/audit.py"
TABLES = {
    "videos": (JOBS,),
    "attempts": (JOBS,),
    "characters": (JOBS,),
    "provider_health": (JOBS,),
    "deliveries": (WEBHOOKS,),
    "delivery_tries": (WEBHOOKS,),
    "webhook_endpoints": (WEBHOOKS,),
    "webhook_secrets": (WEBHOOKS,),
    "projects": (ACCOUNTS,),
    "keys": (ACCOUNTS,),
    "request_rates": (ACCOUNTS,),
    "console_sessions": (ACCOUNTS,),
    "console_links": (ACCOUNTS,),
    "ledger": (LEDGER,),
    "deployment": (ACCOUNTS, "app/jobs/restored.py"),
    "audit": (AUDIT,),
    "workers": (JOBS,),
    "meters": (ACCOUNTS, "app/db/functions/count_money.sql"),
    "closed_days": (ACCOUNTS, "app/db/functions/reopen_day.sql"),
    "usage_days": (ACCOUNTS, "app/db/functions/reopen_day.sql"),
    "deleted_videos": ("app/db/functions/keep_end.sql",),
    "key_uses": (ACCOUNTS,),
}
"""Each table, and the files below which it is written."""
MONEY_OF_AN_ATTEMPT = {"settlement", "cost_micros", "uncapped_micros"}
"""The columns of `attempts` that the ledger writes."""
ATTRIBUTES = {"status": (JOBS,), "state": (JOBS, WEBHOOKS)}
"""Attributes of rows that are a status or a state: of videos and attempts, and of deliveries."""
MODELS = {mapper.class_.__name__: str(mapper.local_table) for mapper in Base.registry.mappers}

WRITE = re.compile(
    r"\b(?:insert\s+into|merge\s+into|delete\s+from|truncate(?:\s+table)?|copy)\s+(?:public\.)?(\w+|$)"
    r"|(?<!for\s)(?<!no\skey\s)\bupdate\s+(?:only\s+)?(?:public\.)?(\w+(?=\s+(?:(?:as\s+)?\w+\s+)?set\b)|$)",
    re.IGNORECASE,
)
"""A writing clause and its table, which is empty where the text ends before it."""
BUILDERS = {"insert", "update", "delete"}
HTTPX = {
    *("AsyncClient", "Client", "AsyncHTTPTransport", "HTTPTransport"),
    *("delete", "get", "head", "options", "patch", "post", "put", "request", "stream"),
}


@dataclass(frozen=True)
class Write:
    """One place that writes a fact."""

    line: int
    fact: str
    """`table videos`, `attribute state`, `environment`, `HTTP client`."""
    allowed: tuple[str, ...]
    """Files, or the folders of files, that may."""


def foreign_writes(path: str, source: str) -> list[str]:
    """The writes in a file that belong elsewhere, one line each."""
    writes = sql_writes(source) if path.endswith(".sql") else python_writes(path, source)
    return [
        f"{path}:{write.line} writes {write.fact}; only {' and '.join(write.allowed)} may"
        for write in writes
        if not path.startswith(write.allowed)
    ]


def sql_writes(text: str, line: int = 1) -> Iterator[Write]:
    """The tables that a piece of SQL writes; a table whose name is not in the text belongs to no file."""
    for match in WRITE.finditer(re.sub(r"--[^\n]*", "", text)):
        table = (match[1] or match[2] or "").lower()
        if table in ("set", "on"):  # on conflict do update set; before truncate on
            continue
        yield Write(line, f"table {table or 'not named in the text'}", TABLES.get(table, ("no file",)))


def python_writes(path: str, source: str) -> Iterator[Write]:
    """The facts that a module writes."""
    tree = ast.parse(source, path)
    docstrings = set(_docstrings(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str() | bytes() as text) if id(node) not in docstrings:
                plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
                if not re.search(r"[.!?] [A-Z]|^[A-Z][a-z]", plain):  # prose; our SQL is in lower case
                    yield from sql_writes(plain, node.lineno)
            case ast.Assign() | ast.AugAssign() | ast.AnnAssign():
                yield from _assigned(node)
            case ast.Call():
                yield from _called(path, node)
            case ast.Attribute(value=ast.Name(id="os"), attr="environ" | "environb" | "getenv" | "getenvb"):
                yield Write(node.lineno, "environment", ("app/settings.py",))
            case ast.ImportFrom(module="os", names=names) if {n.name for n in names} & {"environ", "getenv"}:
                yield Write(node.lineno, "environment", ("app/settings.py",))
            case ast.ImportFrom(module="httpx", names=names) if {n.name for n in names} & HTTPX:
                yield Write(node.lineno, "HTTP client", ("app/net/__init__.py",))


def _docstrings(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        for statement in getattr(node, "body", None) or [] if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                yield id(statement.value)


def _assigned(node: ast.Assign | ast.AugAssign | ast.AnnAssign) -> Iterator[Write]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    for target in targets:
        for part in target.elts if isinstance(target, ast.Tuple | ast.List) else [target]:
            if isinstance(part, ast.Attribute) and part.attr in ATTRIBUTES:
                yield Write(node.lineno, f"attribute {part.attr}", ATTRIBUTES[part.attr])


def _called(path: str, node: ast.Call) -> Iterator[Write]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    if name == "setattr" and len(node.args) == 3 and getattr(node.args[1], "value", None) in ATTRIBUTES:
        attribute = str(getattr(node.args[1], "value", ""))
        yield Write(node.lineno, f"attribute {attribute}", ATTRIBUTES[attribute])
    if name in BUILDERS:
        for table in _models([*node.args[:1], *([owner] if owner is not None else [])]):
            yield Write(node.lineno, f"table {table}", TABLES[table])
    if name in MODELS:  # a new row, to be added to a session
        yield Write(node.lineno, f"table {MODELS[name]}", TABLES[MODELS[name]])
    if isinstance(owner, ast.Name) and owner.id == "httpx" and name in HTTPX:
        yield Write(node.lineno, "HTTP client", ("app/net/__init__.py",))


def _models(expressions: list[ast.expr]) -> set[str]:
    names = {n.id for expression in expressions for n in ast.walk(expression) if isinstance(n, ast.Name)}
    return {MODELS[name] for name in names if name in MODELS}


def ledger_columns(source: str) -> set[str]:
    """The columns of `attempts` that a module sets by `sa.update(Attempt)`; `*` for values that are not spelt out."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr="values", value=value), args=args, keywords=keywords) if any(
                isinstance(inner, ast.Call) and "attempts" in _models(inner.args[:1]) for inner in ast.walk(value)
            ):
                found |= {"*"} if args else set()
                found |= {keyword.arg or "*" for keyword in keywords}
    return found
