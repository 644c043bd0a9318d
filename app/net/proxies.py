"""Outbound proxies: the one that each call goes through, by the settings or by the variables of the environment."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

import httpx

from app.setting_types import Proxy, read_proxy

SCHEMES = ("http", "https")


@dataclass(frozen=True)
class Proxies:
    """The proxy of each address that is called; without any, all are called directly."""

    by_scheme: Mapping[str, Proxy] = field(default_factory=dict)
    exceptions: tuple[str, ...] = ()
    """Hosts, domains and networks that are called directly, as in `NO_PROXY`."""
    loopback: bool = False
    """True: this machine is called through the proxy, too; False: directly."""
    source: str = ""
    """The setting, or the variables, that name the proxy."""

    @property
    def names(self) -> set[str]:
        """Host and port of each proxy."""
        return {proxy.name for proxy in self.by_scheme.values()}

    def of(self, url: httpx.URL) -> Proxy | None:
        """The proxy of a call; None: it goes directly."""
        found = self.by_scheme.get(url.scheme)
        if found is None:
            return None
        host = url.raw_host.decode("ascii").rstrip(".").lower()
        if not self.loopback and is_loopback(host):
            return None
        port = url.port or (443 if url.scheme == "https" else 80)
        return None if any(_is_excepted(host, port, entry) for entry in self.exceptions) else found


DIRECT = Proxies()


def through(address: str, source: str, *, loopback: bool = False) -> Proxies:
    """All calls through one proxy, or none for `none`. Raises `ValueError`."""
    proxy = read_proxy(address)
    return Proxies({} if proxy is None else dict.fromkeys(SCHEMES, proxy), loopback=loopback, source=source)


def of_environment(variables: Mapping[str, str]) -> Proxies:
    """The proxies of the usual variables, given by what their names have before `_proxy`: http, https, all, no. Raises
    `ValueError` with the name of the variable."""
    found: dict[str, Proxy] = {}
    names: dict[str, None] = {}
    for scheme in SCHEMES:
        used = scheme if variables.get(scheme) else "all"
        if not (address := variables.get(used, "")):
            continue
        name = f"{used.upper()}_PROXY"
        try:
            proxy = read_proxy(address if "://" in address else f"http://{address}")
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if proxy is not None:
            found[scheme] = proxy
            names[name] = None
    exceptions = tuple(filter(None, (entry.strip().lower() for entry in variables.get("no", "").split(","))))
    return Proxies(found, exceptions, source=" and ".join(names))


def authorization(proxy: Proxy) -> dict[str, str]:
    """The header with which a proxy is asked, if it wants a password."""
    if proxy.credentials is None:
        return {}
    return {"proxy-authorization": f"Basic {base64.b64encode(proxy.credentials.encode()).decode()}"}


def is_loopback(host: str) -> bool:
    """True for a name or an address that every machine has for itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _is_excepted(host: str, port: int, entry: str) -> bool:
    """True if an entry of `NO_PROXY` names the host: `*`, a domain with all below it, an address or a network, a host
    with a port."""
    name, _, only = entry.rpartition(":")
    if only.isdigit() and name and (":" not in name or name.endswith("]")):
        return port == int(only) and _is_excepted(host, port, name)
    if "/" in entry:
        try:
            return ip_address(host) in ip_network(entry, strict=False)
        except ValueError:
            return False
    wanted = entry.strip("[]").removeprefix("*").removeprefix(".")
    return entry == "*" or host == wanted or (bool(wanted) and host.endswith(f".{wanted}"))
