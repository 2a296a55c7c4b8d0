"""What a batch costs: the tree against whole prompts, and what is let to learn."""

import pytest
import torch

from linkcontext.data.class_folders import open_folder
from linkcontext.episodes.scaffold import SCAFFOLDS
from linkcontext.errors import InputError
from linkcontext.models.families import parts
from linkcontext.models.loading import load_model
from linkcontext.train.mixture import link
from linkcontext.train.model import Trainee, read, train_parts
from linkcontext.train.samplers import Lessons, Strategy


def trainee(nano, trained=("projector", "language"), rank=0, targets="language_model.*(q|v)_proj$"):
    model = load_model(str(nano), device="cpu")
    train_parts(model.network, trained, rank, targets, 0)
    return Trainee(model)


@pytest.fixture(scope="module")
def reads(nano, pictures):
    dataset = open_folder(pictures)
    make = link(Lessons.of(dataset, Strategy(support=4, queries=2)), dataset, SCAFFOLDS["turns"], every=True)
    template = load_model(str(nano), device="cpu").chat_template
    return [read(make(i), template) for i in range(3)]


def gradients(trainee, reads):
    trainee.zero_grad()
    cost, _ = trainee(reads)
    cost.backward()
    return cost.item(), {name: p.grad.clone() for name, p in trainee.named_parameters() if p.grad is not None}


def test_the_tree_costs_what_whole_prompts_cost_through_the_models_own_forward(nano, reads):
    fast = trainee(nano)
    cost, grads = gradients(fast, reads)
    slow = trainee(nano)
    slow.refused = "for the sake of the test"
    plain, oracle = gradients(slow, reads)
    assert cost == pytest.approx(plain, rel=1e-5)
    assert grads.keys() == oracle.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, oracle[name], rtol=1e-3, atol=1e-4)


def test_all_ways_to_see_cost_the_same(nano, reads):
    projected = trainee(nano)
    anew = trainee(nano)
    anew.projects = False
    kept = trainee(nano, ("language",))
    assert (projected.eyes_learn, projected.projects, kept.eyes_learn) == (True, True, False)
    cost, grads = gradients(projected, reads)
    again, others = gradients(anew, reads)
    assert cost == pytest.approx(again, rel=1e-5) == pytest.approx(gradients(kept, reads)[0], rel=1e-5)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, others[name], rtol=1e-3, atol=1e-4)
    assert projected.eyes.calls == 0
    assert len(projected._given) == len({c for r in reads for c, _ in r.example.pictures.values()})


def test_an_example_without_pictures_reaches_the_projector_too(nano, reads):
    (one,) = reads[:1]
    words = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    told = ([*words, {"role": "assistant", "content": [{"type": "text", "text": "b"}]}],)
    mute = type(one.example)("text", told, {})
    learner = trainee(nano)
    _, grads = gradients(learner, [read(mute, learner.model.chat_template)])
    assert set(parts(learner.network)["projector"]) == {n.removeprefix("network.") for n in grads if "projector" in n}


def test_parts_are_told_apart(nano):
    found = parts(load_model(str(nano), device="cpu").network)
    assert all("vision_tower" in name for name in found["vision"])
    assert all("projector" in name for name in found["projector"])
    assert all("language_model" in name for name in found["language"])
    assert min(map(len, found.values())) > 3


def test_adapters_begin_as_nothing_and_learn_alone(nano, reads):
    whole, adapted = trainee(nano), trainee(nano, (), rank=2)
    cost, grads = gradients(adapted, reads)
    assert cost == pytest.approx(gradients(whole, reads)[0], rel=1e-5)
    assert all("lora" in name for name in grads)
    assert any("lora" in name for name in grads)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"rank": 2, "targets": "nothing_like_it"}, "matches none of the model's .* linear layers"),
        ({"rank": 2, "targets": "("}, "not a regular expression"),
        ({"rank": 2}, "that --train trains whole"),
        ({"trained": ()}, "no part of the model would be trained"),
    ],
)
def test_what_cannot_be_trained_is_a_sentence(nano, options, why):
    with pytest.raises(InputError, match=why):
        trainee(nano, **options)


@pytest.mark.parametrize("options", [{}, {"rank": 2, "trained": ("projector",)}], ids=["whole", "lora"])
def test_depth_first_has_all_gradients_in_bfloat16(nano, reads, options, monkeypatch):
    """By oracle: the plain backward pass. A trunk is run without gradients before it is run with them."""
    monkeypatch.setattr("linkcontext.train.model.CASCADE_MAX_TOKENS", 64)
    monkeypatch.setattr("linkcontext.train.model.MAX_BRANCH", 16)
    found = []
    for depth_first in (False, True):
        one = trainee(nano, **options)
        one.cascade = True
        with torch.autocast("cpu", torch.bfloat16):
            if depth_first:
                one.add_gradients(reads, 1.0)
            else:
                one(reads)[0].backward()
        found.append({name: p.grad for name, p in one.named_parameters() if p.grad is not None})
    plain, deep = found
    assert plain.keys() == deep.keys()
    for name, grad in plain.items():
        if grad.norm() > 1e-3:
            assert torch.cosine_similarity(grad.flatten(), deep[name].flatten(), 0) > 0.95, name


def test_depth_first_is_refused_where_trees_are_not_read(nano, reads):
    one = trainee(nano)
    one.refused = "its processor spells such a conversation in another way"
    with pytest.raises(InputError, match="--depth-first: its processor spells"):
        one.add_gradients(reads, 1.0)
