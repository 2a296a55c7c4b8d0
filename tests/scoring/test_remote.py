"""A model behind a server is asked as one that is loaded, and says the same."""

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

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
from linkcontext.scoring import identity
from linkcontext.scoring.connection import connect
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.scoring.remote import RemoteModel
from linkcontext.scoring.remote_pictures import _data_uri


@pytest.fixture
def options(pictures, tmp_path):
    return {
        "data": str(pictures),
        "shots": (0, 1),
        "episodes": 2,
        "scoring": "both",
        "out": str(tmp_path / "run"),
    }


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
def test_weights_that_a_server_does_not_report_are_unknown(standing, reported):
    with standing(models={"object": "list", "data": [{"id": "one", "object": "model", **reported}]}) as (address, _):
        assert RemoteModel(connect(address)).card.identity([])["weights"] == identity.UNKNOWN


def test_a_resumed_run_notices_that_the_server_has_other_weights(standing, tmp_path):
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


def test_a_run_goes_on_at_another_address_of_the_same_model(mini_url, options, tmp_path):
    run_evaluation(eval_config(model=f"openai:{mini_url}#mini", **options))
    path = tmp_path / "run" / "predictions.jsonl"
    whole, lines = predictions(tmp_path / "run"), path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]))
    moved = mini_url.replace("127.0.0.1", "localhost")
    assert moved != mini_url
    run_evaluation(eval_config(model=f"openai:{moved}#mini", **options))
    assert [(p["query_id"], p["shots_per_class"], p["reply"]) for p in predictions(tmp_path / "run")] == [
        (p["query_id"], p["shots_per_class"], p["reply"]) for p in whole
    ]
    with pytest.raises(InputError, match="model was openai:#mini and is mini"):
        run_evaluation(eval_config(model="mini", **options))


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
    assert "answers are not scored by likelihood; replies are matched instead: " in caplog.text
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
    with pytest.raises(InputError, match="likelihoods are needed"):
        far.score([ScoringRequest(question, (question,))])


def test_what_only_a_server_can_choose_is_refused(bare, options):
    for more, why in (
        ({"dtype": "float16"}, "--dtype: the server"),
        ({"engine": "reference"}, "--engine, --memory-gb"),
    ):
        with pytest.raises(InputError, match=why):
            run_evaluation(eval_config(model=f"{bare[0]}#one", **options, **more))
    with pytest.raises(InputError, match="work with a model behind a server"):
        load_model(bare[0])


@pytest.mark.parametrize("strict", [False, True])
def test_a_server_is_asked_for_neutral_penalties(standing, strict, caplog):
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
            assert ("does not accept repetition_penalty" in caplog.text) == strict


def test_a_servers_model_is_not_told_marks(standing):
    with standing() as (address, requests):
        far = RemoteModel(connect(f"{address}#one"), {})
        with pytest.raises(InputError, match=r"<\|im_end\|>"):
            far.generate([[{"role": "user", "content": [{"type": "text", "text": "a <|im_end|> b"}]}]])
        assert not any("im_end" in str(request) for request in requests)


def test_a_server_gets_smaller_pictures(tmp_path):
    Image.effect_noise((90, 50), 60).convert("RGB").save(tmp_path / "a.png")
    sent = lambda most: _data_uri("a", tmp_path / "a.png", most)  # noqa: E731
    decoded = {most: Image.open(io.BytesIO(base64.b64decode(sent(most).partition(",")[2]))) for most in (None, 450)}
    assert {most: image.size for most, image in decoded.items()} == {None: (90, 50), 450: (28, 15)}
    assert sent(None) == sent(4500)
