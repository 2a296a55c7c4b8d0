"""Vision-language models that learn from the pictures in their context, and trustworthy measurements of it.

    load           a model that can be taught and asked: a `Learner`
    Learner        teach it names with pictures, and ask it about others; it returns an `Answer`
    Pack           what a learner was taught, in one file
    open_data      a data set: a folder, `digits`, `world:SEED`, `hf:NAME`
    draw_episodes  episodes of a data set: supports and queries
    evaluate       measure how well a model learns from its context
    compare        the paired difference between two runs
    push_to_hub    a tuned model to the Hugging Face Hub; `Pack.push_to_hub` for packs

These names, the commands and their files are what versions keep (docs/stability.md); all else may change.

>>> import linkcontext
>>> learner = linkcontext.load("mini")
>>> digits = linkcontext.open_data("digits")
>>> zeros, ones = (digits.by_class()[name] for name in ("zero", "one"))
>>> shown = {"lum": zeros[:4], "dax": ones[:4]}
>>> learner.teach({name: [digits.path(item.id) for item in items] for name, items in shown.items()})
>>> learner.ask(digits.path(zeros[9].id)).name
'lum'
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from linkcontext import _old_modules

if TYPE_CHECKING:
    from linkcontext.api import draw_episodes, evaluate, load, open_data, push_to_hub
    from linkcontext.evaluation.compare import compare
    from linkcontext.teach.answer import Answer
    from linkcontext.teach.learner import Learner
    from linkcontext.teach.pack import Pack

__version__ = version("linkcontext")
__all__ = [
    "Answer",
    "Learner",
    "Pack",
    "__version__",
    "compare",
    "draw_episodes",
    "evaluate",
    "load",
    "open_data",
    "push_to_hub",
]

# Where each name is defined. They are imported when they are first used, because torch takes seconds to import.
_PLACES = {
    "Answer": "teach.answer",
    "Learner": "teach.learner",
    "Pack": "teach.pack",
    "compare": "evaluation.compare",
    "draw_episodes": "api",
    "evaluate": "api",
    "load": "api",
    "measure": "api",  # the name of `evaluate` in version 0.1
    "open_data": "api",
    "push_to_hub": "api",
}

_old_modules.install()


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'linkcontext' has no attribute {name!r}")
    return getattr(importlib.import_module(f"linkcontext.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
