"""Tiny networks of real classes with their real processors, which need torchvision: scores and replies in the tree and
with whole prompts.

`python tests/real_processors.py PICTURES [FAMILY ...]` prints a JSON object with what `scoring/test_real_processors.py`
asserts. It is a process of its own because torchvision is installed apart from the environment of the other tests.
"""

import json
import sys
import warnings
from pathlib import Path

import torch

warnings.filterwarnings("ignore")
try:
    import torchvision
except (ImportError, RuntimeError):
    # Its compiled operators are missing beside a torch of another build. Image processors use none of them, and
    # torchvision imports once they are defined.
    operators = torch.library.Library("torchvision", "DEF")
    operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    import torchvision  # noqa: F401

import transformers as hf
from tokenizer import sentences
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig, Qwen2_5_VLVisionConfig
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig, Qwen3VLVisionConfig

from linkcontext.data.images import open_image
from linkcontext.episodes.scaffold import SCAFFOLDS, build_messages
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.model import Model
from linkcontext.records import Turn
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringRequest

VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
CONTENT = (
    "{%% for part in message['content'] %%}{%% if part['type'] == 'image' %%}%s{%% else %%}{{ part['text'] }}"
    "{%% endif %%}{%% endfor %%}"
)


def chat(image, before, after, reply, bos=""):
    """A chat template: what stands before and after each message, and before a reply."""
    loop = "{% for message in messages %}" + before + CONTENT % image + after + "{% endfor %}"
    return bos + loop + "{% if add_generation_prompt %}" + reply + "{% endif %}"


def chatml(image):
    """The template of most families."""
    before = "<|im_start|>{{ message['role'] }}\n"
    return chat(image, before, "<|im_end|>\n", "<|im_start|>assistant\n")


def words(*special, end, bos="", **named):
    """A byte-level tokenizer with special tokens; `named` are those that a processor asks for by name."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    every = dict.fromkeys(["<|pad|>", end, *([bos] if bos else []), *special, *named.values()])
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in every],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(60), trainer)
    if bos:
        mark = (bos, tokenizer.token_to_id(bos))
        tokenizer.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=[mark])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        pad_token="<|pad|>",
        extra_special_tokens=named,
        **({"bos_token": bos} if bos else {}),
    )


def text(kind, tokenizer, **changes):
    """A language model of two layers."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 8192}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id", "bos_token_id")}
    return kind(vocab_size=len(tokenizer), **{**sizes, **heads, **ids, **changes})


def random_weights(kind, config):
    """A network whose answers differ from one another by more than rounding."""
    torch.manual_seed(0)
    network = kind(config).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 1.5 * max(1, weight[0].numel()) ** -0.5)
            elif name.endswith("bias"):
                weight.normal_(0, 0.1)
    return network.float()


def llava():
    """LLaVA-1.5: every picture is cropped to one size."""
    tokenizer = words(end="</s>", bos="<s>", image_token="<image>")
    template = chat("<image>\n", "{{ message['role'] | upper }}: ", " ", "ASSISTANT:")
    size = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
    options = {"patch_size": 16, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor = hf.LlavaProcessor(hf.CLIPImageProcessor(**size), tokenizer, chat_template=template, **options)
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION, image_size=64, patch_size=16),
        text_config=text(hf.LlamaConfig, tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    return random_weights(hf.LlavaForConditionalGeneration, config), processor


def qwen_tokens():
    """The tokens that Qwen2.5-VL and Qwen3-VL share, and their ids as their configurations name them."""
    named = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    }
    tokenizer = words("<|im_start|>", end="<|im_end|>", **named)
    return tokenizer, {f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in named.items()}


def qwen2_5_vl():
    """Qwen2.5-VL: pictures keep their shape, positions have three axes."""
    tokenizer, ids = qwen_tokens()
    pictures = hf.Qwen2VLImageProcessor(patch_size=14, min_pixels=56 * 56, max_pixels=28 * 28 * 64)
    template = chatml("<|vision_start|><|image_pad|><|vision_end|>")
    processor = hf.Qwen2_5_VLProcessor(pictures, tokenizer, hf.Qwen2VLVideoProcessor(), chat_template=template)
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2]}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32}
    config = hf.Qwen2_5_VLConfig(
        text_config=text(Qwen2_5_VLTextConfig, tokenizer, rope_parameters=rope).to_dict(),
        vision_config=Qwen2_5_VLVisionConfig(**vision, window_size=112, fullatt_block_indexes=[1]).to_dict(),
        **ids,
    )
    return random_weights(hf.Qwen2_5_VLForConditionalGeneration, config), processor


