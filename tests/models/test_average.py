"""Averages of models: the numbers by hand, the ends of the line, and what cannot be averaged."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from linkcontext.cli import main
from linkcontext.errors import InputError
from linkcontext.models.average import average
from linkcontext.models.loading import load_model


@pytest.fixture(scope="module")
def pair(nano, tmp_path_factory):
    """The folders of a model and of one with other weights, 2 w + 1."""
    other = tmp_path_factory.mktemp("other") / "nano"
    shutil.copytree(nano, other)
    weights = load_file(other / "model.safetensors")
    save_file({k: 2 * v + 1 for k, v in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    return str(nano), str(other)


def weights_of(folder):
    return load_model(str(folder)).network.state_dict()


def test_every_weight_is_the_weighted_sum(pair, tmp_path):
    out = average(pair, (0.25, 0.75), tmp_path / "a")
    first, made = weights_of(pair[0]), weights_of(out)
    assert first.keys() == made.keys()
    for key, value in first.items():
        torch.testing.assert_close(made[key], 1.75 * value + 0.75)
    assert json.loads((out / "average.json").read_text()) == {"models": list(pair), "weights": [0.25, 0.75]}


@pytest.mark.parametrize("one", [0, 1])
def test_all_weight_on_one_is_that_one(pair, tmp_path, one):
    out = average(pair, (1.0 - one, float(one)), tmp_path / "a")
    expected, made = weights_of(pair[one]), weights_of(out)
    assert all(torch.equal(made[key], value) for key, value in expected.items())


def test_without_weights_all_count_alike_whatever_their_order(pair, tmp_path):
    three = (pair[0], pair[1], pair[1])
    a = weights_of(average(three, (), tmp_path / "a"))
    b = weights_of(average(three[::-1], (), tmp_path / "b"))
    for key, value in weights_of(pair[0]).items():
        torch.testing.assert_close(a[key], (value + 2 * (2 * value + 1)) / 3)
        torch.testing.assert_close(a[key], b[key])


def test_what_is_written_has_the_dtype_that_was_asked_for(pair, tmp_path):
    out = average(pair, (), tmp_path / "a", dtype="bfloat16")
    assert {v.dtype for v in load_file(out / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("names", "weights", "sentence"),
    [
        (0, (), "at least two models"),
        (1, (1.0,), "at least two models"),
        (2, (1.0,), "--weights 1: give 2 numbers"),
        (2, (0.5, 0.6), r"--weights 0.5 0.6: give 2 numbers that sum to 1"),
        (2, (float("nan"), 0.5), "--weights nan 0.5"),
    ],
)
def test_weights_that_are_no_average(pair, tmp_path, names, weights, sentence):
    with pytest.raises(InputError, match=sentence):
        average(pair[:names], weights, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_models_that_differ_cannot_be_averaged(pair, tmp_path):
    with pytest.raises(InputError, match=r"mini: .* differ from those of .*Only models of the same architecture"):
        average((pair[0], "mini"), (), tmp_path / "a")
    other = tmp_path / "other"
    shutil.copytree(pair[0], other)
    words = json.loads((other / "tokenizer.json").read_text())
    one, two = list(words["model"]["vocab"])[-2:]
    vocabulary = words["model"]["vocab"]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (other / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(InputError, match="its vocabulary is not that of"):
        average((pair[0], str(other)), (), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_command_says_where_and_never_writes_over(pair, tmp_path, capsys):
    main(["average", *pair, "--weights", "0.5", "0.5", "--out", str(tmp_path / "a")])
    assert f"model: {tmp_path / 'a'}" in capsys.readouterr().out.replace("\n", "")
    with pytest.raises(SystemExit) as stopped:
        main(["average", *pair, "--out", str(tmp_path / "a")])
    assert stopped.value.code == 2
    assert "is there already" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_half_written(pair, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("linkcontext.models.average.write_text", full)
    with pytest.raises(InputError, match="could not be written"):
        average(pair, (), tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_training_is_told_from_its_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "latest").write_text("checkpoint-7\n")
    with pytest.raises(InputError, match=r"is the folder of a training. Name its checkpoint: .*checkpoint-7"):
        load_model(str(tmp_path))
