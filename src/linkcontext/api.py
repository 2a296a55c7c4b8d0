"""The functions of `import linkcontext`: load, open_data, draw_episodes, evaluate. They only gather what others do."""

import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from linkcontext import source
from linkcontext.config import (
    Dtype,
    EpisodeConfig,
    HeadName,
    ModelConfig,
    Scoring,
    Select,
    eval_config,
)
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.names import NameKind
from linkcontext.episodes.plan import Coherence, Form, Negatives, Order, Rule
from linkcontext.episodes.questions import HELD_OUT
from linkcontext.errors import InputError
from linkcontext.evaluation.draw import draw_configured
from linkcontext.evaluation.open_model import open_model
from linkcontext.evaluation.runner import run_evaluation, run_folder
from linkcontext.launch import is_main_process
from linkcontext.models.model_hub import push_model
from linkcontext.models.prompting import GenerationChoice, Prompting
from linkcontext.python_words import in_python_words
from linkcontext.records import Episode
from linkcontext.report.page import write_report
from linkcontext.report.result import EvaluationResult
from linkcontext.scoring.engine_names import EngineName
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.teach.learner import Learner

# Options that say how a model is loaded, and not how it is prompted.
LOADING = [field for field in dataclasses.fields(ModelConfig) if field.name != "model"]
LOADING = [field for field in LOADING if field.name not in {own.name for own in dataclasses.fields(Prompting)}]
AnyEngineName = Literal[EngineName, "packed", "cached", "naive"]  # with the names of 0.1, until 0.3
Settings = dict[str, Any] | str  # a dictionary, or JSON

open_data = in_python_words(source.open_data)


