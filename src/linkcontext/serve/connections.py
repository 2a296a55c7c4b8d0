"""Limits on the endpoint's connections: how many may be open, and how long each may wait for its client.

uvicorn limits neither the time for a request's headers, nor the time for reading a response, nor the number of
connections. `Connection` passes everything on to uvicorn's own protocol and only observes what it waits for.
`Connections` closes those that wait too long and, at the maximum number, the one that has waited longest.
"""

import asyncio
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 512
CHECK_INTERVAL = 1.0  # seconds
Phase = Literal["idle", "headers", "body", "answer", "reading", "closing"]
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How many seconds the server waits for a client."""

    headers: float = 10  # until the headers of a request are complete
    body: float = 60  # until its body is complete
    reading: float = 60  # until the client reads more of the response
    closing: float = 10  # until the connection is closed
    idle: float = 30  # until the next request; uvicorn itself closes most connections earlier

    def of(self, phase: Phase) -> float:
        """The timeout of a phase. Computing the answer has none."""
        seconds: dict[str, float] = asdict(self)
        return seconds.get(phase, float("inf"))


class Connections:
    """The open connections of one server. uvicorn calls it as its protocol class."""

    def __init__(self, timeouts: Timeouts, most: int | None = None) -> None:
        self.timeouts = timeouts
        # Half of the files that the process may open: the other half is for everything else.
        self.most = most or min(MAX_CONNECTIONS, _max_open_files() // 2)
        self.open: set[Connection] = set()
        self.checking = False

    def __call__(self, **options: Any) -> "Connection":
        """The protocol of a new connection."""
        return Connection(self, H11Protocol(**options))

    def add(self, connection: "Connection") -> bool:
        """Register a new connection. False if there is no room for it.

        At the maximum, the connection that has waited longest for its client is closed; there is no room if all of them
        are being answered.
        """
        if len(self.open) >= self.most:
            waiting = [other for other in self.open if other.observe()[0] != "answer"]
            if not waiting:
                return False
            min(waiting, key=lambda other: other.since).abort()
        self.open.add(connection)
        if not self.checking:
            self.checking = True
            asyncio.get_running_loop().call_later(CHECK_INTERVAL, self._check)
        return True

    def _check(self) -> None:
        """Close connections that waited too long, and check again later while there are any."""
        for connection in list(self.open):
            phase, seconds = connection.observe()
            if seconds > self.timeouts.of(phase):
                connection.abort()
        self.checking = bool(self.open)
        if self.checking:
            asyncio.get_running_loop().call_later(CHECK_INTERVAL, self._check)


def _max_open_files() -> int:
    """The number of files and sockets that the process may have open."""
    if sys.platform == "win32":
        return 2 * MAX_CONNECTIONS
    import resource  # noqa: PLC0415 - does not exist on Windows

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Connection(asyncio.Protocol):
    """One connection, handled by uvicorn's protocol `inner`."""

    def __init__(self, group: Connections, inner: Any) -> None:
        self.group, self.inner = group, inner
        self.transport: asyncio.Transport | None = None
        self.since = time.monotonic()  # when the current phase began
        self.pauses = 0  # how often the client did not keep up with the response
        self.paused = False
        self._at: tuple[Any, ...] = ()

    def observe(self) -> tuple[Phase, float]:
        """The current phase, and for how many seconds it has lasted."""
        phase = self._phase()
        at = phase, self.pauses, id(self.inner.cycle)
        if at != self._at:
            self._at, self.since = at, time.monotonic()
        return phase, time.monotonic() - self.since

    def _phase(self) -> Phase:
        if self.transport is None or self.transport.is_closing():
            return "closing"
        if self.paused:
            return "reading"
        state = self.inner.conn.their_state
        if state is h11.IDLE:
            return "headers" if self.inner.timeout_keep_alive_task is None else "idle"
        if state is h11.SEND_BODY:
            return "body"
        return "answer"

    def abort(self) -> None:
        """Close the connection at once. Data that was not sent yet is lost."""
        self.group.open.discard(self)
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass the connection on, or answer with status 503 if there is no room."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.group.add(self):
            self.inner.connection_made(transport)
            self.observe()
        else:
            self.inner = None
            transport.write(FULL)
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Pass data on."""
        if self.inner is not None:
            self.inner.data_received(data)
            self.observe()

    def eof_received(self) -> None:
        """Pass the end of the client's data on."""
        if self.inner is not None:
            self.inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the loss on, and remove the connection."""
        self.group.open.discard(self)
        if self.inner is not None:
            self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Note that the client does not keep up with the response."""
        self.paused, self.pauses = True, self.pauses + 1
        if self.inner is not None:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Note that the client has caught up."""
        self.paused = False
        if self.inner is not None:
            self.inner.resume_writing()
