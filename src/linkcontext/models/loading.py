"""Any vision-language model of Hugging Face, by hub id or folder, and the bundled ones by name."""

import importlib.util
import logging
import os
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    BitsAndBytesConfig,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers import __version__ as transformers_version
from transformers import logging as transformers_logging

from linkcontext.errors import InputError, first_few
from linkcontext.jsonl import read_json
from linkcontext.launch import is_main_process, number_on_machine, process_count
from linkcontext.models import bundled, hub
from linkcontext.models.adapter import adapted
from linkcontext.models.chat_template import ChatTemplate
from linkcontext.models.families import family_of, quantizable, reads_apart, wrap_processor
from linkcontext.models.image_processors import with_options
from linkcontext.models.model import Model
from linkcontext.models.picture_options import AS_LOADED, PictureOptions
from linkcontext.models.prompting import USUAL_PROMPTING, Prompting
from linkcontext.progress import progress, shows_bars
from linkcontext.python_words import did_you_mean

# The JSON files of a model's folder that are read here or by transformers, except vocabularies.
SETTINGS = (
    "tokenizer.json",
    *("config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "chat_template.json", "model.safetensors.index.json"),
)
log = logging.getLogger("linkcontext")
OWN_CODE = "trust_remote_code=True"  # in transformers' error for a model that brings its own code
UNKNOWN_TYPE = "does not recognize this architecture"  # and for one that it does not have
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def load_model(
    name: str,
    dtype: Dtype = "auto",
    device: str | None = None,
    adapter: str | None = None,
    trust_remote_code: bool = False,
    load_in_4bit: bool = False,
    download: bool = True,
    prompting: Prompting | None = None,
    pictures: PictureOptions = AS_LOADED,
) -> Model:
    """Load `mini`, `mini-base`, a folder or a hub id.

    `dtype="auto"` is the checkpoint's own on a GPU and float32 on a CPU, where bfloat16 can be a hundred times
    slower. With `load_in_4bit` the language model's weights are kept as in QLoRA (arXiv 2305.14314): nf4, its scales
    quantized too, computed in `dtype`, of which "auto" is then bfloat16 on a GPU. Without `download` nothing is asked
    of the hub: the model has to be on this machine. Raises `InputError` for anything but a vision-language model.
    """
    if name.startswith("openai:"):
        raise InputError(
            f"--model {name}: this command needs a model that is loaded here. Only eval, probe, validate, ask, chat "
            "and app work with a model behind a server."
        )
    source = _source(name)
    there = device_named(device)
    kind = dtype if dtype != "auto" else "auto" if there.type == "cuda" else "float32"
    _check_settings(source)
    where = {"trust_remote_code": trust_remote_code, "local_files_only": hub.is_local_only(source, download)}
    try:
        with progress(f"Loading {name}", None):
            network, processor, info = _pretrained(name, source, kind, there, load_in_4bit, where, pictures)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"--model {name}: needs a package that is not installed: {_first_line(error)}") from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if not download and isinstance(error, OSError) and not Path(name).exists():
            why = "is not on this machine, and is only downloaded from the Hugging Face hub if --model names it."
            raise InputError(f"{name}: {why}") from error
        raise InputError(f"--model {name}: {_why(name, error)}") from error
    _refuse_incomplete(name, info)
    if load_in_4bit:
        _learnable(network)
    if adapter is not None:
        network = adapted(network, name, adapter, merge=not load_in_4bit)
    if ends := family_of(network.config).reply_ends(processor):
        network.generation_config.eos_token_id = ends
    model = Model(name, source, network.to(there).eval(), processor, adapter, prompting or USUAL_PROMPTING, pictures)
    model.chat_template.warn(name)
    return model


def _refuse_incomplete(name: str, info: dict[str, Any]) -> None:
    """Raise `InputError` for a checkpoint that lacks weights, or has them in another size."""
    if lacking := sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}):
        raise InputError(
            f"--model {name}: weights that its configuration asks for are missing or of another size: "
            f"{first_few(lacking)}. Are the configuration and the weights complete, and from one model?"
        )


def _pretrained(
    name: str,
    source: str,
    dtype: Dtype,
    device: torch.device,
    load_in_4bit: bool,
    options: dict[str, bool],
    pictures: PictureOptions,
) -> tuple[Any, Any, dict[str, Any]]:
    """A network, its processor, and which weights are missing or of another size. Raises what transformers raises."""
    if not is_main_process() or not shows_bars():  # `progress` prints lines there
        transformers_logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(source, **options)
    if type(config) not in AutoModelForImageTextToText._model_mapping and not options["trust_remote_code"]:
        raise InputError(f"--model {name}: {_other_kind(config)}")
    if reads_apart(config):
        raise InputError(
            f"--model {name}: a {config.model_type} model has an encoder for prompts and a decoder for replies, "
            "which is not supported. Choose a vision-language model whose language model is a decoder only."
        )
    processor = _processor(source, options, pictures)
    more: dict[str, Any] = {"ignore_mismatched_sizes": True, "output_loading_info": True}  # the caller refuses them
    if load_in_4bit:
        dtype = "bfloat16" if dtype == "auto" else dtype
        own_code = {"trust_remote_code": options["trust_remote_code"]}
        more |= {"device_map": {"": device}, "quantization_config": _in_4bit(config, dtype, own_code)}
    network, info = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype, **more, **options)
    return network, processor, info


