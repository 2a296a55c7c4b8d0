"""world-icl: all tasks of scenes that no model was trained on, openly and as a choice, after arXiv 2403.12736."""

import dataclasses
from functools import partial

from linkcontext.config import EpisodeConfig
from linkcontext.evaluation.task import Task, TaskOptions
from linkcontext.evaluation.tasks.both_forms import open_both_forms, refuse_format, run_name

SHOTS = (0, 1, 2, 4, 8)  # the default; of the support as a whole
SCENES = "scenes:0"


def configure(options: TaskOptions, benchmark: str = "world-icl") -> TaskOptions:
    """Scenes, their shots and all their tasks, where the options are the defaults. Raises `InputError` for --format."""
    refuse_format(options, benchmark)
    e, default = options.episodes, EpisodeConfig()
    e = dataclasses.replace(
        e,
        data=SCENES if e.data == default.data else e.data,
        shots=SHOTS if e.shots == default.shots else e.shots,
        tasks=e.tasks or ("all",),
    )
    return dataclasses.replace(options, episodes=e)


WORLD_ICL = Task(open_both_forms, configure, partial(run_name, "world-icl"))
