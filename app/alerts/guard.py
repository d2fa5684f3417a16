"""Where a webhook may lead: never into the network that this service stands in.

A URL is judged when a webhook is made and again at every attempt, and what is connected to is the
very address that was judged: a name that answers differently the next moment leads nowhere else.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[list[str]]]

RESOLVE_S = 5.0
LONGEST_URL = 2048
WEB_PORTS = frozenset({80, 443})
MAIL_PORTS = frozenset({25, 465, 587})
FIRST_FREE_PORT = 1024
PORTS = {"http": 80, "https": 443}
_NAT64 = IPv6Network("64:ff9b::/96")
_CLOSED = [
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "168.63.129.16/32",
        "::/96",
        "64:ff9b:1::/48",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
    )
]
"""Not for everyone, though Python does not say so of all: relays, tunnels, a cloud's own wire."""
_METADATA = [
    ip_network(text)
    for text in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32")
]


class Refused(Exception):
    """The place is not one that messages are sent to; says why."""


class Target(NamedTuple):
    """The parts of a URL that was found fit. `path` has the query with it."""

    scheme: str
    host: str
    port: int
    path: str


async def resolved(host: str, port: int) -> list[str]:
    """Every address of a name, as the machine's resolver knows them."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def target_of(url: str, *, allow_http: bool) -> Target:
    """Take a URL apart; there is no second reading of it anywhere.

    Raises:
        Refused: not an http(s) URL that a stranger may name.
    """
    if not 1 <= len(url) <= LONGEST_URL or not url.isascii():
        raise Refused(f"a URL of at most {LONGEST_URL} ASCII characters is expected")
    if any(char <= " " or char in '\\\x7f"<>`{}|^' for char in url):
        raise Refused("there is a character that no URL has")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Refused("this is not a URL") from None
    if parts.scheme not in PORTS or (parts.scheme == "http" and not allow_http):
        raise Refused("https is expected" if not allow_http else "http or https is expected")
    if "@" in parts.netloc:
        raise Refused("no user name or password may stand in the URL")
    if not host or "%" in host:
        raise Refused("a host is missing")
    path = parts.path or "/"
    return Target(
        parts.scheme,
        host,
        PORTS[parts.scheme] if port is None else port,
        f"{path}?{parts.query}" if parts.query else path,
    )


class Guard:
    """Judges hosts by every address that they have."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        allow_http: bool = False,
        allow_hosts: Iterable[str] = (),
        resolve: Resolve = resolved,
    ) -> None:
        self.allow_http = allow_http
        self._allow_private = allow_private
        self._names: set[str] = set()
        self._networks: list[Network] = []
        self._resolve = resolve
        for entry in filter(None, (one.strip().lower() for one in allow_hosts)):
            try:
                self._networks.append(ip_network(entry))
            except ValueError:
                self._names.add(entry.rstrip("."))

    async def judge_url(self, url: str) -> Target:
        """Take the URL apart and judge where it leads now.

        Raises:
            Refused: it is not for us to send there, or it leads nowhere.
        """
        target = target_of(url, allow_http=self.allow_http)
        await self.addresses(target.host, target.port)
        return target

    async def addresses(
        self, host: str, port: int, *, ports: frozenset[int] = WEB_PORTS
    ) -> list[str]:
        """The addresses to connect to, all judged; one that is refused refuses the name.

        Raises:
            Refused: a port or an address that is not for us, or the name has no address.
        """
        named = host.lower().rstrip(".") in self._names
        if not named and port not in ports and not FIRST_FREE_PORT <= port <= 65535:
            raise Refused(f"port {port} is not one that webhooks use")
        try:
            async with asyncio.timeout(RESOLVE_S):
                found = await self._resolve(host, port)
        except (OSError, UnicodeError):
            raise Refused("the host has no address") from None
        except TimeoutError:
            raise Refused("the host was not resolved in time") from None
        if not found:
            raise Refused("the host has no address")
        if not named and not all(self._may(address) for address in found):
            raise Refused("the host has an address that is not public")
        return found

    def _may(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        address = behind(address)
        if is_public(address) or any(address in network for network in self._networks):
            return True
        if not self._allow_private or any(address in network for network in _METADATA):
            return False
        return address.is_loopback or (address.is_private and not address.is_unspecified)


def behind(address: Address) -> Address:
    """The IPv4 address that a mapped or NAT64 one leads to; any other is itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Whether the address is one of the internet's, for everyone, and of one host."""
    if any(address in network for network in _CLOSED):
        return False
    if isinstance(address, IPv6Address) and address.is_site_local:
        return False
    return address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or address.is_loopback
        or address.is_link_local
        or address.is_private
    )
