"""Calling the parts of networks of transformers: the vision tower, and the decoder's KV cache argument."""

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from linkcontext.errors import InputError

TOWERS = ("vision_tower", "vision_model", "visual")  # the names under which networks have their vision tower


class Features(NamedTuple):
    """What a network makes of one image."""

    embeddings: Tensor  # float[T, width]: what replaces the embeddings of the image's tokens
    pooled: Tensor | None  # float32[vision width]: the tower's own summary, if it has one
    deepstack: Tensor | None  # float[layers, T, width]: what is added to the states after the first layers


def image_features(core: Any, inputs: Mapping[str, Tensor], count: int, copies: int) -> list[Features] | None:
    """Features of `count` images through the network's `get_image_features`.

    `inputs` are the processor's, on the network's device. Each image is in them `copies` times. None if the network
    gives the features of several images in a form from which single images cannot be told.
    """
    children = dict(core.named_children())
    towers = [children[name] for name in TOWERS if name in children]
    if not towers:
        raise InputError(
            f"{type(core).__name__} has no vision tower under one of the usual names ({', '.join(TOWERS)})"
        )
    summaries: list[Any] = []
    # The tower's summary is overwritten by get_image_features, so it is taken where it is made.
    hook = towers[0].register_forward_hook(lambda _m, _i, output: summaries.append(_summary(output)))
    parameters = inspect.signature(core.get_image_features).parameters
    try:
        output = core.get_image_features(**{name: value for name, value in inputs.items() if name in parameters})
    finally:
        hook.remove()
    rows, layers = output.pooler_output, output.get("deepstack_features")
    rows = rows[::copies] if copies > 1 else rows
    if count == 1:
        embeddings = [_flat(rows)]
    elif len(rows) == count:
        embeddings = [row.flatten(0, -2) for row in rows]
    else:
        return None
    summary = summaries[0] if summaries else None
    if not (isinstance(summary, Tensor) and summary.ndim == 2 and len(summary) == count):  # not a vector an image
        summary = None
    return [
        Features(
            embeddings[i],
            None if summary is None else summary[i].float(),
            torch.stack([_split(layer, embeddings)[i] for layer in layers]) if layers else None,
        )
        for i in range(count)
    ]


def features_one_by_one(core: Any, inputs: Mapping[str, Tensor], count: int, copies: int) -> list[Features] | None:
    """The same for networks whose processor packs all patches into one row: several images are not encoded together."""
    return image_features(core, inputs, count, copies) if count == 1 else None


def features_before_projector(core: Any, inputs: Mapping[str, Tensor], count: int, copies: int) -> list[Features]:
    """The same for networks whose `get_image_features` leaves out the projector. All images have equally many tiles."""
    states = core.vision_model(inputs["pixel_values"]).last_hidden_state
    rows = core.multi_modal_projector(states.flatten(0, 1))
    return [Features(row, None, None) for row in rows.view(count, -1, rows.shape[-1])]


def single_token(config: Any, inputs: Mapping[str, Tensor]) -> str:
    """The sentence that refuses an image of a single token, whose features transformers gives without their axis."""
    edge = config.vision_config.patch_size * config.spatial_merge_size
    sizes = torch.as_tensor(inputs["image_sizes"]) if "image_sizes" in inputs else torch.empty(0, 2)
    if not ((sizes // edge).prod(-1) == 1).any():
        return ""
    return f"transformers fails on a single token: give it an edge of {2 * edge} pixels"


def _summary(output: Any) -> Any:
    return output.get("pooler_output") if isinstance(output, Mapping) else None


def _split(layer: Any, embeddings: Sequence[Tensor]) -> Sequence[Tensor]:
    """The features of one layer by image. transformers 5.17 gives those of all images in one tensor."""
    return torch.split(layer, [len(row) for row in embeddings]) if isinstance(layer, Tensor) else layer


def _flat(rows: Any) -> Tensor:
    """The features of one image, which may be in several pieces, as [T, width]."""
    return torch.cat([row.flatten(0, -2) if row.ndim > 1 else row[None] for row in rows])


@functools.cache
def cache_argument(decoder: Any) -> str:
    """The name of the argument by which a class of decoders takes its KV cache. transformers 5.24 renamed it."""
    return "cache" if "cache" in inspect.signature(decoder.forward).parameters else "past_key_values"
