"""What differs between families of vision-language models: one record for each family.

Everything else asks the record, and names no family. A family without a record is `OTHER`: decoder-only, with the
features of its images in the places of image tokens. Whether that is true is checked before it is relied upon
(`linkcontext.scoring`), so a new family of this kind needs no entry here.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers import __version__ as transformers_version

from linkcontext.models import idefics
from linkcontext.models.calls import (
    Features,
    features_before_projector,
    features_one_by_one,
    image_features,
    single_token,
)
from linkcontext.models.token_inputs import (
    TokenInputs,
    embedded,
    embedded_by_modality,
    embedded_for_each_layer,
    embedded_with_indicators,
    embedded_with_routes,
)

# Modules between the vision tower and the language model, and the tower itself, by their names in all families.
BRIDGE = re.compile("projector|merger|connector|resampler|modality_projection|image_newline|embed_vision")
TOWER = re.compile("vision_tower|vision_model|visual")
# The attributes of processors that hold the token which a chat template writes for an image, and all special tokens
# for images, videos and sounds.
IMAGE_TOKENS = ("boi_token", "image_token", "placeholder")
MEDIA_TOKENS = ("image_token", "video_token", "audio_token", "boi_token", "eoi_token", "fake_image_token")
# What transformers has to provide for token trees. It is imported only where it is used, so that a version without it
# costs speed and not the program.
TREE_HELPERS = (
    ("transformers.cache_utils", "DynamicLayer"),
    ("transformers", "Cache"),
    ("transformers", "DynamicCache"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What is known of a family of models."""

    name: str
    model_type: str
    """Regular expression for `model_type` of the network's configuration."""
    vision_type: str = ".*"
    """The same for `model_type` of its vision configuration."""
    prefix_lm: bool = False
    """The tokens of a prompt attend to later ones, so that prompts which begin alike share nothing."""
    unshared: str = ""
    """The same where only pictures are read too early: what they are read by, behind the family's name."""
    bidirectional_images: bool = False
    """The tokens of an image attend to later tokens of the same image. Some configurations say it themselves, for
    layers with a window alone: see `bidirectional_kinds`."""
    fixed_resolution: bool = False
    """All images are brought to one size and are written with the same tokens, whatever their shape."""
    resolution_depends_on_count: bool = False
    """The only image of a prompt is encoded at a higher resolution than one of several."""
    core: str = "model"
    """The module of the network, by name, that has `get_image_features`; empty if it is the network."""
    image_number_marks: tuple[str, str] | None = None
    """The attributes of the processor with the tokens between which it writes which image of its prompt an image is."""
    projector: str | None = None
    """The module of `network.model` that maps tower outputs [images, T, vision width], one row for each image, to
    embeddings. If the tower is frozen its outputs can be kept and training begins there."""
    encode_images: Callable[[Any, Mapping[str, Tensor], int, int], list[Features] | None] = image_features
    """Features of preprocessed images; arguments as in `calls.image_features`."""
    embed_tokens: Callable[[Any, Tensor, Tensor], TokenInputs] = embedded
    """What the decoder takes for tokens; arguments and result as in `token_inputs`."""
    cross_attention: Callable[[Any, Tensor, Tensor], dict[str, Tensor]] | None = None
    """Decoder arguments for images that are read by cross-attention; see `idefics.cross_attention_inputs`. None if
    image features replace the embeddings of image tokens."""
    processor_class: str = ""
    """The class of processors that `wrap_processor` is for."""
    wrap_processor: Callable[[Any], Any] = lambda processor: processor
    """Makes such a processor callable as those of other families are."""
    unusable: Callable[[PretrainedConfig, Mapping[str, Tensor]], str] = lambda _config, _inputs: ""
    """Why the network cannot take processed images, given its configuration; empty if it can."""
    reply_ends: Callable[[Any], list[int]] = lambda _processor: []
    """The tokens that end a reply by the (wrapped) processor, where the checkpoint's generation config lacks them."""


