"""Families that cut large pictures into tiles, with marks that say where each tile is."""

import transformers as hf

from .parts import VISION, chat, chatml, numbered, random_weights, square, text, words

TOWER = {**VISION, "image_size": 64, "patch_size": 8}
SIGLIP = {**VISION, "image_size": 64, "patch_size": 16, "vision_use_head": False}
CAPITALS = "{{ message['role'] | capitalize }}: "


def idefics2():
    """Idefics2: a resampler, and a mark on both sides of each picture."""
    names = {"image_token": "<image>", "image_boundary_token": "<fake_token_around_image>"}
    tokenizer = words("<end_of_utterance>", end="</s>", bos="<s>", **names)
    pictures = hf.Idefics2ImageProcessor(size={"shortest_edge": 32, "longest_edge": 64}, do_image_splitting=False)
    template = chat("<image>", CAPITALS, "<end_of_utterance>\n", "Assistant:")
    processor = hf.Idefics2Processor(pictures, tokenizer, image_seq_len=3, chat_template=template)
    resampler = {"hidden_size": 32, "num_key_value_heads": 1, "resampler_n_latents": 3, "resampler_depth": 1}
    config = hf.Idefics2Config(
        vision_config=TOWER,
        perceiver_config={**resampler, "resampler_n_heads": 2, "resampler_head_dim": 16},
        text_config=text(tokenizer, model_type="mistral"),
        **numbered(tokenizer, image_token_id="<image>"),
    )
    return random_weights(hf.Idefics2ForConditionalGeneration, config), processor


def idefics3(kind="Idefics3", *videos):
    """Idefics3 and SmolVLM: large pictures are cut into tiles, each with its place."""
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    named = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tokenizer = words("<|im_start|>", *places, end="<end_of_utterance>", **named)
    template = chat("<image>", CAPITALS, "<end_of_utterance>\n", "Assistant:")
    size = {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}}
    pictures = getattr(hf, f"{kind}ImageProcessor")(**size)
    processor = getattr(hf, f"{kind}Processor")(pictures, tokenizer, *videos, image_seq_len=16, chat_template=template)
    config = getattr(hf, f"{kind}Config")(
        vision_config=TOWER,
        text_config=text(tokenizer, model_type="llama"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
        **numbered(tokenizer, image_token_id="<image>"),
    )
    return random_weights(getattr(hf, f"{kind}ForConditionalGeneration"), config), processor


def smolvlm():
    """SmolVLM."""
    return idefics3("SmolVLM", hf.SmolVLMVideoProcessor())


def internvl():
    """InternVL: pictures are cut into tiles, and a thumbnail follows."""
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = words("<|im_start|>", end="<|im_end|>", **named)
    pictures = hf.GotOcr2ImageProcessor(crop_to_patches=True, min_patches=1, max_patches=4, size=square(64))
    processor = hf.InternVLProcessor(
        pictures, tokenizer, hf.InternVLVideoProcessor(), image_seq_length=16, chat_template=chatml("<IMG_CONTEXT>\n")
    )
    config = hf.InternVLConfig(
        vision_config={**VISION, "image_size": [64, 64], "patch_size": [8, 8], "layer_scale_init_value": 1.0},
        text_config=text(tokenizer, model_type="qwen2"),
        image_seq_length=16,
        **numbered(tokenizer, image_token_id="<IMG_CONTEXT>"),
    )
    return random_weights(hf.InternVLForConditionalGeneration, config), processor


def ovis2():
    """Ovis 2: marks of a picture have embeddings of their own."""
    marks = ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]
    tokenizer = words("<|im_start|>", "<image>", "<IMG_ATOM>", *marks, end="<|im_end|>")
    pictures = hf.Ovis2ImageProcessor(crop_to_patches=True, min_patches=1, max_patches=4, size=square(56))
    processor = hf.Ovis2Processor(pictures, tokenizer, image_seq_length=4, chat_template=chatml("<image>"))
    config = hf.Ovis2Config(
        vision_config={**VISION, "image_size": 56, "patch_size": 14, "vocab_size": 40, "hidden_stride": 2},
        text_config=text(tokenizer, model_type="qwen2"),
        visual_indicator_token_ids=tokenizer.convert_tokens_to_ids(marks),
        vocab_size=len(tokenizer),
        hidden_size=32,
        **numbered(tokenizer, image_token_id="<IMG_ATOM>"),
    )
    return random_weights(hf.Ovis2ForConditionalGeneration, config), processor


