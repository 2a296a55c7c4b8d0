"""Checkpoints hold what was trained: adapters are merged with their scale, and a state is that of its model."""

import pytest
import torch
from torch import nn

from linkcontext.errors import InputError
from linkcontext.models.loading import load_model
from linkcontext.models.tensor_file import DamagedError
from linkcontext.train.checkpoint import _merged, read_state, state_of, write_state
from linkcontext.train.model import train_parts


def logits(network):
    ids = torch.arange(20, 40)[None]
    with torch.inference_mode():
        return network(input_ids=ids).logits


def test_a_merged_adapter_computes_what_the_adapter_did(nano):
    adapted, plain = (load_model(str(nano), device="cpu").network for _ in range(2))
    train_parts(adapted, (), 3, "language_model.*(q|v)_proj", 0)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    expected, before = logits(adapted), logits(plain)
    plain.load_state_dict(_merged(adapted))
    torch.testing.assert_close(logits(plain), expected, atol=1e-4, rtol=1e-4)
    assert (expected - before).abs().max() > 0.01


def trained(width=3):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
    return network, optimizer


def test_a_state_puts_back_parameters_buffers_and_moments(tmp_path):
    network, optimizer = trained()
    path = tmp_path / "state.safetensors"
    write_state(state_of(network.state_dict(keep_vars=True), optimizer), path, 7, "Sequential")
    again = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    restored = torch.optim.AdamW(again.parameters(), lr=0.1)
    assert read_state(again.state_dict(keep_vars=True), restored, path) == 7
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert optimizer.state[one].keys() == restored.state[other].keys()
        assert all(torch.equal(optimizer.state[one][kind], restored.state[other][kind]) for kind in ("exp_avg", "step"))


def test_a_state_of_another_shape_or_a_damaged_one_is_refused(tmp_path):
    network, optimizer = trained()
    path = tmp_path / "state.safetensors"
    write_state(state_of(network.state_dict(keep_vars=True), optimizer), path, 7, "Sequential")
    other, moments = trained(width=5)
    with pytest.raises(InputError, match="belongs to another model"):
        read_state(other.state_dict(keep_vars=True), moments, path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        read_state(network.state_dict(keep_vars=True), optimizer, path)
