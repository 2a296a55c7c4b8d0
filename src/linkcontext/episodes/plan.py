"""Plans: which episodes to draw, and checks that a plan is possible."""

from dataclasses import dataclass
from typing import Literal, get_args

from linkcontext.data.manifest import Dataset
from linkcontext.episodes.names import NameKind
from linkcontext.errors import InputError, first_few

Negatives = Literal["random", "neighbours"]
Rule = Literal["nearest", "topk", "linear", "intervals"]
Order = Literal["rounds", "shuffled"]
Coherence = Literal["concept", "task", "none"]
Form = Literal["open", "choice", "caption", "mixed"]
LETTERS = "ABCDEFGH"  # the letters before the options of a choice


@dataclass(frozen=True, slots=True)
class EpisodePlan:
    """Episodes that link classes to names. Shots are per class: a support has ways x max(shots_per_class) pictures."""

    ways: int = 2
    shots_per_class: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    episodes: int = 256
    queries: int | None = None  # queries of an episode, a multiple of ways; None: one of each class
    names: NameKind = "pseudo"
    negatives: Negatives = "random"
    rule: Rule = "nearest"  # which neighbours of the first class are in its episode
    order: Order = "rounds"
    seed: int = 0
    support_split: str | None = None  # None: pictures of any split
    query_split: str | None = None
    # Support and query pictures of a class never share a group; "" counts as a group like any other.
    groups_apart: bool = False
    false_labels: float = 0.0  # probability that a support picture has the name of another class of its episode

    @property
    def queries_per_class(self) -> int:
        """The number of queries of each class in an episode."""
        return 1 if self.queries is None else self.queries // self.ways


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """Episodes of questions about tasks (`episodes.questions`). `shots` counts the pictures of the whole support.

    `tasks` names tasks, or subjects as task/concept; if it is empty, all of the data's.
    """

    tasks: tuple[str, ...] = ()
    coherence: Coherence = "concept"
    form: Form = "open"
    options: int = 4  # maximum number of different answers in an episode
    balanced: bool = False  # a support shows every option once before one is repeated
    shots: tuple[int, ...] = (0, 1, 2, 4, 8)
    episodes: int = 256
    names: NameKind = "pseudo"  # the names of invented answers
    seed: int = 0
    support_split: str | None = None
    query_split: str | None = None
    only: bool = False  # supports without coherence are about `tasks` too, and not about all tasks of the data
    text_only: bool = False  # the answer is stated before the question, and no picture is shown


def check_link_plan(plan: EpisodePlan, dataset: Dataset) -> None:
    """Raise `InputError` for a plan that contradicts itself, or that needs splits or groups that the data lack."""
    shots, splits = plan.shots_per_class, {item.split for item in dataset.items}
    kinds = ((plan.names, NameKind), (plan.negatives, Negatives), (plan.rule, Rule), (plan.order, Order))
    for chosen, kind in kinds:
        if chosen not in get_args(kind):
            raise InputError(f"{chosen!r} is not one of {', '.join(get_args(kind))}.")
    if plan.ways < 2 or plan.episodes < 1:
        raise InputError(f"ways={plan.ways}, episodes={plan.episodes}: give at least 2 ways and 1 episode.")
    if not shots or min(shots) < 0 or len(set(shots)) < len(shots):
        raise InputError(f"shots_per_class {shots}: give one or more different numbers, none below 0.")
    if plan.queries is not None and (plan.queries < 1 or plan.queries % plan.ways):
        raise InputError(
            f"{plan.queries} queries for {plan.ways} ways: every class must be queried equally often. "
            f"Give a multiple of {plan.ways}."
        )
    if not 0 <= plan.false_labels <= 1:
        raise InputError(f"false labels {plan.false_labels:g}: give a probability from 0 to 1.")
    for split in (plan.support_split, plan.query_split):
        if split is not None and split not in splits:
            there = first_few(sorted(repr(each) for each in splits))
            raise InputError(f"{dataset.root}: no picture is in the split {split!r}; the splits are {there}.")
    if plan.groups_apart and not any(item.group for item in dataset.items):
        raise InputError(f"{dataset.root}: no picture has a group, so groups cannot be kept apart.")


def check_task_plan(plan: TaskPlan) -> None:
    """Raise `InputError` for a plan that contradicts itself."""
    if not 2 <= plan.options <= len(LETTERS):
        raise InputError(f"--options {plan.options}: give 2 to {len(LETTERS)}.")
    if plan.episodes < 1 or not plan.shots or min(plan.shots) < 0:
        raise InputError(
            f"--shots-per-class {plan.shots}, --episodes {plan.episodes}: give at least one, none below 0."
        )
    if plan.balanced and plan.coherence != "concept":
        raise InputError(
            f"--balanced: not with --coherence {plan.coherence}, whose turns have other answers. Leave one out."
        )
