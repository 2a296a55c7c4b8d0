"""Gemma 3, 3n and 4: windows, pictures whose tokens attend to each other, embeddings for every layer."""

import transformers as hf

from .parts import HALF, VISION, chat, numbered, random_weights, square, text, words

ROLE = "{{ 'model' if message['role'] == 'assistant' else message['role'] }}"
NAMES_3 = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
WINDOW = {"sliding_window": 24, "head_dim": 16}


def template(image):
    """Gemma's turns."""
    turn = f"<start_of_turn>{ROLE}\n"
    return chat(image, turn, "<end_of_turn>\n", "<start_of_turn>model\n", "{{ bos_token }}")


def gemma3(crops=False):
    """Gemma 3: tokens of one picture attend to each other, and some layers have a window."""
    tokenizer = words("<start_of_turn>", end="<end_of_turn>", bos="<bos>", **NAMES_3)
    limits = {"pan_and_scan_min_crop_size": 16, "pan_and_scan_max_num_crops": 4}
    cut = {"do_pan_and_scan": True, "pan_and_scan_min_ratio_to_activate": 1.2, **limits} if crops else {}
    pictures = hf.Gemma3ImageProcessor(size=square(64), **HALF, **cut)
    processor = hf.Gemma3Processor(pictures, tokenizer, chat_template=template("<start_of_image>"), image_seq_length=16)
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    layers = {"num_hidden_layers": 3, "layer_types": kinds, "query_pre_attn_scalar": 16}
    config = hf.Gemma3Config(
        vision_config={**VISION, "image_size": 64, "patch_size": 8, "vision_use_head": False},
        text_config=text(tokenizer, **layers, **WINDOW),
        mm_tokens_per_image=16,
        **numbered(tokenizer, boi_token_index="<start_of_image>", eoi_token_index="<end_of_image>"),
        **numbered(tokenizer, image_token_index="<image_soft_token>"),
    )
    return random_weights(hf.Gemma3ForConditionalGeneration, config), processor


def gemma3_crops():
    """Gemma 3 with crops of long pictures."""
    return gemma3(crops=True)


def gemma4(bidirectional="vision", shared=0):
    """Gemma 4: in layers with a window, tokens of one picture attend to each other."""
    names = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>", "video_token": "<|video|>"}
    sound = {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
    tokenizer = words("<start_of_turn>", end="<end_of_turn>", bos="<bos>", **names, **sound)
    pictures = hf.Gemma4ImageProcessor(patch_size=8, max_soft_tokens=70, pooling_kernel_size=3)
    processor = hf.Gemma4Processor(
        hf.Gemma4AudioFeatureExtractor(),
        pictures,
        tokenizer,
        hf.Gemma4VideoProcessor(),
        chat_template=template("<|image|>"),
        image_seq_length=70,
    )
    layers = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
    more = {"use_bidirectional_attention": bidirectional, "num_kv_shared_layers": shared, "global_head_dim": 16}
    each = {"vocab_size_per_layer_input": len(tokenizer), "hidden_size_per_layer_input": 8}
    tower = {"num_key_value_heads": 2, "head_dim": 16, "patch_size": 8, "position_embedding_size": 1024}
    config = hf.Gemma4Config(
        text_config=text(tokenizer, **layers, **WINDOW, **more, **each),
        vision_config={**VISION, **tower},
        audio_config=None,
        **numbered(tokenizer, boi_token_id="<|image>", eoi_token_id="<image|>", image_token_id="<|image|>"),
        **numbered(tokenizer, video_token_id="<|video|>", audio_token_id="<|audio|>"),
        **numbered(tokenizer, boa_token_id="<|audio>", eoa_token_index="<audio|>"),
    )
    return random_weights(hf.Gemma4ForConditionalGeneration, config), processor


def gemma4_causal():
    """Gemma 4 whose pictures are read in order."""
    return gemma4(None)


def gemma4_shared():
    """Gemma 4 whose last layers use the keys and values of earlier ones."""
    return gemma4(None, 2)
