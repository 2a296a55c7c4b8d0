"""The loop: split, stopped, gone on with and started twice, it gives one curve."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file, save_file

from linkcontext.config import ModelConfig, eval_config
from linkcontext.data.class_folders import open_folder
from linkcontext.data.manifest import write_manifest
from linkcontext.errors import InputError
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.jsonl import cut_log
from linkcontext.models import unreadable
from linkcontext.models.loading import load_model
from linkcontext.scoring.engine_choice import EngineChoice
from linkcontext.train import checkpoint, loop
from linkcontext.train.held_out import last_rows
from linkcontext.train.loop import train
from linkcontext.train.mixture import Mixture
from linkcontext.train.model import Trainee
from linkcontext.train.setup import deal

SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
from linkcontext.config import ModelConfig
from linkcontext.train.config import TrainConfig
from linkcontext.train.loop import train
options = json.loads(sys.argv[1])
if options.pop("sharded"):  # accelerate shards on GPUs only; what it does there runs on a CPU too
    from accelerate import DistributedType, FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import FSDPModule
    from linkcontext.train import checkpoint, loop

    made, save = loop.make_accelerator, checkpoint.save_checkpoint

    def accelerator(config):
        found = made(config)
        found.state._shared_state["distributed_type"] = DistributedType.FSDP
        found.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            reshard_after_forward=True,
            cpu_ram_efficient_loading=False,
        )
        return found

    def saved(accelerator, trainee, *rest):
        assert isinstance(trainee, FSDPModule)
        save(accelerator, trainee, *rest)

    loop.make_accelerator, checkpoint.save_checkpoint = accelerator, saved
train(TrainConfig(model=ModelConfig(options.pop("model"), device="cpu"), **options))
"""


def close(a, b, tolerance=1e-6):
    assert len(a) == len(b)
    assert a == pytest.approx(b, rel=0, abs=tolerance)


def test_a_step_is_dealt_out_in_order():
    assert deal(2, 8, 1, None) == [[list(range(16, 24))]]
    assert deal(1, 8, 2, 2) == [[[8, 9], [12, 13]], [[10, 11], [14, 15]]]
    with pytest.raises(InputError, match="3 processes, 2 examples"):
        deal(0, 8, 3, None)


def test_micro_batches_change_nothing(config, curve, tmp_path):
    for name, micro in (("whole", None), ("halves", 2), ("one", 1)):
        train(config(micro_batch=micro, queries=3, names="lcl", out=str(tmp_path / name)))
    close(curve("whole"), curve("halves"), 1e-5)
    close(curve("whole"), curve("one"), 1e-5)


def test_checkpointing_of_layers_changes_nothing(config, curve, tmp_path):
    train(config(out=str(tmp_path / "plain")))
    train(config(out=str(tmp_path / "again"), gradient_checkpointing=True))
    close(curve("plain"), curve("again"))


@pytest.mark.parametrize("parts", [("projector", "language"), ("vision", "projector", "language")])
def test_depth_first_changes_nothing(config, curve, tmp_path, parts):
    for name, options in (("plain", {}), ("depth", {"depth_first": True, "micro_batch": 2})):
        train(config(out=str(tmp_path / name), queries=4, train=parts, **options))
    close(curve("plain"), curve("depth"), 1e-5)


