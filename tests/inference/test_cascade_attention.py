"""Attention in parts against one dense mask, and so its gradients."""

import pytest
import torch
import torch.nn.functional as F

from linkcontext.inference.cascade_attention import BranchMask, attend, cascade_attention
from linkcontext.models.loading import load_model

# Tokens before, of trunk, the forks of branches, and their length.
CASES = [
    (0, 3, (), 0),
    (5, 3, (), 0),
    (0, 0, (0,), 4),
    (5, 0, (5,), 4),
    (0, 3, (3,), 4),
    (0, 0, (0, 0, 0), 4),
    (5, 0, (5, 5, 2), 4),
    (0, 3, (3, 1, 0), 4),
    (5, 3, (8, 5, 5), 4),
    (5, 3, (7, 6, 2), 4),
]
# Both ways round to the dtype at each of their few steps; what is compared is of size 1 to 10.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 0.1}


@pytest.mark.parametrize(("before", "trunk", "forks", "length"), CASES)
@pytest.mark.parametrize("key_heads", [1, 4])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_parts_give_what_one_mask_gives(before, trunk, forks, length, key_heads, dtype):
    new = trunk + len(forks) * length
    stream = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, new, 8, generator=stream, dtype=torch.float64).to(dtype).requires_grad_()
    key, value = (
        torch.randn(1, key_heads, before + new, 8, generator=stream, dtype=torch.float64).to(dtype).requires_grad_()
        for _ in range(2)
    )
    sees = torch.zeros(new, before + new, dtype=torch.bool)
    sees[:trunk, :before] = True
    sees[:trunk, before : before + trunk] = torch.ones(trunk, trunk).tril().bool()
    own = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]).bool()  # a fork, and a filler
    for row, fork in enumerate(forks):
        here = trunk + row * length
        sees[here : here + length, :fork] = True
        sees[here : here + length, before + here : before + here + length] = own
    mask = torch.zeros(len(forks), 1, length, length, dtype=dtype)
    if forks:
        mask.masked_fill_(~own, -torch.inf)
    options = {"scaling": 0.3}
    result, _ = attend(torch.nn.Module(), query, key, value, BranchMask.of(mask, forks), **options)
    expected = F.scaled_dot_product_attention(query, key, value, sees, scale=0.3, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(result, expected, atol=TOLERANCE[dtype], rtol=0)
    with torch.inference_mode():
        again, _ = attend(torch.nn.Module(), query, key, value, BranchMask.of(mask, forks), **options)
    assert torch.equal(again, result)
    weights = torch.randn(expected.shape, generator=stream, dtype=torch.float64).to(dtype)
    grads, oracle = (torch.autograd.grad((x * weights).sum(), (query, key, value)) for x in (result, expected))
    for name, grad, other in zip(("query", "key", "value"), grads, oracle, strict=True):
        torch.testing.assert_close(grad, other, atol=4 * TOLERANCE[dtype], rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_a_mask_keeps_its_forks_where_it_is_cast():
    mask = BranchMask.of(torch.zeros(2, 1, 3, 3), (4, 1))
    assert mask.to(torch.bfloat16).forks == (4, 1)


def test_a_network_is_as_it_was_afterwards(nano):
    network = load_model(str(nano), device="cpu").network
    text = network.config.get_text_config()
    with cascade_attention(network, False):
        assert text._attn_implementation == "sdpa"
    with pytest.raises(KeyError), cascade_attention(network, True):
        assert text._attn_implementation != "sdpa"
        raise KeyError
    assert text._attn_implementation == "sdpa"
