"""LoRA adapters of PEFT on a loaded model."""

import logging
import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel

from linkcontext.errors import InputError, excerpt, first_few

log = logging.getLogger("linkcontext")


def adapted(network: PreTrainedModel, name: str, adapter: str, merge: bool) -> PreTrainedModel:
    """The network of the model `name` with a LoRA adapter: merged into the weights or, beside weights in 4 bits, which
    would round it away, separate.

    Raises `InputError` for an adapter that was made for a network with other layers. Of one that was made for another
    model with the same layers, the log warns by the name that the adapter records.
    """
    try:
        from peft import PeftModel  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError("--adapter needs the peft package: pip install 'linkcontext[lora]'.") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of missing weights, which are refused below
            tuned = PeftModel.from_pretrained(network, adapter)
            loaded = tuned.load_adapter(adapter, "default")  # again, because only this says what was loaded
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"--adapter {adapter}: does not fit the model ({why}).") from error
    except (TypeError, LookupError, AttributeError) as error:  # whatever a value of another type leads to in PEFT
        why = f"{type(error).__name__}: {excerpt(error)}"
        raise InputError(
            f"--adapter {adapter}: its adapter_config.json cannot be used ({why}). Save the adapter with PEFT again."
        ) from error
    config = tuned.peft_config["default"]
    if config.is_prompt_learning:
        raise InputError(
            f"--adapter {adapter}: is of PEFT's type {config.peft_type.value}, which puts embeddings before a prompt. "
            "Give an adapter that changes layers, such as LoRA."
        )
    _refuse_other_layers(adapter, name, loaded)
    _warn_of_other_base(adapter, name, config.base_model_name_or_path)
    network_with_adapter: PreTrainedModel = tuned.merge_and_unload() if merge else tuned.get_base_model()
    return network_with_adapter


def _refuse_other_layers(adapter: str, name: str, loaded: Any) -> None:
    """Raise `InputError` if layers of the adapter are not in the model, or layers that it adapts have no weights."""
    for keys, why in (
        (loaded.unexpected_keys, "has weights for layers that the model lacks"),
        (loaded.missing_keys, "lacks weights for layers of the model"),
    ):
        if keys:
            raise InputError(
                f"--adapter {adapter}: was made for another model than {name}: it {why} ({first_few(sorted(keys))}). "
                "Load it on the model that it was trained on."
            )


def _warn_of_other_base(adapter: str, name: str, base: str | None) -> None:
    """Warn if the adapter records another model than the one it is loaded on. The same model may have several paths."""
    if base and Path(base).name != Path(name).name:
        log.warning(
            "--adapter %s: was made for %s by its adapter_config.json, and is loaded on %s. If they are not the same "
            "model, the answers are meaningless.",
            adapter,
            base,
            name,
        )
