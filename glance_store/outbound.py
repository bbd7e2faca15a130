"""Where a URL from a caller may lead: schemes, hosts, ports and, once resolved, addresses.

An image mirror inside the operator's network is an honest source; this host, its neighbours on
the link and a cloud's metadata service are not. Whoever fetches for a caller connects with
`Outbound.connect`, which looks a name up once and connects to an address it has checked, so a
name cannot change between the check and the use (CVE-2017-7200, OSSA-2026-004). What a caller
hears of a refusal is what it hears of any failure to connect (SEC-044).
"""

import ipaddress
import logging
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from oslo_config import cfg, types

from glance_store.errors import BackendUnavailable, BadStoreConfiguration

LOG = logging.getLogger(__name__)

GROUP: Final = "copy_from"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DENIED_NETWORKS: Final = (
    "127.0.0.0/8",
    "::1/128",
    "169.254.0.0/16",
    "fe80::/10",
    # Metadata services outside the link-local range.
    "fd00:ec2::254/128",
    "100.100.100.200/32",
    "192.0.0.192/32",
    "0.0.0.0/8",
    "::/128",
    "224.0.0.0/4",
    "ff00::/8",
    "255.255.255.255/32",
)

# Prefixes after which the last four bytes are an IPv4 address: mapped, compatible, NAT64.
_EMBEDDING: Final = tuple(
    ipaddress.IPv6Network(prefix)
    for prefix in ("::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48")
)

_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\.?")
# As browsers decide: a name whose last label is a number is meant as an IPv4 address.
_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:\d+|0[xX][0-9a-fA-F]*)\.?")

OPTIONS: Final = (
    cfg.ListOpt(
        "allowed_schemes",
        default=[],
        help="Schemes of URLs that callers may give as location or copy-from. Empty: those of "
        "the enabled stores; of those that are read with the service's own rights, only "
        "administrators may copy. Those that name this host's own files or credentials are never "
        "allowed.",
    ),
    cfg.ListOpt(
        "allowed_hosts",
        default=[],
        help="Host names, *.domain patterns or addresses that callers' URLs may name. Empty: any.",
    ),
    cfg.ListOpt(
        "denied_hosts",
        default=[],
        help="Host names, *.domain patterns or addresses that callers' URLs may not name.",
    ),
    cfg.ListOpt(
        "allowed_ports",
        default=[],
        item_type=types.Port(),
        help="Ports that callers' URLs may lead to. Empty: any.",
    ),
    cfg.ListOpt(
        "denied_networks",
        default=list(DENIED_NETWORKS),
        help="Networks that no connection on a caller's behalf goes to, whatever name led "
        "there. IPv4 networks include their IPv6 forms (mapped, NAT64, 6to4).",
    ),
    cfg.ListOpt(
        "allowed_networks",
        default=[],
        help="Networks that are allowed although denied_networks includes them.",
    ),
    cfg.IntOpt("max_redirects", default=5, min=0, help="Redirects followed for one request."),
    cfg.FloatOpt(
        "connect_timeout", default=10.0, min=0.1, help="Seconds to wait for a connection."
    ),
    cfg.FloatOpt(
        "idle_timeout", default=60.0, min=0.1, help="Seconds to wait for more from a source."
    ),
    cfg.FloatOpt(
        "sizing_timeout",
        default=5.0,
        min=0.1,
        help="Seconds within which a source must tell its size. A failure is told only when "
        "they are over, so that its kind cannot be measured.",
    ),
    cfg.FloatOpt(
        "total_timeout", default=86400.0, min=1, help="Seconds that one copy may take at most."
    ),
    cfg.IntOpt(
        "minimum_rate",
        default=1024,
        min=0,
        help="Bytes per second that a source must deliver on average, once it has been waited "
        "for idle_timeout seconds. 0: no such limit.",
    ),
    cfg.IntOpt(
        "retries",
        default=2,
        min=0,
        help="Times a broken transfer is taken up again where it stopped.",
    ),
)


class OutboundRefused(BackendUnavailable):
    """The operator's rules forbid the connection; tells a caller no more than its parent does."""


