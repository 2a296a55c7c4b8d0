"""Each vision-language family: a tiny network of the real class with random weights, and a stand-in processor.

The stand-ins spell a picture as the family's real processor does (transformers 5.23) and give the same keys, from
pixels made without torchvision. Three shapes of picture have three spellings where the family's depend on the shape.
"""

import re
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image
from tokenizer import CHAT_TEMPLATE, build_tokenizer
from tokenizers import AddedToken, processors
from torch import Tensor
from torch.nn.functional import one_hot, pad
from transformers.image_processing_utils import select_best_resolution
from transformers.models.idefics.configuration_idefics import IdeficsPerceiverConfig, IdeficsVisionConfig
from transformers.models.idefics2.configuration_idefics2 import Idefics2PerceiverConfig, Idefics2VisionConfig
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig, Qwen2_5_VLVisionConfig
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig, Qwen2VLVisionConfig
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig, Qwen3VLVisionConfig
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig

VOCABULARY = 384  # rows of every embedding; the tokenizers have fewer words
CONTEXT = 512
WINDOW = 8  # of Gemma 3's sliding layers: shorter than one picture
MISTRAL_WINDOW = 24  # of all layers: a prompt's first picture is out of sight, the one before the last is not
PINPOINTS = [[16, 32], [32, 16], [32, 32]]
BOS = "<bos>"
FAKE = "<fake_token_around_image>"

Inputs = dict[str, Tensor]
Rows = list[list[Image.Image]]
Look = Callable[[Rows], tuple[Inputs, list[str]]]  # pictures of each prompt -> pixel inputs, spelling of each picture


class Pixels:
    """What stands where a processor has its image processor. Its class name is recorded."""

    def __init__(self, look: Look):
        self.look = look

    def __call__(self, images: list[Image.Image], return_tensors: str = "pt") -> Inputs:
        return self.look([images])[0]


class StandIn:
    """What the library uses of a processor; what the families do differently is given as functions."""

    def __init__(
        self,
        tokenizer: Any,
        placeholder: str,
        look: Look,
        marks: Callable[[Any, Inputs], Inputs] = lambda words, inputs: {},
        tidy: Callable[[str], str] = str,
    ):
        self.tokenizer = tokenizer
        self.chat_template = tokenizer.chat_template
        self.placeholder = placeholder
        self.image_processor = Pixels(look)
        self.marks = marks  # inputs that follow from the tokens
        self.tidy = tidy  # what is done to a text whose pictures are spelled

    def apply_chat_template(
        self, messages: list[dict[str, Any]], tokenize: bool = False, add_generation_prompt: bool = False
    ) -> str:
        return self.tokenizer.apply_chat_template(
            messages, tokenize=tokenize, add_generation_prompt=add_generation_prompt
        )

    def __call__(
        self,
        text: list[str],
        images: Rows | None = None,
        padding: bool = True,
        padding_side: str = "right",
        add_special_tokens: bool = True,
        return_tensors: str = "pt",
    ) -> Inputs:
        rows = images if images is not None else [[] for _ in text]
        assert [one.count(self.placeholder) for one in text] == [len(row) for row in rows]
        pixels, spellings = self.image_processor.look(rows) if any(rows) else ({}, [])
        left = iter(spellings)
        spelled = [re.sub(re.escape(self.placeholder), lambda _: next(left), one) for one in text]
        found = self.tokenizer(
            [self.tidy(one) for one in spelled],
            padding=padding,
            padding_side=padding_side,
            add_special_tokens=add_special_tokens,
            return_tensors=return_tensors,
        )
        inputs = {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]} | pixels
        return inputs | self.marks(self.tokenizer, inputs)


# ---- words


def words(placeholder: str, *special: str, bos: str = "") -> Any:
    """A tokenizer with a family's tokens. `bos`: where the first token comes from, `tokenizer`, `template` or ``."""
    found = build_tokenizer(320, 60)
    template = CHAT_TEMPLATE.replace("<image>", placeholder)
    new = [*special, BOS] if bos else list(special)
    found.add_tokens([AddedToken(token, special=True, normalized=False) for token in new], special_tokens=True)
    assert len(found) <= VOCABULARY
    if bos:
        found.bos_token = BOS
    if bos == "tokenizer":
        mark = (BOS, found.bos_token_id)
        found.backend_tokenizer.post_processor = processors.TemplateProcessing(f"{BOS} $A", special_tokens=[mark])
    found.chat_template = BOS + template if bos == "template" else template
    return found


