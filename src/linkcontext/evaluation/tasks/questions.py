"""Questions that annotated pictures answer, asked after turns about the same concept (`--tasks`)."""

import dataclasses

from linkcontext.evaluation.draw import open_drawn
from linkcontext.evaluation.task import Task, TaskOptions


def configure(options: TaskOptions) -> TaskOptions:
    """All tasks that the data have, where none is named."""
    e = options.episodes
    return dataclasses.replace(options, episodes=dataclasses.replace(e, tasks=e.tasks or ("all",)))


QUESTIONS = Task(open_drawn, configure)
