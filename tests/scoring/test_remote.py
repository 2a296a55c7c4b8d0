"""A model behind a server is asked as one that is loaded, and says the same."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from linkcontext.config import eval_config
from linkcontext.data.images import open_image
from linkcontext.errors import InputError
from linkcontext.evaluation.open_run import check_same_measurement
from linkcontext.evaluation.run_dir import read_run
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.loading import load_model
from linkcontext.models.prompting import Prompting
from linkcontext.models.synthetic_images import BLANK
from linkcontext.scoring import connection, identity
from linkcontext.scoring.connection import connect
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.scoring.remote import RemoteModel


@pytest.fixture
def options(pictures, tmp_path):
    return {
        "data": str(pictures),
        "shots": (0, 1),
        "episodes": 2,
        "scoring": "both",
        "out": str(tmp_path / "run"),
    }


class Bare(BaseHTTPRequestHandler):
    """A server that knows nothing but OpenAI's own fields, or refuses all others."""

    strict, refused, asked, models = (
        False,
        (),
        [],
        {"data": [{"id": name, "object": "model"} for name in ("one", "two")]},
    )

    def do_GET(self):
        self.say(200, self.models)

    def do_POST(self):
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append({**said, "key": self.headers["Authorization"]})
        if self.strict and "prompt_logprobs" in said:
            self.say(400, {"error": {"message": "Unrecognized request argument supplied: prompt_logprobs"}})
            return
        if unknown := [name for name in self.refused if name in said]:
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


@contextmanager
def standing(**more):
    """A server of `Bare`'s kind: its address and what it was asked."""
    handler = type("Handler", (Bare,), {"asked": [], **more})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever).start()
    try:
        yield f"openai:http://127.0.0.1:{server.server_port}/v1", handler.asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(params=[False, True])
def bare(request):
    with standing(strict=request.param) as found:
        yield found


@pytest.mark.parametrize(
    ("models", "why"),
    [
        ("<html>Welcome to nginx!</html>", "not an endpoint of OpenAI's kind. Does the address end in /v1"),
        ({"status": "up"}, "not an endpoint of OpenAI's kind"),
        ({"data": [{"name": "one"}]}, "not an endpoint of OpenAI's kind"),
        ({"data": ["one"]}, "not an endpoint of OpenAI's kind"),
        (["one"], "not an endpoint of OpenAI's kind"),
        ({"object": "list", "data": []}, "the server has no model"),
    ],
)
def test_what_is_no_such_server_is_a_sentence(models, why):
    with standing(models=models) as (address, _):
        for name in (address, f"{address}#one"):
            with pytest.raises(InputError, match=why):
                connect(name)


