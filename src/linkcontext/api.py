"""The functions of `import linkcontext` that only gather what other modules do: load, draw_episodes, evaluate."""

import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linkcontext.config import Dtype, EpisodeConfig, ModelConfig, eval_config
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.names import NameKind
from linkcontext.errors import InputError
from linkcontext.evaluation.draw import draw_configured
from linkcontext.evaluation.open_model import open_model
from linkcontext.evaluation.result import EvaluationResult
from linkcontext.evaluation.runner import run_evaluation, run_folder
from linkcontext.launch import is_main_process
from linkcontext.models.prompting import Prompting
from linkcontext.records import Episode
from linkcontext.report.page import write_report
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.source import open_data
from linkcontext.teach.learner import Learner

# Options that say how a model is loaded, and not how it is prompted.
LOADING = {field.name for field in dataclasses.fields(ModelConfig)} - {
    field.name for field in dataclasses.fields(Prompting)
}


def load(
    model: str | Path = "mini",
    *,
    dtype: Dtype = "auto",
    device: str | None = None,
    adapter: str | None = None,
    trust_remote_code: bool = False,
    load_in_4bit: bool = False,
    chat_template_kwargs: dict[str, Any] | str | None = None,
    processor_kwargs: dict[str, Any] | str | None = None,
    **more: Any,
) -> Learner:
    """Load a vision-language model that can be taught and asked.

    Args:
        model: `mini` or `mini-base`, which are bundled, a folder, a Hugging Face id, or `openai:URL#NAME` for a model
            behind a server.
        dtype: The weights' type: float32, bfloat16, float16; auto is float32 on a CPU and the checkpoint's on a GPU.
        device: cpu, cuda, cuda:1, ...; by default the GPU where there is one.
        adapter: A folder with a LoRA adapter to apply.
        trust_remote_code: Run Python code that comes with the model. Only for authors you trust.
        load_in_4bit: Keep the language model's weights in 4 bits (nf4).
        chat_template_kwargs: Variables for the chat template, like {"enable_thinking": False}.
        processor_kwargs: Settings of the image processor, like {"max_patches": 4}.
        more: `max_pixels` of a picture; `max_new_tokens` of a reply (default 24); and `generation_config`: "clean" for
            plain greedy replies (the default), "model" for the checkpoint's own penalties.

    Raises:
        InputError: There is no such model, or it cannot be loaded; the message says what to do.

    Example:
        >>> import linkcontext
        >>> linkcontext.load("mini").model.card.context
        4096
    """
    for name, value in (("chat_template_kwargs", chat_template_kwargs), ("processor_kwargs", processor_kwargs)):
        more[name] = json.dumps(value) if isinstance(value, dict) else value
    config = ModelConfig(
        str(model),
        dtype=dtype,
        device=device,
        adapter=adapter,
        trust_remote_code=trust_remote_code,
        load_in_4bit=load_in_4bit,
        **more,
    )
    return Learner(open_model(config))


def draw_episodes(
    data: Dataset | str | Path,
    *,
    ways: int = 2,
    shots: Sequence[int] = (1,),
    episodes: int = 256,
    names: NameKind = "pseudo",
    seed: int = 0,
    **options: Any,
) -> tuple[Episode, ...]:
    """Draw episodes from a data set: pictures of a few classes under names, and others to ask about.

    Args:
        data: A data set, or what `open_data` takes.
        ways: Classes in an episode.
        shots: Support pictures of each class. The support of an episode has ways x max(shots); that of a smaller
            number is its beginning.
        episodes: How many.
        names: What classes are called: pseudo (invented words), random (letters), real, or swapped.
        seed: The same seed draws the same episodes on any machine.
        options: Other flags of `linkcontext episodes`, such as queries, negatives, order and false_labels.

    Raises:
        InputError: Options that contradict each other, or too few pictures.

    Example:
        >>> import linkcontext
        >>> digits = linkcontext.open_data("digits")
        >>> first, second = linkcontext.draw_episodes(digits, ways=5, shots=(1, 4), episodes=2)
        >>> len(first.support), len(first.queries)
        (20, 5)
    """
    known = {field.name for field in dataclasses.fields(EpisodeConfig)} - {"data"}
    if unknown := sorted(options.keys() - known):
        raise InputError(f"{unknown[0]}: no such option. The options are {', '.join(sorted(known))}.")
    config = EpisodeConfig(ways=ways, shots=tuple(shots), episodes=episodes, names=names, seed=seed, **options)
    dataset = open_data(data) if isinstance(data, str | Path) else data
    return draw_configured(config, dataset).episodes


def evaluate(
    model: str | Path | Learner | ScoringModel = "mini",
    data: str | Path = "world:0",
    *,
    benchmark: str | None = None,
    ways: int = 2,
    shots: Sequence[int] = (0, 1, 2, 4, 8, 16),
    episodes: int = 256,
    out: str | Path | None = None,
    **options: Any,
) -> EvaluationResult:
    """Measure how well a model names new pictures after it was shown a few. A run that was stopped is resumed.

    Args:
        model: A name as for `load`, or a loaded model. What a learner was taught is not used: every episode has a
            support of its own.
        data: As for `open_data`.
        benchmark: Another task than links between classes, such as fewshot, isekai or retention.
        ways: Classes in an episode.
        shots: Support pictures of each class; each number is measured.
        episodes: How many.
        out: The folder of the run. Default: runs/MODEL-DATA-..., named by the options.
        options: Other flags of `linkcontext eval`, such as names, seed, scoring and scaffold.

    Raises:
        InputError: Bad options or data, a folder that holds another run, or options that say how to load a model that
            is loaded already.

    Example:
        >>> import linkcontext
        >>> result = linkcontext.evaluate("mini", "digits", shots=(1, 4), episodes=4, out=tmp / "run")
        >>> [(row["shots_per_class"], row["n_queries"]) for row in result.rows if row["scoring"] == "likelihood_sum"]
        [(1, 8), (4, 8)]
    """
    loaded = None if isinstance(model, str | Path) else model.model if isinstance(model, Learner) else model
    options |= {"model": str(model)} if loaded is None else _options_of(loaded, options)
    options |= {} if out is None else {"out": str(out)}
    config = eval_config(data=str(data), ways=ways, shots=tuple(shots), episodes=episodes, **options)
    result = EvaluationResult(run_evaluation(config, loaded, benchmark), run_folder(config, benchmark))
    if result.has_episodes and is_main_process():
        write_report(result.folder)
    return result


def _options_of(model: ScoringModel, options: dict[str, Any]) -> dict[str, Any]:
    """The name of a loaded model, and how it is prompted where `options` do not say it.

    Raises `InputError` if `options` say how to load it.
    """
    name, prompting = model.card.name, dataclasses.asdict(model.card.prompting)
    if given := sorted(options.keys() & LOADING):
        raise InputError(f"{given[0]}: the model {name} is loaded already. Give this option to load.")
    return {"model": name, **{key: value for key, value in prompting.items() if key not in options}}


def measure(**options: Any) -> list[dict[str, Any]]:
    """`evaluate(...).rows` under the name of version 0.1."""
    warnings.warn("linkcontext.measure is now linkcontext.evaluate(...).rows.", DeprecationWarning, stacklevel=2)
    return evaluate(**options).rows
