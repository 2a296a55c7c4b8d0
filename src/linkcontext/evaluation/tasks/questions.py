"""questions: the questions of annotated pictures, after support turns about the same concept (`--tasks`)."""

import dataclasses

from linkcontext.evaluation.draw import open_drawn
from linkcontext.evaluation.task import Task, TaskOptions


def _configure(options: TaskOptions) -> TaskOptions:
    """The options with all tasks of the data if none is named."""
    e = options.episodes
    return dataclasses.replace(options, episodes=dataclasses.replace(e, tasks=e.tasks or ("all",)))


QUESTIONS = Task(open_drawn, _configure)
