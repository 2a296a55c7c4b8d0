"""Write a model's folder so that transformers, and servers like vLLM, load it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

# Vision towers whose weights have `vision_model.` before their names in every checkpoint on the hub. transformers 5.19
# and later keep them without it, and write them so where a network was not loaded from such a checkpoint; they read
# both, and vLLM reads the former only.
NESTED_TOWERS = ("CLIPVisionModel", "SiglipVisionModel")
INNER = "vision_model."


def save_model(network: Any, processor: Any, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write a network, with `state` in place of its own weights if it is given, and its processor."""
    weights = network.state_dict() if state is None else state
    network.save_pretrained(folder, state_dict=published_names(network, weights))
    processor.save_pretrained(folder)


def published_names(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that published checkpoints of their class have."""
    towers = [f"{name}." for name, module in network.named_modules() if name and type(module).__name__ in NESTED_TOWERS]
    renamed = {}
    for key, value in state.items():
        tower = next((tower for tower in towers if key.startswith(tower)), "")
        published = not tower or key.startswith(tower + INNER)
        renamed[key if published else tower + INNER + key.removeprefix(tower)] = value
    return renamed
