"""Presets, and what a training would take, from configurations alone."""

import re

import pytest

from linkcontext.config import ModelConfig
from linkcontext.errors import InputError
from linkcontext.models.loading import load_processor
from linkcontext.models.synthetic_images import blank_image
from linkcontext.train.config import TrainConfig
from linkcontext.train.estimate import PRESETS, dry_run, with_preset

# Billions of numbers, as their model cards say.
PUBLISHED = {
    "lcl-llava-1.5-7b": 7.06,
    "lcl-llava-onevision-7b": 8.03,
    "lcl-qwen2.5-vl-3b": 3.75,
    "lcl-qwen2.5-vl-7b": 8.29,
    "lcl-qwen3-vl-8b": 8.77,
    "lcl-smolvlm": 2.25,
}


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_has_the_published_size_and_fits(name):
    text = "\n".join(dry_run(with_preset(TrainConfig(), name), name, gpus=8))
    assert f"{PUBLISHED[name]:.2f} billion numbers" in text
    assert "trees, a support once" in text
    assert "hours: unknown. Give your GPU's rate" in text


def test_what_was_asked_for_stays():
    config = with_preset(TrainConfig(names="pseudo", support=8, lora_rank=4), "lcl-smolvlm")
    assert (config.support, config.lora_rank, config.scaffold, config.names) == (8, 4, "lcl", "lcl")
    assert config.model.model == "HuggingFaceTB/SmolVLM-Instruct"


def test_tokens_and_hours_by_hand():
    config = with_preset(TrainConfig(strategy="2-way", steps=10, batch=2, queries=2), "lcl-smolvlm")
    text = "\n".join(dry_run(config, "lcl-smolvlm", tflops=100.0))
    tokens = (16 + 2) * (83 + 32)
    assert f"about {tokens} tokens" in text
    hours = 10 * 2 * tokens * 2 * 4 * 1.81e9 / 100e12 / 3600
    assert f"at least {hours:.2g} at the 100 TFLOP/s given" in text


def test_the_rate_of_this_machine_is_measured():
    config = with_preset(TrainConfig(model=ModelConfig(device="cpu")), "lcl-smolvlm")
    measured = dry_run(config, "lcl-smolvlm", tflops="measure")[-1]
    hours, rate, name = re.fullmatch(
        r"hours: at least (.*) at the (.*) TFLOP/s measured on (.*) \(.* matrix product\).*", measured
    ).groups()
    given = dry_run(config, "lcl-smolvlm", tflops=float(rate))[-1]
    again = re.search(r"at least (\S+) ", given)[1]
    assert float(again) == pytest.approx(float(hours), rel=0.1)  # the rate is told to two digits
    assert "threads" in name


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tflops": 0.0}, "--tflops 0: must be above 0"),
        ({"tflops": float("nan")}, "--tflops nan"),
        ({"gpus": 0}, "--gpus 0: at least one"),
    ],
)
def test_a_rate_that_cannot_be_is_a_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        dry_run(with_preset(TrainConfig(), "lcl-smolvlm"), "lcl-smolvlm", **options)


def test_adapters_take_less_memory():
    def memory(**options):
        lines = dry_run(with_preset(TrainConfig(**options), "lcl-qwen2.5-vl-7b"), "lcl-qwen2.5-vl-7b")
        return int(next(line for line in lines if line.startswith("memory")).split(": ")[1].split(" ")[0])

    assert 15 < memory(lora_rank=16) < memory() / 3


def test_a_folder_is_read_without_its_weights(nano, tmp_path):
    for path in nano.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    lines = dry_run(TrainConfig(ModelConfig(str(tmp_path)), support=4), None)
    processor, said = load_processor(str(nano)), "{}What is this?"
    longer, shorter = (
        processor(text=[said.format(mark)], images=images, return_tensors="pt")["input_ids"].shape[1]
        for mark, images in ((processor.image_token, [[blank_image()]]), ("", None))
    )
    assert f"({longer - shorter} a picture," in lines[1]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"support": 32}, r"context is 4096. Give --support 5 or less"),
        ({"lora_rank": 2, "lora_targets": "none"}, "matches none"),
        ({"mixture": ("link=2",)}, "sum to 1"),
        ({"scaffold": "gone"}, "--scaffold gone"),
        ({"ways": 20, "support": 5}, "--support 5"),
    ],
)
def test_what_could_not_be_trained_is_a_sentence(options, why):
    with pytest.raises(InputError, match=why):
        dry_run(with_preset(TrainConfig(**options), "lcl-llava-1.5-7b"), "lcl-llava-1.5-7b")


def test_unknown_names_are_sentences(tmp_path):
    with pytest.raises(InputError, match="There are lcl-llava"):
        with_preset(TrainConfig(), "lcl")
    with pytest.raises(InputError, match="no configuration was found"):
        dry_run(TrainConfig(ModelConfig(str(tmp_path))), None)
