"""Who may ask a server: hosts, origins, keys, content types, and addresses that others can reach."""

import pytest
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from linkcontext.cli import main
from linkcontext.errors import InputError
from linkcontext.serve.access import Access, Hosts, check_exposure, checked_host_names, checked_key
from linkcontext.serve.server import listen

JSON = {"Content-Type": "application/json"}
LOCAL = Hosts()


def client(hosts=LOCAL, key=None):
    return TestClient(Access(PlainTextResponse("in"), hosts, key), base_url="http://localhost:8000")


def refusal(host, hosts=LOCAL, **more):
    return hosts.refusal(Headers({"host": host, **more}))


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:8000", "127.0.0.1:80", "127.9.9.9", "[::1]:8000", "localhost."]
)
def test_this_machine_is_addressed_by_its_loopback(host):
    assert refusal(host) is None


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "localhost@evil.example", "evil.example:8000", "192.168.1.5"),
        *("0.0.0.0", "", " ", "localhost:x", "localhost/", "127.0.0.1.evil.example", "[::1", "localhost, evil.example"),
    ],
)
def test_a_foreign_host_is_refused(host):
    assert "Host header" in refusal(host)
    assert client().get("/v1/models", headers={"Host": host}).status_code == 403


def test_two_hosts_or_none_are_refused():
    assert Hosts().refusal(Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.example")]))
    assert "missing" in Hosts().refusal(Headers(raw=[]))


def test_other_names_are_those_that_were_given():
    beyond = Hosts(frozenset({"localhost", "zoo"}), addresses=True, domains=("gradio.live",))
    for host in ("zoo:8000", "192.168.1.5", "[fe80::1]:80", "1a2b.gradio.live"):
        assert refusal(host, beyond) is None
    for host in ("evil.example", "gradio.live.evil.example", "xgradio.live", "gradio.live"):
        assert refusal(host, beyond)
    assert checked_host_names(["zoo", "Zoo.example"]) == ["zoo", "Zoo.example"]
    for name in ("http://zoo", "zoo:80", "", "a b"):
        with pytest.raises(InputError, match="--allow-host"):
            checked_host_names([name])


def test_a_socket_says_which_hosts_are_its_own():
    with listen("127.0.0.1", 0) as inner:
        assert Hosts.of(inner, ["zoo"]) == Hosts(frozenset({"localhost", "zoo"}))
        check_exposure(inner, "127.0.0.1", None, False)
    with listen("0.0.0.0", 0) as outer:
        assert Hosts.of(outer).addresses
        with pytest.raises(InputError, match=r"--host 0\.0\.0\.0.*has no key"):
            check_exposure(outer, "0.0.0.0", None, False)
        check_exposure(outer, "0.0.0.0", "secret", False)
        check_exposure(outer, "0.0.0.0", None, True)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "http://localhost", "file://", "localhost:8000", ""]
)
def test_a_foreign_origin_is_refused(origin):
    answer = client().post("/x", headers={"Origin": origin, **JSON})
    assert answer.status_code == 403
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_pages_of_the_same_origin_may_ask():
    assert client().post("/x", headers={"Origin": "http://localhost:8000", **JSON}).text == "in"
    assert refusal("zoo", Hosts(frozenset({"zoo"})), origin="https://zoo") is None  # behind a proxy with TLS
    assert refusal("zoo:443", Hosts(frozenset({"zoo"})), origin="https://zoo") is None


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"])
def test_a_body_says_that_it_is_json(kind):
    assert client().post("/x", headers={"Content-Type": kind}).status_code == 415
    assert client().post("/x", headers={"Content-Type": "Application/JSON; charset=utf-8"}).text == "in"


def test_a_key_is_asked_for_everywhere_but_for_health():
    guarded = client(key="s3cret-key")
    for sent in ("", "Bearer", "Bearer s3cret-keY", "Basic s3cret-key", "s3cret-key", "Bearer s3cret-key2", "Bearer ü"):
        answer = guarded.get("/v1/models", headers={"Authorization": sent.encode()})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "s3cret" not in answer.text
    assert guarded.get("/v1/models").status_code == 401
    assert guarded.get("/health").text == "in"
    assert guarded.get("/v1/models", headers={"Authorization": "bearer s3cret-key"}).text == "in"


def test_a_key_is_one_that_can_be_sent_and_is_asked_for():
    assert checked_key(None, None, False) is None
    assert checked_key("flag", "variable", False) == "flag"
    assert checked_key(None, "variable", False) == "variable"
    for flag, variable, name in (
        ("", "good", "--api-key"),
        (None, "", "LINKCONTEXT_API_KEY"),
        ("a b", None, "--api-key"),
    ):
        with pytest.raises(InputError, match=f"{name}: a key has 1 to 512"):
            checked_key(flag, variable, False)
    with pytest.raises(InputError, match="--no-auth: LINKCONTEXT_API_KEY gives a key"):
        checked_key(None, "variable", True)


def test_the_command_refuses_to_be_reached_by_others_without_a_key(monkeypatch, capsys):
    monkeypatch.delenv("LINKCONTEXT_API_KEY", raising=False)
    with pytest.raises(SystemExit, match="2"):
        main(["serve", "--host", "0.0.0.0", "--port", "0"])
    assert "has no key" in capsys.readouterr().err
    monkeypatch.setenv("LINKCONTEXT_API_KEY", "never-shown")
    with pytest.raises(SystemExit, match="2"):
        main(["serve", "--no-auth", "--port", "0"])
    shown = capsys.readouterr()
    assert "never-shown" not in shown.err + shown.out
