"""Stage 1, mini-clip: a vision and a text tower that know the world's concepts from one another.

Trained on two pictures of every concept (InfoNCE between the pictures, once over the pooled feature and once
over the mean of all tokens, since a language model will read the tokens), on captions (InfoNCE between picture
and text) and on which colours, shapes and textures are there, without which the first thousand steps of a small
batch stand still. Concepts are fresh in every step; half of them are hard neighbours of the other half.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

from linkcontext.mini import stage
from linkcontext.mini.recipe import Recipe
from linkcontext.mini.tokenizer import PAD, TEXT_START
from linkcontext.seeds import key
from linkcontext.worlds import concepts, questions, render

MEAN = (0.48, 0.47, 0.45)  # of the world's pictures
STD = (0.30, 0.29, 0.29)
CAPTION_TOKENS = 48


def configuration(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> CLIPConfig:
    """A standard CLIP of the recipe's shape. A text's feature is read at its end token."""
    text = {
        "hidden_size": recipe.text_width,
        "intermediate_size": 4 * recipe.text_width,
        "num_hidden_layers": recipe.text_layers,
        "num_attention_heads": max(1, recipe.text_width // 32),
        "max_position_embeddings": CAPTION_TOKENS,
        "vocab_size": recipe.vocabulary,
        "bos_token_id": tokenizer.convert_tokens_to_ids(TEXT_START),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": recipe.vision_width,
        "intermediate_size": 4 * recipe.vision_width,
        "num_hidden_layers": recipe.vision_layers,
        "num_attention_heads": recipe.vision_width // 32,
        "image_size": recipe.image,
        "patch_size": recipe.patch,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=recipe.vision_width)


def image_processor(recipe: Recipe) -> CLIPImageProcessorPil:
    """Pictures as the vision tower is trained on them: the whole picture, squared."""
    edge = {"height": recipe.image, "width": recipe.image}
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


def normalise(pictures: Tensor) -> Tensor:
    """uint8[N, H, W, 3] to what the tower reads, float32[N, 3, H, W]."""
    mean, std = (torch.tensor(v, device=pictures.device).view(3, 1, 1) for v in (MEAN, STD))
    return (pictures.movedim(-1, 1).float() / 255 - mean) / std


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


def batch(recipe: Recipe, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two pictures of each of `clip_pairs` concepts, float32[2 * pairs, 3, H, W], and the concepts' vectors."""
    stream = torch.Generator(device).manual_seed(key("mini-clip", step) % 2**63)
    half = recipe.clip_pairs // 2
    things = torch.rand(half, concepts.LENGTH, generator=stream, device=device)
    changes = torch.rand(half, concepts.CHANGES, generator=stream, device=device)
    both = torch.cat([things, concepts.neighbours(things, changes)])
    instances = torch.rand(4 * half, render.LENGTH, generator=stream, device=device)
    # Pictures of a concept begin nearly alike and grow apart: from full variety alone nothing starts to move.
    variety = min(1.0, 0.15 + 0.85 * step / (0.5 * recipe.clip_steps))
    instances = 0.5 + (instances - 0.5) * variety
    pictures = render.render(both.repeat(2, 1), instances, recipe.image)
    return normalise(pictures), both


def tokens(captions: list[str], tokenizer: PreTrainedTokenizerFast, device: torch.device) -> dict[str, Tensor]:
    """Captions as the text tower reads them: start, words, end, padding."""
    texts = [f"{TEXT_START}{caption}{tokenizer.eos_token}" for caption in captions]
    found = tokenizer(texts, padding=True, truncation=True, max_length=CAPTION_TOKENS, return_tensors="pt")
    assert tokenizer.pad_token == PAD
    return {k: v.to(device) for k, v in found.items() if k != "token_type_ids"}


class Towers(nn.Module):
    """CLIP, a temperature for each of the three comparisons it is trained on, and a reader of attributes."""

    def __init__(self, model: CLIPModel, width: int) -> None:
        super().__init__()
        self.model = model
        self.attributes = nn.Linear(width, ATTRIBUTES)
        self.temperature = nn.Parameter(torch.full((3,), 2.3))  # exp(2.3) = 10

    def contrast(self, a: Tensor, b: Tensor, which: int) -> tuple[Tensor, Tensor]:
        """Symmetric InfoNCE of features float32[N, D] whose rows belong together; how often the nearest is right."""
        logits = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T * self.temperature[which].exp().clamp(max=50)
        target = torch.arange(len(a), device=a.device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return loss, (logits.argmax(1) == target).float().mean()


def train(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, folder: Path, device: torch.device) -> CLIPModel:
    """Run the stage, resuming what `folder` holds."""
    torch.manual_seed(key("mini-clip", "weights") % 2**63)
    model = CLIPModel(configuration(recipe, tokenizer))
    start_patches_from_cosines(model)
    towers = Towers(model, recipe.vision_width).to(device)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        pictures, vectors = batch(recipe, step, device)
        things = concepts.decode(vectors)
        seen = model.vision_model(pixel_values=pictures)
        pooled = model.visual_projection(seen.pooler_output)
        first, second = pooled.chunk(2)
        means = seen.last_hidden_state.mean(1).chunk(2)
        by_pooled, right = towers.contrast(first, second, 0)
        by_tokens, _ = towers.contrast(means[0], means[1], 1)
        there = F.binary_cross_entropy_with_logits(towers.attributes(pooled), attributes(things).repeat(2, 1))
        quarter = len(vectors) // 4  # a text costs about as much as a picture
        captions = [questions.caption(f) for f in concepts.facts(concepts.decode(vectors[:quarter].cpu()))]
        told = model.get_text_features(**tokens(captions, tokenizer, device)).pooler_output
        by_text, named = towers.contrast(first[:quarter], told, 2)
        figures = {"retrieval": right.item(), "text": named.item(), "attributes": there.item()}
        return by_pooled + 0.5 * by_tokens + 0.25 * by_text + 4.0 * there, figures

    stage.run("mini-clip", towers, loss, stage.Schedule(recipe.clip_lr, recipe.clip_steps, warmup=100), folder)
    with torch.no_grad():
        model.logit_scale.copy_(towers.temperature[2])
    return model.eval()
