"""Trainings in several processes: what is the same, what is sharded, and what happens when one of them is killed."""

import json
from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType
from launching import (
    SECONDS,
    accelerate_launcher,
    finish,
    kill_process,
    run,
    start,
    start_on_two_machines,
    two_machines,
    wait_for_lines,
)
from safetensors.torch import load_file
from torch import nn

from linkcontext.errors import InputError
from linkcontext.train import setup
from linkcontext.train.setup import check_sharded, lost_processes

STEPS = 6
# Whichever launcher starts it, the program counts what each process holds after its training.
WATCHED = """
import json, os, sys
from torch.distributed.tensor import DTensor
from linkcontext import cli
from linkcontext.train import loop

run_steps = loop.run_steps

def numbers(tensors):
    local = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    return sum(part.numel() for part in local), sum(tensor.numel() for tensor in tensors)

def watched(steps, start, count):
    done, training = run_steps(steps, start, count), steps.take.__self__
    moments = [value for state in training.optimizer.optimizer.state.values() for value in state.values() if value.ndim]
    held = {"weights": numbers([*training.wrapped.parameters()]), "moments": numbers(moments)}
    with open(sys.argv[1] + os.environ["RANK"], "w") as file:
        json.dump(held, file)
    return done

loop.run_steps = watched
cli.main(sys.argv[2:])
"""
SLOW = """
import time
from linkcontext import cli
from linkcontext.train import loop

take = loop._Run.step

def slow(self, step):
    time.sleep(1)
    return take(self, step)

loop._Run.step = slow
cli.main()
"""


@pytest.fixture
def flags(nano, pictures):
    """The command of a training of four examples a step."""

    def make(micro):
        counts = ("--steps", STEPS, "--batch", 4, "--micro-batch", micro, "--support", 4, "--save-every", 2)
        return ("train", "--model", nano, "--data", pictures, *counts, "--lr", "1e-3", "--keep", 9)

    return make


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder):
    return load_file(folder / f"checkpoint-{STEPS}" / "model.safetensors")


def state(folder):
    """The bytes of the trained weights and of the optimizer's moments. Those of the file's header have any order."""
    tensors = load_file(folder / f"checkpoint-{STEPS}" / "training.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def close(one, other):
    """Losses and weights are those of the other training, but for the order in which gradients are summed."""
    assert losses(one) == pytest.approx(losses(other), rel=0, abs=1e-6)
    a, b = weights(one), weights(other)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=2e-5)


@pytest.mark.heavy
def test_two_processes_give_the_bytes_of_one_and_four_give_its_figures(flags, tmp_path):
    for micro, count in ((2, 1), (2, 2), (1, 1), (1, 4)):
        run(*flags(micro), "--out", tmp_path / f"{micro}x{count}", count=count, log=tmp_path / "log")
    assert state(tmp_path / "2x1") == state(tmp_path / "2x2")
    assert losses(tmp_path / "2x1") == losses(tmp_path / "2x2")
    close(tmp_path / "1x1", tmp_path / "1x4")


@pytest.mark.heavy
def test_a_killed_process_ends_the_training_and_another_number_resumes_it(flags, tmp_path):
    run(*flags(2), "--out", tmp_path / "whole", log=tmp_path / "log")
    out, log = tmp_path / "run", tmp_path / "killed.log"
    (tmp_path / "slow.py").write_text(SLOW)
    launcher = start(*flags(2), "--out", out, count=2, log=log, program=(tmp_path / "slow.py",))
    wait_for_lines(out / "log.jsonl", 2, launcher, log)
    kill_process(launcher, 1)
    assert launcher.wait(SECONDS) != 0
    assert "the same command again" in log.read_text()
    assert "linkcontext/train/loop.py" not in log.read_text()  # no traceback
    assert 2 < len((out / "log.jsonl").read_text().splitlines()) < STEPS
    refused = start(*flags(2), "--out", out, count=3, log=log)
    assert refused.wait(SECONDS) != 0
    assert "--batch 4: cannot be divided among 3 processes" in log.read_text()
    run(*flags(2), "--out", out, log=log)
    assert state(out) == state(tmp_path / "whole")
    assert losses(out) == losses(tmp_path / "whole")


@pytest.mark.heavy
@pytest.mark.parametrize("count", [2, 4])
def test_with_fsdp_each_process_holds_its_share_alone(flags, tmp_path, count):
    run(*flags(1), "--out", tmp_path / "one", log=tmp_path / "log")
    (tmp_path / "watched.py").write_text(WATCHED)
    launcher = accelerate_launcher(tmp_path, count)
    program = (tmp_path / "watched.py", tmp_path / "held")
    run(*flags(1), "--out", tmp_path / "run", log=tmp_path / "log", launcher=launcher, program=program)
    held = [json.loads((tmp_path / f"held{number}").read_text()) for number in range(count)]
    for kind in ("weights", "moments"):
        local, (whole, *same) = [each[kind][0] for each in held], [each[kind][1] for each in held]
        assert same == [whole] * (count - 1)
        assert sum(local) == whole > 250_000
        assert max(local) < 1.01 * whole / count
    close(tmp_path / "one", tmp_path / "run")


@pytest.mark.heavy
def test_two_machines_train_what_one_process_does(flags, tmp_path):
    run(*flags(2), "--out", tmp_path / "one", log=tmp_path / "log")
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    with two_machines() as machines:
        launchers = start_on_two_machines(machines, *flags(2), "--out", tmp_path / "two", logs=logs)
        for launcher, log in zip(launchers, logs, strict=True):
            finish(launcher, log)
    assert state(tmp_path / "one") == state(tmp_path / "two")


def test_parameters_that_fsdp_leaves_whole_are_refused(monkeypatch):
    check_sharded(nn.Linear(2, 2), 2)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    check_sharded(nn.Linear(2, 2), 1)
    with pytest.raises(InputError, match="FSDP was asked for, and 2 parameters are whole in every process"):
        check_sharded(nn.Linear(2, 2), 2)


def test_fsdp_1_is_refused_because_its_checkpoints_would_be_wrong(config, monkeypatch):
    state = SimpleNamespace(fsdp_plugin=SimpleNamespace(fsdp_version=1))
    accelerator = SimpleNamespace(distributed_type=DistributedType.FSDP, state=state)
    monkeypatch.setattr(setup, "Accelerator", lambda **_: accelerator)
    with pytest.raises(InputError, match="asks for FSDP 1"):
        setup.make_accelerator(config())


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_lost_process_is_a_sentence_and_other_errors_are_not(monkeypatch, count):
    monkeypatch.setenv("WORLD_SIZE", count)
    gone = RuntimeError("[/a/gloo/pair.cc:537] Connection closed by peer [127.0.0.1]:5508. This is typical. GLHF!")
    expected = RuntimeError if count == "1" else InputError
    with pytest.raises(expected, match=r"Connection closed by peer \[127\.0\.0\.1\]:5508"), lost_processes():
        raise gone
    with pytest.raises(RuntimeError, match="shapes differ"), lost_processes():
        raise RuntimeError("shapes differ")
    with pytest.raises(InputError, match=r"^data/nccl: is not there"), lost_processes():
        raise InputError("data/nccl: is not there")
