"""The estimate of a pass's memory, by hand."""

from types import SimpleNamespace

import pytest
import torch

from linkcontext.errors import InputError
from linkcontext.inference.memory import max_tokens_per_pass, pass_bytes


def network(**fields):
    text = SimpleNamespace(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, _attn_implementation="sdpa", **fields
    )
    return SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text), dtype=torch.float32)


def test_the_bytes_of_a_pass_by_hand():
    small = network(num_key_value_heads=2, head_dim=8, intermediate_size=100)
    kept = 2 * 3 * 2 * 8 * 4  # keys and values, layers, heads, width, bytes
    states = 4 * (8 * 64 + 3 * 100 + 3 * 4 * 8)
    logits = 12 * 2**24
    assert pass_bytes(small, 1000, 50) == 1.25 * kept * 1050 + 50 * (states + 5 * 1050) + logits
    assert pass_bytes(small, 1000, 50) - logits == pytest.approx(948_100)


def test_fields_that_a_family_leaves_out():
    """Keys have as many heads as queries, a head divides the width, and the inner width is four times the outer."""
    kept, states = 2 * 3 * 4 * 16 * 4, 4 * (8 * 64 + 3 * 256 + 3 * 4 * 16)
    assert pass_bytes(network(), 10, 2) == 1.25 * kept * 12 + 2 * (states + 5 * 12) + 12 * 2**24


def test_eager_attention_keeps_its_scores():
    usual, eager = network(), network()
    eager.config.get_text_config()._attn_implementation = "eager"
    assert pass_bytes(eager, 10, 2) - pass_bytes(usual, 10, 2) == 2 * 12 * 4 * 4


def test_a_pass_is_halved_until_it_fits():
    small = network()
    exactly = pass_bytes(small, 1000, 256)
    assert max_tokens_per_pass(small, 1000, exactly, 1024) == 256
    assert max_tokens_per_pass(small, 1000, exactly - 1, 1024) == 128
    assert max_tokens_per_pass(small, 1000, exactly, 40) == 40
    least = pass_bytes(small, 1000, 16)
    assert max_tokens_per_pass(small, 1000, least, 1024) == 16
    with pytest.raises(InputError, match=r"0\.2\d* GB are too little: a support of 1000 tokens .*Raise --memory-gb"):
        max_tokens_per_pass(small, 1000, least - 1, 1024)
