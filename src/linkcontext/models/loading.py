"""Any vision-language model of Hugging Face, by hub id or folder, and the bundled ones by name."""

import importlib.util
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jinja2 import TemplateError
from PIL import Image
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    BitsAndBytesConfig,
    GenerationConfig,
    IdeficsProcessor,
    LlavaForConditionalGeneration,
    PretrainedConfig,
    PreTrainedModel,
)

from linkcontext.episodes.special_tokens import marks_pattern
from linkcontext.errors import InputError, first_few
from linkcontext.models import bundled
from linkcontext.models.families import packable
from linkcontext.models.feature_store import fingerprint
from linkcontext.models.idefics import Interleaving
from linkcontext.models.prompting import TAKEN, USUAL_PROMPTING, Prompting
from linkcontext.records import read_json

# The JSON files of a model's folder that are read here or by transformers, but for lists of words.
SETTINGS = (
    "tokenizer.json",
    *("config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "chat_template.json", "model.safetensors.index.json"),
)
log = logging.getLogger("linkcontext")
PASSING = ("transformers_version", "_name_or_path", "dtype")  # keys that describe a file and not the model
OWN_CODE = "trust_remote_code=True"  # in transformers' error for a model that brings its own code
# What processors call the marks that they replace by a picture, a film or a sound.
PICTURE_MARKS = ("image_token", "video_token", "audio_token", "boi_token", "eoi_token", "fake_image_token")
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Model:
    """A model with its processor. `name` is what the user wrote, `source` where it was found."""

    name: str
    source: str
    network: PreTrainedModel
    processor: Any  # the model's own; its classes share no type
    adapter: str | None = None
    prompting: Prompting = USUAL_PROMPTING

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.network.device)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the processor."""
        return self.processor.tokenizer

    @property
    def context(self) -> int:
        """The most tokens a prompt may have."""
        return int(self.network.config.get_text_config().max_position_embeddings)

    @cached_property
    def placeholder(self) -> int:
        """The token that stands in a prompt for (a part of) a picture."""
        config = self.network.config
        written = getattr(self.processor, "image_token", None) or "<image>"
        known = getattr(config, "image_token_id", None)  # Idefics has it in its tokenizer alone
        return int(known if known is not None else self.tokenizer.convert_tokens_to_ids(written))

    @property
    def takes_features(self) -> bool:
        """Whether pictures can be encoded once and given to the language model as features, whatever the prompt."""
        return isinstance(self.network, LlavaForConditionalGeneration)

    def describe(self) -> dict[str, Any]:
        """What a run records about its model."""
        config = self.network.config
        return {
            "name": self.name,
            "source": self.source,
            "class": type(self.network).__name__,
            "parameters": self.network.num_parameters(),
            "dtype": str(self.network.dtype).removeprefix("torch."),
            "device": str(self.device),
            "adapter": self.adapter,
            "image_processor": type(self.processor.image_processor).__name__,
            "context": self.context,
            "model_type": config.model_type,
            **self.chat_template.describe(),
            "generation_config": self.generation or self.prompting.generation_config,
        }

    @property
    def generation(self) -> dict[str, Any]:
        """What replies take of the checkpoint's generation config: nothing, or its penalties and suppressed tokens."""
        if self.prompting.generation_config == "clean":
            return {}
        own = self.network.generation_config.to_dict()
        return {name: own[name] for name in TAKEN if own.get(name) is not None}

    def processed(
        self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]], side: str
    ) -> dict[str, torch.Tensor]:
        """The inputs that the model's own processor makes of rendered conversations and their pictures, padded on
        `side`, without labels.

        Raises `InputError` where the processor refuses them, for example because the chat template wrote no mark for a
        picture.
        """
        try:
            made = self.processor(
                text=list(texts),
                images=[list(pictures) for pictures in images] if any(images) else None,
                padding=True,
                padding_side=side,
                add_special_tokens=self.chat_template.adds_special_tokens(texts[0]),
                return_tensors="pt",
            )
        except ValueError as error:
            raise InputError(
                f"{self.name}: its processor refuses a conversation that its chat template has written: {error}"
            ) from error
        return {name: value for name, value in made.items() if name != "labels"}

    def place(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Inputs on the network's device, floats in its precision: some processors (Llama 4) give another."""
        device, dtype = self.device, self.network.dtype
        return {k: v.to(device, dtype) if v.is_floating_point() else v.to(device) for k, v in inputs.items()}

    @property
    def ends(self) -> list[int]:
        """The tokens that end a reply."""
        return list(self.chat_template.ends)

    @property
    def configuration(self) -> dict[str, Any]:
        """The configuration of all its parts, without keys that describe a file and not the model."""
        return _without_passing(self.network.config.to_dict())

    @cached_property
    def identity(self) -> str:
        """A digest (64 hex digits) of weights, configuration, processor and template: what is kept of a prompt is of
        use to no other model."""
        kwargs = self.chat_template.variables
        told = json.dumps(
            {
                **({"template_kwargs": kwargs} if kwargs else {}),
                "class": type(self.network).__name__,
                "config": self.configuration,
                "processor": json.loads(self.processor.image_processor.to_json_string()),
                "template": self.processor.chat_template,
            },
            sort_keys=True,
            default=str,
        )
        return fingerprint(dict(self.network.state_dict()), told)

    @property
    def marks(self) -> re.Pattern[str]:
        """The model's own marks, which no text may hold (`episodes.special_tokens.refuse_marks`)."""
        return self.chat_template.marks

    @cached_property
    def chat_template(self) -> "ChatTemplate":
        """The processor's chat template together with its tokenizer, as `encode` wants them."""
        return ChatTemplate(self.processor, self.prompting, self.network.generation_config)


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of a processor and the offsets of its tokenizer, as `encode` wants them."""

    processor: Any
    prompting: Prompting = USUAL_PROMPTING
    generation: GenerationConfig | None = None  # which knows of further tokens that end a reply

    @cached_property
    def source(self) -> str:
        """The template itself; all of them for a processor with several, "" for one without."""
        template = getattr(self.processor, "chat_template", None) or self.processor.tokenizer.chat_template or ""
        return template if isinstance(template, str) else json.dumps(template, ensure_ascii=False)

    @cached_property
    def variables(self) -> dict[str, Any]:
        """The variables of `--chat-template-kwargs` that the template reads."""
        return self.read_of(self.prompting.template_kwargs)

    def read_of(self, values: dict[str, Any]) -> dict[str, Any]:
        """The variables among `values` that the template reads."""
        return {name: value for name, value in values.items() if re.search(rf"\b{re.escape(name)}\b", self.source)}

    def warn(self, name: str) -> None:
        """Say which variables were given and are not read."""
        if idle := sorted(self.prompting.template_kwargs.keys() - self.variables.keys()):
            log.warning(
                "--chat-template-kwargs: the chat template of %s does not read %s, which changes nothing.",
                name,
                ", ".join(idle),
            )

    @cached_property
    def ends(self) -> dict[int, str]:
        """The tokens at which the model ends a reply, and what they are as text: those of its generation config and the
        tokenizer's own."""
        tokenizer = self.processor.tokenizer
        known = self.generation.eos_token_id if self.generation is not None else None
        ids = known if isinstance(known, list) else [known]
        chosen = dict.fromkeys(int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None)
        return {i: mark for i in chosen if (mark := tokenizer.decode([i]))}

    @cached_property
    def end_mark(self) -> str:
        """The end token that is added after an answer where the template writes none.

        Some models (GLM) end an answer with the mark of the next question, which is only written if one follows.
        """
        if not self.ends:
            return ""
        between = self._behind(followed=True) or ""
        default = self.ends.get(self.processor.tokenizer.eos_token_id, next(iter(self.ends.values())))
        return next((mark for mark in self.ends.values() if between.startswith(mark)), default)

    @cached_property
    def gap(self) -> str:
        """The white space that the template writes before a given answer and not where the model is to speak: a space
        in LLaVA-1.5's template, whose prompts end in `ASSISTANT:` and whose answers stand in `ASSISTANT: answer`."""
        question = [{"role": "user", "content": [{"type": "text", "text": "\ue000"}]}]
        answer = {"role": "assistant", "content": [{"type": "text", "text": "\ue001"}]}
        try:
            prompt = self.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
            text = self.apply_chat_template([*question, answer], tokenize=False, add_generation_prompt=False)
        except InputError:
            return ""
        before = text.partition("\ue001")[0]
        gap = before.removeprefix(prompt)
        return gap if before != gap and gap.isspace() else ""

    def _behind(self, followed: bool) -> str | None:
        """What the template writes after an answer, up to the end or to the next question; None if it refuses
        conversations without pictures."""
        texts = {"user": "\ue000", "assistant": "\ue001"}
        roles = ("user", "assistant", "user") if followed else ("user", "assistant")
        messages = [{"role": role, "content": [{"type": "text", "text": texts[role]}]} for role in roles]
        try:
            text = self.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        except InputError:
            return None
        return text.partition(texts["assistant"])[2].partition(texts["user"])[0]

    @property
    def end_of_answer(self) -> str:
        """How an answer ends, in words."""
        written = self._behind(followed=False)
        if written is None:
            return "one of the model's end tokens, written by the chat template or added"
        if not self.ends:
            return "nothing: the model has no end token"
        mark = next((mark for mark in self.ends.values() if written.lstrip().startswith(mark)), None)
        if mark is not None or any(written.startswith(each) for each in self.ends.values()):
            return f"{mark!r}, as the chat template writes it"
        instead = f"writes {written[:40]!r}" if written else "writes nothing"
        return (
            f"{self.end_mark!r}, added: the chat template {instead} behind an answer, which is none of the model's "
            f"end tokens"
        )

    def describe(self) -> dict[str, Any]:
        """What a run records of how prompts are made."""
        return {"chat_template_kwargs": self.variables, "end_of_answer": self.end_of_answer}

    @cached_property
    def marks(self) -> re.Pattern[str]:
        """The tokenizer's special tokens, the processor's marks for pictures, and tokens added to the vocabulary that
        the template writes, like `<think>`."""
        tokenizer = self.processor.tokenizer
        added = tokenizer.added_tokens_decoder.values()
        special = [str(token) for token in added if token.special]
        other = [token for token in map(str, added) if not token.isspace() and not token.isalnum()]
        own = [getattr(self.processor, name, None) for name in PICTURE_MARKS]
        return marks_pattern(
            [
                *tokenizer.all_special_tokens,
                *special,
                *(token for token in other if token in self.source),
                *(mark for mark in own if isinstance(mark, str)),
            ]
        )

    def apply_chat_template(
        self, messages: list[dict[str, Any]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """The conversation as text. Raises `InputError` where there is no template, or it refuses the conversation."""
        if not self.source:
            raise InputError("the model has no chat template. Choose one that was tuned for conversations.")
        try:
            text: str = self.processor.apply_chat_template(
                messages,
                tokenize=tokenize,
                add_generation_prompt=add_generation_prompt,
                **self.variables,
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            # A template is a program of the model's author, and fails as programs do.
            raise InputError(f"the model's chat template refuses the conversation: {error}") from error
        return text

    def adds_special_tokens(self, text: str) -> bool:
        """Whether the tokenizer is to add its own marks: not where the template has written the first already."""
        first = self.processor.tokenizer.bos_token
        return first is not None and not text.startswith(first)

    def __call__(self, text: str, *, return_offsets_mapping: bool) -> dict[str, Any]:
        """Token ids and where they stand in the text."""
        found: dict[str, Any] = self.processor.tokenizer(
            text,
            add_special_tokens=self.adds_special_tokens(text),
            return_offsets_mapping=return_offsets_mapping,
        )
        return found


def load(
    name: str,
    dtype: Dtype = "auto",
    device: str | None = None,
    adapter: str | None = None,
    trust_remote_code: bool = False,
    load_in_4bit: bool = False,
    download: bool = True,
    prompting: Prompting | None = None,
) -> Model:
    """Load `mini`, `mini-base`, a folder or a hub id.

    `dtype="auto"` is the checkpoint's own on a GPU and float32 on a CPU, where bfloat16 can be a hundred times
    slower. With `load_in_4bit` the language model's weights are kept as in QLoRA (arXiv 2305.14314): nf4, its scales
    quantized too, computed in `dtype`, of which "auto" is then bfloat16 on a GPU. Without `download` nothing is asked
    of the hub: the model has to be on this machine. Raises `InputError` for anything but a vision-language model.
    """
    if name.startswith("openai:"):
        raise InputError(f"--model {name}: only eval and ask take models behind a server. Name one that can be loaded.")
    source = str(bundled.folder(name)) if name in bundled.NAMES[1:] else name
    there = device_named(device)
    kind = dtype if dtype != "auto" else "auto" if there.type == "cuda" else "float32"
    where = {"trust_remote_code": trust_remote_code, "local_files_only": not download}
    _check_settings(source)
    try:
        network, processor, info = _pretrained(name, source, kind, there, load_in_4bit, where)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"--model {name}: needs a package that is not installed: {_first_line(error)}") from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if not download and isinstance(error, OSError) and not Path(name).exists():
            why = "is not on this machine, and is only downloaded from the Hugging Face hub if --model names it."
            raise InputError(f"{name}: {why}") from error
        raise InputError(f"--model {name}: {_why(name, error)}") from error
    if lacking := sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}):
        raise InputError(
            f"--model {name}: weights that its configuration asks for are missing or of another size: "
            f"{first_few(lacking)}. Are config and weights whole, and of one model?"
        )
    if load_in_4bit:
        _learnable(network)
    if adapter is not None:
        network = _adapted(network, adapter, merge=not load_in_4bit)
    if isinstance(processor, Interleaving):
        network.generation_config.eos_token_id = processor.ends
    model = Model(name, source, network.to(there).eval(), processor, adapter, prompting or USUAL_PROMPTING)
    model.chat_template.warn(name)
    return model


def _pretrained(
    name: str, source: str, dtype: Dtype, device: torch.device, load_in_4bit: bool, options: dict[str, bool]
) -> tuple[Any, Any, dict[str, Any]]:
    """A network, its processor, and which weights are missing or of another size. Raises what transformers raises."""
    config = AutoConfig.from_pretrained(source, **options)
    if type(config) not in AutoModelForImageTextToText._model_mapping and not options["trust_remote_code"]:
        raise InputError(f"--model {name}: {_other_kind(config)}")
    processor = _processor(source, options)
    more: dict[str, Any] = {"ignore_mismatched_sizes": True, "output_loading_info": True}  # the caller refuses them
    if load_in_4bit:
        dtype = "bfloat16" if dtype == "auto" else dtype
        own_code = {"trust_remote_code": options["trust_remote_code"]}
        more |= {"device_map": {"": device}, "quantization_config": _in_4bit(config, dtype, own_code)}
    network, info = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype, **more, **options)
    return network, processor, info


