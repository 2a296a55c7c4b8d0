"""The smallest standard Llava and CLIP, with random weights: they know nothing, and load in a second."""

import clip
import torch
from tokenizer import CHAT_TEMPLATE, CONTEXT, IMAGE, TEXT_START, build_tokenizer
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

EDGE, PATCH, WIDTH, LAYERS, VOCABULARY = 32, 16, 64, 2, 768
TOKENS = (EDGE // PATCH) ** 2 + 1  # of a picture


def tiny_clip(words, layers=LAYERS):
    """A CLIP of 32 pixels. A text's feature is read at its end token."""
    text = {
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "max_position_embeddings": clip.CAPTION_TOKENS,
        "vocab_size": VOCABULARY,
        "bos_token_id": words.convert_tokens_to_ids(TEXT_START),
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": WIDTH // 32,
        "image_size": EDGE,
        "patch_size": PATCH,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def tiny_llava(seen, words):
    """A Llava around a CLIP's vision tower: a two-layer projector, and a Llama with tied embeddings."""
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=128,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // 32,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        attention_bias=True,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=seen.config.vision_config,
            text_config=text,
            image_token_id=words.convert_tokens_to_ids(IMAGE),
            image_seq_length=TOKENS,
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
            tie_word_embeddings=True,
        )
    )


def save_llava(model, words, folder):
    """Write a standard folder: configuration, weights, tokenizer, chat template and image processor."""
    model.save_pretrained(folder)
    LlavaProcessor(
        clip.image_processor(EDGE),
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


def save_nano(folder):
    """Write the Llava that most tests use; the same weights every time."""
    words = build_tokenizer(VOCABULARY, 200)
    torch.manual_seed(0)
    save_llava(tiny_llava(tiny_clip(words), words), words, folder)


def save_bundle(folder):
    """Write `mini-clip`, `mini-base` and `mini`, which share a vision tower; their folders by name."""
    words = build_tokenizer(VOCABULARY, 200)
    torch.manual_seed(0)
    seen = tiny_clip(words)
    seen.save_pretrained(folder / "mini-clip")
    CLIPProcessor(clip.image_processor(EDGE), words).save_pretrained(folder / "mini-clip")
    for name in ("mini-base", "mini"):
        model = tiny_llava(seen, words)
        model.model.vision_tower.load_state_dict(seen.vision_model.state_dict())
        save_llava(model, words, folder / name)
    return {name: folder / name for name in ("mini-clip", "mini-base", "mini")}
