"""retention: whether the model still knows what it was taught.

The questions have no support. They are about pictures of a world (naming, counting, describing), or from a LLaVA or
VQA file.
"""

import dataclasses
from pathlib import Path

from linkcontext.config import EpisodeConfig, flags
from linkcontext.episodes.scaffold import Scaffold
from linkcontext.errors import InputError
from linkcontext.evaluation.task import Task, TaskOptions
from linkcontext.evaluation.tasks.question_files import file_recall_test
from linkcontext.evaluation.tasks.recall_questions import RecallTest
from linkcontext.evaluation.tasks.world_recall import world_recall_test
from linkcontext.source import open_data

TAUGHT = "world:taught"


def _configure(options: TaskOptions) -> TaskOptions:
    """The options without a support, with likelihoods and replies.

    The default of --data is world:taught here, because no model was taught another world. Raises `InputError` for
    options that only episodes have.
    """
    options = configure_questions("retention", "asks without a support", options)
    e = options.episodes
    data = TAUGHT if e.data == EpisodeConfig().data else e.data
    return dataclasses.replace(options, episodes=dataclasses.replace(e, data=data))


def configure_questions(benchmark: str, reason: str, options: TaskOptions) -> TaskOptions:
    """The options of a benchmark of questions: data, episodes, seed and strict, with likelihoods and replies.

    Raises `InputError`, which gives the `reason`, for options that only drawn episodes have.
    """
    e = options.episodes
    kept = EpisodeConfig(data=e.data, episodes=e.episodes, seed=e.seed, strict=e.strict)
    idle = [flag for flag in flags(e, kept) if (flag, e.shots) != ("--shots-per-class", (0,))]
    idle += ["--calibrate"] * options.calibrate
    if idle:
        raise InputError(f"{', '.join(idle)}: --benchmark {benchmark} {reason}. Leave it out.")
    if e.episodes < 1:
        raise InputError(f"--episodes {e.episodes}: give at least one question of each kind.")
    return dataclasses.replace(options, episodes=dataclasses.replace(kept, shots=(0,)), scoring="both")


def _run_name(model: str, options: TaskOptions) -> str:
    """The default name of the folder of a run."""
    e = options.episodes
    return "-".join((Path(model).name, "retention", Path(e.data).stem.replace(":", "-"), f"seed{e.seed}"))


def open_questions(options: EpisodeConfig, scaffold: Scaffold) -> RecallTest:
    """Up to --episodes questions of each kind, about a world or from a JSON file."""
    if options.data.endswith((".json", ".jsonl")):
        return file_recall_test(Path(options.data), scaffold, options.episodes, options.seed)
    return world_recall_test(open_data(options.data, options.strict), scaffold, options.episodes, options.seed)


RETENTION = Task(open_questions, _configure, _run_name)
