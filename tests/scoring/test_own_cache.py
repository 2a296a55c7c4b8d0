"""A model on copies of its own cache: what is built on shared prefixes works, and training says what it does.

The model is an ordinary one, of which it is said that its layers follow no mask.
"""

import logging
from types import SimpleNamespace

import pytest

from linkcontext.config import ModelConfig
from linkcontext.data.images import open_image, sha256
from linkcontext.episodes.scaffold import SCAFFOLDS, build_messages
from linkcontext.errors import InputError
from linkcontext.inference.state_cache import StateEngine
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.loading import load_model
from linkcontext.records import Turn
from linkcontext.scoring import engine_choice
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.serve.prefix_cache import PrefixCacheLRU
from linkcontext.source import open_data
from linkcontext.teach.learner import Learner
from linkcontext.teach.pack import read_pack
from linkcontext.teach.pack_writing import write_pack
from linkcontext.train import setup
from linkcontext.train.config import TrainConfig

WHY = "layers of kind conv cannot run branches side by side"


@pytest.fixture(scope="module")
def loaded(nano):
    return load_model(str(nano), device="cpu")


@pytest.fixture(scope="module")
def paths():
    dataset = open_data("world:3")
    return [[dataset.root / item.path for item in items] for items in dataset.by_class().values()]


@pytest.fixture
def model(loaded, paths, monkeypatch):
    """The model with pictures, on copies of its own cache."""
    monkeypatch.setattr(engine_choice, "maskless_kinds", lambda _network: WHY)
    sources = {sha256(path): (sha256(path), path) for row in paths[:4] for path in row[:4]}
    return LocalModel(loaded, VisionEncoder(loaded, open_image), sources)


def prompts(model, shots, answer=None):
    """Prompts with so many turns of support, for two queries."""
    items = list(model.sources)
    turns = [Turn(item, "", ("lum", "dax")[number % 2]) for number, item in enumerate(items[:shots])]
    answers = () if answer is None else (answer,)
    return [build_messages(turns, SCAFFOLDS["turns"], Turn(item, "", ""), *answers) for item in items[8:10]]


def requests(model, *counts):
    return [
        ScoringRequest(prompt, tuple(prompts(model, shots, name)[number] for name in ("dax", "lum", "dax lum")))
        for shots in counts
        for number, prompt in enumerate(prompts(model, shots))
    ]


def values(scores):
    return [value for row in scores for value, _ in row]


def test_scores_replies_and_likelihoods_are_those_of_whole_prompts(model, loaded):
    whole = LocalModel(loaded, model.eyes, model.sources, 4, "reference")
    asked = requests(model, 0, 1, 4)
    assert values(model.score(asked)) == pytest.approx(values(whole.score(asked)), abs=1e-4)
    told = [request.messages for request in asked]
    assert model.generate(told, 5) == whole.generate(told, 5)
    for own, other in zip(model.prompt_logprobs(told, "none"), whole.prompt_logprobs(told, "none"), strict=True):
        assert own[0] == other[0]
        assert own[1] == pytest.approx(other[1], abs=1e-4)


def test_a_run_says_how_it_was_computed(model, loaded):
    counters = model.counters()
    assert counters["engine"] == "prefix-cache"
    assert counters["engine_reason"].endswith(f"on copies of the model's own cache: {WHY}")
    assert model.lacks("shared prefixes") == model.lacks("image features") == ""
    with pytest.raises(InputError, match=f"--engine tree: {WHY}"):
        _ = LocalModel(loaded, model.eyes, model.sources, 4, "tree").engine


def test_too_little_memory_for_the_copies_is_refused_with_the_sum(model, loaded):
    asked = requests(model, 4)
    small = LocalModel(loaded, model.eyes, model.sources, memory_gb=1e-6)
    with pytest.raises(InputError, match=r"GB are too little: a support of \d+ tokens keeps .*Raise --memory-gb"):
        small.score(asked)


def test_a_conversation_that_continues_uses_its_prefix_whole_and_another_does_not(model, monkeypatch):
    first, _ = prompts(model, 2)
    held = model.prefill([first])
    assert not held.divisible
    cache = PrefixCacheLRU(model, 10**9)
    cache.add(held)
    assert cache.nbytes == held.nbytes > 0
    answer = {"role": "assistant", "content": [{"type": "text", "text": "dax"}]}
    longer = [*first, answer, *first[-1:]]
    assert cache.match(longer) is held
    assert cache.fork(held, [longer]) is held
    other, _ = prompts(model, 1)  # it begins like the kept prefix, and is not a continuation of it
    assert cache.match(other) is None
    computed, hidden = [], StateEngine._hidden
    monkeypatch.setattr(StateEngine, "_hidden", lambda *given: computed.append(given[2].size) or hidden(*given))
    extended = model.prefill([longer], held)
    assert sum(computed) == len(extended) - len(held)
    assert model.generate([longer], 4, extended) == model.generate([longer], 4)
    assert model.generate([first], 4, held) == model.generate([first], 4)  # which continuing has not changed


def test_what_is_taught_is_prefilled_and_a_pack_is_written_without_it(model, paths, tmp_path, caplog):
    learner = Learner(model)
    learner.teach({"lum": paths[5][:2], "dax": paths[6][:2]})
    assert learner.prefill_support() is not None
    answer = learner.ask(paths[5][3])
    with caplog.at_level(logging.WARNING):
        write_pack(learner, tmp_path / "zoo.pack", "")
    assert "without the KV cache of the support" in caplog.text
    pack = read_pack(tmp_path / "zoo.pack", False)
    assert not pack.has_state
    again = pack.learner(model).ask(paths[5][3])
    assert (again.name, again.probabilities) == (answer.name, pytest.approx(answer.probabilities, abs=1e-4))


def test_training_reads_one_conversation_at_a_time_and_says_so(nano, monkeypatch, caplog):
    monkeypatch.setattr(engine_choice, "maskless_kinds", lambda _network: WHY)
    accelerator = SimpleNamespace(device="cpu", mixed_precision="no")
    config = TrainConfig(ModelConfig(str(nano), device="cpu"))
    trainee = setup.make_trainee(config, accelerator)
    assert trainee.refused == WHY
    assert f"one conversation at a time: {WHY}" in caplog.text
