"""`python save_qwen.py FOLDER`: a small random Qwen2.5-VL with its real processor.

vLLM's attention on a CPU wants heads of 64, which the networks of the other tests do not have.
"""

import sys
from pathlib import Path

import torchvision_operators  # noqa: F401 - before transformers looks for torchvision
from real_families.parts import random_weights
from real_families.qwens import qwen2_5_vl

from linkcontext.models.saving import save_model

WIDTH = 128

if __name__ == "__main__":
    small, processor = qwen2_5_vl()
    config = small.config
    config.text_config.hidden_size = config.vision_config.out_hidden_size = WIDTH
    config.text_config.rope_parameters["mrope_section"] = [16, 8, 8]
    config.vision_config.hidden_size, config.vision_config.num_heads = WIDTH, 2
    save_model(random_weights(type(small), config), processor, Path(sys.argv[1]))
