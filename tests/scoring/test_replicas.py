"""Requests are shared among servers; one that is busy, fails, goes away or restarts loses none."""

import threading
import time
from types import SimpleNamespace

import httpx
import openai
import pytest

from linkcontext.errors import InputError
from linkcontext.scoring import replicas as module
from linkcontext.scoring.connection import connect
from linkcontext.scoring.remote import RemoteModel
from linkcontext.scoring.replicas import Refused, Replica, Replicas

REQUEST = httpx.Request("POST", "http://h/v1")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.02)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_MODEL", raising=False)


def status(code, message="why", **headers):
    """The client's error for a response."""
    response = httpx.Response(code, request=REQUEST, headers=headers)
    kind = openai.InternalServerError if code >= 500 else openai.APIStatusError
    return kind(message, response=response, body={"message": message})


def gone():
    """The client's error where nobody listens."""
    return openai.APIConnectionError(request=REQUEST)


def servers(*urls):
    return Replicas([Replica(url, None) for url in urls])


def answering(script):
    """A call that raises the errors of each server in turn, and then gives the server's address."""

    def ask(replica):
        errors = script.get(replica.url, [])
        if errors:
            raise errors.pop(0)
        return replica.url

    return ask


@pytest.mark.parametrize("passing", [status(429), status(409), status(500), status(503), gone(), ValueError("cut")])
def test_what_passes_is_tried_again(passing):
    assert servers("a").call(answering({"a": [passing] * 3})) == "a"


def test_a_refusal_is_final():
    script = {"a": [status(400, "At most 4 images may be given")]}
    with pytest.raises(Refused, match=r"a: the server refuses \(400\): At most 4 images"):
        servers("a").call(answering(script))
    assert not script["a"]


def test_a_server_that_always_fails_is_given_up():
    with pytest.raises(InputError, match=r"a: the server failed on a request 8 times \(500: out of memory\)"):
        servers("a").call(answering({"a": [status(500, "out of memory")] * 99}))


def test_a_server_that_stays_away_is_given_up_after_the_patience():
    with pytest.raises(InputError, match=r"a: no answer .* Is a server running there"):
        servers("a").call(answering({"a": [gone() for _ in range(9999)]}), patience=0.1)


def test_a_busy_server_is_asked_again_when_it_says():
    begin = time.monotonic()
    assert servers("a").call(answering({"a": [status(429, **{"retry-after": "0.3"})]})) == "a"
    assert time.monotonic() - begin >= 0.3
    assert servers("a").call(answering({"a": [status(429, **{"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"})]})) == "a"


def test_requests_of_a_busy_server_go_to_the_others(caplog):
    begin, pool = time.monotonic(), servers("a", "b")
    script = {"a": [status(429, "slow down", **{"retry-after": "60"}) for _ in range(99)]}
    assert {pool.call(answering(script), f"support {i}") for i in range(20)} == {"b"}
    assert time.monotonic() - begin < 5
    assert caplog.text.count("a: is busy (429: slow down)") == 1
    assert len(script["a"]) == 98


def test_a_server_that_hangs_does_not_end_a_request_that_another_can_answer(monkeypatch):
    """The client's time-out is as long as the patience."""
    pool = servers("a", "b")

    def ask(replica):
        if replica.url == "a":
            time.sleep(0.2)
            raise openai.APITimeoutError(request=REQUEST)
        return replica.url

    assert {pool.call(ask, f"support {i}", patience=0.1) for i in range(9)} == {"b"}


@pytest.mark.parametrize("body", [None, {}, {"detail": "Not Found"}, {"message": None}])
def test_a_refusal_without_a_message_has_what_the_server_sent(body):
    page = "<html>\x1b[2J\n" + "x" * 9000
    error = openai.APIStatusError(page, response=httpx.Response(404, request=REQUEST), body=body)
    with pytest.raises(Refused, match=r"refuses \(404\): <html> \[2J xxx") as refused:
        servers("a").call(answering({"a": [error]}))
    assert len(str(refused.value)) < 700


def test_requests_of_a_server_that_went_away_go_to_the_others():
    pool = servers("a", "b")
    script = {"a": [gone() for _ in range(10_000)]}
    assert {pool.call(answering(script), f"support {i}") for i in range(50)} == {"b"}


def test_a_server_that_comes_back_is_used_again_after_it_was_checked():
    checked = []
    pool = Replicas([Replica("a", None)], [lambda replica: checked.append(replica.url)])
    assert pool.call(answering({"a": [gone(), gone()]})) == "a"
    assert checked == ["a", "a"]
    assert pool.call(answering({})) == "a"
    assert len(checked) == 2

    def other(_replica):
        raise InputError("another model")

    with pytest.raises(InputError, match="another model"):
        Replicas([Replica("a", None)], [other]).call(answering({"a": [gone()]}))


