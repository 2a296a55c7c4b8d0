"""Training stages: killed anywhere, they end the same."""

import json

import pytest
import stage
import torch
from torch import nn

from linkcontext.errors import InputError


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))


def loss_of(network, die_at=None):
    def loss(step):
        if step == die_at:
            raise KeyboardInterrupt
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return (network(x) - x[:, :2]).square().mean(), {"x": float(step)}

    return loss


def curve(folder):
    lines = [json.loads(line) for line in (folder / "toy.log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


SCHEDULE = stage.Schedule(1e-2, 12, warmup=3)


def test_a_killed_stage_goes_on_to_the_same_curve(tmp_path, monkeypatch):
    whole = model()
    stage.run("toy", whole, loss_of(whole), SCHEDULE, tmp_path / "whole")
    monkeypatch.setattr(stage, "SAVE_EVERY", 0.0)
    first = model()
    with pytest.raises(KeyboardInterrupt):
        stage.run("toy", first, loss_of(first, die_at=7), SCHEDULE, tmp_path / "killed")
    second = model()
    stage.run("toy", second, loss_of(second), SCHEDULE, tmp_path / "killed")
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_stage_with_tied_weights_goes_on(tmp_path, monkeypatch):
    def tied():
        network = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4), nn.Linear(4, 2))
        network[2].weight = network[0].weight
        return network

    monkeypatch.setattr(stage, "SAVE_EVERY", 0.0)
    first = tied()
    with pytest.raises(KeyboardInterrupt):
        stage.run("toy", first, loss_of(first, die_at=7), SCHEDULE, tmp_path)
    second = tied()
    stage.run("toy", second, loss_of(second), SCHEDULE, tmp_path)
    assert sorted(curve(tmp_path)) == list(range(12))
    assert second[2].weight is second[0].weight


def test_a_finished_stage_is_not_run_again(tmp_path):
    network = model()
    stage.run("toy", network, loss_of(network), SCHEDULE, tmp_path)
    again = model()
    stage.run("toy", again, loss_of(again, die_at=0), SCHEDULE, tmp_path)
    assert torch.equal(network[0].weight, again[0].weight)


def test_a_state_of_another_shape_is_refused(tmp_path):
    network = model()
    stage.run("toy", network, loss_of(network), SCHEDULE, tmp_path)
    other = nn.Sequential(nn.Linear(4, 9), nn.GELU(), nn.Linear(9, 2))
    with pytest.raises(InputError, match="belongs to another model"):
        stage.run("toy", other, loss_of(other), SCHEDULE, tmp_path)


def test_a_loss_that_is_no_number_ends_the_stage_with_its_step(tmp_path):
    network = model()
    with pytest.raises(InputError, match="step 3"):
        stage.run(
            "toy",
            network,
            lambda step: (network(torch.ones(1, 4)).sum() * (float("nan") if step == 3 else 1), {}),
            SCHEDULE,
            tmp_path,
        )
