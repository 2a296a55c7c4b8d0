"""Connections of the endpoint: how many there are, and how long each may wait for its client.

uvicorn limits neither the time for a request's headers, nor the time for reading an answer, nor the number of
connections. `Connection` passes everything on to uvicorn's own protocol and only observes what it waits for.
`Connections` closes those that wait too long and, when all places are taken, the one that has waited longest.
"""

import asyncio
import sys
import time
from dataclasses import dataclass
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 512  # open connections
EVERY = 1.0  # seconds between two looks at all connections
Phase = Literal["idle", "headers", "body", "answer", "reading", "closing"]
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Patience:
    """For how many seconds a server waits for its client."""

    headers: float = 10  # until the headers of a request are complete
    body: float = 60  # until its body is
    reading: float = 60  # until the client reads on in its answer
    closing: float = 10  # until a connection that is over is closed
    idle: float = 30  # until the next request; uvicorn itself closes most of them earlier

    def of(self, phase: Phase) -> float:
        """The seconds for a phase; computing the answer has no limit."""
        return float("inf") if phase == "answer" else float(getattr(self, phase))


class Connections:
    """The open connections of one server: what uvicorn calls its protocol class."""

    def __init__(self, patience: Patience, most: int | None = None) -> None:
        self.patience = patience
        self.most = most or min(MOST, _files() // 2)  # the other half is for what else the process opens
        self.open: set[Connection] = set()
        self.looking = False

    def __call__(self, **options: Any) -> "Connection":
        """The protocol of a new connection."""
        return Connection(self, H11Protocol(**options))

    def add(self, connection: "Connection") -> bool:
        """Register a new connection and return True, or False if the server is answering all the others.

        When all places are taken, the connection that has waited longest for its client is closed.
        """
        if len(self.open) >= self.most:
            waiting = [other for other in self.open if other.look()[0] != "answer"]
            if not waiting:
                return False
            min(waiting, key=lambda other: other.since).abort()
        self.open.add(connection)
        if not self.looking:
            self.looking = True
            asyncio.get_running_loop().call_later(EVERY, self._look)
        return True

    def _look(self) -> None:
        """Close the connections that waited too long, and look again while there are any."""
        for connection in list(self.open):
            phase, seconds = connection.look()
            if seconds > self.patience.of(phase):
                connection.abort()
        self.looking = bool(self.open)
        if self.looking:
            asyncio.get_running_loop().call_later(EVERY, self._look)


def _files() -> int:
    """How many files and sockets the process may have open."""
    if sys.platform == "win32":
        return 2 * MOST
    import resource  # noqa: PLC0415 - only there

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Connection(asyncio.Protocol):
    """One connection, handled by `inner`."""

    def __init__(self, group: Connections, inner: Any) -> None:
        self.group, self.inner = group, inner
        self.transport: asyncio.Transport | None = None
        self.since = time.monotonic()  # when the present phase began
        self.pauses = 0  # how often the client did not keep up with its answer
        self.paused = False
        self._at: tuple[Any, ...] = ()

    def look(self) -> tuple[Phase, float]:
        """The present phase, and for how many seconds it has lasted."""
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
        """Close at once; data that was not sent yet is lost."""
        self.group.open.discard(self)
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let uvicorn have it, if there is a place."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.group.add(self):
            self.inner.connection_made(transport)
            self.look()
        else:
            self.inner = None
            transport.write(FULL)
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self.inner is not None:
            self.inner.data_received(data)
            self.look()

    def eof_received(self) -> None:
        """Pass it on."""
        if self.inner is not None:
            self.inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on, and free the place."""
        self.group.open.discard(self)
        if self.inner is not None:
            self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Note that the client does not keep up."""
        self.paused, self.pauses = True, self.pauses + 1
        if self.inner is not None:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Note that it has caught up."""
        self.paused = False
        if self.inner is not None:
            self.inner.resume_writing()
