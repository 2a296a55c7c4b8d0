"""Connections that keep a server waiting are closed, and make room for others."""

import socket
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from linkcontext.serve import connections
from linkcontext.serve.connections import Connections, Timeouts

HALF = b"GET / HTTP/1.1\r\nHost: loc"
WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def app(scope, receive, send):
    """Reads the body, then answers; /large with more than a socket holds."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        size = 50_000_000 if scope["path"] == "/large" else 2
        await PlainTextResponse(b"x" * size)(scope, receive, send)


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(connections, "CHECK_INTERVAL", 0.05)


@contextmanager
def served(timeouts, most=None):
    group = Connections(timeouts, most)
    config = uvicorn.Config(app, port=0, http=group, ws="none", log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    address, clients = server.servers[0].sockets[0].getsockname(), []

    def connect():
        clients.append(socket.create_connection(address, timeout=20))
        return clients[-1]

    try:
        yield group, connect
    finally:
        for client in clients:
            client.close()
        server.should_exit = True
        thread.join()


def until_closed(client):
    """What comes until the server closes."""
    data = b""
    try:
        while piece := client.recv(1 << 20):
            data += piece
    except ConnectionError:
        pass
    return data


def test_headers_that_do_not_end_are_not_waited_for():
    with served(Timeouts(headers=0.3)) as (group, connect):
        client = connect()
        client.sendall(HALF)
        stopped = threading.Event()

        def trickle():  # a byte now and then gives no more time
            while not stopped.wait(0.05):
                try:
                    client.sendall(b"a")
                except OSError:
                    return

        sending = threading.Thread(target=trickle)
        sending.start()
        assert until_closed(client) == b""
        stopped.set()
        sending.join()
        silent = connect()
        assert until_closed(silent) == b""
        assert not group.open


def test_a_second_request_has_the_same_time():
    with served(Timeouts(headers=0.5)) as (_, connect):
        client = connect()
        client.sendall(WHOLE)
        assert b"200 OK" in client.recv(1000)
        client.sendall(WHOLE + HALF)
        assert b"200 OK" in until_closed(client)


def test_a_body_that_does_not_come_is_not_waited_for():
    with served(Timeouts(body=0.3)) as (_, connect):
        client = connect()
        client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
        assert until_closed(client) == b""
        pipelined = connect()
        pipelined.sendall(WHOLE + b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
        assert until_closed(pipelined).count(b"200 OK") == 1


def test_a_client_that_does_not_read_its_answer_is_not_waited_for():
    with served(Timeouts(reading=0.3)) as (group, connect):
        client = connect()
        client.sendall(WHOLE.replace(b"/ ", b"/large ", 1))
        while not group.open:  # until the server has accepted it
            time.sleep(0.01)
        for _ in range(400):
            if not group.open:
                break
            time.sleep(0.05)
        assert not group.open
        assert len(until_closed(client)) < 50_000_000


def test_the_connection_that_waits_longest_makes_room():
    with served(Timeouts(), most=4) as (group, connect):
        waiting = []
        for _ in range(10):
            waiting.append(connect())
            waiting[-1].sendall(HALF)
            time.sleep(0.02)
        assert [until_closed(client) for client in waiting[:6]] == [b""] * 6
        last = connect()
        last.sendall(WHOLE)
        assert b"200 OK" in last.recv(1000)
        assert len(group.open) <= 4
