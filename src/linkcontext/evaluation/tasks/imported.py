"""Published benchmarks in folders that `linkcontext data FILE --layout NAME --out DIR` makes from their files.

seed           SEED-Bench, by its types of tasks
vl-checklist   VL-Checklist: which of two descriptions fits, by kind of attribute and relation
vl-icl         the image-to-text tasks of VL-ICL (arXiv 2403.13164), with its ICL efficiency
truemicl       TrueMICL (arXiv 2507.15807), whose tasks cannot be known without the pictures of the support

Their questions are asked openly and as a choice. Supports are drawn from the same folder, from its support set if the
benchmark has one (vl-icl, truemicl), and share the query's concept.
"""

import dataclasses
from functools import partial

from linkcontext.config import EpisodeConfig
from linkcontext.errors import InputError
from linkcontext.evaluation.task import Task, TaskOptions
from linkcontext.evaluation.tasks import world_icl
from linkcontext.evaluation.tasks.both_forms import both_forms_run_name, open_both_forms


def _configure(benchmark: str, options: TaskOptions) -> TaskOptions:
    """The file's own answers instead of pseudo-words, and all its tasks. Raises `InputError` without --data."""
    given, default = options.episodes, EpisodeConfig()
    options = world_icl.configure_all_tasks(options, benchmark)
    if given.data == default.data:
        made = f"linkcontext data FILE --layout {benchmark} --out DIR"
        raise InputError(f"--benchmark {benchmark} needs --data: the folder made by `{made}`.")
    # VL-ICL's invented names are answers in its file, too.
    names = "real" if given.names == default.names else given.names
    return dataclasses.replace(options, episodes=dataclasses.replace(options.episodes, names=names))


def _configure_split(benchmark: str, options: TaskOptions) -> TaskOptions:
    """The same, with the file's own split into support and queries, and balanced supports."""
    options = _configure(benchmark, options)
    e = dataclasses.replace(options.episodes, support_split="support", query_split="query")
    e = dataclasses.replace(e, balanced=e.balanced or e.coherence == "concept")
    return dataclasses.replace(options, episodes=e)


SEED = Task(open_both_forms, partial(_configure, "seed"), partial(both_forms_run_name, "seed"))
VL_CHECKLIST = Task(open_both_forms, partial(_configure, "vl-checklist"), partial(both_forms_run_name, "vl-checklist"))
VL_ICL = Task(open_both_forms, partial(_configure_split, "vl-icl"), partial(both_forms_run_name, "vl-icl"))
TRUE_MICL = Task(open_both_forms, partial(_configure_split, "truemicl"), partial(both_forms_run_name, "truemicl"))
