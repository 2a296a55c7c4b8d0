"""The finished stages as the package carries them.

    python recipes/mini/assemble.py --out runs/mini            # after language.py base and language.py link

Writes the standard folder of `mini-clip` beside those of `mini-base` and `mini`, and packs the three.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import tyro
from language import SHIPPED, image_processor, load_tower
from safetensors.torch import save_file
from tower import words
from transformers import CLIPProcessor

from linkcontext.models import bundled
from linkcontext.storage import replacing


@dataclass
class Assemble:
    """Pack the bundled models."""

    out: Path = Path("runs/mini")
    pictures: Path = Path("~/.cache/linkcontext/pictures")
    weights: Path = Path("src/linkcontext/models/weights")
    """Where the package keeps its weights."""


def main() -> None:
    """Write the folders and the bundle."""
    config = tyro.cli(Assemble, description=__doc__)
    heads = load_tower(config.out / "tower.safetensors")
    with replacing(config.out / "mini-clip") as new:
        heads.model.save_pretrained(new)
        CLIPProcessor(image_processor(), words()).save_pretrained(new)
    rest = {k: v.half().contiguous() for k, v in heads.state_dict().items() if not k.startswith("model.")}
    SHIPPED.parent.mkdir(exist_ok=True)
    save_file(rest, SHIPPED)  # with it the language model can be trained anew on the tower that ships
    attribution = config.pictures.expanduser() / "ATTRIBUTION.md"
    folders = {name: config.out / name for name in bundled.NAMES}
    for folder in folders.values():
        shutil.copyfile(attribution, folder / attribution.name)
    bundled.write_bundle(folders, config.weights, {"recipe": "recipes/mini"})
    shutil.copyfile(attribution, config.weights / attribution.name)


if __name__ == "__main__":
    main()
