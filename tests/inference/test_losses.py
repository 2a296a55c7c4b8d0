"""Losses and gradients of trees: nothing is dropped, whichever way they are computed.

The oracle is the naive sum: every sequence by itself, through the network's own forward with its embeddings.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as hf
from test_prefix_tree import line
from torch.nn import functional as F

from linkcontext.inference.depth_first import add_gradients
from linkcontext.inference.forward import TreeInputs
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.losses import tree_losses
from linkcontext.inference.prefix_tree import ImageTokens, merge
from linkcontext.train.model import train_parts
from linkcontext.train.setup import checkpoint_layers

WIDTH, SLOTS = 32, 2
WORDS = "a long support of some words, "


@pytest.fixture
def network():
    torch.manual_seed(0)
    text = hf.LlamaConfig(
        vocab_size=200, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.1,
    )  # fmt: skip
    vision = hf.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    config = hf.LlavaConfig(text_config=text, vision_config=vision, image_token_index=199)
    network = hf.LlavaForConditionalGeneration(config)
    train_parts(network, ("language",), 0, "", 0)
    return network


def sequences(answer):
    """A support with a picture, and questions with answers, some of which are other trunks of their own."""
    rows = [
        ("", "x"),
        ("q1", "ab"),
        ("q1", "ac"),
        ("q22", "ab"),
        ("another long stretch of words ", "abc"),
        ("q3", "d"),
    ]
    made = []
    for question, reply in rows:
        text = "PP" + WORDS + question + reply
        one = line(text, answer(reply), [0, 0, *[-1] * (len(text) - 2)], [0, 1, *[-1] * (len(text) - 2)])
        made.append(one)
    return made


def image():
    tokens = ImageTokens(np.full(SLOTS, 199), np.arange(SLOTS), np.arange(SLOTS)[None])
    stream = torch.Generator().manual_seed(1)
    return ImageFeatures(tokens, torch.randn(SLOTS, WIDTH, generator=stream).requires_grad_())


def naive(network, lines, picture):
    """The sum over sequences of their losses, each through the network's own language model."""
    total = torch.zeros(())
    for one in lines:
        ids = torch.from_numpy(one.ids)
        embeds = network.get_input_embeddings()(ids)
        embeds = torch.cat([picture.embeddings, embeds[SLOTS:]]).to(embeds.dtype)
        states = network.model.language_model(inputs_embeds=embeds[None]).last_hidden_state[0]
        places = torch.from_numpy(np.flatnonzero(one.answer))
        total = total + F.cross_entropy(network.lm_head(states[places - 1]).float(), ids[places], reduction="sum")
    return total


def gradients(network, run, picture):
    """What `run` costs, and the gradients of all that learns, the picture's features among it."""
    network.zero_grad()
    picture.embeddings.grad = None
    cost = run()
    named = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    return cost, named | {"picture": picture.embeddings.grad.clone()}


def backward(loss):
    loss.backward()
    return loss.item()


def tree_loss(network, tree, picture, cascade):
    losses = tree_losses(network, [TreeInputs(tree, [picture])], cascade)
    return (losses.nats * losses.weight).sum()


WAYS = {
    "one mask": lambda network, tree, picture: backward(tree_loss(network, tree, picture, False)),
    "cascade": lambda network, tree, picture: backward(tree_loss(network, tree, picture, True)),
    # Passes of 8 tokens, in which nothing is whole: trunks in pieces, second trunks, rows beside the end of a trunk.
    "depth first": lambda network, tree, picture: add_gradients(network, TreeInputs(tree, [picture]), 8, 3).nats,
    "depth first, large passes": lambda network, tree, picture: (
        add_gradients(network, TreeInputs(tree, [picture]), 64, 16).nats
    ),
}


def close(result, oracle, factor):
    """Equal up to the rounding of sums: `factor` units in the last place of float32 of the largest gradient."""
    assert result.keys() == oracle.keys()
    largest = max(float(grad.abs().max()) for grad in oracle.values())
    for name, grad in result.items():
        difference = float((grad - oracle[name]).abs().max())
        assert difference <= factor * torch.finfo(torch.float32).eps * largest, (name, difference)