def test_depth_first_is_refused_where_branches_are_not_computed_apart(config, monkeypatch):
    monkeypatch.setattr(EngineChoice, "learns_in_parts", property(lambda self: False))
    with pytest.raises(InputError, match="--depth-first: it is for one process on a CPU"):
        train(config(depth_first=True))


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}], ids=["whole", "lora"])
def test_stopped_anywhere_it_goes_on_to_the_same_curve(config, curve, tmp_path, monkeypatch, options):
    asked = config(steps=6, save_every=2, out=str(tmp_path / "whole"), **options)
    last = train(asked)
    monkeypatch.setattr(Mixture, "example", dying(Mixture.example, 5 * 4))
    stopped = config(steps=6, save_every=2, **options)
    with pytest.raises(KeyboardInterrupt):
        train(stopped)
    monkeypatch.undo()
    assert curve() == curve("whole")[:5]
    with (tmp_path / "run" / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # killed while it wrote
    assert (tmp_path / "run" / "latest").read_text() == "checkpoint-4\n"
    again = train(stopped)
    close(curve(), curve("whole"))
    for a, b in zip(
        load_model(str(last)).network.parameters(), load_model(str(again)).network.parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert sorted(p.name for p in again.parent.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]


def test_a_chat_template_that_writes_no_picture_is_a_sentence(config, nano, tmp_path):
    shutil.copytree(nano, tmp_path / "m")
    write = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}<|end|>{% endfor %}"
    (tmp_path / "m" / "chat_template.jinja").write_text(write)
    with pytest.raises(InputError, match="its processor refuses a conversation that its chat template has written"):
        train(config(model=ModelConfig(str(tmp_path / "m"), device="cpu")))


def test_what_a_disk_did_not_let_be_removed_goes_when_the_run_goes_on(config, tmp_path):
    last = Path(train(config(steps=2, save_every=1, keep=1)))
    shutil.copytree(last, last.with_name("checkpoint-1"))
    train(config(steps=2, save_every=1, keep=1))
    assert [path.name for path in last.parent.glob("checkpoint-*")] == ["checkpoint-2"]


def dying(example, at):
    def make(self, n):
        if n >= at:
            raise KeyboardInterrupt
        return example(self, n)

    return make


@pytest.mark.heavy
def test_killed_with_9_it_goes_on_to_the_same_curve(config, curve, tmp_path, nano):
    train(config(steps=8, save_every=1, keep=1, out=str(tmp_path / "whole")))
    process = start(config(steps=8, save_every=1, keep=1), nano)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoint-3").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    train(config(steps=8, save_every=1, keep=1))
    close(curve(), curve("whole"))


def start(config, nano, *before, sharded=False, **environment):
    options = {
        name: getattr(config, name)
        for name in (
            "data",
            "support",
            "queries",
            "steps",
            "batch",
            "lr",
            "save_every",
            "keep",
            "out",
            "held_out",
            "micro_batch",
        )
    } | {
        "model": str(nano),
        "held_out_episodes": config.held_out_episodes,
        "held_out_shots": config.held_out_shots,
        "sharded": sharded,
    }
    script = Path(config.out).parent / "script.py"
    script.write_text(SCRIPT)
    source = str(Path(loop.__file__).parents[2])
    with (Path(config.out).parent / "stderr").open("w") as said:
        return subprocess.Popen(
            [sys.executable, *before, str(script), json.dumps(options)],
            env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", **environment},
            stderr=said,
        )


@pytest.mark.heavy
@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp2"])
def test_two_processes_are_one(config, curve, tmp_path, nano, pictures, sharded):
    held = {"held_out": str(pictures), "held_out_episodes": 3, "held_out_shots": (1,), "steps": 3}
    train(config(out=str(tmp_path / "one"), **held))
    port = 29000 + os.getpid() % 900
    run = ("-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port + sharded}")
    for _ in range(2):  # the second time from the first checkpoint
        asked = config(micro_batch=1, save_every=1, keep=3, **held)
        process = start(asked, nano, *run, sharded=sharded, ACCELERATE_USE_CPU="true")
        assert process.wait(300) == 0, (tmp_path / "stderr").read_text()[-3000:]
        close(curve(), curve("one"), 1e-5)
        (tmp_path / "run" / "latest").write_text("checkpoint-1\n")
    one, two = (json.loads((tmp_path / name / "held_out.jsonl").read_text()) for name in ("one", "run"))
    assert one["rows"][0]["accuracy"] == two["rows"][0]["accuracy"]
    a, b = (load_model(str(tmp_path / name / "checkpoint-3")).network.state_dict() for name in ("one", "run"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-3)


def test_a_handful_is_learnt_by_heart(config, curve, monkeypatch):
    example = Mixture.example
    monkeypatch.setattr(Mixture, "example", lambda self, n: example(self, n % 2))
    train(config(steps=80, batch=2, support=2, lr=5e-3))
    found = curve()
    assert found[0] > 3
    assert found[-1] < 0.1


def test_long_gradients_are_scaled_down_before_a_step(config, tmp_path, monkeypatch):
    taken, step = [], torch.optim.AdamW.step

    def noted(self, *args, **kwargs):
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        taken.append(float(torch.stack([g.norm() for g in gradients]).norm()))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    train(config(lr=0.3, steps=6))
    logged = [json.loads(line)["gradient"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert max(logged) > 1.5
    assert taken == pytest.approx([min(1.0, norm) for norm in logged], rel=1e-3)


def test_a_checkpoint_is_a_model_for_eval(config, tmp_path, pictures):
    folder = train(config(steps=1, lora_rank=2, lr=1.0))
    asked = {"data": str(pictures), "shots": (1,), "episodes": 2}
    trained = run_evaluation(eval_config(model=str(folder), out=str(tmp_path / "eval"), **asked))
    assert trained["rows"][0]["n_queries"] == 4
    before, after = (load_model(name).network.state_dict() for name in (config().model.model, str(folder)))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("language_model" in name for name in changed)
    assert any("projector" in name for name in changed)
    assert not any("vision_tower" in name or "norm" in name for name in changed)


def test_held_out_episodes_are_asked_as_eval_asks_them(config, tmp_path, pictures):
    folder = train(config(held_out=str(pictures), held_out_episodes=3, held_out_shots=(1, 2), steps=3, eval_every=2))
    lines = [json.loads(line) for line in (tmp_path / "run" / "held_out.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    asked = eval_config(
        model=str(folder), data=str(pictures), shots=(1, 2), episodes=3, scoring="likelihood", out=str(tmp_path / "e")
    )
    rows = [row for row in run_evaluation(asked)["rows"] if row["scoring"] == "likelihood_sum"]
    assert [row["accuracy"] for row in lines[-1]["rows"]] == [row["accuracy"] for row in rows]
    assert {"ci95", "chance", "n_queries"} <= set(lines[-1]["rows"][0])


def test_a_loss_that_is_no_number_names_step_and_examples(config, curve, monkeypatch, tmp_path):
    whole = Trainee.forward

    def broken(self, reads):
        cost, tokens = whole(self, reads)
        return cost * (float("nan") if any(r.example.id == "link/0000009" for r in reads) else 1), tokens

    monkeypatch.setattr(Trainee, "forward", broken)
    with pytest.raises(InputError, match=r"step 2: .* not finite in the batch of link/0000008, link/0000009\."):
        train(config(micro_batch=2, save_every=2))
    assert len(curve()) == 2
    assert (tmp_path / "run" / "latest").read_text() == "checkpoint-2\n"


def test_rates_are_those_of_the_parts(config, tmp_path):
    train(config(steps=1, lr=1e-3, projector_lr=1e-4))
    (line,) = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert (line["lr_language"], line["lr_projector"]) == (1e-3, 1e-4)


def test_bf16_learns(config, curve):
    train(config(precision="bf16", steps=2))
    assert all(0 < loss < 100 for loss in curve())


def test_a_folder_in_use_is_refused(config, tmp_path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(InputError, match="another process is writing"):
        train(config())


def test_a_folder_of_another_training_is_refused(config, tmp_path):
    train(config(steps=1))
    with pytest.raises(InputError, match=r"another training \(lr was 0.01 and is 0.02\)"):
        train(config(steps=1, lr=0.02))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="it holds no training"):
        train(config(out=str(tmp_path / "other")))


def test_other_annotations_of_the_same_pictures_are_refused(config, pictures, tmp_path):
    root = tmp_path / "own"
    shutil.copytree(pictures, root)
    train(config(data=str(root), steps=1))
    dataset = open_folder(root)
    facts = [dataclasses.replace(item, facts={**item.facts, "note": 1}) for item in dataset.items]
    write_manifest(dataclasses.replace(dataset, items=tuple(facts)))
    with pytest.raises(InputError, match="another training \\(link annotations"):
        train(config(data=str(root), steps=1))


def test_a_picture_that_the_processor_refuses_is_left_out_and_named(config, pictures, tmp_path, monkeypatch, caplog):
    root = tmp_path / "own"
    shutil.copytree(pictures, root)
    bad = min(root.glob("*/*.png"))
    Image.new("RGB", (3000, 2), "red").save(bad)
    monkeypatch.setattr(unreadable, "_reason", lambda model, size: "refused" if size == (3000, 2) else "")
    train(config(data=str(root), steps=1))
    assert f"left out: 1 ({bad.relative_to(root)}): refused" in caplog.text
    told = json.loads((tmp_path / "run" / "config.json").read_text())
    assert any("refused" in problem for problem in told["problems"])


def talks(root, pictures, answer="a thing"):
    """A file of conversations about these pictures."""
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": answer}]
    file = root / "talk.json"
    file.write_text(json.dumps([{"image": picture.name, "conversations": turns} for picture in pictures]))
    return str(file)


def test_a_refused_picture_of_a_file_is_left_out_and_another_one_is_another_training(
    config, tmp_path, monkeypatch, caplog
):
    Image.new("RGB", (70, 70), "red").save(tmp_path / "good.png")
    Image.new("RGB", (3000, 2), "red").save(tmp_path / "bad.png")
    monkeypatch.setattr(unreadable, "_reason", lambda model, size: "refused" if size == (3000, 2) else "")
    asked = config(mixture=(talks(tmp_path, [tmp_path / "good.png", tmp_path / "bad.png"]),), steps=1)
    train(asked)
    assert "left out: 1 (bad.png): refused" in caplog.text
    Image.new("RGB", (70, 70), "blue").save(tmp_path / "good.png")
    with pytest.raises(InputError, match=r"another training \(.*talk.json"):
        train(asked)
    (tmp_path / "good.png").unlink()
    (tmp_path / "bad.png").rename(tmp_path / "good.png")
    with pytest.raises(InputError, match="no question is left"):
        train(config(mixture=(talks(tmp_path, [tmp_path / "good.png"]),), steps=1))


def test_a_training_that_is_refused_leaves_no_folder(config, tmp_path):
    Image.new("RGB", (70, 70), "red").save(tmp_path / "good.png")
    with pytest.raises(InputError, match="a special token"):
        train(config(mixture=(talks(tmp_path, [tmp_path / "good.png"], "a <|end|>"),), steps=1))
    assert not (tmp_path / "run").exists()


def test_other_weights_below_the_path_of_the_model_are_refused(config, nano, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(nano, folder)
    asked = config(model=ModelConfig(str(folder), device="cpu"), steps=1)
    train(asked)
    train(asked)  # nothing has changed
    tensors = load_file(folder / "model.safetensors")
    name = min(tensors)
    save_file({**tensors, name: tensors[name] + 1e-3}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="since it began, the model's weights changed"):
        train(asked)


def test_a_checkpoint_that_is_cut_short_or_of_another_model_is_refused(config, tmp_path):
    folder = train(config(steps=1))
    state = folder / "training.safetensors"
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cut short or damaged"):
        train(config(steps=1))
    train(config(steps=1, lora_rank=2, out=str(tmp_path / "lora")))
    state.write_bytes((tmp_path / "lora" / "checkpoint-1" / "training.safetensors").read_bytes())
    with pytest.raises(InputError, match="belongs to another model"):
        train(config(steps=1))
    state.unlink()
    with pytest.raises(InputError, match="cut short or damaged"):
        train(config(steps=1))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"mixture": ("link=0.5",)}, "sum to 1"),
        ({"lora_rank": 2, "lora_targets": "no_such"}, "matches none"),
        ({"batch": 4, "micro_batch": 3}, "cannot be divided among"),
        ({"trackers": ("wandb",)}, "not installed"),
        ({"support": 400}, "pictures needed"),
    ],
)
def test_bad_input_is_a_sentence(config, options, why):
    with pytest.raises(InputError, match=why):
        train(config(**options))


@pytest.mark.parametrize("options", [{"steps": 0}, {"lora_rank": -1}, {"neighbours": "n.jsonl"}])
def test_numbers_are_looked_at_before_anything_else(config, options):
    with pytest.raises(InputError, match="--"):
        config(**options)


def test_a_support_that_does_not_fit_is_refused_before_anything_is_trained(config, monkeypatch, tmp_path):
    monkeypatch.setattr("linkcontext.models.loading.Model.context", 60)
    with pytest.raises(InputError, match=r"link/0000000: a conversation with 5 pictures needs .* context is 60"):
        train(config())
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_the_model_is_asked_for_by_the_configuration_alone(config):
    assert config().model == ModelConfig(config().model.model, device="cpu")


def test_a_checkpoint_with_a_flipped_bit_is_refused_and_the_one_before_it_named(config, curve, tmp_path):
    train(config(steps=4, save_every=2, out=str(tmp_path / "whole")))
    state = train(config(steps=4, save_every=2)) / "training.safetensors"
    content = bytearray(state.read_bytes())
    content[-5] ^= 1
    state.write_bytes(content)
    with pytest.raises(InputError) as error:
        train(config(steps=4, save_every=2))
    assert str(error.value).startswith(f"{state}: cut short or damaged")
    assert f"checkpoint-2 is good: write its name into {tmp_path / 'run' / 'latest'}" in str(error.value)
    (tmp_path / "run" / "latest").write_text("checkpoint-2\n")
    train(config(steps=4, save_every=2))
    close(curve(), curve("whole"))


@pytest.mark.parametrize("name", ["", "checkpoint-9", "../whole/checkpoint-2", "checkpoint-\0", "checkpoint-x"])
def test_a_pointer_to_no_checkpoint_is_refused(config, tmp_path, name):
    train(config(steps=2, save_every=1))
    (tmp_path / "run" / "latest").write_text(name)
    with pytest.raises(InputError, match="checkpoint-2 is good"):
        train(config(steps=2, save_every=1))


def test_checkpoints_behind_the_one_that_is_gone_on_from_are_given_up(config, tmp_path):
    train(config(steps=6, save_every=3, keep=2))
    (tmp_path / "run" / "latest").write_text("checkpoint-3\n")
    with pytest.raises(InputError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mixture, "example", failing(Mixture.example, 5 * 4))
        train(config(steps=6, save_every=1, keep=1))
    assert (tmp_path / "run" / "latest").read_text() == "checkpoint-5\n"
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-5"]


def failing(example, at):
    def make(self, n):
        if n >= at:
            raise InputError("stop")
        return example(self, n)

    return make


@pytest.mark.parametrize(
    "line", ["{", '{"step": "3"}', '{"steps": 3}', "[3]", "[" * 100_000, '{"step": ' + "9" * 5_000 + "}"]
)
@pytest.mark.parametrize("name", ["log.jsonl", "held_out.jsonl"])
def test_a_log_that_is_damaged_is_a_sentence(tmp_path, line, name):
    path = tmp_path / name
    path.write_text(f'{{"step": 0}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(InputError, match=rf"{name}:2: "):
        cut_log(path, 2)


def test_a_training_of_another_format_is_not_resumed(config, tmp_path):
    train(config(steps=1))
    path = tmp_path / "run" / "config.json"
    about = json.loads(path.read_text())
    assert about["format"] == "linkcontext.training/1"
    path.write_text(json.dumps({**about, "format": "linkcontext.training/9"}))
    with pytest.raises(InputError, match=r"config\.json: its format is linkcontext\.training/9"):
        train(config(steps=1))


@pytest.mark.parametrize("line", ['{"step": 1, "rows": 5}', '{"step": 1}', '{"step": 1, "rows": [{"accuracy": "x"}]}'])
def test_held_out_figures_that_are_none_are_a_sentence(tmp_path, line):
    (tmp_path / "held_out.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=r"held_out\.jsonl:1: holds no rows"):
        last_rows(tmp_path / "held_out.jsonl")


def test_a_log_that_the_disk_does_not_take_is_a_sentence(config, tmp_path, monkeypatch):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(checkpoint, "save_checkpoint", lambda *_: None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, before[1]))  # config.json fits, many lines of a log do not
    try:
        with pytest.raises(InputError, match=r"log\.jsonl: could not be written .*Free some space"):
            train(config(steps=120))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_transformers_without_checkpointed_layers_trains_without_the_flag(config, monkeypatch):
    monkeypatch.delattr("transformers.modeling_layers.GradientCheckpointingLayer")
    with pytest.raises(InputError, match=r"--gradient-checkpointing: transformers .* has no"):
        train(config(gradient_checkpointing=True, steps=1))
    train(config(steps=1))