FAMILIES = (
    Family(
        name="LLaVA with a CLIP tower",
        model_type="llava",
        vision_type="clip_vision_model",
        fixed_resolution=True,
        projector="multi_modal_projector",
    ),
    Family(name="LLaVA with a Pixtral tower", model_type="llava", vision_type="pixtral"),  # images differ in size
    Family(
        name="Idefics2",
        model_type="idefics2",
        processor_class="Idefics2Processor",
        wrap_processor=idefics.Idefics2ChatProcessor,
    ),
    Family(name="Mistral 3", model_type="mistral3", unusable=single_token),
    Family(name="LLaVA", model_type="llava", projector="multi_modal_projector"),
    Family(name="LLaVA-OneVision", model_type="llava_onevision", resolution_depends_on_count=True),
    Family(name="PaliGemma", model_type="paligemma.*", prefix_lm=True),
    Family(name="Gemma 3", model_type="gemma3", bidirectional_images=True),
    Family(name="Gemma 3n", model_type="gemma3n", embed_tokens=embedded_by_modality),
    Family(name="Gemma 4", model_type="gemma4", embed_tokens=embedded_for_each_layer),
    Family(name="Ovis 2", model_type="ovis2", embed_tokens=embedded_with_indicators),
    Family(name="ERNIE 4.5 VL", model_type="ernie4_5_vl_moe", embed_tokens=embedded_with_routes),
    Family(
        name="Molmo 2",
        model_type="molmo2",
        prefix_lm=True,
        unshared="lets all pictures of a prompt attend to each other",
    ),
    # Their rows of the cross-attention mask are 0 throughout, which in a softmax means that all pictures are read.
    Family(
        name="Llama 3.2 Vision",
        model_type="mllama",
        unshared="lets the tokens before a prompt's first picture read all of its pictures",
    ),
    Family(name="Llama 4", model_type="llama4", core="", encode_images=features_before_projector),
    Family(
        name="MiniCPM-V",
        model_type="minicpmv4_.*",
        encode_images=features_one_by_one,
        image_number_marks=("image_id_start_token", "image_id_end_token"),
    ),
    Family(
        name="Idefics",
        model_type="idefics",
        encode_images=idefics.encode_images,
        cross_attention=idefics.cross_attention_inputs,
        processor_class="IdeficsProcessor",
        wrap_processor=idefics.IdeficsChatProcessor,
        reply_ends=lambda processor: list(processor.ends),
    ),
)
OTHER = Family(name="other", model_type=".*")


def family_of(config: PretrainedConfig) -> Family:
    """The record of the network with this configuration."""
    vision = setting(config, "vision_config")
    vision_type = "" if vision is None else setting(vision, "model_type", "")
    matches = (
        family
        for family in FAMILIES
        if re.fullmatch(family.model_type, config.model_type) and re.fullmatch(family.vision_type, vision_type)
    )
    return next(matches, OTHER)


def wrap_processor(processor: Any) -> Any:
    """A processor that is called as those of all families are."""
    name = type(processor).__name__
    return next((f.wrap_processor(processor) for f in FAMILIES if f.processor_class == name), processor)


def setting(config: Any, name: str, default: Any = None) -> Any:
    """A field of a configuration, or the default. The configuration of a family has only the fields that it needs."""
    return getattr(config, name, default)


def decoder_of(network: PreTrainedModel) -> Any:
    """The language model of a network, without its output layer."""
    decoder: Any = network.get_decoder()
    return decoder if decoder.get_output_embeddings() is None else decoder.model


def parts(network: PreTrainedModel) -> dict[str, dict[str, nn.Parameter]]:
    """The parameters of `language`, of `projector` (between vision and language) and of `vision`, by name."""
    heads = (decoder_of(network), network.get_input_embeddings(), network.get_output_embeddings())
    language = {id(p) for module in heads if module is not None for p in module.parameters()}
    groups: dict[str, dict[str, nn.Parameter]] = {"vision": {}, "projector": {}, "language": {}}
    for name, p in network.named_parameters():
        is_vision = id(p) not in language or TOWER.search(name)  # some decoders have the vision tower inside
        groups["projector" if BRIDGE.search(name) else "vision" if is_vision else "language"][name] = p
    return groups


def quantizable(network: PreTrainedModel) -> dict[str, nn.Linear]:
    """The layers whose weights may be kept in 4 bits, by name: all linear ones of the language model but its head."""
    language, head = {id(p) for p in parts(network)["language"].values()}, network.get_output_embeddings()
    linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    return {name: module for name, module in linear.items() if id(module.weight) in language and module is not head}


def reads_apart(config: PretrainedConfig) -> bool:
    """True if an encoder reads the prompt and a decoder only the reply."""
    text = setting(config, "text_config")
    return bool(setting(config, "is_encoder_decoder") or setting(text, "is_encoder_decoder"))


def attention_kinds(network: PreTrainedModel) -> frozenset[str]:
    """The kinds of attention of a language model's layers: full_attention, sliding_attention, ..."""
    text = network.config.get_text_config()
    if layers := setting(text, "layer_types"):
        return frozenset(layers)
    slides = setting(text, "sliding_window") and setting(text, "use_sliding_window", True)
    return frozenset({"sliding_attention" if slides else "full_attention"})


def cached_layers(network: PreTrainedModel) -> int:
    """How many layers have keys and values of their own: in some models the last layers use those of earlier ones."""
    text = network.config.get_text_config()
    return int(text.num_hidden_layers - (setting(text, "num_kv_shared_layers") or 0))


def bidirectional_kinds(network: PreTrainedModel) -> frozenset[str]:
    """The kinds of layers in which the tokens of an image attend to later tokens of the same image."""
    if family_of(network.config).bidirectional_images:
        return attention_kinds(network)
    by_vision = setting(network.config.get_text_config(), "use_bidirectional_attention") == "vision"
    return frozenset({"sliding_attention"} if by_vision else ()) & attention_kinds(network)


