"""fewshot: few-shot recognition among the classes of any folder, openly and as a choice."""

from functools import partial

from linkcontext.errors import InputError
from linkcontext.evaluation.task import Task, TaskOptions
from linkcontext.evaluation.tasks.both_forms import open_both_forms, refuse_format, run_name


def configure(options: TaskOptions) -> TaskOptions:
    """The options as they are. Raises `InputError` for --format and --tasks."""
    refuse_format(options, "fewshot")
    if options.episodes.tasks:
        raise InputError("--tasks: --benchmark fewshot asks for classes. Leave it out.")
    return options


FEWSHOT = Task(open_both_forms, configure, partial(run_name, "fewshot"))
