"""What the vision tower reads and is asked: how pictures are normalised, captions, and which attributes are there."""

import torch
import torch.nn.functional as F
from tokenizer import PAD, TEXT_START
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

from linkcontext.worlds import concepts

MEAN = (0.48, 0.47, 0.45)  # of the world's pictures
STD = (0.30, 0.29, 0.29)
CAPTION_TOKENS = 48


def image_processor(size: int) -> CLIPImageProcessorPil:
    """Pictures as the vision tower is trained on them: the whole picture, squared to `size` pixels a side."""
    edge = {"height": size, "width": size}
    return CLIPImageProcessorPil(
        size=edge, crop_size=edge, do_center_crop=False, resample=3, image_mean=list(MEAN), image_std=list(STD)
    )


def start_patches_from_cosines(model: CLIPModel) -> None:
    """Begin the patch embedding as the lowest cosines of a patch: smooth filters that little data can refine."""
    weight = model.vision_model.embeddings.patch_embedding.weight  # [width, 3, patch, patch]
    width, channels, patch, _ = weight.shape
    n = torch.arange(patch) + 0.5
    waves = torch.stack([(torch.pi * k * n / patch).cos() for k in range(patch)])
    waves /= waves.norm(dim=1, keepdim=True)
    order = sorted(((i, j) for i in range(patch) for j in range(patch)), key=lambda ij: ij[0] ** 2 + ij[1] ** 2)
    filters = torch.stack([torch.outer(waves[i], waves[j]) for i, j in order])
    colours = torch.linalg.qr(torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [0.5, 0.5, -1.0]]).T)[0].T
    with torch.no_grad():
        for row in range(width):
            weight[row] = 0.25 * colours[row % channels][:, None, None] * filters[row // channels]


def attributes(things: concepts.Concepts) -> Tensor:
    """What is there, float32[N, ATTRIBUTES] of zeros and ones: family, count, and any part's colour, shape, texture."""
    there = torch.arange(concepts.PARTS, device=things.family.device) < things.count[:, None]
    creature = things.family == concepts.FAMILIES.index("creature")
    there &= creature[:, None] | (torch.arange(concepts.PARTS, device=there.device) == 0)

    def any_of(index: Tensor, options: int, where: Tensor) -> Tensor:
        return (F.one_hot(index, options) * where[:, :, None]).amax(1)

    glyph = things.family == concepts.FAMILIES.index("glyph")
    columns = [
        F.one_hot(things.family, len(concepts.FAMILIES)),
        F.one_hot(things.count, concepts.PARTS + 1),
        F.one_hot(things.colour[:, 0], len(concepts.COLOURS)),
        any_of(things.colour, len(concepts.COLOURS), there),
        any_of(things.shape, len(concepts.SHAPES), there & creature[:, None]),
        any_of(things.texture, len(concepts.TEXTURES), there & ~glyph[:, None]),
    ]
    return torch.cat(columns, 1).float()


ATTRIBUTES = (
    len(concepts.FAMILIES)
    + concepts.PARTS
    + 1
    + 2 * len(concepts.COLOURS)
    + len(concepts.SHAPES)
    + len(concepts.TEXTURES)
)


def tokens(captions: list[str], tokenizer: PreTrainedTokenizerFast, device: torch.device) -> dict[str, Tensor]:
    """Captions as the text tower reads them: start, words, end, padding."""
    texts = [f"{TEXT_START}{caption}{tokenizer.eos_token}" for caption in captions]
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=CAPTION_TOKENS, return_tensors="pt")
    assert tokenizer.pad_token == PAD
    return {k: v.to(device) for k, v in encoded.items() if k != "token_type_ids"}
