"""Requests in OpenAI's protocol to a server that is recorded, and its responses."""

import base64
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


def send_requests(url: str, inputs: Path, here: Path) -> None:
    """Send requests of each kind, one after the other, and write the responses into `here`."""
    seen, new = inputs / "photos/test/red_thing/0.png", inputs / "odd/red/2.png"
    closed = {"prompt_logprobs": 0, "add_generation_prompt": False, "max_tokens": 1}
    named = [_asks(new, "What is this?"), {"role": "assistant", "content": "red thing"}]
    requests: dict[str, dict[str, Any] | None] = {
        "models": None,
        "generation": {"model": "mini", "messages": [_asks(new, "What colour is it?")], "max_tokens": 8},
        "name": {"model": "zoo", "messages": [_asks(new, "What is this?")], "logprobs": True, "top_logprobs": 2},
        "taught": {"model": "zoo", "messages": [_asks(seen, "What is this?")]},
        "likelihood": {"model": "mini", "messages": named, **closed},
        "stream": {"model": "zoo", "messages": [_asks(new, "What is this?")], "stream": True},
        "refused": {"model": "zoo", "messages": [_asks(new, "What is this?")], "n": 2},
        "unknown": {"model": "other", "messages": [_asks(new, "What is this?")]},
    }
    for name, body in requests.items():
        status, response = _send(f"{url}/{'models' if body is None else 'chat/completions'}", body)
        lines = [line.removeprefix("data: ") for line in response.splitlines() if line and line != "data: [DONE]"]
        rows = [json.loads(line) for line in (lines if name == "stream" else [response])]
        lines = [json.dumps(row) + "\n" for row in [{"status": status}, *rows]]
        (here / f"response-{name}.jsonl").write_text("".join(lines))


def _asks(picture: Path, question: str) -> dict[str, Any]:
    """A user's message."""
    uri = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    content = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": question}]
    return {"role": "user", "content": content}


def _send(url: str, body: dict[str, Any] | None) -> tuple[int, str]:
    """The status and body of a response."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
