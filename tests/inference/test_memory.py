"""The estimates of memory, by hand, and against what a vision tower takes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from linkcontext.errors import InputError
from linkcontext.inference.memory import image_bytes, max_tokens_per_pass, pass_bytes


def network(**fields):
    text = SimpleNamespace(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, _attn_implementation="sdpa", **fields
    )
    return SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text), dtype=torch.float32)


def test_the_bytes_of_a_pass_by_hand():
    small = network(num_key_value_heads=2, head_dim=8, intermediate_size=100)
    kept = 2 * 3 * 2 * 8 * 4  # keys and values, layers, heads, width, bytes
    states = 4 * (8 * 64 + 3 * 100 + 3 * 4 * 8)
    logits = 12 * 2**24
    assert pass_bytes(small, 1000, 50) == 1.25 * kept * 1050 + 50 * (states + 5 * 1050) + logits
    assert pass_bytes(small, 1000, 50) - logits == pytest.approx(948_100)


def test_fields_that_a_family_leaves_out():
    """Keys have as many heads as queries, a head divides the width, and the inner width is four times the outer."""
    kept, states = 2 * 3 * 4 * 16 * 4, 4 * (8 * 64 + 3 * 256 + 3 * 4 * 16)
    assert pass_bytes(network(), 10, 2) == 1.25 * kept * 12 + 2 * (states + 5 * 12) + 12 * 2**24


def test_of_widths_that_differ_from_layer_to_layer_the_largest_counts():
    assert pass_bytes(network(intermediate_size=[20, 100, 50]), 10, 2) == pass_bytes(
        network(intermediate_size=100), 10, 2
    )


def test_layers_that_share_keys_and_values_are_not_counted():
    none, shared = network(), network(num_kv_shared_layers=1)
    assert pass_bytes(none, 10, 2) - pass_bytes(shared, 10, 2) == 1.25 * 2 * 4 * 16 * 4 * 12


def test_eager_attention_keeps_its_scores():
    usual, eager = network(), network()
    eager.config.get_text_config()._attn_implementation = "eager"
    assert pass_bytes(eager, 10, 2) - pass_bytes(usual, 10, 2) == 2 * 12 * 4 * 4


def test_a_pass_is_halved_until_it_fits():
    small = network()
    exactly = pass_bytes(small, 1000, 256)
    assert max_tokens_per_pass(small, 1000, exactly, 1024) == 256
    assert max_tokens_per_pass(small, 1000, exactly - 1, 1024) == 128
    assert max_tokens_per_pass(small, 1000, exactly, 40) == 40
    least = pass_bytes(small, 1000, 16)
    assert max_tokens_per_pass(small, 1000, least, 1024) == 16
    with pytest.raises(InputError, match=r"0\.2\d* GB are too little: a support of 1000 tokens .*Raise --memory-gb"):
        max_tokens_per_pass(small, 1000, least - 1, 1024)


def tower(**fields):
    return SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(**fields)), dtype=torch.float32)


def test_the_bytes_of_an_image_by_hand():
    clip = tower(hidden_size=64, intermediate_size=100, num_attention_heads=4, patch_size=16)
    square = {"pixel_values": torch.zeros(1, 3, 32, 48)}  # 6 patches
    assert image_bytes(clip, square) == 3 * 4 * 3 * 32 * 48 + 6 * 4 * (8 * 64 + 3 * 100)
    tiled = {"pixel_values": torch.zeros(1, 5, 3, 32, 48), "sizes": torch.zeros(2, dtype=torch.int64)}
    assert image_bytes(clip, tiled) == 3 * (5 * 4 * 3 * 32 * 48 + 16) + 5 * 6 * 4 * (8 * 64 + 3 * 100)
    clip.config.vision_config._attn_implementation = "eager"
    assert image_bytes(clip, square) == 3 * 4 * 3 * 32 * 48 + 6 * (4 * (8 * 64 + 3 * 100) + 4 * 4 * 6)


def test_patches_that_are_cut_already_and_other_names_of_fields():
    """Qwen2-VL gives rows of patches, each twice in time, and names the tower's width otherwise."""
    qwen = tower(embed_dim=64, hidden_size=32, mlp_ratio=4, num_heads=4, patch_size=14, temporal_patch_size=2)
    rows = {"pixel_values": torch.zeros(10, 3 * 2 * 14 * 14), "image_grid_thw": torch.tensor([[1, 2, 5]])}
    assert image_bytes(qwen, rows) == 3 * (4 * 10 * 3 * 2 * 14 * 14 + 24) + 10 * 4 * (8 * 64 + 3 * 256)


MEASURE = """
import gc, json, sys, threading, time
import psutil, torch
import transformers as hf
from PIL import Image
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig, Qwen2_5_VLVisionConfig
from linkcontext.inference.memory import image_bytes
from linkcontext.models.calls import image_features

torch.set_num_threads(1)
text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
text |= {"num_key_value_heads": 1, "vocab_size": 300}

def qwen():
    vision = {"depth": 2, "hidden_size": 640, "intermediate_size": 1712, "num_heads": 8, "out_hidden_size": 64}
    rope = {"rope_type": "default", "mrope_section": [8, 4, 4]}
    ids = dict(zip(("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"), range(5, 9)))
    config = hf.Qwen2_5_VLConfig(
        text_config=Qwen2_5_VLTextConfig(**text, rope_parameters=rope).to_dict(),
        vision_config=Qwen2_5_VLVisionConfig(**vision, fullatt_block_indexes=[1]).to_dict(),
        **ids,
    )
    return hf.Qwen2_5_VLForConditionalGeneration(config), hf.Qwen2VLImageProcessorPil(max_pixels=16_000_000)

def llava():
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 2, "num_attention_heads": 12}
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**vision, image_size=336, patch_size=14),
        text_config=hf.LlamaConfig(**text),
        image_token_index=5,
    )
    size = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    return hf.LlavaForConditionalGeneration(config), hf.CLIPImageProcessorPil(**size)

name, width, height, count = sys.argv[1], *map(int, sys.argv[2:])
network, processor = {"qwen": qwen, "llava": llava}[name]()
image, process, peak, over = Image.effect_noise((width, height), 60).convert("RGB"), psutil.Process(), [0], []

def watch():
    while not over:
        peak[0] = max(peak[0], process.memory_info().rss)
        time.sleep(0.001)

with torch.inference_mode():
    image_features(network.eval().model, dict(processor([image.resize((64, 64))], return_tensors="pt")), 1, 1)
    gc.collect()
    before, thread = process.memory_info().rss, threading.Thread(target=watch)
    thread.start()
    inputs = [dict(processor([image], return_tensors="pt")) for _ in range(count)]
    joined = {key: torch.cat([each[key] for each in inputs]) for key in inputs[0]}
    image_features(network.model, joined, count, 1)
    over.append(True)
    thread.join()
print(json.dumps([peak[0] - before, count * image_bytes(network, inputs[0])]))
"""


@pytest.mark.heavy
@pytest.mark.parametrize("images", [("llava", 600, 400, 8), ("qwen", 1000, 800, 1), ("qwen", 1800, 1200, 3)])
def test_the_estimate_is_near_what_a_tower_takes(images):
    """Measured 2026-11-29 on a CPU: .93 to 1.4 times the peak, with 1 to 32 images of .2 to 2.2 megapixels."""
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, *map(str, images)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    peak, estimate = json.loads(process.stdout.splitlines()[-1])
    assert 0.85 * peak < estimate < 1.7 * peak
