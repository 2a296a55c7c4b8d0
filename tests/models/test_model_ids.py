import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants

from linkcontext.errors import InputError
from linkcontext.models import hub
from linkcontext.models.loading import load_model, load_processor


@pytest.fixture
def online(monkeypatch):
    """The hub is asked again in each test, at the address that the test sets."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "TIMEOUT_S", 60.0)  # a busy machine answers late
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    hub.hub_failure.cache_clear()
    yield lambda address: monkeypatch.setattr(constants, "ENDPOINT", address)
    hub.hub_failure.cache_clear()


@pytest.fixture
def closed():
    """The address of a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("status", [200, 404, 503])
def test_a_hub_that_answers_is_reached(online, status):
    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        online(f"http://127.0.0.1:{server.server_port}")
        failure = hub.hub_failure()
        thread.join()
    assert failure is None
    assert not hub.is_local_only("somebody/model")
    assert hub.is_local_only("somebody/model", download=False)


def test_a_folder_is_never_asked_of_the_hub(online, closed, tmp_path):
    online(closed)
    assert hub.is_local_only(str(tmp_path))
    assert hub.hub_failure.cache_info().misses == 0


def test_without_a_network_a_model_that_is_not_here_is_refused_without_trying_again(online, closed, monkeypatch):
    online(closed)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waited {seconds} s to try again"))
    for load in (load_model, load_processor):
        with pytest.raises(InputError, match=r"nor a folder, and the Hugging Face hub cannot be reached \(.*refused"):
            load("somebody/model-that-is-not-here")


def test_a_name_close_to_a_bundled_model_is_asked_about(online, closed):
    online(closed)
    with pytest.raises(InputError, match=r"cannot be reached .* Did you mean mini\?"):
        load_model("mimi")


def test_a_hub_that_was_switched_off_is_not_asked(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.hub_failure.cache_clear()
    assert hub.hub_failure() == "HF_HUB_OFFLINE is set"
    hub.hub_failure.cache_clear()
