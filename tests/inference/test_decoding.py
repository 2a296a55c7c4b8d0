"""Greedy replies: clean whatever the checkpoint says, or with its penalties, the same in every engine."""

import json
import shutil

import pytest

from linkcontext.config import eval_config
from linkcontext.data.class_folders import open_folder
from linkcontext.data.images import open_image
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.scaffold import SCAFFOLDS, query_messages
from linkcontext.errors import InputError
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.loading import load_model
from linkcontext.models.prompting import Prompting
from linkcontext.scoring.local import LocalModel

# The network of the tests says token 3 again and again.
SETTINGS = {
    "repetition_penalty": {"repetition_penalty": 3.0},
    "ngram": {"no_repeat_ngram_size": 1},
    "suppress": {"suppress_tokens": [3]},
    "begin": {"begin_suppress_tokens": [3]},
    "longer": {"min_new_tokens": 5},
    "bad_words": {"bad_words_ids": [[3]]},
    "sampling": {"do_sample": True, "temperature": 5.0, "top_k": 50},
}


@pytest.fixture(scope="module")
def asked(pictures):
    """Sources and prompts of an episode, of different lengths."""
    dataset = open_folder(pictures)
    (episode,) = sample_episodes(dataset, EpisodePlan(ways=2, shots_per_class=(0, 1, 2), episodes=1)).episodes
    prompts = [query_messages(episode, q, k, SCAFFOLDS["turns"]) for k in (0, 1, 2) for q in (0, 1)]
    return {item.id: (item.sha256, dataset.root / item.path) for item in dataset.items}, prompts


def configured(nano, folder, settings):
    shutil.copytree(nano, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return str(folder)


def tokens(model, asked, engine, batch=16):
    """What a model says in tokens: as text the replies of a network that knows nothing can be empty."""
    sources, prompts = asked
    heard = {}

    def listen(n, token, _):
        heard.setdefault(n, []).append(token)
        return True

    LocalModel(model, VisionEncoder(model, open_image), sources, batch, engine).generate(prompts, 8, on_token=listen)
    return [[t for t in heard.get(n, []) if t not in model.ends] for n in range(len(prompts))]


@pytest.mark.parametrize("settings", list(SETTINGS))
def test_replies_are_the_same_in_every_engine(nano, asked, tmp_path, settings):
    plain = tokens(load_model(str(nano), device="cpu"), asked, "prefix-cache")
    source = configured(nano, tmp_path / "m", SETTINGS[settings])
    clean = load_model(source, device="cpu")
    own = load_model(source, device="cpu", prompting=Prompting(generation_config="model"))
    for engine in ("prefix-cache", "reference"):
        assert tokens(clean, asked, engine) == plain, engine
    found = tokens(own, asked, "prefix-cache")
    assert found == tokens(own, asked, "reference") == tokens(own, asked, "reference", batch=1)
    assert (found == plain) == (settings in ("sampling", "longer"))
    assert clean.network.generation_config.to_dict().items() >= SETTINGS[settings].items()  # it is kept as it was
    recorded = own.describe()["generation_config"]
    assert recorded == ("model" if settings == "sampling" else SETTINGS[settings])
    assert clean.describe()["generation_config"] == "clean"


def test_a_setting_that_cannot_be_used_is_a_sentence(nano, asked, tmp_path):
    source = configured(nano, tmp_path / "m", {"bad_words_ids": [[7]]})
    model = load_model(source, device="cpu", prompting=Prompting(generation_config="model"))
    model.network.generation_config.bad_words_ids = [["x"]]
    with pytest.raises(InputError, match=r"bad_words_ids .* cannot be used"):
        tokens(model, asked, "prefix-cache")


def test_a_run_that_is_resumed_with_another_engine_says_so(nano, pictures, tmp_path, caplog):
    flags = {"model": str(nano), "data": str(pictures), "shots": (0, 1), "episodes": 2, "explain": 0}
    out = tmp_path / "run"
    metrics = run_evaluation(eval_config(**flags, out=str(out)))
    assert "engines" not in metrics["counters"]
    lines = (out / "predictions.jsonl").read_text().splitlines(keepends=True)
    assert {json.loads(line)["engine"] for line in lines} == {"prefix-cache"}
    (out / "predictions.jsonl").write_text("".join(lines[:4]))
    metrics = run_evaluation(eval_config(**flags, engine="reference", out=str(out)))
    assert metrics["counters"]["engines"] == "prefix-cache 4, reference 4"
    assert "prefix-cache 4, reference 4" in caplog.text