@dataclass(frozen=True, slots=True)
class OutboundRules:
    """The options above, parsed. Times are seconds."""

    allowed_schemes: frozenset[str] = frozenset()
    allowed_hosts: tuple[str, ...] = ()
    denied_hosts: tuple[str, ...] = ()
    allowed_ports: frozenset[int] = frozenset()
    denied_networks: tuple[Network, ...] = tuple(map(ipaddress.ip_network, DENIED_NETWORKS))
    allowed_networks: tuple[Network, ...] = ()
    max_redirects: int = 5
    connect_timeout: float = 10.0
    idle_timeout: float = 60.0
    sizing_timeout: float = 5.0
    total_timeout: float = 86400.0
    minimum_rate: int = 1024
    retries: int = 2

    @classmethod
    def configured(cls, conf: Mapping[str, Any]) -> Self:
        """The values of the section's options. Raises BadStoreConfiguration, naming the option."""
        given = {option.dest: conf[option.dest] for option in OPTIONS}
        for name in ("allowed_schemes", "allowed_ports"):
            given[name] = frozenset(given[name])
        for name in ("allowed_hosts", "denied_hosts"):
            given[name] = tuple(host.lower().rstrip(".") for host in given[name])
        for name in ("denied_networks", "allowed_networks"):
            given[name] = tuple(_networks(name, given[name]))
        return cls(**given)


class Outbound:
    """Connections on behalf of callers, under the operator's rules."""

    def __init__(self, rules: OutboundRules | None = None) -> None:
        self.rules = rules or OutboundRules()

    def check_host(self, host: str, port: int) -> None:
        """Raise OutboundRefused for a host or port that is not allowed, without looking it up."""
        host = host.lower()
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if not _is_plain(host):
            raise _refused("a host is spelt in an unusual way")
        if self.rules.allowed_ports and port not in self.rules.allowed_ports:
            raise _refused("a port is not in allowed_ports")
        host = host.rstrip(".")
        if _matches(host, self.rules.denied_hosts):
            raise _refused("a host is in denied_hosts")
        if self.rules.allowed_hosts and not _matches(host, self.rules.allowed_hosts):
            raise _refused("a host is not in allowed_hosts")

    def check_address(self, address: str) -> None:
        """Raise OutboundRefused for an address, in any of its forms, in a denied network."""
        forms = list(_forms(ipaddress.ip_address(address.partition("%")[0])))
        if _within(forms, self.rules.allowed_networks):
            return
        if _within(forms, self.rules.denied_networks):
            raise _refused("an address is in denied_networks")

    def resolve(self, host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
        """Every address of host, as (family, socket address); all of them are allowed.

        Raises OutboundRefused, or BackendUnavailable for a name without addresses.
        """
        self.check_host(host, port)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise BackendUnavailable() from None
        for *_, address in found:
            self.check_address(str(address[0]))
        return [(family, address) for family, _, _, _, address in found]

    def connect(self, host: str, port: int, timeout: float | None = None) -> socket.socket:
        """A connection to one of host's addresses, tried in turn within timeout seconds.

        Raises OutboundRefused, BackendUnavailable for a name without addresses, or the
        OSError of the last address tried.
        """
        seconds = self.rules.connect_timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        last: OSError = ConnectionRefusedError("no address")
        for family, address in self.resolve(host, port):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(left)
                connection.connect(address)
            except OSError as error:
                connection.close()
                last = error
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise last


def _networks(option: str, texts: Iterable[str]) -> Iterator[Network]:
    for text in texts:
        try:
            yield ipaddress.ip_network(text.strip(), strict=False)
        except ValueError:
            raise BadStoreConfiguration(
                f"[{GROUP}] {option}: '{text}' is not a network such as 10.0.0.0/8"
            ) from None


def _refused(reason: str) -> OutboundRefused:
    # The reason is for the operator; the host would be the caller's text in our log.
    LOG.warning("a connection on behalf of a caller was refused: %s", reason)
    return OutboundRefused()


def _is_plain(host: str) -> bool:
    """Whether host is an address in its one standard spelling, or cannot be taken for one."""
    if ":" in host:
        return "%" not in host and _is_address(ipaddress.IPv6Address, host)
    if _NUMERIC.fullmatch(host):
        return _is_address(ipaddress.IPv4Address, host)
    return _HOST.fullmatch(host) is not None


def _is_address(kind: type[Address], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _matches(host: str, patterns: Sequence[str]) -> bool:
    return any(
        host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:]))
        for pattern in patterns
    )


def _forms(address: Address) -> Iterator[Address]:
    """address, and the IPv4 addresses that it stands for."""
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in prefix for prefix in _EMBEDDING):
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.sixtofour is not None:
            yield address.sixtofour


def _within(forms: Iterable[Address], networks: Sequence[Network]) -> bool:
    return any(
        form.version == network.version and form in network
        for form in forms
        for network in networks
    )
