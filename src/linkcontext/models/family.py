"""What is known of model families: how they read, and which of them can read a tree."""

from transformers import PreTrainedModel


def attention_kinds(network: PreTrainedModel) -> set[str]:
    """Which kinds of attention a language model's layers have: full_attention, sliding_attention, ..."""
    text = network.config.get_text_config()
    # Each family's configuration has only the fields that it needs.
    if layers := getattr(text, "layer_types", None):
        return set(layers)
    slides = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    return {"sliding_attention" if slides else "full_attention"}


def refusal(network: PreTrainedModel) -> str | None:
    """Why a network can't be run on trees, in words; None where nothing is known against it."""
    text = network.config.get_text_config()
    kinds = attention_kinds(network) - {"full_attention", "sliding_attention"}
    how = text._attn_implementation
    found = {
        f"layers of kind {', '.join(sorted(kinds))} carry what they read from token to token": bool(kinds),
        "PaliGemma reads its prompt in both directions, so that prompts share nothing": reads_both_ways(network),
        "its language model reads in both directions": getattr(text, "use_bidirectional_attention", None) is True,
        f"attention by {how} takes no mask of its own": how not in ("sdpa", "eager", "flex_attention"),
        "blocks are for plain causal attention only; load it with sdpa": how == "flex_attention" and not plain(network),
        f"{type(network).__name__} has no get_image_features": not crosses(network)
        and not hasattr(getattr(network, "model", None), "get_image_features"),
    }
    return next((why for why, true in found.items() if true), None)


def plain(network: PreTrainedModel) -> bool:
    """Whether every layer sees all that came before and nothing else."""
    return attention_kinds(network) == {"full_attention"} and not pictures_see_themselves(network)


def reads_both_ways(network: PreTrainedModel) -> bool:
    """Whether a prompt's tokens see those that come later (the prefix of PaliGemma)."""
    return bool(network.config.model_type.startswith("paligemma"))


def crosses(network: PreTrainedModel) -> bool:
    """Whether pictures are read by cross-attention (the open Flamingo) instead of standing among the words."""
    return bool(network.config.model_type == "idefics")


def pictures_see_themselves(network: PreTrainedModel) -> bool:
    """Whether the tokens of a picture see those of the same picture that come later."""
    return bool(network.config.model_type.startswith("gemma3"))
