"""Logits of a network with a final soft-cap, and which image a token reads by cross-attention."""

from types import SimpleNamespace

import pytest
import torch
from families import FAMILIES
from test_prefix_tree import line

from linkcontext.inference.forward import TreeForward
from linkcontext.inference.prefix_tree import merge


def test_the_final_soft_cap_is_applied():
    network, _ = FAMILIES["gemma3"]()
    text = network.config.get_text_config()
    states = 100 * torch.randn(5, text.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        text.final_logit_softcapping = None
        plain = TreeForward(network).logits(states)
        text.final_logit_softcapping = 3.0
        capped = TreeForward(network).logits(states)
    torch.testing.assert_close(capped, 3 * torch.tanh(plain / 3))
    assert plain.abs().max() > 3 >= capped.abs().max()


@pytest.mark.parametrize("end", [ord("e"), 0])
def test_a_token_reads_the_last_image_before_it_until_an_end(end):
    text = SimpleNamespace(eos_token_id=end)
    network = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))
    tree = merge(
        [
            line("aPbePc", 1, [-1, 0, -1, -1, 1, -1], [-1, 0, -1, -1, 0, -1]),
            line("aPbed", 1, [-1, 0, -1, -1, -1], [-1, 0, -1, -1, -1]),
        ]
    )
    forward = TreeForward(network)
    tokens = torch.arange(len(tree)).numpy()
    read = dict(zip([chr(i) for i in tree.ids.tolist()], forward.last_image(tree, tokens).tolist(), strict=True))
    assert read == {"a": -1, "P": 1, "b": 0, "e": 0, "c": 1, "d": -1 if end else 0}
