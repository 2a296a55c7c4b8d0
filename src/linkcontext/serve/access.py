"""Access control by the headers of a request, before anything of its body is read.

A web page can make a browser send requests to a server on the same machine: through a domain of the page's author that
resolves to 127.0.0.1 (DNS rebinding), which the `Host` header reveals, or as a request that needs no preflight, which
`Origin` and the content type reveal.
"""

import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from linkcontext.errors import InputError

PORTS = {"http": 80, "https": 443}
OPEN_PATHS = ("/health",)  # answered without a key
HOST_NAME = re.compile(r"[a-z0-9._:%-]+")  # or an IP address
KEY = re.compile(r"[\x21-\x7e]{1,512}")  # characters that a header can hold


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names under which a server may be addressed.

    Loopback addresses are always accepted; with `addresses` every IP address is, because DNS rebinding needs a name.
    `domains` accepts every name below them.
    """

    names: frozenset[str] = frozenset({"localhost"})
    addresses: bool = False
    domains: tuple[str, ...] = ()

    @classmethod
    def of(cls, listening: socket.socket, names: Iterable[str] = ()) -> "Hosts":
        """The names of a server that listens on a socket, and further `names`."""
        known = {"localhost", *(name.lower() for name in names if name)}
        if is_loopback(listening):
            return cls(frozenset(known))
        own = socket.gethostname().lower()
        return cls(frozenset({*known, own, f"{own}.local"}), addresses=True)

    def __contains__(self, host: str) -> bool:
        name = host.removesuffix(".")
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self.names or self._below(name)
        return self.addresses or address.is_loopback

    def _below(self, name: str) -> bool:
        """Whether a name is below one of the domains."""
        return any(name.endswith(f".{domain}") for domain in self.domains)

    def refusal(self, headers: Headers) -> str | None:
        """Why a request with these headers is refused: a foreign `Host` or `Origin`. None if it is not."""
        given = headers.getlist("host")
        host = _authority(f"//{given[0]}") if len(given) == 1 else None
        if host is None or host[0] not in self:
            named = f"{given[0][:80]!r}" if given else "that is missing"
            return (
                f"the request's Host header {named} is not a name of this server. Address it as localhost or by its IP "
                "address, or start it with --allow-host NAME."
            )
        for origin in headers.getlist("origin"):
            scheme = origin.partition("://")[0].lower()
            sender = _authority(origin.partition(":")[2]) if scheme in PORTS else None
            default = PORTS.get(scheme, 0)
            same = sender is not None and (sender[0], sender[1] or default) == (host[0], host[1] or default)
            # A tunnel may rewrite the host and keep the origin.
            if not same and not (sender is not None and self._below(sender[0])):
                return f"pages of {origin[:80]!r} may not ask this server. Only pages of its own origin may."
        return None


LOOPBACK = Hosts()  # of a server that only this machine can reach


@dataclass(frozen=True)
class Access:
    """An ASGI middleware that refuses requests with a wrong host, origin, key or content type.

    `key` is the key that clients must send, or None.
    """

    app: Any
    hosts: Hosts = LOOPBACK
    key: str | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a refused request, or pass the request on."""
        if scope["type"] == "http" and (refused := self._refusal(scope["method"], scope["path"], Headers(scope=scope))):
            status, message = refused
            kind = "authentication_error" if status == 401 else "invalid_request_error"
            # The body is not read, so the connection cannot be used any further.
            headers = {"Connection": "close"} | ({"WWW-Authenticate": "Bearer"} if status == 401 else {})
            content: Mapping[str, Any] = {"message": message, "type": kind, "param": None, "code": None}
            await JSONResponse({"error": content}, status, headers)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        if foreign := self.hosts.refusal(headers):
            return 403, foreign
        if self.key is not None and path not in OPEN_PATHS and not _has_key(headers, self.key):
            return 401, "the key is missing or wrong. Send the server's key: Authorization: Bearer KEY."
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method == "POST" and media_type != "application/json":
            return 415, "the body must be declared as JSON. Send the header Content-Type: application/json."
        return None


def _has_key(headers: Headers, key: str) -> bool:
    """Whether the right key was sent, compared in constant time."""
    given = headers.getlist("authorization")
    if len(given) != 1 or given[0][:7].lower() != "bearer ":
        return False
    return hmac.compare_digest(given[0][7:].strip().encode(), key.encode())


def _authority(text: str) -> tuple[str, int | None] | None:
    """Host and port of `//host:port`, or None if it is anything else."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    if text != f"//{parts.netloc}" or "@" in parts.netloc or not HOST_NAME.fullmatch(host):
        return None
    return host, port


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine can reach a socket."""
    address = ipaddress.ip_address(listening.getsockname()[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def checked_key(flag: str | None, variable: str | None, no_auth: bool) -> str | None:
    """The key that clients must send: that of --api-key, or of $LINKCONTEXT_API_KEY, or None.

    Raises `InputError` for a key that is empty or that a header cannot hold, and for a key together with --no-auth.
    """
    source, key = ("--api-key", flag) if flag is not None else ("LINKCONTEXT_API_KEY", variable)
    if key is None:
        return None
    if no_auth:
        raise InputError(f"--no-auth: {source} gives a key, which would have no effect. Leave one of them out.")
    if not KEY.fullmatch(key):
        raise InputError(f"{source}: a key has 1 to 512 printable ASCII characters, without spaces. Choose another.")
    return key


def checked_host_names(names: Iterable[str]) -> list[str]:
    """The names of --allow-host. Raises `InputError` for anything but a host name."""
    for name in names:
        if _authority(f"//{name}") != (name.lower(), None):
            raise InputError(f"--allow-host {name}: give only the host name, without http:// and without a port.")
    return list(names)


def check_exposure(listening: socket.socket, host: str, key: str | None, no_auth: bool) -> None:
    """Raise `InputError` for a server that other machines can reach without a key, unless `no_auth` allows it."""
    if key is None and not no_auth and not is_loopback(listening):
        raise InputError(
            f"--host {host}: other machines could reach this server, which has no key. Set LINKCONTEXT_API_KEY or give "
            "--api-key, or use --no-auth to need none."
        )
