"""world-icl: all tasks of scenes that no model was trained on, as open questions and choices (arXiv 2403.12736)."""

import dataclasses
from functools import partial

from linkcontext.config import EpisodeConfig
from linkcontext.evaluation.task import Task, TaskOptions
from linkcontext.evaluation.tasks.both_forms import both_forms_run_name, open_both_forms, refuse_format

SHOTS = (0, 1, 2, 4, 8)  # the default numbers of pictures in the whole support
SCENES = "scenes:0"


def configure_all_tasks(options: TaskOptions, benchmark: str = "world-icl") -> TaskOptions:
    """The options with scenes, `SHOTS` and all tasks where they are defaults. Raises `InputError` for --format."""
    refuse_format(options, benchmark)
    e, default = options.episodes, EpisodeConfig()
    e = dataclasses.replace(
        e,
        data=SCENES if e.data == default.data else e.data,
        shots=SHOTS if e.shots == default.shots else e.shots,
        tasks=e.tasks or ("all",),
    )
    return dataclasses.replace(options, episodes=e)


WORLD_ICL = Task(open_both_forms, configure_all_tasks, partial(both_forms_run_name, "world-icl"))
