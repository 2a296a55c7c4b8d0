"""A curriculum: stages as data, one after the other, gone on with where it stopped."""

import json

import pytest

from linkcontext.errors import InputError
from linkcontext.train import curriculum as stages_of
from linkcontext.train.curriculum import CURRICULA, curriculum, plan, read_stages

STAGES = [{"name": "first", "steps": 2, "lr": 1e-3}, {"name": "second", "steps": 1, "mixture": ["link"]}]


def test_a_stage_says_what_is_otherwise(config):
    first, second = plan(config(out="runs/x", steps=7), [*STAGES, {"name": "third"}])[:2]
    assert (first.steps, first.lr, first.out) == (2, 1e-3, "runs/x/0-first")
    assert (second.steps, second.mixture, second.out) == (1, ("link",), "runs/x/1-second")
    assert plan(config(steps=7), [{"name": "third"}])[0].steps == 7


def test_what_is_known_by_name_can_be_planned(config):
    for name in CURRICULA:
        assert len(plan(config(), read_stages(name))) == len(CURRICULA[name])


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ([], "no stages"),
        ([{"steps": 1}], "stage 0: needs a `name`"),
        ([{"name": "../up"}], "needs a `name` of letters"),
        ([{"name": "a", "step": 1}], r"stage 0 \(a\): step is not an option"),
        ([{"name": "a", "out": "b"}], "out is not an option"),
        ([{"name": "a", "steps": "many"}], 'steps cannot be "many"'),
        ([{"name": "a", "steps": True}], "steps cannot be true"),
        ([{"name": "a", "lr": True}], "lr cannot be true"),
        ([{"name": "a", "lr": None}], "lr cannot be null"),
        ([{"name": "a", "lr": -1}], r"stage a: --lr -1: a number of at least 0"),
        ([{"name": "a", "until": "0.8"}], 'until cannot be "0.8"'),
        ([{"name": "a", "turns": ["1"]}], r'turns cannot be \["1"\]'),
        ([{"name": "a", "train": ["everything"]}], "train cannot be"),
        ([{"name": "a", "train": "projector"}], "train cannot be"),
        ([{"name": "a", "format": "chioce"}], "format cannot be .*'open', 'choice', 'caption', 'mixed'"),
        ([{"name": "a", "supervise": "all"}], "supervise cannot be"),
        ([{"name": "a", "mixture": ["icl=0.5", "taught=0.4"]}], "stage a: --mixture .*sum to 1"),
        ([{"name": "a", "mixture": ["gone.jsonl"]}], "stage a: --mixture gone.jsonl: there is no such file"),
        ([{"name": "a", "steps": 0}], "--steps 0"),
        ([{"name": "a", "until": 0.9}], "--until is reached on held-out data"),
    ],
)
def test_a_stage_that_cannot_be_is_a_sentence(config, stages, sentence):
    with pytest.raises(InputError, match=sentence):
        plan(config(), stages)


@pytest.mark.parametrize(
    ("later", "sentence"),
    [
        ({"mixture": ["icl"], "tasks": ["smell"]}, "stage later: --tasks smell: .* has no such task"),
        ({"held_out": "nowhere"}, "stage later: nowhere"),
    ],
)
def test_a_later_stage_is_checked_before_the_first_begins(config, tmp_path, later, sentence):
    with pytest.raises(InputError, match=sentence):
        curriculum(config(out=str(tmp_path / "run")), [STAGES[0], {"name": "later", "steps": 1, **later}])
    assert not (tmp_path / "run").exists()


def test_a_file_of_stages(tmp_path):
    path = tmp_path / "stages.json"
    path.write_text(json.dumps(STAGES))
    assert read_stages(str(path)) == STAGES
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(STAGES).encode())  # as Windows writes it
    assert read_stages(str(path)) == STAGES
    for content, sentence in (("[1]", "each an object"), ("{", "not JSON"), ("[" * 100_000, "nested")):
        path.write_text(content)
        with pytest.raises(InputError, match=sentence):
            read_stages(str(path))
    with pytest.raises(InputError, match="neither icl nor a file"):
        read_stages(str(tmp_path / "gone.json"))


def test_each_stage_begins_with_what_the_one_before_learnt(config, tmp_path, monkeypatch):
    begun = []
    train = stages_of.train

    def seen(asked):
        begun.append(asked.model.model)
        return train(asked)

    monkeypatch.setattr(stages_of, "train", seen)
    last = curriculum(config(out=str(tmp_path / "run")), STAGES)
    assert last == tmp_path / "run" / "1-second" / "checkpoint-1"
    assert begun[1] == str(tmp_path / "run" / "0-first" / "checkpoint-2")
    weights = (last / "model.safetensors").read_bytes()
    log = (tmp_path / "run" / "1-second" / "log.jsonl").read_text()
    assert curriculum(config(out=str(tmp_path / "run")), STAGES) == last  # nothing is trained again
    assert (last / "model.safetensors").read_bytes() == weights
    assert (tmp_path / "run" / "1-second" / "log.jsonl").read_text() == log


def test_a_stage_ends_where_the_held_out_accuracy_is_reached(config, pictures, tmp_path):
    wanted = {"held_out": str(pictures), "held_out_episodes": 2, "held_out_shots": (1,), "eval_every": 1}
    asked = config(**wanted, steps=5, until=0.0, out=str(tmp_path / "run"))
    (stage,) = plan(asked, [{"name": "only"}])
    assert stages_of.train(stage).name == "checkpoint-1"
    assert stages_of.train(stage).name == "checkpoint-1"  # it knows that it had ended
    assert len((tmp_path / "run" / "0-only" / "log.jsonl").read_text().splitlines()) == 1