# A gradient is a sum over some 70 tokens and three layers, each of them a sum over 32 to 200 products: a random walk of
# rounding is some tens of units in the last place of the largest sum.
UNITS = 200


@pytest.mark.parametrize("way", WAYS)
def test_the_first_token_of_every_branch_is_supervised(network, way):
    """The loss of answers' first tokens alone, each predicted by the token before its branch, is that of whole
    sequences; and each of them changes it."""
    picture, lines = image(), [replace(one, answer=first_only(one.answer)) for one in sequences(len)]
    tree = merge(lines)
    assert tree.weight.sum() == len(lines)
    assert {int(np.flatnonzero(one.answer)[0]) for one in lines} != set()
    forks = np.bincount(tree.parent[tree.parent >= 0], minlength=len(tree)) > 1
    assert forks[tree.parent[tree.weight > 0]].any(), "some answer begins a branch"
    cost = WAYS[way](network, tree, picture)
    assert cost == pytest.approx(naive(network, lines, picture).item(), rel=1e-5)
    for dropped in range(len(lines)):
        fewer = [replace(one, answer=one.answer & (n != dropped)) for n, one in enumerate(lines)]
        assert naive(network, fewer, picture).item() < cost - 0.1


def first_only(answer):
    return np.arange(len(answer)) == np.flatnonzero(answer)[0]


@pytest.mark.parametrize("checkpoint", [False, True], ids=["plain", "checkpoint"])
@pytest.mark.parametrize("rank", [0, 4], ids=["whole", "lora"])
@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_the_naive_sum(network, way, rank, checkpoint):
    if rank:
        train_parts(network, (), rank, "(q|v|gate)_proj$", 0)
        for name, p in network.named_parameters():  # adapters begin as nothing, which has no gradient in half of them
            if "lora_B" in name:
                p.data.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
    picture, lines = image(), sequences(len)
    cost, oracle = gradients(network, lambda: backward(naive(network, lines, picture)), picture)
    if checkpoint:
        network.train()
        checkpoint_layers(network)
    result, grads = gradients(network, lambda: WAYS[way](network, merge(lines), picture), picture)
    assert result == pytest.approx(cost, rel=1e-5)
    assert any("lora" in name for name in grads) == bool(rank)
    close(grads, oracle, UNITS)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_in_bf16_are_the_naive_sum_up_to_its_own_rounding(network, way):
    """The tolerance is measured: how far the naive sum in bf16 lies from that in float32."""
    picture, lines = image(), sequences(len)

    def in_half(run):
        with torch.autocast("cpu", torch.bfloat16):
            return run()

    _, oracle = gradients(network, lambda: backward(naive(network, lines, picture)), picture)
    _, half = gradients(network, lambda: in_half(lambda: backward(naive(network, lines, picture))), picture)
    _, grads = gradients(network, lambda: in_half(lambda: WAYS[way](network, merge(lines), picture)), picture)
    assert grads.keys() == oracle.keys()
    for name, grad in grads.items():
        rounding = float((half[name] - oracle[name]).norm())
        assert rounding > 0
        assert float((grad - oracle[name]).norm()) <= 2 * rounding, name


def test_what_a_tree_costs_is_counted_once_for_each_sequence(network):
    lines, picture = [*sequences(len), sequences(len)[1]], image()
    cost = add_gradients(network, TreeInputs(merge(lines), [picture]), 16, 8)
    assert cost.tokens == sum(int(one.answer.sum()) for one in lines)
    assert cost.nats == pytest.approx(naive(network, lines, picture).item(), rel=1e-5)
    assert 0 <= cost.right <= cost.tokens


def test_an_answer_that_begins_a_sequence_is_an_error_and_not_left_out(network):
    with pytest.raises(AssertionError, match="no state predicts"):
        tree_losses(network, [TreeInputs(merge([line("abc", 3)]), [])])