def is_causal(network: PreTrainedModel) -> bool:
    """True if all layers use full causal attention."""
    return attention_kinds(network) == {"full_attention"} and not bidirectional_kinds(network)


def maskless_kinds(network: PreTrainedModel) -> str | None:
    """The sentence that names the kinds of layers which a mask does not tell whom a token attends to, or None.

    Linear attention and convolutions carry a running state. Chunked attention takes masks, but the networks that have
    it scale queries by the number of tokens that were computed before, which in a tree is not the position.
    """
    kinds = attention_kinds(network) - {"full_attention", "sliding_attention"}
    return f"layers of kind {', '.join(sorted(kinds))} cannot run branches side by side" if kinds else None


def unsupported_reason(network: PreTrainedModel) -> str | None:
    """Why a network's prompts have to be run whole, or None if nothing is known against sharing their beginnings."""
    text, family = network.config.get_text_config(), family_of(network.config)
    attention = text._attn_implementation
    core = dict(network.named_modules()).get(family.core)
    reasons = {
        f"{family.name} {family.unshared or 'reads its prompt in both directions'}, so that prompts share nothing": (
            family.prefix_lm or bool(family.unshared)
        ),
        "its language model reads in both directions": setting(text, "use_bidirectional_attention") in (True, "all"),
        f"attention by {attention} takes no mask of its own": attention not in ("sdpa", "eager", "flex_attention"),
        "blocks are for plain causal attention only; load it with sdpa": attention == "flex_attention"
        and not is_causal(network),
        f"{type(network).__name__} has no get_image_features": family.cross_attention is None
        and not hasattr(core, "get_image_features"),
        missing_helper() or "": missing_helper() is not None,
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def missing_helper() -> str | None:
    """Names what the installed transformers lacks for prefix trees, or None."""
    for module, name in TREE_HELPERS:
        try:
            attrgetter(name)(importlib.import_module(module))
        except (ImportError, AttributeError):
            return f"transformers {transformers_version} has no {module}.{name}"
    return None


@dataclass(frozen=True, slots=True)
class Preset:
    """A model of the hub for a dry run: its published sizes, as its configuration class takes them."""

    model: str
    model_type: str
    sizes: dict[str, Any]
    tokens_per_image: int
    support: int = 16  # pictures that fit into its context


def _text(model_type: str, *numbers: int, **more: Any) -> dict[str, Any]:
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    sizes = dict(zip((*names, "vocab_size", "max_position_embeddings"), numbers, strict=True))
    return {"text_config": {"model_type": model_type, **sizes}, **more}


def _siglip(layers: int, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 1152, "num_attention_heads": 16, "intermediate_size": 4304, "image_size": 384}
    return {**sizes, "num_hidden_layers": layers, "patch_size": 14, **more}


def _qwen(model_type: str, width: int, vision: dict[str, Any], *numbers: int, **more: Any) -> dict[str, Any]:
    return _text(model_type, width, *numbers, vision_config={"out_hidden_size": width, **vision}, **more)


_LLAVA = _text("llama", 4096, 32, 32, 32, 11008, 32064, 4096)
_ONEVISION = _text(
    "qwen2", 3584, 28, 28, 4, 18944, 152000, 32768,
    vision_config=_siglip(26, model_type="siglip_vision_model", vision_use_head=False),
)  # fmt: skip
_SMOL = _text("llama", 2048, 24, 32, 32, 8192, 49155, 16384, vision_config=_siglip(27), scale_factor=3)
_TOWER = {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32}
_QWEN_3B = _qwen("qwen2_5_vl_text", 2048, _TOWER, 36, 16, 2, 11008, 151936, 128000, tie_word_embeddings=True)
_QWEN_7B = _qwen("qwen2_5_vl_text", 3584, _TOWER, 28, 28, 4, 18944, 152064, 128000)
_DEEPSTACK = {"deepstack_visual_indexes": [8, 16, 24]}
_QWEN3_8B = _qwen("qwen3_vl_text", 4096, _DEEPSTACK, 36, 32, 8, 12288, 151936, 262144)
# Qwen's tokens per image are those of 448 x 448 pixels. LLaVA-1.5 has room for five support pictures and a query.
PRESETS = {
    "lcl-llava-1.5-7b": Preset("llava-hf/llava-1.5-7b-hf", "llava", _LLAVA, 576, support=5),
    "lcl-llava-onevision-7b": Preset("llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava_onevision", _ONEVISION, 730),
    "lcl-qwen2.5-vl-3b": Preset("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", _QWEN_3B, 258),
    "lcl-qwen2.5-vl-7b": Preset("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", _QWEN_7B, 258),
    "lcl-qwen3-vl-8b": Preset("Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl", _QWEN3_8B, 198),
    "lcl-smolvlm": Preset("HuggingFaceTB/SmolVLM-Instruct", "idefics3", _SMOL, 83),
}
