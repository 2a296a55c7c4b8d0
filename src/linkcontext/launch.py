"""Which of several processes this one is, by the variables that `torchrun` and `accelerate launch` set."""

import os

from linkcontext.errors import InputError


def process_count() -> int:
    """How many processes were launched, on all machines; 1 without a launcher."""
    return max(1, _variable("WORLD_SIZE", 1))


def process_number() -> int:
    """The number of this process among all; 0 is the main one."""
    number, count = _variable("RANK", 0), process_count()
    if number >= count:
        raise InputError(
            f"RANK={number}: has to be below WORLD_SIZE, which is {count}. torchrun and accelerate launch set both; "
            "else unset both."
        )
    return number


def number_on_machine() -> int:
    """The number of this process among those of its machine."""
    return _variable("LOCAL_RANK", 0)


def count_on_machine() -> int:
    """How many of the processes run on this machine."""
    return max(1, _variable("LOCAL_WORLD_SIZE", 1))


def is_main_process() -> bool:
    """Whether this process writes the files and prints."""
    return process_number() == 0


def _variable(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise InputError(f"{name}={text}: not a number. torchrun and accelerate launch set it; without them, unset it.")
    return int(text)
