"""A server with OpenAI's fields alone, whose reply is a digest of the conversation: `python replica.py PORT`.

It prints its port. With 0 it takes a free one.
"""

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Replica(BaseHTTPRequestHandler):
    """Answers at once, and the same on every server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.say({"object": "list", "data": [{"id": "one", "object": "model", "created": 0, "owned_by": "me"}]})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        digest = hashlib.sha256(json.dumps(request["messages"], sort_keys=True).encode()).hexdigest()
        message = {"role": "assistant", "content": digest[:16]}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        self.say({"id": "x", "object": "chat.completion", "created": 0, "model": "one", "choices": [choice]})

    def say(self, content):
        """Send JSON."""
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Replica)
    print(server.server_port, flush=True)
    server.serve_forever()
