"""Families some of whose layers carry a running state from token to token."""

import transformers as hf

from .parts import VISION, chatml, numbered, random_weights, text, words
from .qwens import THINKING, TOWER, qwen3_processor, qwen_tokens

LINEAR = {"linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2}
LAYERS = {"num_hidden_layers": 4, "head_dim": 16, "linear_num_value_heads": 4, **LINEAR}


def qwen3_5():
    """Qwen3.5: three of four layers have linear attention."""
    tokenizer, ids = qwen_tokens()
    more = {"mrope_section": [2, 1, 1], "mrope_interleaved": True, "partial_rotary_factor": 0.5, "rope_theta": 1e4}
    config = hf.Qwen3_5Config(
        text_config=text(tokenizer, rope_parameters={"rope_type": "default", **more}, **LAYERS),
        vision_config={**TOWER, "patch_size": 16, "num_position_embeddings": 64},
        **ids,
    )
    return random_weights(hf.Qwen3_5ForConditionalGeneration, config), qwen3_processor(tokenizer, THINKING)


def minicpmv4_6():
    """MiniCPM-V 4.6: the same language model, and a processor that numbers the pictures of a prompt."""
    named = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "image_start_token": "<image>",
        "image_end_token": "</image>",
        "slice_start_token": "<slice>",
        "slice_end_token": "</slice>",
        "image_id_start_token": "<image_id>",
        "image_id_end_token": "</image_id>",
    }
    tokenizer = words("<|im_start|>", end="<|im_end|>", **named)
    pictures = hf.MiniCPMV4_6ImageProcessor(scale_resolution=112, max_slice_nums=4)
    processor = hf.MiniCPMV4_6Processor(
        pictures, hf.MiniCPMV4_6VideoProcessor(), tokenizer, chat_template=chatml("<|image_pad|>")
    )
    config = hf.MiniCPMV4_6Config(
        vision_config={**VISION, "image_size": 112, "patch_size": 14, "insert_layer_id": 0},
        text_config=text(tokenizer, model_type="qwen3_5_text", **LAYERS),
        insert_layer_id=0,
        **numbered(tokenizer, image_token_id="<|image_pad|>", video_token_id="<|video_pad|>"),
    )
    # Its prompts are the longest here. With larger weights the recurrence in float32 rounds differently by 1e-4 where
    # it is cut in other places; in float64 it does not.
    return random_weights(hf.MiniCPMV4_6ForConditionalGeneration, config, 1.0), processor


def lfm2_vl():
    """LFM2-VL: most layers are short convolutions."""
    tiles = [f"<|img_row_{row}_col_{column}|>" for row in range(1, 11) for column in range(1, 11)]
    named = {
        "image_token": "<image>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "image_thumbnail": "<|img_thumbnail|>",
    }
    tokenizer = words("<|im_start|>", *tiles, end="<|im_end|>", bos="<|startoftext|>", **named)
    tokenizer.backend_tokenizer.post_processor = None
    cut = {"do_image_splitting": True, "min_tiles": 2, "max_tiles": 4, "tile_size": 64, "use_thumbnail": True}
    tokens = {"downsample_factor": 2, "min_image_tokens": 4, "max_image_tokens": 16, "max_num_patches": 64}
    pictures = hf.Lfm2VlImageProcessor(encoder_patch_size=8, **cut, **tokens)
    processor = hf.Lfm2VlProcessor(pictures, tokenizer, chat_template=chatml("<image>", "{{ bos_token }}"))
    kinds = {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}
    config = hf.Lfm2VlConfig(
        vision_config={**VISION, "patch_size": 8, "num_patches": 64, "vision_use_head": False},
        text_config=text(tokenizer, block_ff_dim=64, block_auto_adjust_ff_dim=False, **kinds),
        projector_hidden_size=32,
        **numbered(tokenizer, image_token_id="<image>"),
    )
    return random_weights(hf.Lfm2VlForConditionalGeneration, config), processor