def qwen3_vl():
    """Qwen3-VL: features of earlier vision layers are added to the first decoder layers."""
    tokenizer, ids = qwen_tokens()
    norm = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    pictures = hf.Qwen2VLImageProcessor(patch_size=16, min_pixels=64 * 64, max_pixels=32 * 32 * 64, **norm)
    template = chatml("<|vision_start|><|image_pad|><|vision_end|>")
    processor = hf.Qwen3VLProcessor(pictures, tokenizer, hf.Qwen3VLVideoProcessor(), chat_template=template)
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    layers = {"num_hidden_layers": 3, "head_dim": 16, "rope_parameters": rope}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32}
    more = {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    config = hf.Qwen3VLConfig(
        text_config=text(Qwen3VLTextConfig, tokenizer, **layers).to_dict(),
        vision_config=Qwen3VLVisionConfig(**vision, **more).to_dict(),
        **ids,
    )
    return random_weights(hf.Qwen3VLForConditionalGeneration, config), processor


def idefics3():
    """Idefics3 and SmolVLM: large pictures are cut into tiles, each with its place."""
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    named = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tokenizer = words("<|im_start|>", *places, end="<end_of_utterance>", **named)
    template = chat("<image>", "{{ message['role'] | capitalize }}: ", "<end_of_utterance>\n", "Assistant:")
    pictures = hf.Idefics3ImageProcessor(size={"longest_edge": 128}, max_image_size={"longest_edge": 64})
    processor = hf.Idefics3Processor(pictures, tokenizer, image_seq_len=16, chat_template=template)
    config = hf.Idefics3Config(
        vision_config=Idefics3VisionConfig(**VISION, image_size=64, patch_size=8).to_dict(),
        text_config=text(hf.LlamaConfig, tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    return random_weights(hf.Idefics3ForConditionalGeneration, config), processor


def internvl():
    """InternVL: pictures are cut into patches, and a thumbnail follows."""
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = words("<|im_start|>", end="<|im_end|>", **named)
    size = {"height": 64, "width": 64}
    pictures = hf.GotOcr2ImageProcessor(crop_to_patches=True, min_patches=1, max_patches=4, size=size)
    template = chatml("<IMG_CONTEXT>\n")
    processor = hf.InternVLProcessor(
        pictures, tokenizer, hf.InternVLVideoProcessor(), image_seq_length=16, chat_template=template
    )
    vision = {"image_size": [64, 64], "patch_size": [8, 8], "layer_scale_init_value": 1.0}
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**VISION, **vision),
        text_config=text(hf.Qwen2Config, tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=16,
    )
    return random_weights(hf.InternVLForConditionalGeneration, config), processor


def gemma3():
    """Gemma 3: tokens of one picture attend to each other, and some layers have a window."""
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = words("<start_of_turn>", end="<end_of_turn>", bos="<bos>", **named)
    role = "{{ 'model' if message['role'] == 'assistant' else message['role'] }}"
    template = chat(
        "<start_of_image>", f"<start_of_turn>{role}\n", "<end_of_turn>\n", "<start_of_turn>model\n", "{{ bos_token }}"
    )
    norm = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    pictures = hf.Gemma3ImageProcessor(size={"height": 64, "width": 64}, **norm)
    processor = hf.Gemma3Processor(pictures, tokenizer, chat_template=template, image_seq_length=16)
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    layers = {"num_hidden_layers": 3, "layer_types": kinds, "sliding_window": 24}
    heads = {"head_dim": 16, "query_pre_attn_scalar": 16}
    config = hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=64, patch_size=8, vision_use_head=False),
        text_config=text(hf.Gemma3TextConfig, tokenizer, **layers, **heads),
        mm_tokens_per_image=16,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
    )
    return random_weights(hf.Gemma3ForConditionalGeneration, config), processor


def mistral3():
    """Mistral 3 and Pixtral: a mark ends each row of a picture."""
    tokenizer = words("[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]", end="</s>", bos="<s>")
    user = "{% if message['role'] == 'user' %}[INST]{% endif %}"
    after = "{% if message['role'] == 'user' %}[/INST]{% else %}</s>{% endif %}"
    pictures = hf.PixtralImageProcessor(size={"longest_edge": 112}, patch_size={"height": 14, "width": 14})
    template = chat("[IMG]", user, after, "", "{{ bos_token }}")
    options = {"patch_size": 14, "spatial_merge_size": 2, "chat_template": template}
    processor = hf.PixtralProcessor(pictures, tokenizer, **options)
    config = hf.Mistral3Config(
        vision_config=hf.PixtralVisionConfig(**VISION, image_size=112, patch_size=14),
        text_config=text(hf.MistralConfig, tokenizer, sliding_window=None),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
    )
    return random_weights(hf.Mistral3ForConditionalGeneration, config), processor


# Pixels. transformers 5.23 fails where a picture of Mistral 3 has a single token: `squeeze` removes the tokens' axis.
SMALLEST = {"mistral3": 28}
FAMILIES = {make.__name__: make for make in (llava, qwen2_5_vl, qwen3_vl, idefics3, internvl, gemma3, mistral3)}


def requests(pictures):
    """Two shot counts, a query of each shape, two candidates, of which one begins with the other."""
    support = [Turn(pictures[0], "", "lum"), Turn(pictures[1], "", "dax"), Turn(pictures[2], "", "dax")]
    made = []
    for shots in (0, 1, 3):
        for picture in pictures[3:]:
            query = Turn(picture, "", "")
            answers = (build_messages(support[:shots], SCAFFOLDS["turns"], query, name) for name in ("dax", "dax lum"))
            made.append(ScoringRequest(build_messages(support[:shots], SCAFFOLDS["turns"], query), tuple(answers)))
    return made


def compared(name, folder):
    """How a family is served in the tree, and how far its scores and replies are from those of whole prompts."""
    network, processor = FAMILIES[name]()
    model = Model(name, name, network, processor)
    paths = [path for path in sorted(folder.glob("*.png")) if min(open_image(path).size) >= SMALLEST.get(name, 0)]
    sources = {path.stem: (path.stem * 8, path) for path in paths}
    asked = requests(list(sources))
    scores, replies, engines = {}, {}, {}
    for engine in ("reference", "tree"):
        scorer = LocalModel(model, VisionEncoder(model, open_image), sources, 1, engine)
        scores[engine] = torch.tensor([value for row in scorer.score(asked) for value, _ in row])
        replies[engine] = scorer.generate([request.messages for request in asked], 6)
        engines[engine] = scorer.engine
    return {
        "engine": engines["tree"],
        "apart": float((scores["tree"] - scores["reference"]).abs().max()),
        "spread": float(scores["reference"].std()),
        "replies": replies["tree"] == replies["reference"],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    hf.logging.set_verbosity_error()
    chosen = sys.argv[2:] or list(FAMILIES)
    print(json.dumps({name: compared(name, Path(sys.argv[1])) for name in chosen}))
