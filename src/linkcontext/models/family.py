"""What is known of model families: how they read, and which of them can read a tree."""

from transformers import PreTrainedModel


def attention_kinds(network: PreTrainedModel) -> set[str]:
    """Which kinds of attention a language model's layers have: full_attention, sliding_attention, ..."""
    text = network.config.get_text_config()
    if layers := getattr(text, "layer_types", None):
        return set(layers)
    slides = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    return {"sliding_attention" if slides else "full_attention"}


def refusal(network: PreTrainedModel) -> str | None:
    """Why a network can't be run on trees, in words; None where nothing is known against it."""
    kinds = attention_kinds(network) - {"full_attention", "sliding_attention"}
    text = network.config.get_text_config()
    if kinds:
        return f"layers of kind {', '.join(sorted(kinds))} carry what they read from token to token"
    if reads_both_ways(network):
        return "PaliGemma reads its prompt in both directions, so that prompts share nothing"
    if getattr(text, "use_bidirectional_attention", None) is True:
        return "its language model reads in both directions"
    if text._attn_implementation not in ("sdpa", "eager"):
        return f"attention by {text._attn_implementation} takes no mask of its own"
    if not crosses(network) and not hasattr(network.model, "get_image_features"):
        return f"{type(network).__name__} has no get_image_features"
    return None


def reads_both_ways(network: PreTrainedModel) -> bool:
    """Whether a prompt's tokens see those that come later (the prefix of PaliGemma)."""
    return bool(network.config.model_type.startswith("paligemma"))


def crosses(network: PreTrainedModel) -> bool:
    """Whether pictures are read by cross-attention (the open Flamingo) instead of standing among the words."""
    return bool(network.config.model_type == "idefics")


def pictures_see_themselves(network: PreTrainedModel) -> bool:
    """Whether the tokens of a picture see those of the same picture that come later."""
    return bool(network.config.model_type.startswith("gemma3"))
