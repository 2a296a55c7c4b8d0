"""Pictures of many concepts as the frozen vision tower sees them, computed once for stages 2 and 3."""

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor
from transformers import CLIPModel

from linkcontext.errors import InputError
from linkcontext.mini import clip
from linkcontext.mini.recipe import Recipe
from linkcontext.models.tensor_file import read_tensors, write_tensors
from linkcontext.worlds import concepts, render
from linkcontext.worlds.folder import TAUGHT_STREAM

FRESH = ("mini", "fresh")  # of those it meets under a new name every time; no user's seed draws from it
TOGETHER = 16  # concepts drawn and encoded at once


@dataclass(frozen=True, slots=True)
class Pool:
    """Features of N concepts in M pictures each: what the language model is given in a picture's place."""

    features: Tensor  # float16[N, M, tokens, vision_width]
    vectors: Tensor  # float32[N, concepts.LENGTH]

    def facts(self) -> tuple[concepts.Facts, ...]:
        """What is true of each concept."""
        return tuple(concepts.facts(concepts.decode(self.vectors)))


def taught(count: int) -> Tensor:
    """The vectors of the taught concepts."""
    return concepts.draw(count, *TAUGHT_STREAM)


def fresh(count: int) -> Tensor:
    """Concepts and, in the second half, the hard neighbour of each."""
    things = concepts.draw(count, *FRESH)
    return torch.cat([things, concepts.neighbours(things, concepts.draw_changes(count, *FRESH))])


@torch.inference_mode()
def build(model: CLIPModel, vectors: Tensor, recipe: Recipe, path: Path, device: torch.device, name: str) -> Pool:
    """Draw and encode `recipe.pictures` of each concept, or read `path` where that was done before."""
    if path.exists():
        advice = "Remove it, and it is made again."
        _, tensors = read_tensors(path, advice)
        if set(tensors) != {"features", "vectors"}:
            raise InputError(f"{path}: holds no features of concepts. {advice}")
        return Pool(**tensors)
    vision = model.vision_model.to(device).eval()
    tokens = torch.empty(
        len(vectors), recipe.pictures, recipe.tokens_per_image, recipe.vision_width, dtype=torch.float16
    )
    for start in track(range(0, len(vectors), TOGETHER), description=f"{name}: features"):
        rows = range(start, min(start + TOGETHER, len(vectors)))
        instances = torch.cat([render.draw(recipe.pictures, "mini", "pool", name, i) for i in rows]).to(device)
        things = vectors[start : rows.stop].repeat_interleave(recipe.pictures, 0).to(device)
        seen = vision(pixel_values=clip.normalise(render.render(things, instances, recipe.image)))
        tokens[start : rows.stop] = seen.last_hidden_state.half().cpu().view(len(rows), *tokens.shape[1:])
    pool = Pool(tokens, vectors)
    write_tensors({"features": tokens, "vectors": vectors}, path, {})
    return pool
