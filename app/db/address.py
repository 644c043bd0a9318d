"""Database addresses: reads what operators paste, and gives libpq's connection string for every connection.

An error never repeats a part of the address that may belong to the password, so libpq's own parser, whose errors do, is
handed nothing that was not read here first.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from psycopg import pq
from psycopg.conninfo import make_conninfo

from app.settings import ConfigurationError

CONNECT_TIMEOUT_S = 5
DEFAULTS = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    "application_name": "video-gateway",
    # A silently broken connection is detected within seconds instead of after the TCP time-out.
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
"""Options for what neither the address nor a PG variable of the environment sets."""
OTHER_CLIENTS = frozenset(
    """
    async_fallback binary_parameters connection_limit default_query_exec_mode encoding max_overflow pgbouncer pool
    pool_max_conns pool_min_conns pool_pre_ping pool_recycle pool_size pool_timeout prefer_simple_protocol prepare
    prepareThreshold prepared_statement_cache_size prepared_statement_name_func prepared_statements reconnect
    socket_timeout sslaccept sslidentity statement_cache_capacity statement_cache_mode statement_cache_size
    stringtype supa uselibpqcompat workaround
    """.split()  # noqa: SIM905  # a page long as a list
)
"""Options of Prisma, Supabase, asyncpg, SQLAlchemy, JDBC, pgx, Rails and postgres.js that mean nothing to libpq."""
SCHEMA_OPTIONS = ("schema", "currentSchema")
SSL_MODES = {"true": "require", "1": "require", "false": "disable", "0": "disable"}
"""Values of the option `ssl` of other clients as a `sslmode`; any other value is a `sslmode` itself."""

ADVICE = "percent-encode @ : / # % in the password (@ is %40), or leave it out and set PGPASSWORD"
EXPECTED = "expected postgresql://user:password@host:5432/database"
_SCHEME = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")
_HOST = re.compile(r"(\[[\w:.%]+\]|[^:\[\]#\s]*)(?::([0-9]*))?")
_USER_AT_SERVER = re.compile(r"[^:/?#@]+@[^:/?#@]+:[^/?#@]*")
"""A login whose user name has an @, `name@server:password`, as Azure shows it."""


@dataclass(frozen=True)
class Address:
    """One database, as options of libpq. Shown without password."""

    options: Mapping[str, str] = field(repr=False)
    dropped: tuple[str, ...] = ()
    """Options of other clients that were left out."""

    @property
    def conninfo(self) -> str:
        """The connection string for every connection to it; secret."""
        unset = {found.keyword.decode() for found in pq.Conninfo.get_defaults() if found.val is None}
        defaults = {name: value for name, value in DEFAULTS.items() if name in unset}
        return make_conninfo(**{**defaults, **self.options})

    @property
    def environment(self) -> dict[str, str]:
        """The `PG` variables by which a program with libpq connects to it, those of this process among them; secret."""
        found = {}
        for option in pq.Conninfo.get_defaults():
            inherited = None if option.val is None else option.val.decode()
            value = self.options.get(option.keyword.decode(), inherited)
            if option.envvar is not None and value:
                found[option.envvar.decode()] = value
        return found

    @property
    def url(self) -> str:
        """The address as a URL without dropped options; secret."""
        return "postgresql:///?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in self.options.items())

    def __str__(self) -> str:
        user = quote(self.options.get("user", ""), safe="")
        login = f"{user}:***@" if "password" in self.options else f"{user}@" if user else ""
        ports = self.options.get("port", "").split(",")
        hosts = [host for host in self.options.get("host", "").split(",") if not host.startswith("/")]
        if len(ports) < len(hosts):
            ports *= len(hosts)
        places = (
            (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
            for host, port in zip(hosts, ports, strict=False)
        )
        return f"postgresql://{login}{','.join(places)}/{quote(self.options.get('dbname', ''), safe='')}"


def read_address(url: str, variable: str = "GATEWAY_DATABASE_URL") -> Address:
    """Read a URL in any form that libpq, SQLAlchemy or a hosting provider writes. Raises `ConfigurationError` with the
    name of the variable and without any part of the password."""
    try:
        return _read(url)
    except ValueError as error:  # includes UnicodeError
        reason = "it has characters that are not UTF-8" if isinstance(error, UnicodeError) else str(error)
        raise ConfigurationError(f"{variable} cannot be read (postgresql://***): {reason}") from None


def _read(url: str) -> Address:
    url.encode()
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise ValueError(EXPECTED)
    login, rest = _split_login(url[scheme.end() :])
    place, _, query = rest.partition("?")
    hosts, _, name = place.partition("/")
    user, colon, password = login.partition(":")
    options = _hosts(hosts.split(","))
    options |= {name: unquote(value) for name, value in (("user", user), ("dbname", name)) if value}
    if colon:
        options["password"] = unquote(password)
    found, dropped = _query(query)
    options |= found
    if any("\0" in value for value in options.values()):
        raise ValueError("it has a %00")
    return Address({name: value for name, value in options.items() if value}, dropped)


def _split_login(text: str) -> tuple[str, str]:
    """Split off `user:password` before the @. The password may have any character but @, encoded or not; where an @
    may belong to it or to something else, the address is refused."""
    before, at, after = text.rpartition("@")
    if not at:
        return "", text
    ambiguous = ValueError(f"it has more than one @, or an option before the @; {ADVICE}")
    if "@" in before:
        if not _USER_AT_SERVER.fullmatch(before):
            raise ambiguous
    elif ":" in before:
        if re.search(r"[?&]\w+=", before):
            raise ambiguous
    elif re.search(r"[/?]", before):  # in the name of the database or in an option
        return "", text
    if _USER_AT_SERVER.fullmatch(before):
        user, _, password = before.rpartition(":")
        return f"{quote(user)}:{password}", after
    return before, after


def _hosts(parts: Iterable[str]) -> dict[str, str]:
    hosts, ports = [], []
    for part in parts:
        found = _HOST.fullmatch(part)
        if found is None:
            raise ValueError(f"the host or port is not valid; {EXPECTED}, and {ADVICE}")
        port = found[2] or ""
        if port and not 0 < int(port[:6]) < 65_536:
            raise ValueError(f"the port is not a number from 1 to 65535; {EXPECTED}, and {ADVICE}")
        hosts.append(unquote(found[1].strip("[]")))
        ports.append(port)
    options = {"host": ",".join(hosts)} if any(hosts) else {}
    return options | ({"port": ",".join(ports)} if any(ports) else {})


def _query(query: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The options after the ?, and the names of those that were dropped."""
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    options: dict[str, str] = {}
    dropped, hosts = [], []
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        name, value = unquote(name), unquote(value)
        if not equals or not re.fullmatch(r"\w{1,40}", name):
            raise ValueError("an option after the ? is not written as name=value")
        if name == "host":
            hosts += value.split(",")
        elif name == "ssl":
            options["sslmode"] = SSL_MODES.get(value, value)
        elif name in SCHEMA_OPTIONS and value != "public":
            raise ValueError(f"the option {name} is another client's; name the schema with options=-csearch_path%3D...")
        elif name in OTHER_CLIENTS or name in SCHEMA_OPTIONS:
            dropped.append(name)
        elif name in known:
            options[name] = value
        else:
            raise ValueError(f"PostgreSQL's client library has no option {name}; remove it from the address")
    bare = [host for host in hosts if host.startswith("/") or host.count(":") > 1]
    found = {"host": ",".join(hosts)} if bare else _hosts(hosts)
    return found | options, tuple(dict.fromkeys(dropped))
