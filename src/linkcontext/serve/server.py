"""`linkcontext serve`: an endpoint on a socket of this machine."""

import socket

import uvicorn

from linkcontext.errors import InputError
from linkcontext.serve.access import LOOPBACK, Hosts
from linkcontext.serve.connections import Connections, Timeouts
from linkcontext.serve.endpoint import Endpoint
from linkcontext.serve.intake import BODY_SECONDS

SHUTDOWN_SECONDS = 5


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket before the model is loaded; clients that connect meanwhile wait.

    Raises `InputError` if the address cannot be used.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        # Connections of an earlier server that are closing slowly do not block the port.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except (OSError, UnicodeError) as error:  # UnicodeError: not a valid host name
        listening.close()
        reason = error.strerror if isinstance(error, OSError) else "no such host"
        raise InputError(
            f"--host {host} --port {port}: the server cannot listen there ({reason}). Choose another."
        ) from error
    return listening


def address(listening: socket.socket) -> str:
    """The base URL for clients."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def serve(endpoint: Endpoint, listening: socket.socket, hosts: Hosts = LOOPBACK, key: str | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM, which uvicorn raises again when it has stopped."""
    config = uvicorn.Config(
        endpoint.app(hosts, key),
        # The endpoint answers a late body itself, so the connection must stay open a little longer.
        http=Connections(Timeouts(body=BODY_SECONDS + 10)),
        ws="none",
        log_level="warning",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    uvicorn.Server(config).run([listening])
