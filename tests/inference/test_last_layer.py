"""The last layer's feed-forward network runs on what is read, and on everything where it has to."""

import numpy as np
import pytest
import torch
from families import FAMILIES
from test_prefix_tree import line

from linkcontext.inference.forward import TreeForward, TreeInputs
from linkcontext.inference.prefix_tree import merge
from linkcontext.inference.schedule import EMPTY, ForwardPass
from linkcontext.models.families import decoder_of
from linkcontext.train.setup import checkpoint_layers


@pytest.fixture
def network():
    torch.manual_seed(0)
    return FAMILIES["llava"]()[0]


def run(network, read):
    """The states of a small tree, and how many tokens the last feed-forward network got."""
    tree, counts = merge([line("abcdx"), line("abcdyz")]), []
    hook = (
        decoder_of(network).layers[-1].mlp.register_forward_hook(lambda _m, given, _o: counts.append(given[0].shape[1]))
    )
    passes = [(TreeInputs(tree, []), ForwardPass(EMPTY, np.arange(len(tree))))]
    hidden = TreeForward(network).hidden(passes, None, None if read is None else [np.isin(np.arange(len(tree)), read)])
    hook.remove()
    return hidden[0], counts


@pytest.mark.parametrize("read", [[3, 5], [], [0, 1, 2, 3, 4, 5, 6]])
def test_states_that_are_read_are_those_of_a_whole_layer(network, read):
    (states, counts), (whole, everything) = run(network, read), run(network, None)
    torch.testing.assert_close(states[read], whole[read], atol=1e-6, rtol=0)
    assert (counts, everything) == ([len(read)], [7])


def test_a_layer_that_is_computed_again_computes_all(network):
    checkpoint_layers(network)
    network.train()
    assert run(network, [3])[1] == [7]
    with torch.no_grad():
        assert run(network, [3])[1] == [1]


def test_experts_get_all_tokens():
    torch.manual_seed(0)
    network = FAMILIES["llava"]()[0]
    decoder_of(network).layers[-1].mlp.experts = torch.nn.Identity()
    assert run(network, [3])[1] == [7]