@in_python_words
def load(
    model: str | Path = "mini",
    *,
    dtype: Dtype = "auto",
    device: str | None = None,
    adapter: str | None = None,
    trust_remote_code: bool = False,
    load_in_4bit: bool = False,
    chat_template_kwargs: Settings | None = None,
    processor_kwargs: Settings | None = None,
    max_pixels: int | None = None,
    max_new_tokens: int | None = None,
    generation_config: GenerationChoice = "clean",
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
        max_pixels: Larger pictures are reduced to this many pixels.
        max_new_tokens: The most tokens of a reply (default 24).
        generation_config: "clean" for plain greedy replies, "model" for the checkpoint's own penalties.

    Raises:
        InputError: There is no such model, or it cannot be loaded; the message says what to do.

    Examples:
        >>> import linkcontext
        >>> linkcontext.load("mini").model.card.context
        4096
    """
    options = {**locals()}
    return Learner(open_model(ModelConfig(_model_name(options.pop("model")), **_with_json(options))))


@in_python_words
def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    message: str = "A model tuned with linkcontext",
) -> str:
    """Write a tuned model to the Hugging Face Hub, from where `load` and transformers load it by `repo_id`.

    Args:
        folder: A model, a LoRA adapter, or a training of `linkcontext train`, whose last checkpoint is taken.
        repo_id: OWNER/NAME.
        private: Whether a new repository is private. Default: as the owner's settings say.
        token: Default: the one of `hf auth login`.
        message: Of the commit.

    Returns:
        The address of the commit.

    Raises:
        InputError: There is no model in the folder, or the hub cannot be reached or refuses.

    Examples:
        >>> import linkcontext
        >>> linkcontext.push_to_hub("runs/tuned", "me/tuned")  # doctest: +SKIP
    """
    return push_model(Path(folder), repo_id, private, token, message)


# The options of a command, several in a line.
# fmt: off
@in_python_words
def draw_episodes(
    data: Dataset | str | Path, *, ways: int = 2, shots: int | Sequence[int] = (1,), episodes: int = 256,
    queries: int | None = None, names: NameKind = "pseudo", negatives: Negatives = "random",
    neighbours: str | None = None, rule: Rule = "nearest", order: Order = "rounds", support_split: str | None = None,
    query_split: str | None = None, groups_apart: bool = False, false_labels: float = 0.0,
    choose_from: int | None = None, select: Select = "random", tasks: Sequence[str] = (),
    coherence: Coherence = "concept", format: Form = "open", options: int = 4, balanced: bool = False, seed: int = 0,
    strict: bool = False,
) -> tuple[Episode, ...]:
    # fmt: on
    """Draw episodes from a data set: pictures of a few classes under names, and others to ask about.

    Args:
        data: A data set, or what `open_data` takes.
        ways: Classes in an episode.
        shots: Support pictures of each class. The support of an episode has ways x max(shots); that of a smaller
            number is its beginning.
        episodes: How many.
        names: What classes are called: pseudo (invented words), random (letters), real, or swapped.
        seed: The same seed draws the same episodes on any machine.

    The other options are the flags of `linkcontext episodes`, which `linkcontext episodes --help` explains.

    Raises:
        InputError: Options that contradict each other, or too few pictures.

    Examples:
        >>> import linkcontext
        >>> digits = linkcontext.open_data("digits")
        >>> first, second = linkcontext.draw_episodes(digits, ways=5, shots=(1, 4), episodes=2)
        >>> len(first.support), len(first.queries)
        (20, 5)
    """
    given = {**locals()}
    dataset = given.pop("data")
    config = EpisodeConfig(**given | {"shots": _shots(shots), "tasks": tuple(tasks)})
    return draw_configured(config, dataset if isinstance(dataset, Dataset) else source.open_data(dataset)).episodes


# fmt: off
@in_python_words
def evaluate(
    model: str | Path | Learner | ScoringModel = "mini", data: str | Path = "world:0", *,
    benchmark: str | None = None, ways: int = 2, shots: int | Sequence[int] = (0, 1, 2, 4, 8, 16), episodes: int = 256,
    out: str | Path | None = None, queries: int | None = None, names: NameKind = "pseudo",
    negatives: Negatives = "random", neighbours: str | None = None, rule: Rule = "nearest", order: Order = "rounds",
    support_split: str | None = None, query_split: str | None = None, groups_apart: bool = False,
    false_labels: float = 0.0, choose_from: int | None = None, select: Select = "random", tasks: Sequence[str] = (),
    coherence: Coherence = "concept", format: Form = "open", options: int = 4, balanced: bool = False, seed: int = 0,
    strict: bool = False, scaffold: str = "turns", scoring: Scoring = "likelihood", calibrate: bool = False,
    head: HeadName = "lm", engine: AnyEngineName = "auto", memory_gb: float | None = None, batch: int = 16,
    unseen: Sequence[str] = HELD_OUT, explain: int | None = None, dtype: Dtype = "auto", device: str | None = None,
    adapter: str | None = None, trust_remote_code: bool = False, load_in_4bit: bool = False,
    chat_template_kwargs: Settings | None = None, processor_kwargs: Settings | None = None,
    max_pixels: int | None = None, max_new_tokens: int | None = None, generation_config: GenerationChoice = "clean",
) -> EvaluationResult:
    # fmt: on
    """Measure how well a model names new pictures after it was shown a few. A run that was stopped is resumed.

    Args:
        model: A name as for `load`, or a loaded model. What a learner was taught is not used: every episode has a
            support of its own.
        data: As for `open_data`.
        benchmark: Another task than links between classes, such as fewshot, isekai or retention.
        shots: Support pictures of each class, one number or several; each is measured.
        out: The folder of the run. Default: runs/MODEL-DATA-..., named by the options.

    The other options are the flags of `linkcontext eval`, which `linkcontext eval --help` explains.

    Raises:
        InputError: Bad options or data, a folder that holds another run, or options that say how to load a model that
            is loaded already.

    Examples:
        >>> import linkcontext
        >>> result = linkcontext.evaluate("mini", "digits", shots=(1, 4), episodes=4, out=tmp / "run")
        >>> [(row["shots_per_class"], row["n_queries"]) for row in result.rows if row["scoring"] == "likelihood_sum"]
        [(1, 8), (4, 8)]
    """
    return _evaluate(**locals())


def _evaluate(
    model: str | Path | Learner | ScoringModel, data: str | Path, benchmark: str | None, **given: Any
) -> EvaluationResult:
    """`evaluate` with all of its options."""
    if isinstance(data, Dataset):
        raise InputError(f"data: this is an open data set. Give its name or folder instead, or {data.root}.")
    loaded = None if isinstance(model, str | Path) else model.model if isinstance(model, Learner) else model
    given = _with_json(given) | {name: tuple(given[name]) for name in ("tasks", "unseen")}
    given |= {"model": _model_name(model)} if loaded is None else _options_of(loaded, given)
    given |= {"shots": _shots(given["shots"]), "out": None if given["out"] is None else str(given["out"])}
    config = eval_config(data=str(data), **given)
    result = EvaluationResult(run_evaluation(config, loaded, benchmark), run_folder(config, benchmark))
    if result.has_episodes and is_main_process():
        write_report(result.folder)
    return result


def _options_of(model: ScoringModel, options: dict[str, Any]) -> dict[str, Any]:
    """The name of a loaded model, and how it is prompted where `options` do not say it.

    Raises `InputError` if `options` say how to load it.
    """
    name, prompting = model.card.name, dataclasses.asdict(model.card.prompting)
    if given := [field.name for field in LOADING if options[field.name] != field.default]:
        raise InputError(f"{given[0]}: the model {name} is already loaded. Give this option to linkcontext.load.")
    usual = dataclasses.asdict(Prompting())
    return {"model": name, **{key: value for key, value in prompting.items() if options[key] == usual[key]}}


def _model_name(model: object) -> str:
    """The name of a model to load. Raises `InputError` for a file, and for what is no name."""
    if not isinstance(model, str | Path):
        raise InputError(f"model: has the type {type(model).__name__}. Give the name or the folder of a model.")
    if Path(model).is_file():
        raise InputError(
            f"{model}: is a file, but a model is a folder. If it is a pack, use "
            f"linkcontext.Learner.load({str(model)!r})."
        )
    return str(model)


def _shots(shots: int | Sequence[int]) -> tuple[int, ...]:
    return (shots,) if isinstance(shots, int) else tuple(shots)


def _with_json(options: dict[str, Any]) -> dict[str, Any]:
    """The options with dictionaries as JSON, as the command line has them."""
    return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in options.items()}


def measure(**options: Any) -> list[dict[str, Any]]:
    """`evaluate(...).rows` under the name of version 0.1."""
    warnings.warn("linkcontext.measure is now linkcontext.evaluate(...).rows.", DeprecationWarning, stacklevel=2)
    return evaluate(**options).rows
