"""`python save_qwen.py FOLDER`: a tiny random Qwen2.5-VL with its real processor."""

import sys

from real_processors import qwen2_5_vl

from linkcontext.models.saving import save_model

if __name__ == "__main__":
    save_model(*qwen2_5_vl(), sys.argv[1])
