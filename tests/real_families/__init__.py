"""Tiny random networks of real classes with their real processors: a function for each family, which makes both."""

import importlib.util

import transformers
from packaging.version import Version

from . import gemmas, hybrids, newer, qwens, rows, tiles

MAKERS = (
    *(rows.llava, rows.llava_next, rows.llava_onevision, rows.mistral3, rows.pixtral, rows.deepseek_vl, rows.kimi_k25),
    *(rows.paligemma, gemmas.gemma3, gemmas.gemma3_crops, gemmas.gemma4, gemmas.gemma4_causal, gemmas.gemma4_shared),
    *(qwens.qwen2_vl, qwens.qwen2_5_vl, qwens.qwen3_vl, qwens.qwen3_vl_moe, qwens.qwen3_vl_thinking),
    *(qwens.glm4v, qwens.glm46v, hybrids.qwen3_5, hybrids.lfm2_vl),
    *(tiles.idefics2, tiles.idefics3, tiles.internvl, tiles.ovis2, tiles.cohere2_vision),
    *(tiles.aya_vision, tiles.llama4, tiles.mllama, newer.ernie4_5_vl, newer.step3p7),
)
# Those that need a package which transformers itself does without.
OPTIONAL = {"timm": (newer.gemma3n, newer.perception_lm), "num2words": (tiles.smolvlm,)}
# transformers 5.17 fails itself on MiniCPM-V with pictures of several shapes, and has no Molmo 2.
RECENT = (hybrids.minicpmv4_6, newer.molmo2) if Version(transformers.__version__) >= Version("5.23") else ()
INSTALLED = [make for package, makers in OPTIONAL.items() if importlib.util.find_spec(package) for make in makers]
FAMILIES = {make.__name__: make for make in (*MAKERS, *RECENT, *INSTALLED)}
