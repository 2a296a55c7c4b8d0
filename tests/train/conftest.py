"""A small world, and trainings of the nano model on it."""

import json

import pytest
from accelerate.state import AcceleratorState, GradientState

from linkcontext.config import ModelConfig
from linkcontext.train.config import TrainConfig


@pytest.fixture
def config(nano, pictures, tmp_path):
    """A configuration of a short training; options as keywords."""

    def make(**changes):
        options = {
            "model": ModelConfig(str(nano), device="cpu"),
            "data": str(pictures),
            "support": 4,
            "queries": 2,
            "steps": 4,
            "batch": 4,
            "lr": 1e-2,
            "out": str(tmp_path / "run"),
        }
        return TrainConfig(**{**options, **changes})

    yield make
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def curve(tmp_path):
    """The losses of the run in a folder."""

    def read(name="run"):
        lines = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(len(lines)))
        return [line["loss"] for line in lines]

    return read
