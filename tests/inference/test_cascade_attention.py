"""Attention in parts against one dense mask."""

import pytest
import torch
import torch.nn.functional as F

from linkcontext.inference.cascade_attention import attend, cascade_attention
from linkcontext.models.loading import load_model

# Tokens before, of trunk, rows of branches and their length. Only a branch alone, with nothing before it, is missing:
# its mask is one of all keys.
CASES = [(0, 3, 0, 0), (5, 3, 0, 0), (5, 0, 1, 4), (0, 3, 1, 4), (0, 0, 3, 4), (5, 0, 3, 4), (0, 3, 3, 4), (5, 3, 3, 4)]


@pytest.mark.parametrize(("before", "trunk", "rows", "length"), CASES)
@pytest.mark.parametrize("key_heads", [1, 4])
def test_parts_give_what_one_mask_gives(before, trunk, rows, length, key_heads):
    new = trunk + rows * length
    stream = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, new, 8, generator=stream)
    key, value = torch.randn(2, 1, key_heads, before + new, 8, generator=stream)
    sees = torch.zeros(new, before + new, dtype=torch.bool)
    sees[:, :before] = True
    sees[:trunk, before : before + trunk] = torch.ones(trunk, trunk).tril().bool()
    own = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]).bool()  # a fork, and a filler
    for row in range(rows):
        here = trunk + row * length
        sees[here : here + length, before + here : before + here + length] = own
    mask = torch.zeros(rows, 1, length, length)
    if rows:
        mask.masked_fill_(~own, -torch.inf)
    with torch.inference_mode():
        found, _ = attend(torch.nn.Module(), query, key, value, mask, scaling=0.3)
    expected = F.scaled_dot_product_attention(query, key, value, sees, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(found, expected.transpose(1, 2), atol=1e-5, rtol=0)


def test_a_network_is_as_it_was_afterwards(nano):
    network = load_model(str(nano), device="cpu").network
    text = network.config.get_text_config()
    with cascade_attention(network, False):
        assert text._attn_implementation == "sdpa"
    with pytest.raises(KeyError), cascade_attention(network, True):
        assert text._attn_implementation != "sdpa"
        raise KeyError
    assert text._attn_implementation == "sdpa"
