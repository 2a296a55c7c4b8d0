"""fewshot: few-shot recognition of a folder's classes, as open questions and as choices."""

from functools import partial

from linkcontext.errors import InputError
from linkcontext.evaluation.task import Task, TaskOptions
from linkcontext.evaluation.tasks.both_forms import both_forms_run_name, open_both_forms, refuse_format


def _configure(options: TaskOptions) -> TaskOptions:
    """The options unchanged. Raises `InputError` for --format and --tasks."""
    refuse_format(options, "fewshot")
    if options.episodes.tasks:
        raise InputError("--tasks: --benchmark fewshot asks for classes. Leave --tasks out.")
    return options


FEWSHOT = Task(open_both_forms, _configure, partial(both_forms_run_name, "fewshot"))
