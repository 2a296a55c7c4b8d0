"""Scores and replies: by the oracle of one whole prompt at a time, and whatever the batch."""

import dataclasses

import pytest
import torch
from PIL import Image

from linkcontext.data.sources import open_folder
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.prompt import SCAFFOLDS, prompt
from linkcontext.episodes.sample import sample
from linkcontext.errors import InputError
from linkcontext.models.load import Model, load
from linkcontext.models.score import Ask, Scorer
from linkcontext.models.vision import Eyes
from linkcontext.world.folder import write_seed


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures") / "w"
    write_seed(root, 4, 6, 5, 32)
    return open_folder(root)


@pytest.fixture(scope="module")
def model(nano):
    return load(str(nano), device="cpu")


class Whole(Model):
    """The same model, seen as one that takes no features."""

    takes_features = False


def scorer(model, dataset, batch=16, whole=False):
    if whole:
        model = Whole(**{f.name: getattr(model, f.name) for f in dataclasses.fields(model)})
    sources = {item.id: (item.sha256, dataset.root / item.path) for item in dataset.items}
    return Scorer(model, Eyes(model), sources, batch)


def asks(dataset, scaffold="turns"):
    plan = EpisodePlan(ways=2, shots_per_class=(0, 1, 2), episodes=2)
    found = []
    for episode in sample(dataset, plan).episodes:
        for k in episode.shots_per_class:
            for q in range(len(episode.queries)):
                answers = tuple(prompt(episode, q, k, SCAFFOLDS[scaffold], c.name) for c in episode.candidates)
                found.append(Ask(prompt(episode, q, k, SCAFFOLDS[scaffold]), answers))
    return found


def flat(scores):
    return torch.tensor([value for row in scores for value, _ in row])


@pytest.mark.parametrize("scaffold", list(SCAFFOLDS))
def test_features_give_what_whole_prompts_give(model, dataset, scaffold):
    questions = asks(dataset, scaffold)
    fast, slow = scorer(model, dataset), scorer(model, dataset, whole=True)
    assert (fast.engine, slow.engine) == ("features", "whole")
    torch.testing.assert_close(flat(fast.score(questions)), flat(slow.score(questions)), atol=1e-4, rtol=0)


def test_the_batch_changes_nothing(model, dataset):
    questions = asks(dataset)
    one, many = scorer(model, dataset, batch=1), scorer(model, dataset, batch=64)
    torch.testing.assert_close(flat(one.score(questions)), flat(many.score(questions[::-1])[::-1]), atol=1e-4, rtol=0)
    prompts = [ask.messages for ask in questions]
    assert one.generate(prompts) == many.generate(prompts[::-1])[::-1]


def test_a_score_is_the_log_probability_of_the_answer_and_its_end(model, dataset):
    ask = asks(dataset)[-1]
    found = scorer(model, dataset).score([ask])[0]
    for messages, (value, count) in zip(ask.answers, found, strict=True):
        asked, told = (
            model.processor.apply_chat_template(m, add_generation_prompt=g)
            for m, g in ((ask.messages, True), (messages, False))
        )
        images = [Image.open(dataset.path(p["image"])) for m in messages for p in m["content"] if p["type"] == "image"]
        inputs = model.processor(text=told, images=images, return_tensors="pt")
        start = model.processor(text=asked, images=images, return_tensors="pt")["input_ids"].shape[1]
        with torch.inference_mode():
            logits = model.network(**inputs).logits[0].log_softmax(-1)
        ids = inputs["input_ids"][0]
        by_hand = sum(float(logits[i - 1, ids[i]]) for i in range(start, len(ids)))
        assert count == len(ids) - start
        assert value == pytest.approx(by_hand, abs=1e-4)
        assert int(ids[-1]) == model.words.eos_token_id


def test_each_picture_is_encoded_once(model, dataset):
    asker = scorer(model, dataset)
    questions = asks(dataset)
    shown = {p["image"] for ask in questions for m in ask.messages for p in m["content"] if p["type"] == "image"}
    asker.score(questions)
    asker.score(questions)
    assert asker.eyes.calls == len(shown)


def test_a_prompt_longer_than_the_context_is_refused_with_the_sum(model, dataset):
    small = scorer(model, dataset)
    before = model.network.config.text_config.max_position_embeddings
    model.network.config.text_config.max_position_embeddings = 30
    try:
        with pytest.raises(InputError, match=r"needs \d+ tokens \(5 pictures take 25, the text \d+\).*context is 30"):
            small.score(asks(dataset)[-1:])
    finally:
        model.network.config.text_config.max_position_embeddings = before


def test_unknown_and_blind_models_are_refused(tmp_path):
    with pytest.raises(InputError, match="not one of mini-base, mini"):
        load("no/such-model-anywhere")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="reads no pictures"):
        load(str(tmp_path))
