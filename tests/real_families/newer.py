"""Families that came to transformers last, and two whose vision tower is one of timm."""

import transformers as hf
from tokenizers import AddedToken

from .gemmas import NAMES_3, WINDOW, template
from .parts import VISION, chat, chatml, numbered, random_weights, square, text, words


def ernie4_5_vl():
    """ERNIE 4.5 VL: experts of their own for the tokens of pictures."""
    named = {
        "image_token": "<|IMAGE_PLACEHOLDER|>",
        "image_start_token": "<|IMAGE_START|>",
        "image_end_token": "<|IMAGE_END|>",
        "video_token": "<|VIDEO_PLACEHOLDER|>",
        "video_start_token": "<|VIDEO_START|>",
        "video_end_token": "<|VIDEO_END|>",
    }
    tokenizer = words("<|im_start|>", end="<|im_end|>", **named)
    pictures = hf.Ernie4_5_VLMoeImageProcessor(size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 64})
    shown = "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>"
    processor = hf.Ernie4_5_VLMoeProcessor(
        pictures, tokenizer, hf.Ernie4_5_VLMoeVideoProcessor(), chat_template=chatml(shown)
    )
    experts = {"moe_intermediate_size": [32, 32], "moe_k": 2, "moe_num_experts": 4, "moe_num_shared_experts": 1}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2]}
    config = hf.Ernie4_5_VLMoeConfig(
        text_config=text(tokenizer, rope_parameters=rope, mlp_layer_types=["dense", "sparse"], **experts),
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2},
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in named.items()},
    )
    return random_weights(hf.Ernie4_5_VLMoeForConditionalGeneration, config), processor


def molmo2():
    """Molmo 2: the tokens of all pictures of a prompt attend to each other."""
    marks = ["<im_patch>", "<im_col>", "<im_start>", "<low_res_im_start>", "<im_end>", "<im_low>"]
    frames = ["<frame_start>", "<frame_end>"]
    tokenizer = words(
        "<|im_start|>", *marks, *frames, end="<|im_end|>", image_token="<|image|>", video_token="<|video|>"
    )
    tokenizer.bos_token = "<|im_end|>"
    pictures = hf.Molmo2ImageProcessor(size=square(56), patch_size=14, max_crops=4, overlap_margins=[1, 1])
    processor = hf.Molmo2Processor(
        pictures, hf.Molmo2VideoProcessor(), tokenizer, chat_template=chatml("<|image|>", "<|im_end|>")
    )
    heads = {"num_key_value_heads": 2, "head_dim": 16}
    adapter = {"hidden_size": 32, "num_attention_heads": 2, **heads, "intermediate_size": 64, "text_hidden_size": 32}
    config = hf.Molmo2Config(
        text_config=text(
            tokenizer, head_dim=16, additional_vocab_size=0, rope_parameters={"rope_type": "default", "rope_theta": 1e4}
        ),
        vision_config={**VISION, **heads, "image_size": [56, 56], "patch_size": 14},
        adapter_config={**adapter, "vision_feature_layer": [-1]},
        **numbered(tokenizer, image_patch_id="<im_patch>", image_start_token_id="<im_start>"),
        **numbered(tokenizer, low_res_image_start_token_id="<low_res_im_start>", image_end_token_id="<im_end>"),
        **numbered(tokenizer, frame_start_token_id="<frame_start>", frame_end_token_id="<frame_end>"),
    )
    return random_weights(hf.Molmo2ForConditionalGeneration, config), processor