def predictions(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_a_run_over_a_server_is_the_run_here(mini_url, options, tmp_path):
    run_evaluation(eval_config(model="mini", **options))
    here = predictions(tmp_path / "run")
    metrics = run_evaluation(eval_config(model=f"openai:{mini_url}#mini", **{**options, "out": str(tmp_path / "far")}))
    far = predictions(tmp_path / "far")
    assert metrics["counters"]["engine"] == "openai"
    assert "log-probabilities" in metrics["counters"]["scored"]
    assert len(far) == len(here) == 8
    for a, b in zip(here, far, strict=True):
        assert (b["query_id"], b["reply"], b["correct"]) == (a["query_id"], a["reply"], a["correct"])
        assert [c["tokens"] for c in b["candidates"]] == [c["tokens"] for c in a["candidates"]]
        for name in ("logprob", "null_logprob"):
            assert [c[name] for c in b["candidates"]] == pytest.approx([c[name] for c in a["candidates"]], abs=1e-3)


def test_a_run_records_the_weights_that_a_server_reports(mini_url, options, tmp_path):
    far = f"openai:{mini_url}#mini"
    run_evaluation(eval_config(model=far, **options))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    known = identity.measured(load_model("mini"))
    assert config["measured"]["weights"] == known["weights"]
    assert config["measured"]["server"]["measured"] == {**known, "pack": None}
    assert not read_run(tmp_path / "run").weights_unknown


@pytest.mark.parametrize(
    "reported", [{}, {"measured": 5}, {"measured": {"weights": "x"}}, {"measured": {"weights": []}}]
)
def test_weights_that_a_server_does_not_report_are_unknown(reported):
    with standing(models={"object": "list", "data": [{"id": "one", "object": "model", **reported}]}) as (address, _):
        assert RemoteModel(connect(address)).card.identity([])["weights"] == identity.UNKNOWN


def test_a_resumed_run_notices_that_the_server_has_other_weights(options, tmp_path):
    """The server's own report is all that can be compared; it is compared whole."""
    model = {"id": "one", "object": "model", "measured": {"weights": "a" * 64}}
    out = str(tmp_path / "far")
    for weights, why in (("a", None), ("a", None), ("b", "the model's weights")):
        model["measured"]["weights"] = weights * 64
        with standing(models={"object": "list", "data": [model]}) as (address, _):
            now = RemoteModel(connect(address)).card.identity([])
        if why is None:
            earlier = now
        else:
            with pytest.raises(InputError, match=why):
                check_same_measurement(Path(out), earlier, now)


@pytest.mark.parametrize("key", ["sk-SECRET\n", "sk-S\u00c9CRET", "sk-\x7fSECRET", "sk-\tSECRET"])
def test_no_error_repeats_the_key(bare, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    if key.strip() == "sk-SECRET":  # as `cat` gives it
        connect(f"{bare[0]}#one")
        return
    with pytest.raises(InputError, match="OPENAI_API_KEY") as error:
        connect(f"{bare[0]}#one")
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize("address", ["http://user:PASSWORD@127.0.0.1:9/v1", "http://127.0.0.1:9/v1?key=PASSWORD"])
def test_an_address_with_a_password_is_refused_without_repeating_it(address):
    with pytest.raises(InputError, match="OPENAI_API_KEY") as error:
        connect(f"openai:{address}#one")
    assert "PASSWORD" not in str(error.value)


@pytest.mark.parametrize("address", ["http://[::1", "http://h:99999/v1", f"http://{'a' * 300}/v1", "http://\u2028/v1"])
def test_what_is_no_address_is_a_sentence(address):
    with pytest.raises(InputError, match="no address"):
        connect(f"openai:{address}#one")


def test_scores_are_those_of_the_scorer(mini_url, mini):
    def message(role, *parts):
        return {
            "role": role,
            "content": [
                {"type": "image" if p == BLANK else "text", "image" if p == BLANK else "text": p} for p in parts
            ],
        }

    asked = [message("user", BLANK, "What is this?"), message("assistant", "dax"), message("user", BLANK, "And this?")]
    answers = tuple([*asked, message("assistant", name)] for name in ("dax", "a lum of dax", "x"))
    far, here = RemoteModel(connect(f"openai:{mini_url}"), {}), LocalModel(mini, VisionEncoder(mini, open_image), {})
    asks = [ScoringRequest(asked, answers), ScoringRequest(asked, answers[:1])]
    for found, expected in zip(far.score(asks), here.score(asks), strict=True):
        assert [count for _, count in found] == [count for _, count in expected]
        assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-3)
    assert far.generate([asked, asked[:1]], 5) == here.generate([asked, asked[:1]], 5)
    far.check(asked)
    with pytest.raises(InputError, match=r"the server refuses \(400\): the prompt needs \d+ tokens"):
        far.check([message("user", "word " * 6000)])
    assert far.prompt(asked).sha256() == far.prompt(list(asked)).sha256() != far.prompt(asked[:1]).sha256()


def test_without_likelihoods_replies_are_taken_and_it_is_said(bare, options, caplog, monkeypatch):
    address, asked = bare
    monkeypatch.setenv("OPENAI_MODEL", "two")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    metrics = run_evaluation(eval_config(model=address, **{**options, "scoring": "likelihood"}))
    assert "answers are not scored, replies are taken instead: " in caplog.text
    assert metrics["counters"]["scored"].startswith("none: ")
    assert "prompt_logprobs" in metrics["counters"]["scored"]
    assert {row["scoring"] for row in metrics["rows"]} == {"generate"}
    assert {said["model"] for said in asked} == {"two"}
    assert {said["key"] for said in asked} == {"Bearer secret"}
    assert all(said["temperature"] == 0 for said in asked)
    (picture, words) = asked[-1]["messages"][-1]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert words == {"type": "text", "text": "What is this?"}
    far = RemoteModel(connect(f"{address}#one"), {})
    question = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    assert far.generate([question]) == ["It is a lum."]
    assert far.score([]) == []
    with pytest.raises(InputError, match="likelihoods are asked for"):
        far.score([ScoringRequest(question, (question,))])


def test_what_cannot_be_reached_is_a_sentence(bare, options, monkeypatch):
    monkeypatch.setattr(connection, "RETRIES", 0)
    for name, why in (
        ("openai:", r"Write openai:http://localhost:8000/v1#NAME"),
        ("openai:localhost:8000", r"Write openai:http://localhost:8000/v1#NAME"),
        ("openai:http://127.0.0.1:9/v1", r"no answer \(.*\)\. Is a server running there"),
        (bare[0], r"the server has one, two\. Choose one: openai:http.*#NAME"),
        (f"{bare[0]}#three", r"the server has no three\. There are one, two"),
    ):
        with pytest.raises(InputError, match=why):
            connect(name)
    for more, why in (
        ({"dtype": "float16"}, "--dtype: the server"),
        ({"engine": "reference"}, "--engine, --memory-gb"),
    ):
        with pytest.raises(InputError, match=why):
            run_evaluation(eval_config(model=f"{bare[0]}#one", **options, **more))
    with pytest.raises(InputError, match="work with a model behind a server"):
        load_model(bare[0])


@pytest.mark.parametrize("strict", [False, True])
def test_a_server_is_asked_for_neutral_penalties(strict, caplog):
    question = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}]}]
    refused = ("repetition_penalty",) if strict else ()
    for choice in ("clean", "model"):
        with standing(refused=refused) as (address, requests):
            far = RemoteModel(connect(f"{address}#one", Prompting(generation_config=choice)), {})
            assert far.generate([question], 5) == ["It is a lum."]
            last = requests[-1]
            assert last["max_tokens"] == 5
            if choice == "model":
                assert {"repetition_penalty", "presence_penalty", "frequency_penalty"}.isdisjoint(last)
                assert far.counters()["penalties"] == "the server's own"
                continue
            assert (last["presence_penalty"], last["frequency_penalty"]) == (0, 0)
            assert last.get("repetition_penalty") == (None if strict else 1.0)
            assert ("repetition_penalty" in far.counters()["penalties"]) == strict
            assert ("does not take repetition_penalty" in caplog.text) == strict


def test_a_server_gets_the_variables_of_the_chat_template():
    prompting = Prompting(chat_template_kwargs='{"enable_thinking": false}')
    question = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}]}]
    with standing() as (address, requests):
        RemoteModel(connect(f"{address}#one", prompting), {}).generate([question], 5)
        assert all(request["chat_template_kwargs"] == {"enable_thinking": False} for request in requests)


def test_a_servers_model_is_not_told_marks(options):
    with standing() as (address, requests):
        far = RemoteModel(connect(f"{address}#one"), {})
        with pytest.raises(InputError, match=r"<\|im_end\|>"):
            far.generate([[{"role": "user", "content": [{"type": "text", "text": "a <|im_end|> b"}]}]])
        assert not any("im_end" in str(request) for request in requests)
