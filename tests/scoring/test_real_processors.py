"""Families through their real processors: the tree gives what whole prompts give, scores and replies."""

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
FAMILIES = ("llava", "qwen2_5_vl", "qwen3_vl", "idefics3", "internvl", "gemma3", "mistral3")
SHAPES = ((64, 64), (96, 48), (48, 96), (64, 64), (130, 40), (33, 121), (7, 7), (200, 150))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    if not TORCHVISION.is_dir():
        pytest.skip(f"torchvision is not in {TORCHVISION}, where make test installs it")
    folder = tmp_path_factory.mktemp("shapes")
    for number, (width, height) in enumerate(SHAPES):
        noise = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    paths = [str(TORCHVISION), str(TESTS.parent / "src"), str(TESTS.parent / "recipes" / "mini")]
    process = subprocess.run(
        [sys.executable, str(TESTS / "real_processors.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", FAMILIES)
def test_trees_equal_whole_prompts_of_the_real_processor(compared, name):
    family = compared[name]
    assert family["engine"] == "tree"
    assert family["spread"] > 0.1
    assert family["apart"] < 1e-4
    assert family["replies"]
