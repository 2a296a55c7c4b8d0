"""Which pages a browser may have open beside the web page: none of theirs reaches it."""

import gc

import httpx
import pytest

from linkcontext.app.page import launch
from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Gradio's server and its sockets, as they are closed
]


@pytest.fixture(scope="module")
def served(nano, tmp_path_factory):
    page = launch(
        LocalModel(load_model(str(nano), device="cpu")),
        tmp_path_factory.mktemp("runs"),
        tmp_path_factory.mktemp("served"),
    )
    yield page.local_url
    page.close(verbose=False)
    del page
    gc.collect()  # while warnings about Gradio's sockets are ignored


def test_a_page_of_another_origin_is_refused(served):
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert httpx.get(served, headers=headers).status_code == 403
        assert httpx.post(f"{served}gradio_api/queue/join", json={}, headers=headers).status_code == 403
        sent = {"files": ("a.png", b"x")}
        assert httpx.post(f"{served}gradio_api/upload", files=sent, headers=headers).status_code == 403


def test_the_page_itself_is_served(served):
    own = {"Origin": served.rstrip("/")}
    page = httpx.get(served)
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    sent = httpx.post(f"{served}gradio_api/upload", files={"files": ("a.png", b"x")}, headers=own)
    assert sent.status_code == 200
    config = httpx.get(f"{served}config", headers=own).json()
    joined = {"data": [], "fn_index": config["dependencies"][0]["id"], "session_hash": "s"}
    assert httpx.post(f"{served}gradio_api/queue/join", json=joined, headers=own).status_code == 200