# ---- pixels


def pixels(picture: Image.Image, height: int, width: int) -> Tensor:
    """float32[3, height, width] between -1 and 1."""
    raw = np.asarray(picture.convert("RGB").resize((width, height)), dtype=np.float32)
    return torch.from_numpy(raw / 127.5 - 1).permute(2, 0, 1)


def shape(picture: Image.Image) -> tuple[int, int]:
    """Height and width in units: 2 x 2 for a square picture, 2 x 3 for a wide one, 3 x 2 for a tall one."""
    ratio = picture.width / picture.height
    return (2, 3) if ratio > 1.2 else (3, 2) if ratio < 1 / 1.2 else (2, 2)


def stacked(rows: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    """Pictures float32[rows, most, 3, height, width] padded with 0, and int64[rows, most, height, width] of what is."""
    height, width = (max(p.shape[i] for row in rows for p in row) for i in (1, 2))
    values = torch.zeros(len(rows), max(len(row) for row in rows), 3, height, width)
    mask = torch.zeros(values[:, :, 0].shape, dtype=torch.long)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            values[i, j, :, : picture.shape[1], : picture.shape[2]] = picture
            mask[i, j, : picture.shape[1], : picture.shape[2]] = 1
    return values, mask


def tiles(picture: Image.Image, edge: int) -> tuple[list[Tensor], tuple[int, int]]:
    """The parts of a picture that is not square, then the whole, all `edge` x `edge`; and the parts' rows, columns."""
    high, wide = {(2, 2): (0, 0), (2, 3): (1, 2), (3, 2): (2, 1)}[shape(picture)]
    large = pixels(picture, edge * max(high, 1), edge * max(wide, 1))
    parts = [large[:, edge * i : edge * (i + 1), edge * j : edge * (j + 1)] for i in range(high) for j in range(wide)]
    return [*parts, pixels(picture, edge, edge)], (high, wide)


# ---- what each family sees and how it spells it


def look_fixed(rows: Rows, edge: int, spelling: str) -> tuple[Inputs, list[str]]:
    """Llava, Gemma 3, PaliGemma: every picture has one size."""
    found = [pixels(p, edge, edge) for row in rows for p in row]
    return {"pixel_values": torch.stack(found)}, [spelling] * len(found)


def anyres(picture: Image.Image) -> list[Tensor]:
    """The whole picture in a square, then the parts of the enlarged one, padded to the best pinpoint."""
    high, wide = select_best_resolution([picture.height, picture.width], PINPOINTS)
    scale = min(wide / picture.width, high / picture.height)
    inner = (min(high, int(np.ceil(picture.height * scale))), min(wide, int(np.ceil(picture.width * scale))))
    top, side = (high - inner[0]) // 2, (wide - inner[1]) // 2
    large = pad(pixels(picture, *inner), (side, wide - inner[1] - side, top, high - inner[0] - top), value=-1)
    parts = [large[:, i : i + 16, j : j + 16] for i in range(0, high, 16) for j in range(0, wide, 16)]
    return [pixels(picture, 16, 16), *parts]


def anyres_count(picture: Image.Image, kind: Any, processor: Any) -> int:
    """How many tokens the model makes of it: counted by the real processor's own function."""
    high, wide = select_best_resolution([picture.height, picture.width], PINPOINTS)
    inside, newlines = kind._get_unpadded_features(
        processor, picture.height, picture.width, 2, 2, high // 16, wide // 16
    )
    return int(inside + newlines) + 4


def look_next(rows: Rows) -> tuple[Inputs, list[str]]:
    flat = [p for row in rows for p in row]
    values, _ = stacked([anyres(p) for p in flat])
    sizes = torch.tensor([[p.height, p.width] for p in flat])
    counts = [anyres_count(p, hf.LlavaNextProcessor, None) for p in flat]
    return {"pixel_values": values, "image_sizes": sizes}, ["<image>" * n for n in counts]


def look_onevision(rows: Rows) -> tuple[Inputs, list[str]]:
    """A picture is cut into parts only where its prompt has no other; one of several is padded to a square."""
    found, counts = [], []
    processor = SimpleNamespace(vision_aspect_ratio="anyres_max_9")
    for row in rows:
        for p in row:
            if len(row) == 1:
                found.append(anyres(p))
                counts.append(anyres_count(p, hf.LlavaOnevisionProcessor, processor))
            else:
                edge = max(p.size)
                square = Image.new("RGB", (edge, edge), (127, 127, 127))
                square.paste(p, ((edge - p.width) // 2, (edge - p.height) // 2))
                found.append([pixels(square, 16, 16)])
                counts.append(4 + 1)
    values, _ = stacked(found)
    sizes = torch.tensor([[p.height, p.width] for row in rows for p in row])
    each = torch.tensor([len(row) for row in rows])
    inputs = {"pixel_values": values, "image_sizes": sizes, "batch_num_images": each}
    return inputs, ["<image>" * n for n in counts]


def look_qwen(rows: Rows, patch: int = 4, merge: int = 2) -> tuple[Inputs, list[str]]:
    """Patches of all pictures one after the other, those that are merged together, each twice in time."""
    found, grids = [], []
    for p in (p for row in rows for p in row):
        high, wide = shape(p)
        cut = pixels(p, high * merge * patch, wide * merge * patch)
        cut = cut.reshape(3, high, merge, patch, wide, merge, patch).permute(1, 4, 2, 5, 0, 3, 6)
        twice = cut[:, :, :, :, :, None].expand(*cut.shape[:5], 2, patch, patch)
        found.append(twice.reshape(high * wide * merge**2, -1))
        grids.append([1, high * merge, wide * merge])
    spelled = [f"<|vision_start|>{'<|image_pad|>' * (h * w // merge**2)}<|vision_end|>" for _, h, w in grids]
    return {"pixel_values": torch.cat(found), "image_grid_thw": torch.tensor(grids)}, spelled


def look_idefics2(rows: Rows) -> tuple[Inputs, list[str]]:
    each = [[pixels(p, 8 * shape(p)[0], 8 * shape(p)[1]) for p in row] for row in rows]
    values, mask = stacked(each)
    spelled = [f"{FAKE}{'<image>' * 3}{FAKE}"] * sum(map(len, rows))
    return {"pixel_values": values, "pixel_attention_mask": mask}, spelled


def look_idefics3(rows: Rows) -> tuple[Inputs, list[str]]:
    found, spelled = [], []
    for row in rows:
        cuts = [tiles(p, 16) for p in row]
        found.append([tile for cut, _ in cuts for tile in cut])
        for _, (high, wide) in cuts:
            lines = [
                "".join(f"{FAKE}<row_{i + 1}_col_{j + 1}>{'<image>' * 4}" for j in range(wide)) + "\n"
                for i in range(high)
            ]
            split = "".join(lines) + "\n" if lines else ""
            spelled.append(f"{split}{FAKE}<global-img>{'<image>' * 4}{FAKE}")
    values, mask = stacked(found)
    return {"pixel_values": values, "pixel_attention_mask": mask}, spelled


def look_internvl(rows: Rows) -> tuple[Inputs, list[str]]:
    cuts = [tiles(p, 16)[0] for row in rows for p in row]
    values = torch.stack([tile for cut in cuts for tile in cut])
    return {"pixel_values": values}, [f"<img>{'<IMG_CONTEXT>' * 4 * len(cut)}</img>" for cut in cuts]


def look_pixtral(rows: Rows, unit: int) -> tuple[Inputs, list[str]]:
    flat = [p for row in rows for p in row]
    values, _ = stacked([[pixels(p, unit * shape(p)[0], unit * shape(p)[1]) for p in flat]])
    sizes = torch.tensor([[unit * n for n in shape(p)] for p in flat])
    spelled = ["[IMG_BREAK]".join(["[IMG]" * wide] * high) + "[IMG_END]" for high, wide in map(shape, flat)]
    return {"pixel_values": values[0], "image_sizes": sizes}, spelled


def look_idefics(rows: Rows) -> tuple[Inputs, list[str]]:
    values, _ = stacked([[pixels(p, 16, 16) for p in row] for row in rows])
    return {"pixel_values": values}, [f"{FAKE}<image>{FAKE}"] * sum(map(len, rows))


# ---- inputs that follow from the tokens


def mark_pads(tokenizer: Any, inputs: Inputs, key: str, token: str) -> Inputs:
    """Qwen, Gemma 3: which tokens are a picture's."""
    return {key: (inputs["input_ids"] == tokenizer.convert_tokens_to_ids(token)).long()}


def mark_paligemma(tokenizer: Any, inputs: Inputs) -> Inputs:
    """As the real processor's without `suffix`: all is prefix (0), padding too, and `labels` are given anyway.

    What `PaliGemmaModel.forward` does with nothing or an empty cache before: token i sees token j where j <= i, or
    where `token_type_ids` is 0 for both; never where `attention_mask` of j is 0. So

    * an answer after a bidirectional prefix is scored causally only if its tokens have type 1. The processor gives
      type 0 to all of `text`: with an answer in `text`, the prompt and the answer's first tokens see its last ones,
      and the score is that of a text already read. The caller has to set `token_type_ids` to 1 from the answer's
      first token on (what the processor does for its argument `suffix`, which it ends with eos).
    * `token_type_ids` must not be left out: then a prompt alone sees everything in both directions (sdpa leaves the
      mask to `is_causal`, which is False in this Gemma), but one in a padded batch, or with eager attention, is
      causal throughout.
    * with a cache that holds tokens and no `pixel_values`, `token_type_ids` are ignored: what is new is causal, so a
      cached prefix followed by the answer's tokens gives the same scores.
    * a mask of four dimensions, given to `get_decoder()` with embeddings and positions from 1, says the same.

    `labels` are -100 throughout, which makes a loss that is nan, and an error together with `logits_to_keep`: the
    caller has to drop them. Left padding needs no positions, for they matter only relative to each other.
    """
    ids = inputs["input_ids"]
    return {"token_type_ids": torch.zeros_like(ids), "labels": torch.full_like(ids, -100)}


def mark_idefics(tokenizer: Any, inputs: Inputs) -> Inputs:
    """Every token attends to the last picture before it and to no other; to none after an eos, until the next one."""
    ids, end = inputs["input_ids"], tokenizer.eos_token_id
    if "pixel_values" not in inputs:
        none = torch.zeros(*ids.shape, 1, dtype=torch.bool)
        return {"pixel_values": torch.zeros(len(ids), 1, 3, 16, 16), "image_attention_mask": none}
    image = tokenizer.convert_tokens_to_ids("<image>")
    seen = torch.zeros(*ids.shape, inputs["pixel_values"].shape[1], dtype=torch.long)
    for i, row in enumerate(ids.tolist()):
        count, ended = -1, False
        for j, token in enumerate(row):
            if token == image:
                count, ended = count + 1, False
            if count >= 0 and not ended:
                seen[i, j] = one_hot(torch.tensor(count), seen.shape[2])
            ended = ended or token == end
    return {"image_attention_mask": seen}


def tidy_idefics2(text: str) -> str:
    """Pictures that touch share a token, and a word after a picture has a space before it."""
    return re.sub(rf"{FAKE}(?=[^\s<])", f"{FAKE} ", text.replace(FAKE + FAKE, FAKE))


def tidy_paligemma(text: str) -> str:
    """The real processor writes bos after the last picture and ends every text with a new line, answers too."""
    at = text.rfind("<image>") + len("<image>")
    return f"{text[:at]}{BOS}{text[at:]}\n" if "<image>" in text else text


# ---- networks


def tiny(kind: Any, config: Any) -> hf.PreTrainedModel:
    """The network with weights so large that every part of a prompt changes what follows it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = kind(config).eval()
        with torch.no_grad():
            for name, weight in network.named_parameters():
                if weight.ndim > 1:
                    weight.normal_(0, 1.5 * weight[0].numel() ** -0.5)
                elif name.endswith("bias"):
                    weight.normal_(0, 0.1)
    return network.float()


def text(kind: Any, tokenizer: Any, **more: Any) -> Any:
    """The configuration of a language model of two layers."""
    shared = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": CONTEXT,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    return kind(**shared | more)


VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
Built = tuple[hf.PreTrainedModel, StandIn]


def llava() -> Built:
    vocabulary = words("<image>", bos="tokenizer")
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION, image_size=16, patch_size=8),
        text_config=text(hf.LlamaConfig, vocabulary),
        image_token_index=vocabulary.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    look = partial(look_fixed, edge=16, spelling="<image>" * 4)
    return tiny(hf.LlavaForConditionalGeneration, config), StandIn(vocabulary, "<image>", look)


def llava_next() -> Built:
    vocabulary = words("<image>", bos="tokenizer")
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**VISION, image_size=16, patch_size=8),
        text_config=text(hf.LlamaConfig, vocabulary),
        image_token_index=vocabulary.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=4,
    )
    return tiny(hf.LlavaNextForConditionalGeneration, config), StandIn(vocabulary, "<image>", look_next)


def llava_onevision() -> Built:
    vocabulary = words("<image>", "<video>")
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=16, patch_size=8, vision_use_head=False),
        text_config=text(hf.Qwen2Config, vocabulary),
        image_token_index=vocabulary.convert_tokens_to_ids("<image>"),
        video_token_index=vocabulary.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=PINPOINTS,
    )
    return tiny(hf.LlavaOnevisionForConditionalGeneration, config), StandIn(vocabulary, "<image>", look_onevision)


def qwen(kind: Any, config: Any, spoken: Any, seen: Any, layers: int = 2) -> Built:
    """Qwen 2 VL, 2.5 VL or 3 VL, with text and vision configurations made by `spoken` and `seen`."""
    marks = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")
    vocabulary = words("".join(marks[:3]), *marks)
    start, image, end, video = vocabulary.convert_tokens_to_ids(list(marks))
    shaped = config(
        text_config=text(spoken, vocabulary, num_hidden_layers=layers),
        vision_config=seen(num_heads=2, patch_size=4, hidden_act="silu", depth=2),
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    which = partial(mark_pads, key="mm_token_type_ids", token="<|image_pad|>")
    return tiny(kind, shaped), StandIn(vocabulary, "".join(marks[:3]), look_qwen, which)


def qwen2_vl() -> Built:
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2]}
    spoken = partial(Qwen2VLTextConfig, rope_parameters=rope)
    seen = partial(Qwen2VLVisionConfig, embed_dim=32, hidden_size=32, mlp_ratio=2)
    return qwen(hf.Qwen2VLForConditionalGeneration, hf.Qwen2VLConfig, spoken, seen)


def qwen2_5_vl() -> Built:
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2]}
    spoken = partial(Qwen2_5_VLTextConfig, rope_parameters=rope)
    # A window of 2 x 2 merged patches: pictures that are not square have more than one.
    sizes = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "window_size": 16}
    seen = partial(Qwen2_5_VLVisionConfig, **sizes, fullatt_block_indexes=[1])
    return qwen(hf.Qwen2_5_VLForConditionalGeneration, hf.Qwen2_5_VLConfig, spoken, seen)


def qwen3_vl() -> Built:
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    spoken = partial(Qwen3VLTextConfig, rope_parameters=rope, head_dim=16)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "num_position_embeddings": 16}
    seen = partial(Qwen3VLVisionConfig, **sizes, deepstack_visual_indexes=[0, 1])
    # A third layer, so that both deep features of a picture reach the answer.
    return qwen(hf.Qwen3VLForConditionalGeneration, hf.Qwen3VLConfig, spoken, seen, layers=3)


def idefics2() -> Built:
    vocabulary = words("<image>", FAKE, bos="tokenizer")
    sizes = {"resampler_n_latents": 3, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 16}
    config = hf.Idefics2Config(
        vision_config=Idefics2VisionConfig(**VISION, image_size=32, patch_size=8),
        perceiver_config=Idefics2PerceiverConfig(hidden_size=32, num_key_value_heads=1, **sizes),
        text_config=text(hf.MistralConfig, vocabulary),  # the checkpoint too has a window: 4096, longer than CONTEXT
        image_token_id=vocabulary.convert_tokens_to_ids("<image>"),
    )
    stand = StandIn(vocabulary, "<image>", look_idefics2, tidy=tidy_idefics2)
    return tiny(hf.Idefics2ForConditionalGeneration, config), stand


def idefics3(kind: Any, config: Any, seen: Any) -> Built:
    """Idefics 3 or SmolVLM."""
    cells = ["<row_1_col_1>", "<row_1_col_2>", "<row_2_col_1>"]
    vocabulary = words("<image>", FAKE, "<global-img>", *cells)
    shaped = config(
        vision_config=seen(**VISION, image_size=16, patch_size=4),
        text_config=text(hf.LlamaConfig, vocabulary),
        image_token_id=vocabulary.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=vocabulary.pad_token_id,
    )
    return tiny(kind, shaped), StandIn(vocabulary, "<image>", look_idefics3)


def internvl() -> Built:
    vocabulary = words("<IMG_CONTEXT>", "<img>", "</img>", "<IMG_CONTEXT>")
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**VISION, image_size=16, patch_size=4, layer_scale_init_value=1.0),
        text_config=text(hf.Qwen2Config, vocabulary),
        image_token_id=vocabulary.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    return tiny(hf.InternVLForConditionalGeneration, config), StandIn(vocabulary, "<IMG_CONTEXT>", look_internvl)


def gemma3() -> Built:
    marks = ("<start_of_image>", "<image_soft_token>", "<end_of_image>")
    vocabulary = words(marks[0], *marks, bos="template")
    first, image, last = vocabulary.convert_tokens_to_ids(list(marks))
    config = hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=24, patch_size=4, vision_use_head=False),
        text_config=text(
            hf.Gemma3TextConfig,
            vocabulary,
            num_hidden_layers=3,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            sliding_window=WINDOW,
            head_dim=16,
            query_pre_attn_scalar=16,
        ),
        mm_tokens_per_image=9,  # more than the window: it cuts inside a picture too
        boi_token_index=first,
        eoi_token_index=last,
        image_token_index=image,
    )
    look = partial(look_fixed, edge=24, spelling=f"\n\n{marks[0]}{marks[1] * 9}{marks[2]}\n\n")
    which = partial(mark_pads, key="token_type_ids", token=marks[1])
    return tiny(hf.Gemma3ForConditionalGeneration, config), StandIn(vocabulary, marks[0], look, which)


def mistral3(window: int | None) -> Built:
    vocabulary = words("[IMG]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", bos="tokenizer")
    config = hf.Mistral3Config(
        vision_config=hf.PixtralVisionConfig(**VISION, image_size=32, patch_size=4),
        text_config=text(hf.MistralConfig, vocabulary, sliding_window=window),
        image_token_index=vocabulary.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
    )
    look = partial(look_pixtral, unit=8)
    return tiny(hf.Mistral3ForConditionalGeneration, config), StandIn(vocabulary, "[IMG]", look)


def pixtral() -> Built:
    vocabulary = words("[IMG]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", bos="tokenizer")
    config = hf.LlavaConfig(
        vision_config=hf.PixtralVisionConfig(**VISION, image_size=32, patch_size=4),
        text_config=text(hf.MistralConfig, vocabulary, sliding_window=None),
        image_token_index=vocabulary.convert_tokens_to_ids("[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    look = partial(look_pixtral, unit=4)
    return tiny(hf.LlavaForConditionalGeneration, config), StandIn(vocabulary, "[IMG]", look)


def paligemma() -> Built:
    vocabulary = words("<image>", BOS)
    vocabulary.bos_token = BOS
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=16, patch_size=8, vision_use_head=False),
        text_config=text(hf.GemmaConfig, vocabulary, head_dim=16),
        image_token_index=vocabulary.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    look = partial(look_fixed, edge=16, spelling="<image>" * 4)
    stand = StandIn(vocabulary, "<image>", look, mark_paligemma, tidy_paligemma)
    return tiny(hf.PaliGemmaForConditionalGeneration, config), stand


def idefics() -> Built:
    """The open Flamingo. The real processor takes pictures and texts interleaved in one list, and no template."""
    vocabulary = words(f"{FAKE}<image>{FAKE}", FAKE, bos="tokenizer")
    shared = text(dict, vocabulary)
    shared.pop("num_key_value_heads")
    sizes = {"resampler_n_latents": 3, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 16}
    seen = {"embed_dim" if k == "hidden_size" else k: v for k, v in VISION.items()}
    config = hf.IdeficsConfig(
        **shared,
        vision_config=IdeficsVisionConfig(**seen, image_size=16, patch_size=8),
        perceiver_config=IdeficsPerceiverConfig(use_resampler=True, **sizes),
        use_resampler=True,
        alpha_initializer="ones",
        cross_layer_interval=1,
    )
    stand = StandIn(vocabulary, f"{FAKE}<image>{FAKE}", look_idefics, mark_idefics)
    return tiny(hf.IdeficsForVisionText2Text, config), stand


FAMILIES: dict[str, Callable[[], Built]] = {
    "llava": llava,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "idefics2": idefics2,
    "idefics3": partial(idefics3, hf.Idefics3ForConditionalGeneration, hf.Idefics3Config, Idefics3VisionConfig),
    "smolvlm": partial(idefics3, hf.SmolVLMForConditionalGeneration, hf.SmolVLMConfig, SmolVLMVisionConfig),
    "internvl": internvl,
    "gemma3": gemma3,
    "mistral3": partial(mistral3, None),
    "mistral3_window": partial(mistral3, MISTRAL_WINDOW),
    "pixtral": pixtral,
    "paligemma": paligemma,
    "idefics": idefics,
}
