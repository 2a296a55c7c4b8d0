"""Every family learns: what a tree costs is what whole prompts cost, and its gradient reaches the projector."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from linkcontext.episodes.scaffold import SCAFFOLDS, build_messages
from linkcontext.models.families import parts
from linkcontext.models.model import Model
from linkcontext.records import Turn
from linkcontext.train.mixture import Example
from linkcontext.train.model import Trainee, read, train_parts

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from families import FAMILIES


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A support of two pictures of two shapes and two queries."""
    folder, found = tmp_path_factory.mktemp("pictures"), {}
    for i, edge in enumerate([(64, 64), (96, 48), (48, 96), (64, 64)]):
        noise = np.random.default_rng(i).integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(noise).resize(edge, Image.Resampling.BICUBIC).save(folder / f"{i}.png")
        found[str(i)] = (f"{i}" * 64, folder / f"{i}.png")
    turns = [Turn("0", "", "lum"), Turn("1", "", "dax")]
    told = [
        build_messages(turns, SCAFFOLDS["turns"], Turn(item, "", ""), name)
        for item, name in (("2", "dax"), ("3", "lum"))
    ]
    return Example("one", tuple(told), found)


def cost_and_gradients(learner, one):
    learner.zero_grad()
    cost, _ = learner([one])
    cost.backward()
    return cost.item(), {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_tree_costs_and_teaches_what_whole_prompts_do(name, example):
    network, processor = FAMILIES[name]()
    train_parts(network, ("projector", "language"), 0, "", 0)
    model = Model(name, name, network, processor)
    one = read(example, model.chat_template)
    slow = Trainee(model, "for the sake of the test")
    slow.check(one)
    oracle, others = cost_and_gradients(slow, one)
    others = {key: grad.clone() for key, grad in others.items()}
    assert any(key.removeprefix("network.") in parts(network)["projector"] for key in others)
    if name == "paligemma":
        return
    fast = Trainee(model)
    fast.eyes.use_disk = False  # a stand-in's pictures have no place on the disk
    fast.check(one)
    assert fast.refused is None
    cost, grads = cost_and_gradients(fast, one)
    assert cost == pytest.approx(oracle, rel=1e-4)
    assert grads.keys() == others.keys()
    for key, grad in grads.items():
        torch.testing.assert_close(grad, others[key], rtol=1e-2, atol=1e-3 * float(others[key].abs().max()) + 1e-6)
