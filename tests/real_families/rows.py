"""Families whose language model gets a row of features for each picture, or several rows with marks between them."""

import transformers as hf

from .parts import HALF, VISION, chat, numbered, random_weights, square, text, words

CLIP = {"model_type": "clip_vision_model", **VISION, "image_size": 64, "patch_size": 16}
SIGLIP = {"model_type": "siglip_vision_model", **VISION, "image_size": 64, "patch_size": 16, "vision_use_head": False}
PIXTRAL = {"model_type": "pixtral", **VISION, "image_size": 112, "patch_size": 14}
PINPOINTS = [[64, 128], [128, 64], [128, 128], [192, 64], [64, 192]]
CROP = {"size": {"shortest_edge": 64}, "crop_size": square(64)}


def llava():
    """LLaVA-1.5: every picture is cropped to one size."""
    tokenizer = words(end="</s>", bos="<s>", image_token="<image>")
    template = chat("<image>\n", "{{ message['role'] | upper }}: ", " ", "ASSISTANT:")
    options = {"patch_size": 16, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor = hf.LlavaProcessor(hf.CLIPImageProcessor(**CROP), tokenizer, chat_template=template, **options)
    config = hf.LlavaConfig(
        vision_config=CLIP,
        text_config=text(tokenizer, model_type="llama"),
        image_seq_length=16,
        **numbered(tokenizer, image_token_index="<image>"),
    )
    return random_weights(hf.LlavaForConditionalGeneration, config), processor


def llava_next():
    """LLaVA-NeXT: tiles of the shape that fits best, with the empty margin left out."""
    tokenizer = words(end="</s>", bos="<s>", image_token="<image>")
    user = "{% if message['role'] == 'user' %}[INST] {% else %} {% endif %}"
    after = "{% if message['role'] == 'user' %} [/INST]{% else %}</s>{% endif %}"
    options = {"patch_size": 16, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor = hf.LlavaNextProcessor(
        hf.LlavaNextImageProcessor(**CROP, image_grid_pinpoints=PINPOINTS),
        tokenizer,
        chat_template=chat("<image>\n", user, after, ""),
        **options,
    )
    config = hf.LlavaNextConfig(
        vision_config=CLIP,
        text_config=text(tokenizer, model_type="mistral", sliding_window=None),
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=16,
        **numbered(tokenizer, image_token_index="<image>"),
    )
    return random_weights(hf.LlavaNextForConditionalGeneration, config), processor


def llava_onevision():
    """LLaVA-OneVision: a picture that is alone in its prompt is cut into tiles."""
    tokenizer = words("<|im_start|>", end="<|im_end|>", image_token="<image>", video_token="<video>")
    before = "<|im_start|>{{ message['role'] }} "
    template = chat("<image>\n", before, "<|im_end|>", "<|im_start|>assistant\n")
    tower = {**SIGLIP, "patch_size": 8}
    pictures = hf.LlavaOnevisionImageProcessor(size=square(64), image_grid_pinpoints=PINPOINTS)
    processor = hf.LlavaOnevisionProcessor(
        pictures,
        tokenizer,
        hf.LlavaOnevisionVideoProcessor(size=square(64)),
        num_image_tokens=64,
        vision_feature_select_strategy="full",
        chat_template=template,
    )
    config = hf.LlavaOnevisionConfig(
        vision_config=tower,
        text_config=text(tokenizer, model_type="qwen2"),
        image_grid_pinpoints=PINPOINTS,
        **numbered(tokenizer, image_token_index="<image>", video_token_index="<video>"),
    )
    return random_weights(hf.LlavaOnevisionForConditionalGeneration, config), processor


def pixtral_words(merge):
    """The tokenizer and processor of the Pixtral tower."""
    tokenizer = words("[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]", end="</s>", bos="<s>")
    user = "{% if message['role'] == 'user' %}[INST]{% endif %}"
    after = "{% if message['role'] == 'user' %}[/INST]{% else %}</s>{% endif %}"
    pictures = hf.PixtralImageProcessor(size={"longest_edge": 112}, patch_size=square(14))
    template = chat("[IMG]", user, after, "", "{{ bos_token }}")
    options = {"patch_size": 14, "spatial_merge_size": merge, "chat_template": template}
    return tokenizer, hf.PixtralProcessor(pictures, tokenizer, **options)


def mistral3():
    """Mistral 3: a mark ends each row of a picture."""
    tokenizer, processor = pixtral_words(2)
    config = hf.Mistral3Config(
        vision_config=PIXTRAL,
        text_config=text(tokenizer, model_type="mistral", sliding_window=None),
        spatial_merge_size=2,
        **numbered(tokenizer, image_token_index="[IMG]"),
    )
    return random_weights(hf.Mistral3ForConditionalGeneration, config), processor


def pixtral():
    """The Pixtral tower in LLaVA."""
    tokenizer, processor = pixtral_words(1)
    config = hf.LlavaConfig(
        vision_config=PIXTRAL,
        text_config=text(tokenizer, model_type="mistral", sliding_window=None),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        **numbered(tokenizer, image_token_index="[IMG]"),
    )
    return random_weights(hf.LlavaForConditionalGeneration, config), processor


def deepseek_vl():
    """DeepSeek-VL: a fixed number of tokens for every picture."""
    tokenizer = words(end="</s>", bos="<s>", image_token="<image_placeholder>")
    after = "{% if message['role'] == 'assistant' %}</s>{% else %}\n\n{% endif %}"
    template = chat("<image_placeholder>", "{{ message['role'] | capitalize }}: ", after, "Assistant: ")
    pictures = hf.DeepseekVLImageProcessor(size=square(64), min_size=8)
    processor = hf.DeepseekVLProcessor(pictures, tokenizer, num_image_tokens=16, chat_template=template)
    config = hf.DeepseekVLConfig(
        vision_config={**SIGLIP, "vision_use_head": True},
        text_config=text(tokenizer, model_type="llama"),
        **numbered(tokenizer, image_token_id="<image_placeholder>"),
    )
    return random_weights(hf.DeepseekVLForConditionalGeneration, config), processor


def kimi_k25():
    """Kimi K2.5: experts, and keys and values that are compressed together."""
    marks = ("<|im_user|>", "<|im_assistant|>", "<|im_middle|>")
    picture = ("<|media_begin|>", "<|media_content|>", "<|media_pad|>", "<|media_end|>")
    tokenizer = words(
        *marks, *picture, end="<|im_end|>", bos="[BOS]", image_token=picture[2], video_token="<|video_pad|>"
    )
    before = (
        "{% if message['role'] == 'user' %}<|im_user|>user{% else %}<|im_assistant|>assistant{% endif %}<|im_middle|>"
    )
    shown = "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>\n"
    template = chat(shown, before, "<|im_end|>", "<|im_assistant|>assistant<|im_middle|>")
    tokenizer.backend_tokenizer.post_processor = None
    processor = hf.Kimi_K25Processor(
        hf.Kimi_K25ImageProcessor(), tokenizer, hf.Kimi_K25VideoProcessor(), chat_template=template
    )
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "n_shared_experts": 1}
    widths = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
    more = {"num_key_value_heads": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1}
    config = hf.Kimi_K25Config(
        text_config=text(tokenizer, model_type="deepseek_v3", **experts, **widths, **more),
        vision_config=VISION,
        projection_hidden_size=32,
        **numbered(tokenizer, image_token_id="<|media_pad|>", video_token_id="<|video_pad|>"),
        **numbered(tokenizer, vision_start_token_id="<|media_begin|>", vision_end_token_id="<|media_end|>"),
    )
    return random_weights(hf.Kimi_K25ForConditionalGeneration, config), processor


def paligemma():
    """PaliGemma: a prompt is read in both directions."""
    places = [f"<loc{number:04}>" for number in range(4)]
    tokenizer = words(*places, end="<eos>", bos="<bos>", image_token="<image>")
    pictures = hf.SiglipImageProcessor(size=square(64), **HALF)
    pictures.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(pictures, tokenizer, chat_template=chat("<image>", "", "\n", ""))
    config = hf.PaliGemmaConfig(
        vision_config=SIGLIP,
        text_config=text(processor.tokenizer, model_type="gemma", head_dim=16),
        projection_dim=32,
        hidden_size=32,
        **numbered(processor.tokenizer, image_token_index="<image>"),
    )
    return random_weights(hf.PaliGemmaForConditionalGeneration, config), processor
