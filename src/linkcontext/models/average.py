"""`linkcontext average`: one model whose weights are the average of others'.

An average of a model and its fine-tuned version keeps most of what was learned and forgets less (WiSE-FT, arXiv
2109.01903). Several fine-tuned versions of one model can be averaged too (model soups, arXiv 2203.05482).
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from linkcontext.errors import InputError, first_few
from linkcontext.models.loading import Dtype, load_model
from linkcontext.models.model import Model
from linkcontext.models.saving import save_model
from linkcontext.storage import replacing, write_text


def average(
    names: Sequence[str], weights: Sequence[float], out: Path, dtype: Dtype = "auto", trust_remote_code: bool = False
) -> Path:
    """Write a model folder with the weighted sum of the models' weights, computed in float32 and saved in `dtype`.

    Without `weights` all models count equally. Configuration and processor are the last model's. Models are loaded one
    after the other, on the CPU, where "auto" is float32. average.json in the folder names the models and weights.
    Returns the folder.

    Raises:
        InputError: fewer than two models; weights that are not one for each, or do not sum to 1; models of other
            shapes or vocabularies; an `out` that is there already, or cannot be written.
    """
    shares = list(weights) or [1 / len(names) for _ in names]
    if len(names) < 2:
        raise InputError("an average needs at least two models. Name another one.")
    if len(shares) != len(names) or not math.isclose(math.fsum(shares), 1, abs_tol=1e-6):
        listed = " ".join(f"{share:g}" for share in shares)
        raise InputError(f"--weights {listed}: give {len(names)} numbers that sum to 1, one for each model.")
    if out.exists():
        raise InputError(f"{out}: is there already. Choose another --out.")
    model = load_model(names[0], dtype, "cpu", trust_remote_code=trust_remote_code)
    total = {key: _wide(value) * shares[0] for key, value in _floating(model).items()}
    words = model.tokenizer.get_vocab()
    for name, share in zip(names[1:], shares[1:], strict=True):
        del model  # frees its memory for the next
        model = load_model(name, dtype, "cpu", trust_remote_code=trust_remote_code)
        more = _floating(model)
        if differ := sorted(
            k for k in {*total, *more} if k not in total or k not in more or total[k].shape != more[k].shape
        ):
            raise InputError(
                f"{name}: {first_few(differ)} differ from those of {names[0]}. Only models of the same "
                "architecture can be averaged."
            )
        if model.tokenizer.get_vocab() != words:
            raise InputError(f"{name}: its vocabulary is not that of {names[0]}, so the two cannot be averaged.")
        for key, value in more.items():
            total[key] += share * _wide(value)
    model.network.load_state_dict({**model.network.state_dict(), **total})  # integers are the last model's
    _write(model, out, {"models": list(names), "weights": shares})
    return out


def _floating(model: Model) -> dict[str, Tensor]:
    """The weights that can be averaged. Tied weights are there under each of their names."""
    return {key: value for key, value in model.network.state_dict().items() if value.is_floating_point()}


def _wide(value: Tensor) -> Tensor:
    return value.to(torch.float32)


def _write(model: Model, out: Path, description: dict[str, Any]) -> None:
    with replacing(out) as new:
        save_model(model.network, model.processor, new)
        write_text(json.dumps(description, indent=1) + "\n", new / "average.json")
