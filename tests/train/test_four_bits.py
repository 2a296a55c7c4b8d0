"""QLoRA: what is kept in 4 bits, that it learns, and that its checkpoints are whole. On a CPU, with bitsandbytes."""

import importlib.util
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from linkcontext.config import eval_config
from linkcontext.data.images import open_image
from linkcontext.errors import InputError
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.families import parts, quantizable
from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.train import setup
from linkcontext.train.checkpoint import _merged
from linkcontext.train.estimate import NF4, dry_run, with_preset
from linkcontext.train.loop import train

INSTALLED = importlib.util.find_spec("bitsandbytes") is not None
real = pytest.mark.skipif(not INSTALLED, reason="bitsandbytes is not installed (the extra qlora)")


def in_4bit(config, **changes):
    asked = config(lora_rank=2, **changes)
    return replace(asked, model=replace(asked.model, load_in_4bit=True))


@pytest.fixture(scope="module")
def packed(nano):
    return load_model(str(nano), device="cpu", load_in_4bit=True)


@real
def test_the_language_models_layers_are_kept_in_4_bits_and_nothing_else_is(nano, packed):
    whole = load_model(str(nano), device="cpu")
    names = {f"{name}.weight" for name in quantizable(whole.network)}
    assert len(names) == 7 * whole.network.config.text_config.num_hidden_layers
    for name, p in packed.network.named_parameters():
        assert p.dtype == (torch.uint8 if name in names else torch.float32), name
    layer = packed.network.get_submodule(next(iter(quantizable(whole.network))))
    state = layer.weight.quant_state
    assert (state.quant_type, state.nested, layer.compute_dtype) == ("nf4", True, torch.float32)
    assert packed.describe()["parameters"] == whole.describe()["parameters"]


@real
def test_what_is_read_back_is_the_nearest_of_sixteen_values(nano, packed):
    """Of 64 numbers in a row the largest is 1; of its scale 8 bits are kept, so that rounding is not exact."""
    whole, back = load_model(str(nano), device="cpu").network.state_dict(), _merged(packed.network)
    assert back.keys() == whole.keys()
    name = "model.language_model.layers.0.mlp.gate_proj.weight"
    true, found = (weights[name].reshape(-1, 64) for weights in (whole, back))
    scale = true.abs().amax(1, keepdim=True)
    assert len((found / scale).mul(50).round().unique()) <= 3 * 16
    assert 0 < (true - found).abs().div(scale).max() < 0.17  # half of the widest gap, and what the scale is off by
    for other in parts(packed.network)["projector"]:
        torch.testing.assert_close(back[other], whole[other], rtol=0, atol=0)


@real
def test_it_learns_goes_on_and_its_checkpoint_is_a_whole_model(config, curve, tmp_path, pictures):
    asked = in_4bit(config, steps=4, save_every=2, keep=2)
    last = train(asked)
    whole = curve()
    (tmp_path / "run" / "latest").write_text("checkpoint-2\n")
    train(asked)
    assert curve() == pytest.approx(whole, abs=1e-6)
    told = json.loads((last / "config.json").read_text())
    assert "quantization_config" not in told
    found = load_model(str(last), device="cpu").network
    before, after = (load_model(name, device="cpu", load_in_4bit=True) for name in (config().model.model, str(last)))
    base, mine = _merged(before.network), found.state_dict()
    moved = {name for name, value in base.items() if not torch.equal(value, mine[name])}
    projector = set(parts(found)["projector"])
    assert projector <= moved
    assert moved - projector == {f"{name}.weight" for name in quantizable(found)}
    learnt, at = load_file(last / "training.safetensors"), "model.language_model.layers.1.self_attn.v_proj"
    a, b = (learnt[f"weights.network.{at}.lora_{side}.default.weight"] for side in "AB")
    torch.testing.assert_close(mine[f"{at}.weight"], base[f"{at}.weight"] + 2 * b @ a, rtol=0, atol=1e-6)
    assert after.network.is_loaded_in_4bit  # a finished training can be kept in 4 bits in its turn
    rows = run_evaluation(
        eval_config(model=str(last), data=str(pictures), shots=(1,), episodes=2, out=str(tmp_path / "e"))
    )
    assert rows["rows"][0]["n_queries"] == 4


