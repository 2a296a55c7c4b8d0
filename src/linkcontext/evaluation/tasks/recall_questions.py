"""Questions without a support, which measure whether a model still knows what it was taught, and their answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import Message
from linkcontext.seeds import rng

Thing = TypeVar("Thing")

CHOICES = 10  # candidates of a naming question that is scored by likelihood


@dataclass(frozen=True, slots=True)
class RecallQuestion:
    """A question and its right answer. `messages` is the prompt.

    `gold` is one answer, or those of several people. `candidates` is not empty if the question is also scored by
    likelihood. Questions of one `cluster`, which is a class or a picture, are not independent.
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
    """Questions and their pictures.

    `names` are the names that a reply may give, and `total` is the number of questions that the data have. `metrics`
    maps tasks to the metric of their replies (`retention_rows`); a world's and a file's own tasks need none.
    """

    dataset: Dataset
    questions: tuple[RecallQuestion, ...]
    names: tuple[str, ...]
    total: int
    metrics: Mapping[str, str] = field(default_factory=dict)


def random_subset(things: Sequence[Thing], count: int, *stream: str | int) -> list[Thing]:
    """Up to `count` of the things in random order; a smaller count gives a prefix of a larger one."""
    return [things[place] for place in rng(*stream).permutation(len(things))[:count]]