def step3p7():
    """Step 3.7: crops before the whole picture, and layers with a window that have more heads."""
    marks = ["<patch_start>", "<patch_end>", "<patch_newline>", "<im_start>", "<im_end>", "<im_patch>"]
    tokenizer = words("<|im_start|>", *marks, end="<|im_end|>")
    pictures = hf.Step3p7ImageProcessor(size=square(56), patch_size=28, vision_patch_size=7, downsampler_stride=4)
    processor = hf.Step3p7Processor(pictures, tokenizer, chat_template=chatml("<im_patch>"))
    layers = {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"], "sliding_window": 24}
    experts = {"mlp_layer_types": ["dense", "sparse"], "n_routed_experts": 4, "num_experts_per_tok": 2}
    widths = {"head_dim": 16, "moe_intermediate_size": 32, "share_expert_dim": 32, "num_sliding_attention_heads": 2}
    config = hf.Step3p7Config(
        text_config=text(tokenizer, **layers, **experts, **widths),
        vision_config={**VISION, "image_size": 56, "patch_size": 7, "max_position_embeddings": 64},
        **numbered(tokenizer, image_token_id="<im_patch>"),
    )
    return random_weights(hf.Step3p7ForConditionalGeneration, config), processor


def gemma3n():
    """Gemma 3n: embeddings for every layer, and those of image marks behind those of text. Needs timm."""
    sound = {"audio_token": "<audio_soft_token>", "boa_token": "<start_of_audio>", "eoa_token": "<end_of_audio>"}
    tokenizer = words("<start_of_turn>", "<start_of_image>", end="<end_of_turn>", bos="<bos>")
    behind = [
        NAMES_3["eoi_token"],
        NAMES_3["image_token"],
        sound["eoa_token"],
        sound["audio_token"],
        sound["boa_token"],
    ]
    offset = len(tokenizer)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in behind], special_tokens=True)
    for name, token in {**NAMES_3, **sound}.items():
        tokenizer._set_model_specific_special_tokens({name: token})
    pictures = hf.SiglipImageProcessor(size=square(64), image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor = hf.Gemma3nProcessor(
        hf.Gemma3nAudioFeatureExtractor(),
        pictures,
        tokenizer,
        chat_template=template("<image_soft_token>"),
        image_seq_length=4,
    )
    layers = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
    each = {"vocab_size_per_layer_input": offset, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 2}
    more = {"altup_num_inputs": 2, "laurel_rank": 8, "activation_sparsity_pattern": None, "intermediate_size": [64] * 4}
    hearing = {
        "hidden_size": 32,
        "conf_num_attention_heads": 2,
        "conf_num_hidden_layers": 1,
        "sscp_conv_channel_size": (8, 8),
    }
    config = hf.Gemma3nConfig(
        text_config={**text(tokenizer, **layers, **WINDOW, **each), **more},
        vision_config={"architecture": "resnet10t", "hidden_size": 512, "vocab_offset": offset, "vocab_size": 2},
        audio_config={**hearing, "vocab_offset": offset + 2, "vocab_size": 3},
        vision_soft_tokens_per_image=4,
        **numbered(tokenizer, boi_token_id="<start_of_image>", eoi_token_id="<end_of_image>"),
        **numbered(tokenizer, image_token_id="<image_soft_token>", audio_token_id="<audio_soft_token>"),
        **numbered(tokenizer, boa_token_id="<start_of_audio>", eoa_token_id="<end_of_audio>"),
    )
    return random_weights(hf.Gemma3nForConditionalGeneration, config), processor


def perception_lm():
    """Perception LM: a tower of timm. Its processor takes no pictures of different numbers of tiles in one prompt."""
    tokenizer = words(end="<|eot_id|>", bos="<|begin_of_text|>", image_token="<|image|>", video_token="<|video|>")
    tokenizer.backend_tokenizer.post_processor = None
    pictures = hf.PerceptionLMImageProcessor(vision_input_type="vanilla", tile_size=56, size=square(56))
    turn = chat("<|image|>", "{{ message['role'] }}: ", "<|eot_id|>", "assistant: ", "{{ bos_token }}")
    processor = hf.PerceptionLMProcessor(
        hf.PerceptionLMVideoProcessor(size=square(56)),
        pictures,
        tokenizer,
        patch_size=14,
        pooling_ratio=2,
        chat_template=turn,
    )
    sizes = {"img_size": 56, "patch_size": 14, "embed_dim": 32, "depth": 2, "num_heads": 2, "global_pool": "token"}
    config = hf.PerceptionLMConfig(
        text_config=text(tokenizer, model_type="llama"),
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "vit_tiny_patch16_224",
            "model_args": sizes,
            "num_features": 32,
        },
        projector_pooling_ratio=2,
        **numbered(tokenizer, image_token_id="<|image|>", video_token_id="<|video|>"),
    )
    return random_weights(hf.PerceptionLMForConditionalGeneration, config), processor
