"""`linkcontext app`: what it prints, and when it opens a browser."""

import webbrowser
from types import SimpleNamespace

import pytest

from linkcontext.app.page import addresses
from linkcontext.cli import main, serve

URL = "http://127.0.0.1:7861/"


@pytest.fixture
def opened(monkeypatch):
    """The addresses that are opened while a page is said to be served."""
    pages = []
    monkeypatch.setattr(webbrowser, "open", pages.append)
    monkeypatch.setattr("linkcontext.evaluation.open_model.open_model", lambda _: "a model")
    monkeypatch.setattr(
        "linkcontext.app.page.serve_page",
        lambda model, root, port, share, head, ready: ready(URL, [f"{model}, {port}, {share}, {head}: {URL}"]),
    )
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(variable, raising=False)
    return pages


def test_the_address_is_printed_and_opened_where_there_is_a_display(opened, monkeypatch, capsys):
    monkeypatch.setattr(serve.sys, "platform", "linux")
    main(["app"])
    assert capsys.readouterr().out == f"Loading mini ...\na model, None, False, auto: {URL}\n"
    assert opened == []  # a browser of the terminal would take it over
    monkeypatch.setenv("DISPLAY", ":0")
    main(["app", "--no-open"])
    assert opened == []
    main(["app", "--port", "7861", "--head", "lm"])
    assert opened == [URL]
    assert f"a model, 7861, False, lm: {URL}" in capsys.readouterr().out
    monkeypatch.setattr(serve.sys, "platform", "darwin")
    monkeypatch.delenv("DISPLAY")
    main(["app"])
    assert opened == [URL, URL]
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")
    main(["app"])
    assert opened == [URL, URL]


def test_a_port_that_is_taken_and_a_public_address_that_is_not_had_are_told():
    page = SimpleNamespace(local_url=URL, server_port=7861, share_url=None)
    taken, here = addresses(page, None)
    assert taken == "Port 7860 is in use by another program, so this page uses another one."
    assert here == f"linkcontext app: {URL} (Ctrl-C stops it)"
    assert addresses(page, 7861) == [here]
    page.server_port = 7860
    assert addresses(page, None) == [here]
    assert addresses(page, None, True) == [here, "There is no public address: Gradio's servers could not be reached."]
    page.share_url = "https://x.gradio.live"
    assert addresses(page, None, True) == [here, "public address: https://x.gradio.live"]
