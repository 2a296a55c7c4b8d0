"""The table of tasks, and the `Task` record that each of them is.

A task turns options into pictures and questions; the runner does everything else. A data set of class folders needs no
task of its own, because `link` draws episodes from any. To add a benchmark, write a module with a `Task` and add one
line to `TASKS`, or declare an entry point `linkcontext.tasks` in another package (docs/adding.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from linkcontext.config import EpisodeConfig, Scoring
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import Scaffold
from linkcontext.errors import InputError
from linkcontext.evaluation.tasks.recall_questions import RecallTest
from linkcontext.plugins import Listed, find_part, part_names
from linkcontext.records import Episode

GROUP = "linkcontext.tasks"  # the group of entry points


TASKS = {
    "link": Listed(
        "linkcontext.evaluation.tasks.link:LINK", "the names of new pictures after a few have been shown (the default)"
    ),
    "questions": Listed(
        "linkcontext.evaluation.tasks.questions:QUESTIONS",
        "the questions of annotated pictures (the default with --tasks)",
    ),
    "retention": Listed(
        "linkcontext.evaluation.tasks.retention:RETENTION",
        "without a support: name, count and describe what the model was taught (--data defaults to world:taught), or "
        "answer the questions of a LLaVA or VQA file (--data FILE.json)",
    ),
    "isekai": Listed(
        "linkcontext.evaluation.tasks.isekai:ISEKAI",
        "the episodes of ISEKAI-10 or ISEKAI-pair, in a folder or on the Hub (--data hf:ISEKAI-Portal/ISEKAI-10)",
    ),
    "world-icl": Listed(
        "linkcontext.evaluation.tasks.world_icl:WORLD_ICL",
        "all tasks of scenes that no model was trained on (--data scenes:SEED), as open questions and as choices among "
        "letters, with means over tasks",
    ),
    "fewshot": Listed(
        "linkcontext.evaluation.tasks.fewshot:FEWSHOT",
        "few-shot recognition of a folder's classes, openly and as a choice",
    ),
    "seed": Listed(
        "linkcontext.evaluation.tasks.imported:SEED",
        "SEED-Bench, from a folder made by `linkcontext data FILE --layout seed`",
    ),
    "vl-checklist": Listed(
        "linkcontext.evaluation.tasks.imported:VL_CHECKLIST", "VL-Checklist, from a folder made in the same way"
    ),
    "vl-icl": Listed(
        "linkcontext.evaluation.tasks.imported:VL_ICL",
        "VL-ICL's image-to-text tasks, from a folder made in the same way",
    ),
    "truemicl": Listed(
        "linkcontext.evaluation.tasks.imported:TRUE_MICL", "TrueMICL, from a folder made in the same way"
    ),
    "smmile": Listed(
        "linkcontext.evaluation.tasks.smmile:SMMILE",
        "SMMILE and SMMILE++: medical problems with their own examples (--data hf:smmile/SMMILE, or its parquet file)",
    ),
    "covip": Listed(
        "linkcontext.evaluation.tasks.covip:COVIP",
        "CoViP's diagnostic tasks: recalling dialogues about a thing (--data hf:Yeongtak/lsd, itr, lar, or its files)",
    ),
    "nvrd": Listed(
        "linkcontext.evaluation.tasks.nvrd:NVRD",
        "NVRD: how much an object may change before it is no longer called by its word, by severity and kind of change "
        "(--data nvrd:DIR)",
    ),
}


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """The options that a task may read and change."""

    episodes: EpisodeConfig
    scoring: Scoring = "likelihood"
    calibrate: bool = False


@dataclass(frozen=True, slots=True)
class EpisodeSet:
    """A data set, the episodes about it, and sentences about classes or subjects that were left out.

    `redraw` draws the episodes again from a smaller data set, if the model refuses some pictures. It is None for a
    benchmark with fixed pictures, for which a refused picture is an error.
    """

    dataset: Dataset
    episodes: Sequence[Episode]
    left_out: Sequence[str] = ()
    redraw: Callable[[Dataset], "EpisodeSet"] | None = None


def keep_options(options: TaskOptions) -> TaskOptions:
    """The options unchanged, for a task that sets none itself."""
    return options


def episode_run_name(model: str, options: TaskOptions) -> str:
    """The default name of a run's folder: the model, the data and how episodes are drawn."""
    e = options.episodes
    if e.tasks:
        drawn_by = [*(task.replace("/", "-") for task in e.tasks), e.format, e.coherence]
    else:
        drawn_by = [f"{e.ways}way", e.names, *([e.select] if e.select != "random" else [])]
    words = [Path(model).name.replace("#", "-"), Path(e.data).name.replace(":", "-"), *drawn_by]
    return "-".join([*words, options.scoring, f"seed{e.seed}"])


@dataclass(frozen=True, slots=True)
class Task:
    """A benchmark.

    Attributes:
        open: Opens the pictures and the questions: episodes, or questions without a support. It takes the options of
            `configure` and the scaffold, and raises `InputError` for data that it cannot use.
        configure: Completes the options, and raises `InputError` for options that the task sets itself. Applied to its
            own result it changes nothing.
        run_name: Makes the default name of the run's folder below `runs` from the model's name and the options.
    """

    open: Callable[[EpisodeConfig, Scaffold], EpisodeSet | RecallTest]
    configure: Callable[[TaskOptions], TaskOptions] = keep_options
    run_name: Callable[[str, TaskOptions], str] = episode_run_name


def task_names() -> list[str]:
    """The names of all tasks: those of the table, then those of other packages."""
    return part_names(TASKS, GROUP)


def task_help() -> str:
    """The help of --benchmark: a line for each task of the table."""
    return "\n".join(f"{name}: {entry.help}." for name, entry in TASKS.items())


def find_task(name: str) -> Task:
    """The task of that name. Raises `InputError` for an unknown one, and for a broken plug-in of another package."""
    task = find_part(TASKS, GROUP, name, Task)
    if task is None:
        raise InputError(f"--benchmark {name}: not one of {', '.join(task_names())}. Name one, or install its package.")
    return task