def device_named(device: str | None) -> torch.device:
    """The device that is named, or else the GPU where there is one. Raises `InputError` for one that is not there."""
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without it
        raise InputError(f"--device {device}: {_first_line(error)}. Name another, or leave it out.") from error
    return found


def load_processor(name: str, trust_remote_code: bool = False) -> Any:
    """The processor of a model, without its weights."""
    source = str(bundled.folder(name)) if name in bundled.NAMES[1:] else name
    _check_settings(source)
    try:
        return _processor(source, {"trust_remote_code": trust_remote_code})
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"--model {name}: {_why(name, error)}") from error


def load_chat_template(name: str, trust_remote_code: bool = False, prompting: Prompting | None = None) -> ChatTemplate:
    """The chat template of a model, without its weights."""
    made = load_processor(name, trust_remote_code)
    source = str(bundled.folder(name)) if name in bundled.NAMES[1:] else name
    try:
        generation = GenerationConfig.from_pretrained(source)
    except OSError:  # it has none
        generation = None
    chosen = ChatTemplate(made, prompting or USUAL_PROMPTING, generation)
    chosen.warn(name)
    return chosen


def _check_settings(source: str) -> None:
    """Raise an `InputError` for a JSON file of a model's folder that holds no object.

    transformers passes over a damaged generation config, and fails on other files in many ways.
    """
    for path in (Path(source) / name for name in SETTINGS):
        if os.path.isfile(path) and not isinstance(read_json(path), dict):  # noqa: PTH113
            raise InputError(f"{path}: holds no JSON object. Fetch the model's folder again.")