def test_the_same_beginning_goes_to_the_same_server_and_beginnings_are_spread():
    pool = servers("a", "b", "c")
    places = {f"support {i}": pool.call(answering({}), f"support {i}") for i in range(300)}
    assert all(pool.call(answering({}), beginning) == place for beginning, place in places.items())
    counts = [list(places.values()).count(url) for url in "abc"]
    assert min(counts) > 60


def test_no_server_is_given_much_more_than_its_share_for_one_beginning():
    pool, most, lock, gate = servers("a", "b"), {"a": 0, "b": 0}, threading.Lock(), threading.Event()

    def ask(replica):
        with lock:
            most[replica.url] += 1
        gate.wait(10)

    waiting = [threading.Thread(target=pool.call, args=(ask, "one support")) for _ in range(16)]
    for thread in waiting:
        thread.start()
    while sum(most.values()) < 16:
        time.sleep(0.01)
    gate.set()
    for thread in waiting:
        thread.join()
    assert min(most.values()) >= 4


def test_who_waits_for_a_server_stops_when_the_work_is_given_up():
    pool = servers("a")
    pool.stopped.set()
    with pytest.raises(InputError, match="stopped"):
        pool.call(answering({"a": [gone() for _ in range(99)]}))


def two(standing, first, second):
    """Two servers with these lists of models: their addresses, as one writes them."""
    return standing(models={"object": "list", "data": first}), standing(models={"object": "list", "data": second})


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ([{"id": "one", "measured": {"weights": "b"}}], "measured differs"),
        ([{"id": "one", "measured": {"weights": "a"}, "max_model_len": 5}], "max_model_len differs"),
        ([{"id": "two"}], "Name one that all of them have"),
    ],
)
def test_servers_of_different_models_are_refused(standing, second, why):
    a, b = two(standing, [{"id": "one", "measured": {"weights": "a"}}], second)
    with a as (one, _), b as (other, _), pytest.raises(InputError, match=why):
        connect(f"{one},{other.removeprefix('openai:')}")


def test_two_servers_share_the_prompts_of_a_model(standing):
    a, b = two(standing, [{"id": "one", "root": "/here"}], [{"id": "one", "root": "/there"}])
    with a as (one, first), b as (other, second):
        model = RemoteModel(connect(f"{one}, {other.removeprefix('openai:')}#one"))
        prompts = [[{"role": "user", "content": [{"type": "text", "text": f"{i}?"}]}] for i in range(40)]
        assert model.generate(prompts, 5) == ["It is a lum."] * 40
        assert len(first) > 5 < len(second)
        asked = [request["messages"][0]["content"] for request in (*first, *second)]
        assert sorted(text for text in asked if text != "Hello") == sorted(f"{i}?" for i in range(40))  # each once
        assert model.card.describe()["source"].count("http://") == 2
    with pytest.raises(InputError, match="an address is given twice"):
        connect("openai:http://h/v1,http://h/v1/")


def flaky(handler):
    """Each answer fails once in one of four ways before it is given."""
    last = handler.asked[-1]["messages"][0]["content"]
    tries = sum(request["messages"][0]["content"] == last for request in handler.asked)
    kind = {"busy": 429, "broken": 500, "cut": None, "no json": "<html>"}.get(last.partition(" ")[0])
    if tries > 1 or last == "Hello":
        return False
    if isinstance(kind, int):
        handler.say(kind, {"error": {"message": "not now"}})
    elif kind:
        handler.say(200, kind)
    else:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"id": "x", "choices": [{"mess')
        handler.close_connection = True
    return True


def test_a_server_that_is_busy_breaks_or_cuts_its_answers_loses_none(standing):
    with standing(fault=flaky) as (address, requests):
        model = RemoteModel(connect(f"{address}#one"))
        texts = [f"{kind} {number}" for number in range(6) for kind in ("busy", "broken", "cut", "no json")]
        prompts = [[{"role": "user", "content": [{"type": "text", "text": text}]}] for text in texts]
        assert model.generate(prompts, 5) == ["It is a lum."] * len(texts)
        sent = [request["messages"][0]["content"] for request in requests]
        assert all(sent.count(text) == 2 for text in texts)


def test_an_answer_without_a_message_is_a_sentence(standing):
    with standing() as (address, _):
        model = connect(f"{address}#one")
        client = SimpleNamespace(create=lambda **_: SimpleNamespace(choices=[]))
        model.replicas.all[0].client = SimpleNamespace(chat=SimpleNamespace(completions=client))
        model.replicas.rechecks.clear()
        with pytest.raises(InputError, match=r"failed on a request 8 times \(its answer cannot be read"):
            model.complete([{"role": "user", "content": "?"}], 1)
