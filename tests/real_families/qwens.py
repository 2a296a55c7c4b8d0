"""Qwen and GLM: pictures keep their shape, and positions have three axes."""

import transformers as hf

from .parts import HALF, chat, chatml, numbered, random_weights, text, words

PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
USUAL = chatml(PICTURE)
ROPE = {"rope_type": "default", "mrope_section": [4, 2, 2]}
TOWER = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32}


def qwen_tokens():
    """The tokens that all Qwen have, and their ids as their configurations name them."""
    named = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    }
    tokenizer = words("<|im_start|>", end="<|im_end|>", **named)
    return tokenizer, {f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in named.items()}


def qwen_pictures(patch, **more):
    """Pictures of 4 to 64 tokens."""
    least = 2 * patch
    return hf.Qwen2VLImageProcessor(patch_size=patch, min_pixels=4 * least**2, max_pixels=64 * least**2, **more)


def qwen2_vl():
    """Qwen2-VL."""
    tokenizer, ids = qwen_tokens()
    processor = hf.Qwen2VLProcessor(
        qwen_pictures(14), tokenizer, hf.Qwen2VLVideoProcessor(), chat_template=chatml(PICTURE)
    )
    config = hf.Qwen2VLConfig(
        text_config=text(tokenizer, rope_parameters=ROPE),
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
        **ids,
    )
    return random_weights(hf.Qwen2VLForConditionalGeneration, config), processor


def qwen2_5_vl():
    """Qwen2.5-VL: most layers of its tower have windows."""
    tokenizer, ids = qwen_tokens()
    processor = hf.Qwen2_5_VLProcessor(
        qwen_pictures(14), tokenizer, hf.Qwen2VLVideoProcessor(), chat_template=chatml(PICTURE)
    )
    config = hf.Qwen2_5_VLConfig(
        text_config=text(tokenizer, rope_parameters=ROPE),
        vision_config={**TOWER, "window_size": 112, "fullatt_block_indexes": [1]},
        **ids,
    )
    return random_weights(hf.Qwen2_5_VLForConditionalGeneration, config), processor


def qwen3_processor(tokenizer, template):
    """The processor of Qwen3-VL and Qwen3.5."""
    return hf.Qwen3VLProcessor(qwen_pictures(16, **HALF), tokenizer, hf.Qwen3VLVideoProcessor(), chat_template=template)


def qwen3_vl(experts=False, template=USUAL):
    """Qwen3-VL: features of earlier vision layers are added to the first decoder layers."""
    tokenizer, ids = qwen_tokens()
    many = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32} if experts else {}
    layers = {"num_hidden_layers": 3, "head_dim": 16, "rope_parameters": {**ROPE, "mrope_interleaved": True}}
    deep = {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    kind, network = (
        (hf.Qwen3VLMoeConfig, hf.Qwen3VLMoeForConditionalGeneration)
        if experts
        else (hf.Qwen3VLConfig, hf.Qwen3VLForConditionalGeneration)
    )
    config = kind(text_config=text(tokenizer, **layers, **many), vision_config={**TOWER, **deep}, **ids)
    return random_weights(network, config), qwen3_processor(tokenizer, template)


def qwen3_vl_moe():
    """Qwen3-VL with experts."""
    return qwen3_vl(experts=True)


THOUGHTS = "{% if message['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
THINKING = chat(
    PICTURE, "<|im_start|>{{ message['role'] }}\n" + THOUGHTS, "<|im_end|>\n", "<|im_start|>assistant\n<think>\n"
)


def qwen3_vl_thinking():
    """Qwen3-VL with a template that keeps the thoughts of the last reply alone."""
    return qwen3_vl(template=THINKING)


def glm_tokens():
    """GLM's tokenizer, template, and the ids of its tokens as its configurations name them."""
    marks = {"image_start": "<|begin_of_image|>", "image_end": "<|end_of_image|>"}
    films = {"video_start": "<|begin_of_video|>", "video_end": "<|end_of_video|>"}
    media = {"image_token": "<|image|>", "video_token": "<|video|>"}
    rest = ("[gMASK]", "<sop>", "<|assistant|>", *marks.values(), *films.values())
    tokenizer = words(*rest, end="<|user|>", **media)
    template = chat(
        "<|begin_of_image|><|image|><|end_of_image|>",
        "<|{{ message['role'] }}|>\n",
        "",
        "<|assistant|>\n",
        "[gMASK]<sop>",
    )
    ids = {f"{name}_token_id": token for name, token in {**marks, **films}.items()}
    ids |= {f"{name}_id": token for name, token in media.items()}
    return tokenizer, template, numbered(tokenizer, **ids)


def glm4v(kind="Glm4v"):
    """GLM-4.1V: rotary positions on a part of each head."""
    tokenizer, template, ids = glm_tokens()
    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 512}
    pictures = getattr(hf, f"{kind}ImageProcessor")(size=size)
    processor = getattr(hf, f"{kind}Processor")(
        pictures, tokenizer, getattr(hf, f"{kind}VideoProcessor")(), chat_template=template
    )
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5, "rope_theta": 1e4}
    config = getattr(hf, f"{kind}Config")(
        text_config=text(tokenizer, model_type="glm4v_text", rope_parameters=rope),
        vision_config={"model_type": "glm4v_vision", **TOWER, "image_size": 112},
        **ids,
    )
    return random_weights(getattr(hf, f"{kind}ForConditionalGeneration"), config), processor


def glm46v():
    """GLM-4.6V."""
    return glm4v("Glm46V")