def _processor(source: str, options: dict[str, Any]) -> Any:
    found = AutoProcessor.from_pretrained(source, **options)
    return Interleaving(found) if isinstance(found, IdeficsProcessor) else found


def _in_4bit(config: Any, kind: str, options: dict[str, Any]) -> BitsAndBytesConfig:
    """A language model in 4 bits; eyes, projector and head stay what they are."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("--load-in-4bit needs the bitsandbytes package: pip install 'linkcontext[qlora]'.")
    with torch.device("meta"):
        shape = AutoModelForImageTextToText.from_config(config, **options)
    packed = packable(shape)
    linear = [name for name, module in shape.named_modules() if isinstance(module, nn.Linear)]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, kind),
        llm_int8_skip_modules=[name for name in linear if name not in packed],
    )


def _learnable(network: PreTrainedModel) -> None:
    """Make a network in 4 bits save as an ordinary one does, with the whole numbers that it is given."""
    network.hf_quantizer = None
    del network.config.quantization_config
    for layer in packable(network).values():
        # Its way for CPUs with AVX512-BF16 gives no gradients, and says nothing.
        layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment] # a layer of bitsandbytes


def _other_kind(config: PretrainedConfig) -> str:
    """Why a model that AutoModelForImageTextToText does not load cannot be used."""
    if type(config) in AutoModelForMultimodalLM._model_mapping:
        return (
            f"transformers has {config.model_type} models, but not under AutoModelForImageTextToText, through which "
            "models are loaded here. Choose one that it loads."
        )
    return (
        f"a {config.model_type} model reads no pictures. Choose a vision-language model (one that "
        "AutoModelForImageTextToText loads)."
    )


def _why(name: str, error: Exception) -> str:
    if isinstance(error, OSError) and not Path(name).exists():
        known = ", ".join(bundled.NAMES[1:])
        return (
            f"not one of {known}, no folder, and not found on the Hugging Face hub ({_first_line(error)}). "
            "Check the name or the network."
        )
    if (pointer := Path(name) / "latest").is_file():
        checkpoint = Path(name) / pointer.read_text(encoding="utf-8").strip()
        return f"is the folder of a training. Name its checkpoint: {checkpoint}."
    if OWN_CODE in str(error):
        return (
            "brings code of its own, which is not run unasked. Take the version of the model that transformers knows "
            "(on the hub its name often ends in -hf), or give --trust-remote-code if you trust its authors."
        )
    return f"could not be loaded ({_first_line(error)}). Is the folder complete, with config, weights and processor?"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _adapted(network: PreTrainedModel, adapter: str, merge: bool) -> PreTrainedModel:
    """The network with a LoRA adapter folder merged in, or beside weights in 4 bits, which would round it away."""
    try:
        from peft import PeftModel  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError("--adapter needs the peft package: pip install 'linkcontext[lora]'.") from error
    try:
        tuned = PeftModel.from_pretrained(network, adapter)
        found: PreTrainedModel = tuned.merge_and_unload() if merge else tuned.get_base_model()
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"--adapter {adapter}: does not fit the model ({_first_line(error)}).") from error
    return found


def grey(edge: int = 64) -> Image.Image:
    """The picture that shows nothing: mean grey."""
    return Image.new("RGB", (edge, edge), (122, 120, 115))


def _without_passing(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the keys of `PASSING`, at every depth."""
    return {
        key: _without_passing(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if key not in PASSING
    }