def cohere2_vision():
    """Command A Vision: windows in three of four layers."""
    named = {
        "boi_token": "<|START_OF_IMG|>",
        "eoi_token": "<|END_OF_IMG|>",
        "image_token": "<|IMG_PATCH|>",
        "img_line_break_token": "<|IMG_LINE_BREAK|>",
    }
    turn, over = "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"
    tokenizer = words(turn, end=over, bos="<BOS_TOKEN>", **named)
    pictures = hf.Cohere2VisionImageProcessor(size=square(64), max_patches=4, patch_size=2)
    template = chat("<|IMG_PATCH|>", turn + "{{ message['role'] }}", over, f"{turn}assistant", "{{ bos_token }}")
    processor = hf.Cohere2VisionProcessor(pictures, tokenizer, chat_template=template)
    config = hf.Cohere2VisionConfig(
        vision_config=SIGLIP,
        text_config=text(tokenizer, model_type="cohere2", num_hidden_layers=4, sliding_window=24, head_dim=16),
        alignment_intermediate_size=64,
        **numbered(tokenizer, image_token_id="<|IMG_PATCH|>"),
    )
    return random_weights(hf.Cohere2VisionForConditionalGeneration, config), processor


def aya_vision():
    """Aya Vision: the same language model, tiles with their numbers."""
    tiles = ["TILE_", "TILE_GLOBAL", *(f"TILE_{number}" for number in range(1, 5))]
    marks = ["<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>"]
    tokenizer = words(*marks, *tiles, end="<|END_OF_TURN_TOKEN|>", bos="<BOS_TOKEN>")
    pictures = hf.GotOcr2ImageProcessor(crop_to_patches=True, min_patches=1, max_patches=4, size=square(64))
    template = chat("<image>", "{{ message['role'] }}: ", "<|END_OF_TURN_TOKEN|>", "assistant: ", "{{ bos_token }}")
    processor = hf.AyaVisionProcessor(
        pictures, tokenizer, patch_size=16, img_size=64, downsample_factor=2, chat_template=template
    )
    config = hf.AyaVisionConfig(
        vision_config=SIGLIP,
        text_config=text(tokenizer, model_type="cohere2", num_hidden_layers=4, sliding_window=24, head_dim=16),
        downsample_factor=2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        **numbered(tokenizer, image_token_index="<|IMG_PATCH|>"),
    )
    return random_weights(hf.AyaVisionForConditionalGeneration, config), processor


LLAMA_TURN = "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"


def llama4():
    """Llama 4: chunked attention, and a projector outside of the model."""
    named = ["<|image_start|>", "<|image_end|>", "<|patch|>", "<|tile_x_separator|>", "<|tile_y_separator|>"]
    tokenizer = words(
        "<|start_header_id|>", "<|end_header_id|>", "<|image|>", *named, end="<|eot|>", bos="<|begin_of_text|>"
    )
    tokenizer.backend_tokenizer.post_processor = None
    pictures = hf.Llama4ImageProcessor(max_patches=4, resize_to_max_canvas=False, size=square(56))
    reply = "<|start_header_id|>assistant<|end_header_id|>\n\n"
    template = chat("<|image|>", LLAMA_TURN, "<|eot|>", reply, "{{ bos_token }}")
    processor = hf.Llama4Processor(pictures, tokenizer, patch_size=14, pixel_shuffle_ratio=0.5, chat_template=template)
    widths = {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}
    tower = {**VISION, "intermediate_size": 128, "image_size": 56, "patch_size": 14}  # four times its width
    layers = {"num_hidden_layers": 4, "head_dim": 16, "intermediate_size_mlp": 64, "num_local_experts": 2}
    config = hf.Llama4Config(
        text_config=text(tokenizer, attention_chunk_size=64, **layers),
        vision_config={**tower, **widths},
        **numbered(tokenizer, boi_token_index="<|image_start|>", eoi_token_index="<|image_end|>"),
        **numbered(tokenizer, image_token_index="<|patch|>"),
    )
    return random_weights(hf.Llama4ForConditionalGeneration, config), processor


def mllama():
    """Llama 3.2 Vision: pictures are read by cross-attention."""
    tokenizer = words(
        "<|start_header_id|>", "<|end_header_id|>", end="<|eot_id|>", bos="<|begin_of_text|>", image_token="<|image|>"
    )
    pictures = hf.MllamaImageProcessor(size=square(56), max_image_tiles=4)
    reply = "<|start_header_id|>assistant<|end_header_id|>\n\n"
    template = chat("<|image|>", LLAMA_TURN, "<|eot_id|>", reply, "{{ bos_token }}")
    processor = hf.MllamaProcessor(pictures, tokenizer, chat_template=template)
    shapes = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]
    layers = {"num_global_layers": 1, "attention_heads": 2, "vision_output_dim": 96, "max_num_tiles": 4}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "image_size": 56, "patch_size": 14}
    config = hf.MllamaConfig(
        text_config=text(tokenizer, num_hidden_layers=4, cross_attention_layers=[1, 3]),
        vision_config={**sizes, **layers, "intermediate_layers_indices": [0, 1], "supported_aspect_ratios": shapes},
        **numbered(tokenizer, image_token_index="<|image|>"),
    )
    return random_weights(hf.MllamaForConditionalGeneration, config), processor
