"""Tiny random networks of real classes with their real processors: a function for each family, which makes both."""

import importlib.util

from . import gemmas, hybrids, newer, qwens, rows, tiles

MAKERS = (
    *(rows.llava, rows.llava_next, rows.llava_onevision, rows.mistral3, rows.pixtral, rows.deepseek_vl, rows.kimi_k25),
    *(rows.paligemma, gemmas.gemma3, gemmas.gemma3_crops, gemmas.gemma4, gemmas.gemma4_causal, gemmas.gemma4_shared),
    *(qwens.qwen2_vl, qwens.qwen2_5_vl, qwens.qwen3_vl, qwens.qwen3_vl_moe, qwens.qwen3_vl_thinking),
    *(qwens.glm4v, qwens.glm46v, hybrids.qwen3_5, hybrids.minicpmv4_6, hybrids.lfm2_vl),
    *(tiles.idefics2, tiles.idefics3, tiles.internvl, tiles.ovis2, tiles.cohere2_vision),
    *(tiles.aya_vision, tiles.llama4, tiles.mllama, newer.ernie4_5_vl, newer.molmo2, newer.step3p7),
)
# Those that need a package which transformers itself does without.
OPTIONAL = {"timm": (newer.gemma3n, newer.perception_lm), "num2words": (tiles.smolvlm,)}
INSTALLED = [make for package, makers in OPTIONAL.items() if importlib.util.find_spec(package) for make in makers]
FAMILIES = {make.__name__: make for make in (*MAKERS, *INSTALLED)}
