"""Images that are no data: one that shows nothing, and two different ones by which a model's engine is checked."""

import numpy as np
from PIL import Image

BLANK = "grey"  # item id of the blank image
CHECKED = ("checked:0", "checked:1")  # of the two that an engine is checked with
SYNTHETIC = (BLANK, *CHECKED)


def blank_image(edge: int = 64) -> Image.Image:
    """A square image in mean grey, which shows nothing."""
    return Image.new("RGB", (edge, edge), (122, 120, 115))


def synthetic_image(item: str) -> Image.Image:
    """The image with one of the ids of `SYNTHETIC`: blank, or coloured noise, wide or tall."""
    if item == BLANK:
        return blank_image()
    size = (96, 64) if item == CHECKED[0] else (64, 96)
    noise = np.random.default_rng(CHECKED.index(item)).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
