"""Questions without a support: what a model is asked to see whether it still knows what it was taught."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import Message
from linkcontext.seeds import rng

Thing = TypeVar("Thing")

CHOICES = 10  # names among which a picture's name is found by likelihood


@dataclass(frozen=True, slots=True)
class RecallQuestion:
    """A question and its right answer: `messages` end where the model is to speak.

    `gold` is one answer, or those of several people; `candidates` are there where likelihood decides too.
    Questions of one `cluster`, a class or a picture, are not independent.
    """

    id: str
    task: str
    cluster: str
    messages: tuple[Message, ...]
    gold: tuple[str, ...]
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RecallAnswer:
    """A model's answer to the question with the id `probe`: its reply, and each candidate's log-probability (nats)."""

    probe: str
    reply: str
    logprobs: tuple[float, ...] = ()
    engine: str = ""


@dataclass(frozen=True, slots=True)
class RecallTest:
    """Questions and the pictures that they ask about.

    `names` are all that a reply may name, `total` is how many questions the data would have given.
    """

    dataset: Dataset
    questions: tuple[RecallQuestion, ...]
    names: tuple[str, ...]
    total: int


def random_subset(things: Sequence[Thing], count: int, *stream: str | int) -> list[Thing]:
    """Up to `count` of the things in random order; a smaller count gives the beginning of a larger one."""
    return [things[place] for place in rng(*stream).permutation(len(things))[:count]]
