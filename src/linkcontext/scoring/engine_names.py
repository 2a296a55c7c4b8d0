"""How the engines are called, in options and in the files of runs.

tree: a prefix tree in one pass; prefix-cache: what prompts share is computed once and cached, the rest on top of it;
reference: every prompt whole, through the model's own processor.
"""

import logging
from collections.abc import Sequence
from typing import Literal, cast

log = logging.getLogger("linkcontext")
EngineName = Literal["auto", "tree", "prefix-cache", "reference"]
OLD_NAMES = {"packed": "tree", "cached": "prefix-cache", "naive": "reference"}  # until linkcontext 0.3


def current_name(name: str) -> str:
    """The present name of an engine, as the files of earlier versions or an option may have an old one."""
    return OLD_NAMES.get(name, name)


def accepted(name: str) -> EngineName:
    """The engine that an option names. An old name is accepted with a warning."""
    if name in OLD_NAMES:
        log.warning(
            "--engine %s is now called %s. The old name will be refused from linkcontext 0.3 on.", name, OLD_NAMES[name]
        )
    return cast(EngineName, current_name(name))


def with_current_names(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments in which --engine has the present name of its engine."""
    renamed = list(arguments)
    for place, argument in enumerate(arguments):
        if argument.startswith("--engine="):
            renamed[place] = f"--engine={accepted(argument.removeprefix('--engine='))}"
        elif place and arguments[place - 1] == "--engine":
            renamed[place] = accepted(argument)
    return renamed