@real
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # read by peft
def test_an_adapter_stays_beside_weights_in_4_bits(nano, packed, pictures, tmp_path):
    torch.manual_seed(0)
    names = list(quantizable(packed.network))
    tuned = get_peft_model(load_model(str(nano), device="cpu").network, LoraConfig(r=2, target_modules=names))
    for name, p in tuned.named_parameters():
        if "lora_B" in name:
            p.data.normal_()
    tuned.save_pretrained(tmp_path / "adapter")
    beside = load_model(str(nano), device="cpu", adapter=str(tmp_path / "adapter"), load_in_4bit=True)
    merged = load_model(str(nano), device="cpu", adapter=str(tmp_path / "adapter"))
    ids = {"input_ids": torch.arange(4, 40)[None]}
    plain, base = (load_model(str(nano), device="cpu").network(**ids).logits, packed.network(**ids).logits)
    found, expected = beside.network(**ids).logits, merged.network(**ids).logits
    noise = (base - plain).abs().max()
    assert (expected - plain).abs().max() > 5 * noise > 0
    assert (found - expected).abs().max() < 5 * noise
    assert LocalModel(beside, VisionEncoder(beside, open_image), {}).engine == "prefix-cache"


@real
def test_its_engine_gives_what_whole_prompts_give(packed):
    assert LocalModel(packed, VisionEncoder(packed, open_image), {}).choice.name_and_reason == (
        "prefix-cache",
        "a small tree gave what whole prompts give",
    )


def test_without_the_package_it_is_a_sentence(nano, monkeypatch):
    monkeypatch.setattr("linkcontext.models.loading.importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^--load-in-4bit needs the bitsandbytes package: pip install"):
        load_model(str(nano), device="cpu", load_in_4bit=True)


@real
def test_where_its_kernels_do_not_run_it_is_a_sentence(nano, monkeypatch):
    def broken(*given, **more):
        raise RuntimeError("None of the available devices are supported\nby this version")

    monkeypatch.setattr("linkcontext.models.loading.AutoModelForImageTextToText.from_pretrained", broken)
    with pytest.raises(InputError, match=r"^--model .*: could not be loaded \(None of [a-z ]*\)\."):
        load_model(str(nano), device="cpu", load_in_4bit=True)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lora_rank": 0}, "Give --lora-rank"),
        ({"lora_rank": 2, "train": ("language",)}, "leave language out of --train"),
        ({"lora_rank": 2, "adapter": "a"}, "adapters on top of an adapter"),
    ],
)
def test_what_does_not_learn_in_4_bits_is_a_sentence(config, changes, why):
    adapter = changes.pop("adapter", None)
    model = replace(config().model, load_in_4bit=True, adapter=adapter)
    with pytest.raises(InputError, match=f"^--load-in-4bit.*{why}"):
        config(model=model, **changes)


def test_4_bits_are_not_sharded(config, monkeypatch):
    monkeypatch.setattr(setup, "Accelerator", lambda **_: SimpleNamespace(distributed_type=DistributedType.FSDP))
    with pytest.raises(InputError, match=r"^--load-in-4bit: weights in 4 bits cannot be sharded"):
        train(in_4bit(config))


def test_the_dry_run_counts_4_bits(config):
    def lines(**model):
        plain = config(lora_rank=16, out="r", support=5, queries=1, batch=8, names="pseudo")
        asked = replace(plain, model=replace(plain.model, model="mini", **model))
        return dry_run(with_preset(asked, "lcl-qwen2.5-vl-3b"), "lcl-qwen2.5-vl-3b")

    def memory(found):
        return int(next(line for line in found if line.startswith("memory")).split(": ")[1].split(" ")[0])

    whole, small = lines(), lines(load_in_4bit=True)
    # 36 layers of q, o (2048 x 2048), k, v (2048 x 256) and three of 2048 x 11008.
    count = 36 * (2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 11008)
    assert f"{count / 1e9:.2f} billion are kept in 4 bits" in small[0]
    assert pytest.approx(0.516, abs=1e-3) == NF4
    assert memory(whole) - memory(small) == pytest.approx((2 - NF4) * count / 1e9, abs=1.01)
