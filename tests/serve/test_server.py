"""The socket of the endpoint."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import uvicorn

from linkcontext.errors import InputError
from linkcontext.models.loading import load_model
from linkcontext.serve.endpoint import Endpoint
from linkcontext.serve.openai_protocol import Limits
from linkcontext.serve.server import address, listen


@pytest.fixture(scope="module")
def model(nano):
    return load_model(str(nano), device="cpu")


def test_an_address_is_taken_before_anything_is_answered_there(model):
    with listen("127.0.0.1", 0) as heard:
        port = heard.getsockname()[1]
        assert address(heard) == f"http://127.0.0.1:{port}/v1"
        with pytest.raises(
            InputError, match=rf"--port {port}: the server cannot listen there \(Address already in use\)"
        ):
            listen("127.0.0.1", port)
        with pytest.raises(
            InputError, match=r"--host no\.such\.host\.invalid --port 0: the server cannot listen there"
        ):
            listen("no.such.host.invalid", 0)
        endpoint = Endpoint("mini", model, Limits())
        with ThreadPoolExecutor(1) as early:
            waits = early.submit(httpx.get, f"{address(heard)}/models", timeout=20)
            config = uvicorn.Config(endpoint.app(), log_level="warning")
            server = uvicorn.Server(config)
            serving = threading.Thread(target=server.run, args=[[heard]])
            serving.start()
            assert [card["id"] for card in waits.result().json()["data"]] == ["mini"]
            server.should_exit = True
            serving.join()
