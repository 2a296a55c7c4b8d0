"""Seven attacks on `linkcontext serve`, and what another client notices of each: nothing may take twice as long.

Everything stays on this machine's loopback, in one server process, and is bounded in number and time. Slowdowns and
memory are printed (`pytest -s`); docs/security.md has the figures.
"""

import base64
import http.client
import io
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from PIL import Image

pytestmark = pytest.mark.heavy
JSON = {"Content-Type": "application/json"}
ROUTE = "/v1/chat/completions"
MOST = 2  # times as long as without an attack
SLACK = 0.1  # seconds that a request may take longer anyway: the machine has other work
LEFT = 200_000_000  # bytes that may be in use after an attack and were not before


class Server:
    """The endpoint in a process of its own."""

    def __init__(self, port, process):
        self.port, self.process = port, psutil.Process(process.pid)

    def post(self, body, headers=JSON, timeout=600):
        """A request in a connection of its own: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", ROUTE, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def get(self, path, headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def rss(self):
        return self.process.memory_info().rss


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("serve") / "log"
    source = Path(__file__).resolve().parents[2] / "src"
    environment = os.environ | {"PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        # Little is kept of conversations, so that what an attack leaves behind can be told from it.
        options = ["--model", "mini", "--device", "cpu", "--port", "0", "--hold-gb", "0.05"]
        command = [sys.executable, "-m", "linkcontext", "serve", *options]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    try:
        for _ in range(3000):
            if address := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text()):
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        assert address, "the server did not start within five minutes"
        server = Server(int(address[1]), process)
        for number in range(6):
            assert server.post(question(number))[0] == 200
        yield server
        assert "Traceback" not in log.read_text()
    finally:
        process.terminate()
        process.wait(20)


def png(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def message(*parts, **more):
    content = [
        {"type": "image_url", "image_url": {"url": part}}
        if part.startswith("data:")
        else {"type": "text", "text": part}
        for part in parts
    ]
    return {"model": "mini", "max_tokens": 4, "messages": [{"role": "user", "content": content}], **more}


def question(number):
    """What an ordinary client asks: a new picture each time."""
    return message(png(Image.effect_noise((96, 96 + number % 7), 40 + number % 50).convert("RGB")), "What is this?")


def bombs(count):
    return [png(Image.new("1", (7000, 7000 + number))) for number in range(count)]


def times(server, count, start=0):
    """How long each of some ordinary requests takes, one after the other."""
    taken = []
    for number in range(start, start + count):
        body, begun = json.dumps(question(number)).encode(), time.monotonic()
        status, answer = server.post(body)
        taken.append(time.monotonic() - begun)
        assert status == 200, answer
    return taken


@contextmanager
def unharmed(server, name, count):
    """Ordinary requests during an attack take less than twice as long as before it, and its memory is given back.

    The attack is the block's; requests are measured until it is over, at least `count`.
    """
    before, memory = times(server, count), server.rss()
    over, measured = threading.Event(), []

    def measure():
        while len(measured) < count or not over.is_set():
            measured.extend(times(server, 1, 1000 + len(measured)))

    with ThreadPoolExecutor(1) as pool:
        measuring = pool.submit(measure)
        try:
            yield
        finally:
            over.set()
        measuring.result()
    time.sleep(1)
    after = times(server, count)  # what else the machine does may have changed meanwhile
    left = server.rss() - memory
    usual, attacked = max(statistics.median(before), statistics.median(after)), statistics.median(measured)
    print(
        f"\n{name}: median {usual:.3f} -> {attacked:.3f} s ({attacked / usual:.2f} x), longest "
        f"{max(before + after):.3f} -> {max(measured):.3f} s, {len(measured)} requests, {left / 1e6:+.0f} MB"
    )
    assert attacked <= MOST * usual + SLACK
    assert left <= LEFT


def test_many_large_pictures_in_one_request(server, count):
    twelve, two = message(*bombs(12), "?"), message(*bombs(2), "?")
    assert len(json.dumps(twelve)) < 120_000
    with unharmed(server, "large pictures", 20):
        for _ in range(count(20)):
            status, answer = server.post(twelve)
            assert status == 400
            assert "pixels" in answer
        with ThreadPoolExecutor(4) as pool:  # as many as one request may have, from several clients
            statuses = [status for status, _ in pool.map(server.post, [two] * count(20))]
        assert set(statuses) == {200}


def test_long_texts_that_are_refused(server, count):
    with unharmed(server, "long texts", 20):
        for number in range(count(30)):
            for size in (4_000_000, 1_000_000, 50_000):
                status, answer = server.post(message(f"{number} word " * (size // 7)))
                assert status == 400
                assert "context" in answer
                time.sleep(0.2)


def test_bodies_sent_byte_by_byte(server, count):
    head = f"POST {ROUTE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n"
    senders = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(64)]
    try:
        for sender in senders:
            sender.sendall(head.encode())
        with unharmed(server, "slow bodies", 20):
            for _ in range(count(100)):
                for sender in senders:
                    sender.sendall(b" ")
                time.sleep(0.2)
    finally:
        for sender in senders:
            sender.close()


def test_a_million_stop_strings(server, count):
    many = json.dumps(message("?", stop=["x"] * 1_000_000)).encode()
    long = json.dumps(message("?", stop=["x" * 1_000_000])).encode()
    deep = json.dumps(message("?")).replace('"?"', "[" * 500 + "]" * 500).encode()
    numbers = b'{"model": "mini", "stop": [' + b"1," * 8_000_000 + b"1]}"
    objects = b'{"model": "mini", "messages": [' + b'{"a":1},' * 1_000_000 + b'{"a":1}]}'
    fields = ("{" + ",".join(f'"a{number}":1' for number in range(1_000_000)) + "}").encode()
    with unharmed(server, "stop strings", 20):
        for _ in range(count(30)):
            for body in (many, long, deep, numbers, objects, fields):
                status, answer = server.post(body)
                assert status == 400
                assert json.loads(answer)["error"]["message"].endswith(".")
                time.sleep(0.2)


def test_half_sent_headers(server, count):
    senders = []
    try:
        with unharmed(server, "half-sent headers", 20):
            for _ in range(400):
                sender = socket.create_connection(("127.0.0.1", server.port))
                sender.sendall(f"POST {ROUTE} HTTP/1.1\r\nHost: localh".encode())
                senders.append(sender)
            began = time.monotonic()
            while time.monotonic() < began + 15:  # one byte more does not give them more time
                for sender in senders[::4]:
                    with suppress(OSError):
                        sender.send(b"o")
                time.sleep(1)
        closed = 0
        for sender in senders:
            sender.settimeout(5)
            try:
                closed += not sender.recv(100)
            except ConnectionError:
                closed += 1
        assert closed == 400
    finally:
        for sender in senders:
            sender.close()


def test_more_connections_than_there_are_places(server):
    """Connections that send nothing make room for those that do."""
    senders = []
    try:
        for _ in range(700):
            senders.append(socket.create_connection(("127.0.0.1", server.port)))
        times(server, 10)
    finally:
        for sender in senders:
            sender.close()


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.example:80", "localhost@evil.example", "0.0.0.0", "", "a b"],
)
def test_a_foreign_host(server, host):
    for path in ("/v1/models", "/health"):
        assert server.get(path, {"Host": host}) in (400, 403)
    assert server.post(question(0), {"Host": host, **JSON})[0] in (400, 403)
    own = f"127.0.0.1:{server.port}"
    assert server.get("/v1/models", {"Host": own}) == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-www-form-urlencoded", ""])
def test_a_foreign_origin(server, kind):
    body = json.dumps(question(0)).encode()
    for origin in ("http://evil.example", "null", "http://localhost:1", "https://localhost.evil.example"):
        assert server.post(body, {"Origin": origin, "Content-Type": kind})[0] == 403
    if kind != "application/json":
        assert server.post(body, {"Content-Type": kind})[0] == 415
    own = {"Origin": f"http://127.0.0.1:{server.port}", **JSON}
    assert server.post(body, own)[0] == 200
