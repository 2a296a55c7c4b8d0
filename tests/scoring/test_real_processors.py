"""Families through their real processors: every engine gives what whole prompts give: scores, replies, gradients."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TESTS = Path(__file__).parents[1]
TORCHVISION = Path(sys.prefix) / "torchvision"  # where `make` installs it
SHAPES = ((64, 64), (96, 48), (48, 96), (64, 64), (130, 40), (33, 121), (7, 7), (200, 150), (96, 48), (60, 180))
# What differs most from one to the next; the heavy test has them all.
FAST = ("qwen3_vl", "idefics3", "gemma4", "lfm2_vl", "llama4")  # a way to run each; all in the heavy test
OWN_CACHE = ("qwen3_5", "minicpmv4_6", "lfm2_vl", "llama4")
REFERENCE = {  # and what is said of them
    "paligemma": "both directions",
    "molmo2": "all pictures of a prompt attend to each other",
    "mllama": "before a prompt's first picture read all of its pictures",
}
OPTIONAL = {"gemma3n", "perception_lm", "smolvlm", "minicpmv4_6", "molmo2"}  # need a package, or a recent version
TREE = (
    *("llava", "llava_next", "llava_onevision", "mistral3", "pixtral", "deepseek_vl", "kimi_k25", "gemma3"),
    *("gemma3_crops", "gemma4", "gemma4_causal", "gemma4_shared", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"),
    *("qwen3_vl_moe", "qwen3_vl_thinking", "glm4v", "glm46v", "idefics2", "idefics3", "internvl", "ovis2"),
    *("cohere2_vision", "aya_vision", "ernie4_5_vl", "step3p7"),
)

SIZES = (  # a smaller picture has fewer tokens, at the sizes of the tests
    *("kimi_k25", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_vl_thinking", "qwen3_5", "glm4v"),
    *("glm46v", "lfm2_vl", "ernie4_5_vl", "step3p7"),
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Compare families in a process of its own; gives what it prints."""
    if not TORCHVISION.is_dir():
        pytest.skip(f"torchvision is not in {TORCHVISION}, where make test installs it")
    folder = tmp_path_factory.mktemp("shapes")
    for number, (width, height) in enumerate(SHAPES):
        noise = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number}.png")

    def compare(names):
        paths = [str(TORCHVISION), str(TESTS.parent / "src"), str(TESTS.parent / "recipes" / "mini")]
        process = subprocess.run(
            [sys.executable, str(TESTS / "real_processors.py"), str(folder), *names],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr[-3000:]
        return json.loads(process.stdout.splitlines()[-1])

    return compare


def assert_served(name, family):
    """A family's engine is the one in the lists above, and exact, with reduced pictures (--max-pixels) too."""
    apart, (usual, whole, tokens) = family["reduced"]
    assert apart < 1e-4, (name, apart)
    assert tokens == whole, name
    assert tokens < usual or name not in SIZES, (name, usual, tokens)
    assert family["spread"] > 0.1, name
    if name in REFERENCE:
        assert family["engine"] == "reference", name
        assert REFERENCE[name] in family["reason"]
        return
    assert (family["engine"], family["own_cache"]) == ("prefix-cache", name in OWN_CACHE), (name, family["reason"])
    assert family["apart"] < 1e-4, (name, family["apart"])
    assert family["replies"], name
    assert family["learnt"] < 1e-3, (name, family["learnt"])


def test_some_families_on_their_engines_equal_whole_prompts(compared):
    families = compared(FAST)
    assert families.keys() == set(FAST)
    for name, family in families.items():
        assert_served(name, family)


@pytest.mark.heavy
def test_every_family_on_its_engine_equals_whole_prompts(compared):
    families = compared([])
    assert families.keys() - OPTIONAL == {*TREE, *OWN_CACHE, *REFERENCE} - OPTIONAL
    for name, family in families.items():
        assert_served(name, family)
