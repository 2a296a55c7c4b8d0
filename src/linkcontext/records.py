"""The nouns: frozen records. Stages exchange ids and never pixels; `linkcontext.jsonl` writes records to files.

Question    a question about one picture or several, and its right answer
Item        one picture of one class
Turn        one picture or several, a question and its answer
Episode     support turns, queries, and the candidate names that a query is decided among
Prediction  a model's scores and reply for one query after a number of shots per class
"""

from dataclasses import dataclass, field
from typing import Any

from linkcontext import _old_modules


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a picture. Questions of one concept ask the same thing: an answer to one informs the next."""

    task: str  # attribute, count, relation, ...
    concept: str  # of the task: colour, parts, left-right, ...
    question: str
    answer: str
    candidates: tuple[str, ...] = ()  # the possible answers; empty if the answer is free text
    others: tuple[str, ...] = ()  # ids of further pictures of the question, shown after the item that has it
    split: str = ""  # empty: the item's split
    context: str = ""  # questions of different contexts never share a conversation, because their names differ


@dataclass(frozen=True, slots=True)
class Item:
    """One picture. `id` is unique in its data set; `path` is relative to the data set's root."""

    id: str
    path: str
    class_id: str
    name: str  # the class name that people use; two classes may share a name, but never an id
    sha256: str  # of the file's bytes
    split: str = ""
    group: str = ""  # pictures of one source (one writer, one camera, one film), by file name
    facts: dict[str, Any] = field(default_factory=dict)  # ground truth, if it is known
    questions: tuple[Question, ...] = ()  # questions that the annotations answer, besides the class
    pixels: str = ""  # a hash of the decoded pixels; empty if the picture has not been decoded yet

    @property
    def content(self) -> str:
        """A hash that copies of a picture share, whatever their file format."""
        return self.pixels or self.sha256

    def splits(self, turn: "Turn | None" = None) -> set[str]:
        """The splits of the item's questions, or only of those that `turn` may ask; its own split without questions."""
        splits = [
            question.split or self.split
            for question in self.questions
            if turn is None or (question.others == turn.others and question.question in turn.question)
        ]
        return {*splits} or {self.split}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A class of an episode. `name` is its name in the episode, `truth` the name that people use."""

    class_id: str
    name: str
    truth: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A picture, a question about it and the right answer.

    An empty `question` stands for the scaffold's own, an empty `item` for no picture. `others` are further pictures,
    shown after `item`.
    """

    item: str
    class_id: str
    answer: str
    question: str = ""
    others: tuple[str, ...] = ()

    @property
    def pictures(self) -> tuple[str, ...]:
        """The ids of all pictures of the turn, in order."""
        return (self.item, *self.others) if self.item else ()


@dataclass(frozen=True, slots=True)
class Episode:
    """A support, and queries to answer from it.

    With `order="rounds"` the support consists of rounds, each of which has every class once. Its first `ways * k`
    turns are therefore a balanced support of `k` shots per class, for every `k` in `shots_per_class`. With
    `order="shuffled"` an episode has one shot count, and its whole support is shuffled.
    """

    id: str
    task: str
    names: str  # real | pseudo | random | swapped
    ways: int
    shots_per_class: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    support: tuple[Turn, ...]
    queries: tuple[Turn, ...]

    def shown(self, shots_per_class: int) -> tuple[Turn, ...]:
        """The support turns in a query's prompt at `shots_per_class`."""
        return self.support[: self.ways * shots_per_class]

    def query_id(self, index: int) -> str:
        """The id of the query at `index`."""
        return f"{self.id}/q{index}"


@dataclass(frozen=True, slots=True)
class Score:
    """A candidate's log-probability in nats, summed over its `tokens`, of which the last one ends the answer.

    `prior_logprob` is the mean, over the pictures of the support, of the candidate's log-probability among the
    candidates: how much the model prefers the name regardless of the picture. `head_logprob` is the candidate's
    log-probability among the candidates by the head that `--head` names.
    """

    class_id: str
    name: str
    logprob: float
    null_logprob: float | None  # with the same support and a mean-grey query picture; None if it was not scored
    tokens: int
    prior_logprob: float | None = None  # None if it was not scored, and without a support
    head_logprob: float | None = None  # None without another head than the language model, and without a support


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's scores and reply for one query. All metrics are computed from episodes and predictions alone."""

    episode_id: str
    query_id: str
    shots_per_class: int
    candidates: tuple[Score, ...]  # empty if only a reply was generated
    gold: str  # the right class id
    reply: str | None  # None if only likelihoods were scored
    correct: dict[str, bool]  # by scoring
    prompt_sha256: str
    support_ids: tuple[str, ...]  # the first picture of each support turn
    baselines: dict[str, str | None] = field(default_factory=dict)  # policy -> the class id that it answers
    engine: str = ""  # the engine that computed it; empty in files of earlier versions


def __getattr__(name: str) -> Any:
    """Functions that are in `linkcontext.jsonl` since 0.2."""
    return _old_modules.moved(__name__, name)
