"""A model that knows nothing, and a server that knows nothing but OpenAI's own fields."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from linkcontext.models.loading import load_model


@pytest.fixture(scope="module")
def nano_model(nano):
    return load_model(str(nano), device="cpu")


class Bare(BaseHTTPRequestHandler):
    """A server that knows nothing but OpenAI's own fields, or refuses all others."""

    strict, refused, asked, models = (
        False,
        (),
        [],
        {"data": [{"id": name, "object": "model"} for name in ("one", "two")]},
    )

    def fault(self):
        """Whether something else than an answer was sent."""
        return False

    def do_GET(self):
        self.say(200, self.models)

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append({**request, "key": self.headers["Authorization"]})
        if self.fault():
            return
        if self.strict and "prompt_logprobs" in request:
            self.say(400, {"error": {"message": "Unrecognized request argument supplied: prompt_logprobs"}})
            return
        if unknown := [name for name in self.refused if name in request]:
            self.say(400, {"error": {"message": f"Unrecognized request argument supplied: {unknown[0]}"}})
            return
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": " It is a lum. "}}
        self.say(200, {"id": "x", "object": "chat.completion", "created": 0, "model": "one", "choices": [choice]})

    def say(self, status, content):
        page = isinstance(content, str)
        body = (content if page else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if page else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def standing():
    """A context with a server of `Bare`'s kind: its address, and the requests that it gets."""

    @contextmanager
    def stand(**more):
        handler = type("Handler", (Bare,), {"asked": [], **more})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"openai:http://127.0.0.1:{server.server_port}/v1", handler.asked
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    return stand


@pytest.fixture(params=[False, True])
def bare(request, standing):
    """The same server: it ignores fields that it does not know, or refuses them."""
    with standing(strict=request.param) as server:
        yield server
