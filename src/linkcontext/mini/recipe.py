"""All the numbers of a bundled model. A recipe is data: the stages read it, nothing else decides."""

from dataclasses import dataclass, replace

from linkcontext.errors import InputError


@dataclass(frozen=True, slots=True)
class Recipe:
    """Shapes and training lengths of one size of mini. Widths are in units, images in pixels."""

    size: str
    # vision and text towers
    image: int = 64
    patch: int = 16
    vision_width: int = 256
    vision_layers: int = 6
    text_width: int = 128
    text_layers: int = 2
    vocabulary: int = 2048
    # language model
    width: int = 256
    layers: int = 6
    mlp: int = 1024
    # stage 1: mini-clip
    clip_steps: int = 6000
    clip_pairs: int = 512
    clip_lr: float = 1e-3
    # stages 2 and 3 read features of this many taught and of this many fresh concepts, so many pictures each
    taught: int = 320
    fresh: int = 3000
    pictures: int = 40
    base_steps: int = 2500
    base_lr: float = 6e-4
    tune_steps: int = 4000
    tune_lr: float = 6e-4
    tokens: int = 65536  # tokens a step in stages 2 and 3

    @property
    def tokens_per_image(self) -> int:
        """Patches and one pooled token."""
        return (self.image // self.patch) ** 2 + 1


RECIPES = {
    # The size that eight minutes a stage on one H200 can train.
    "mini": Recipe("mini"),
    # The size that two processor cores can train in an evening.
    "small": Recipe(
        "small",
        image=48,
        vision_width=192,
        vision_layers=4,
        width=192,
        layers=4,
        mlp=512,
        clip_steps=2300,
        clip_pairs=128,
        fresh=1600,
        pictures=20,
        base_steps=1400,
        base_lr=1e-3,
        tune_steps=4200,
        tune_lr=1e-3,
        tokens=4096,
    ),
    # For tests: the whole build in under three minutes on two cores. It learns nothing that could be shown.
    "nano": Recipe(
        "nano",
        image=32,
        vision_width=64,
        vision_layers=2,
        text_width=32,
        text_layers=1,
        vocabulary=768,
        width=64,
        layers=2,
        mlp=128,
        clip_steps=60,
        clip_pairs=32,
        taught=24,
        fresh=24,
        pictures=8,
        base_steps=60,
        tune_steps=60,
        tokens=2048,
    ),
}


def recipe(size: str, **changes: int | float) -> Recipe:
    """The recipe of a size, with some numbers changed."""
    if size not in RECIPES:
        raise InputError(f"--size {size}: there is no such size. Choose one of {', '.join(RECIPES)}.")
    return replace(RECIPES[size], **changes)  # type: ignore[arg-type]