def device_named(device: str | None) -> torch.device:
    """The named device, or by default the GPU if there is one: of several processes each takes its own.

    Raises `InputError` if there is no such device.
    """
    own = f"cuda:{number_on_machine()}" if process_count() > 1 else "cuda"
    name = device or (own if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without it
        advice = (
            "Name another, or leave it out."
            if device
            else "Launch one process for each GPU, or give a device that is there."
        )
        raise InputError(f"--device {name}: {_first_line(error)}. {advice}") from error
    return chosen


def load_processor(name: str, trust_remote_code: bool = False, pictures: PictureOptions = AS_LOADED) -> Any:
    """The processor of a model, without loading weights. Raises `InputError` if there is none."""
    source = _source(name)
    _check_settings(source)
    try:
        where = {"trust_remote_code": trust_remote_code, "local_files_only": hub.is_local_only(source)}
        return _processor(source, where, pictures)
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"--model {name}: {_why(name, error)}") from error


def load_chat_template(name: str, trust_remote_code: bool = False, prompting: Prompting | None = None) -> ChatTemplate:
    """The chat template of a model, without loading weights. Raises `InputError` if there is no model."""
    processor = load_processor(name, trust_remote_code)
    source = _source(name)
    try:
        generation = GenerationConfig.from_pretrained(source, local_files_only=hub.is_local_only(source))
    except OSError:  # the model has none
        generation = None
    template = ChatTemplate(processor, prompting or USUAL_PROMPTING, generation)
    template.warn(name)
    return template


def _source(name: str) -> str:
    """The folder or hub id of a model by its name."""
    return str(bundled.folder(name)) if name in bundled.NAMES[1:] else name


def _check_settings(source: str) -> None:
    """Raise an `InputError` for a JSON file of a model's folder that holds no object.

    transformers ignores a damaged generation config, and fails on other files in many ways.
    """
    for path in (Path(source) / name for name in SETTINGS):
        if os.path.isfile(path) and not isinstance(read_json(path), dict):  # noqa: PTH113
            raise InputError(f"{path}: holds no JSON object. Fetch the model's folder again.")


def _processor(source: str, options: dict[str, Any], pictures: PictureOptions) -> Any:
    processor = AutoProcessor.from_pretrained(source, **options)
    if pictures != AS_LOADED:
        processor.image_processor = with_options(processor.image_processor, pictures)
    return wrap_processor(processor)


def _in_4bit(config: Any, kind: str, options: dict[str, Any]) -> BitsAndBytesConfig:
    """How to quantize the language model to 4 bits. Vision tower, projector and output head stay as they are."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("--load-in-4bit needs the bitsandbytes package: pip install 'linkcontext[qlora]'.")
    with torch.device("meta"):
        shape = AutoModelForImageTextToText.from_config(config, **options)
    quantized = quantizable(shape)
    linear = [name for name, module in shape.named_modules() if isinstance(module, nn.Linear)]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, kind),
        llm_int8_skip_modules=[name for name in linear if name not in quantized],
    )


def _learnable(network: PreTrainedModel) -> None:
    """Make a network in 4 bits save like an unquantized one, with the weights that it is given."""
    network.hf_quantizer = None
    del network.config.quantization_config
    for layer in quantizable(network).values():
        # The kernel for CPUs with AVX512-BF16 gives no gradients, without an error.
        layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment] # a layer of bitsandbytes


def _other_kind(config: PretrainedConfig) -> str:
    """The reason why a model of this configuration cannot be used, which AutoModelForImageTextToText does not load."""
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
    """What is wrong with a model that transformers could not load, and what to do."""
    if isinstance(error, OSError) and not Path(name).exists():
        return _unknown_model(name, error)
    if (pointer := Path(name) / "latest").is_file():
        checkpoint = Path(name) / pointer.read_text(encoding="utf-8").strip()
        return f"is the folder of a training. Name its checkpoint: {checkpoint}."
    if OWN_CODE in str(error):
        return (
            "brings code of its own, which is not run unasked. Take the version of the model that transformers knows "
            "(on the hub its name often ends in -hf), or give --trust-remote-code if you trust its authors."
        )
    if UNKNOWN_TYPE in str(error):
        return (
            f"transformers {transformers_version} has no model of this type ({_first_line(error)}). Update "
            "transformers, or take the version of the model that it knows (on the hub its name often ends in -hf). For "
            "a model that brings code of its own, fetch its whole folder and give --trust-remote-code."
        )
    return f"could not be loaded ({_first_line(error)}). Is the folder complete, with config, weights and processor?"


def _unknown_model(name: str, error: OSError) -> str:
    """Where a model of this name was looked for, and why it was not there."""
    known, failure = bundled.NAMES[1:], hub.hub_failure()
    where = f"the Hugging Face hub cannot be reached ({failure})"
    if failure is None:
        where = f"not found on the Hugging Face hub ({_first_line(error)})"
    advice = did_you_mean(name, known) or " Check the name."
    if constants.HF_HUB_OFFLINE:
        set_here = " and ".join(name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name))
        advice += f" To fetch a model, unset {set_here}; without a network, give the folder of a model."
    return f"neither a bundled model ({', '.join(known)}) nor a folder, and {where}.{advice}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
