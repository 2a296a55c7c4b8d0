"""Who may ask a server: checks of a request's headers, before anything of its body is read.

A page in a browser can send requests to a server on the same machine: under a name of the page's own that resolves to
127.0.0.1 (DNS rebinding), which the `Host` header shows, or as a request that needs no preflight, which `Origin` and
the content type show.
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
OPEN = ("/health",)  # answered without a key: says that the server is up, and nothing else
NAME = re.compile(r"[a-z0-9._:%-]+")  # of a host, or its address
KEY = re.compile(r"[\x21-\x7e]{1,512}")  # what can stand in a header


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names under which a server may be addressed.

    Loopback addresses are always accepted, and with `addresses` every IP address, because rebinding needs a name.
    Of `domains` every name below them is accepted.
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
        """Why a request with these headers is refused, or None: its `Host` is foreign, or its `Origin` is."""
        given = headers.getlist("host")
        host = _authority(f"//{given[0]}") if len(given) == 1 else None
        if host is None or host[0] not in self:
            named = f"{given[0][:80]!r}" if given else "that is missing"
            return (
                f"the request's Host header {named} is none of this server's names. Address it as localhost or by its "
                "IP address, or start it with --allow-host NAME."
            )
        for origin in headers.getlist("origin"):
            scheme = origin.partition("://")[0].lower()
            sender = _authority(origin.partition(":")[2]) if scheme in PORTS else None
            usual = PORTS.get(scheme, 0)
            same = sender is not None and (sender[0], sender[1] or usual) == (host[0], host[1] or usual)
            # A tunnel may rewrite the host and leave the origin.
            if not same and not (sender is not None and self._below(sender[0])):
                return f"a page of {origin[:80]!r} may not ask this server: only pages of its own origin may."
        return None


@dataclass(frozen=True)
class Access:
    """An ASGI middleware that refuses requests without the right host, origin, key or content type.

    `key` is the key that clients must send, or None.
    """

    app: Any
    hosts: Hosts = Hosts()
    key: str | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a refused request here; pass any other on."""
        if scope["type"] == "http" and (refused := self._refusal(scope["method"], scope["path"], Headers(scope=scope))):
            status, message = refused
            kind = "authentication_error" if status == 401 else "invalid_request_error"
            # The body is not read: the connection ends here.
            more = {"Connection": "close"} | ({"WWW-Authenticate": "Bearer"} if status == 401 else {})
            content: Mapping[str, Any] = {"message": message, "type": kind, "param": None, "code": None}
            await JSONResponse({"error": content}, status, more)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        if foreign := self.hosts.refusal(headers):
            return 403, foreign
        if self.key is not None and path not in OPEN and not _has_key(headers, self.key):
            return 401, "the key is missing or wrong. Send the server's key: Authorization: Bearer KEY."
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method == "POST" and media_type != "application/json":
            return 415, "the body must be JSON and say so. Send the header Content-Type: application/json."
        return None


def _has_key(headers: Headers, key: str) -> bool:
    """Whether the right key was sent. The time of the comparison does not depend on where the two differ."""
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
    if text != f"//{parts.netloc}" or "@" in parts.netloc or not NAME.fullmatch(host):
        return None
    return host, port


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine can reach a socket."""
    address = ipaddress.ip_address(listening.getsockname()[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def checked_key(flag: str | None, variable: str | None, no_auth: bool) -> str | None:
    """The key that clients must send: that of --api-key, else that of $LINKCONTEXT_API_KEY, else none.

    Raises `InputError` for a key that is empty or cannot stand in a header, and for a key with --no-auth.
    """
    source, key = ("--api-key", flag) if flag is not None else ("LINKCONTEXT_API_KEY", variable)
    if key is None:
        return None
    if no_auth:
        raise InputError(f"--no-auth: {source} gives a key, which would not be needed. Leave one of them out.")
    if not KEY.fullmatch(key):
        raise InputError(
            f"{source}: a key is 1 to 512 letters, digits and signs of ASCII, without spaces. Choose another."
        )
    return key


def checked_names(names: Iterable[str]) -> list[str]:
    """The names of --allow-host. Raises `InputError` for anything but a host name."""
    for name in names:
        if _authority(f"//{name}") != (name.lower(), None):
            raise InputError(f"--allow-host {name}: give the name alone, without http:// and without a port.")
    return list(names)


def check_exposure(listening: socket.socket, host: str, key: str | None, no_auth: bool) -> None:
    """Raise an `InputError` for a server that other machines can reach and that needs no key."""
    if key is None and not no_auth and not is_loopback(listening):
        raise InputError(
            f"--host {host}: other machines could ask this server, and it has no key. Set LINKCONTEXT_API_KEY or give "
            "--api-key; with --no-auth whoever reaches it can ask."
        )
