"""What is known of model families: their parts, how they read, and which of them can read a tree."""

import functools
import inspect
import re
from typing import Any

from torch import nn
from transformers import PreTrainedModel

BRIDGE = re.compile("projector|merger|connector|resampler|modality_projection|image_newline|embed_vision")
TOWER = re.compile("vision_tower|vision_model|visual")


def parts(network: PreTrainedModel) -> dict[str, dict[str, nn.Parameter]]:
    """The parameters of `language`, of `projector` (between eyes and language) and of `vision`, by name."""
    heads = (network.get_decoder(), network.get_input_embeddings(), network.get_output_embeddings())
    language = {id(p) for module in heads if module is not None for p in module.parameters()}
    found: dict[str, dict[str, nn.Parameter]] = {"vision": {}, "projector": {}, "language": {}}
    for name, p in network.named_parameters():
        eyes = id(p) not in language or TOWER.search(name)  # the open Flamingo has its eyes inside of its decoder
        found["projector" if BRIDGE.search(name) else "vision" if eyes else "language"][name] = p
    return found


def packable(network: PreTrainedModel) -> dict[str, nn.Linear]:
    """The layers whose weights may be kept in 4 bits, by name: the language model's linear ones but for its head."""
    language, head = {id(p) for p in parts(network)["language"].values()}, network.get_output_embeddings()
    linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    return {name: module for name, module in linear.items() if id(module.weight) in language and module is not head}


def attention_kinds(network: PreTrainedModel) -> set[str]:
    """Which kinds of attention a language model's layers have: full_attention, sliding_attention, ..."""
    text = network.config.get_text_config()
    # Each family's configuration has only the fields that it needs.
    if layers := getattr(text, "layer_types", None):
        return set(layers)
    slides = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    return {"sliding_attention" if slides else "full_attention"}


@functools.cache
def cache_argument(decoder: Any) -> str:
    """The name of the argument by which a decoder takes its key-value cache; transformers 5.24 renamed it."""
    return "cache" if "cache" in inspect.signature(decoder.forward).parameters else "past_key_values"


def resampled_in_a_row(decoder: Any) -> bool:
    """Whether the open Flamingo takes resampled pictures as [pictures, tokens, width], without a dimension for rows.

    It does since transformers 5.24, which renamed the cache too.
    """
    return cache_argument(decoder) == "cache"


def unsupported_reason(network: PreTrainedModel) -> str | None:
    """Why a network can't be run on trees, in words; None where nothing is known against it."""
    text = network.config.get_text_config()
    kinds = attention_kinds(network) - {"full_attention", "sliding_attention"}
    how = text._attn_implementation
    found = {
        f"layers of kind {', '.join(sorted(kinds))} carry what they read from token to token": bool(kinds),
        "PaliGemma reads its prompt in both directions, so that prompts share nothing": prefix_lm(network),
        "its language model reads in both directions": getattr(text, "use_bidirectional_attention", None) is True,
        f"attention by {how} takes no mask of its own": how not in ("sdpa", "eager", "flex_attention"),
        "blocks are for plain causal attention only; load it with sdpa": how == "flex_attention"
        and not is_causal(network),
        f"{type(network).__name__} has no get_image_features": not uses_cross_attention(network)
        and not hasattr(getattr(network, "model", None), "get_image_features"),
    }
    return next((why for why, true in found.items() if true), None)


def is_causal(network: PreTrainedModel) -> bool:
    """Whether every layer sees all that came before and nothing else."""
    return attention_kinds(network) == {"full_attention"} and not bidirectional_images(network)


def prefix_lm(network: PreTrainedModel) -> bool:
    """Whether a prompt's tokens see those that come later (the prefix of PaliGemma)."""
    return bool(network.config.model_type.startswith("paligemma"))


def uses_cross_attention(network: PreTrainedModel) -> bool:
    """Whether pictures are read by cross-attention (the open Flamingo) instead of standing among the words."""
    return bool(network.config.model_type == "idefics")


def bidirectional_images(network: PreTrainedModel) -> bool:
    """Whether the tokens of a picture see those of the same picture that come later."""
    return bool(network.config.model_type.startswith("gemma3"))
