"""What episodes and conversations to draw, and whether that can be asked for."""

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
LETTERS = "ABCDEFGH"  # of the options of a choice


@dataclass(frozen=True, slots=True)
class EpisodePlan:
    """What to draw. Shots are per class: an episode's support has ways x max(shots_per_class) pictures."""

    ways: int = 2
    shots_per_class: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    episodes: int = 256
    queries: int | None = None  # of all classes together, a multiple of ways; None: one of each class
    names: NameKind = "pseudo"
    negatives: Negatives = "random"
    rule: Rule = "nearest"  # which neighbours meet the first class
    order: Order = "rounds"
    seed: int = 0
    support_split: str | None = None  # None: pictures of any split
    query_split: str | None = None
    # No support picture shares its group with a query picture of its class; "" is a group like any other.
    groups_apart: bool = False
    false_labels: float = 0.0  # how likely a support picture has the name of another class of its episode

    @property
    def queries_per_class(self) -> int:
        """How often each class is queried in an episode."""
        return 1 if self.queries is None else self.queries // self.ways


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """What conversations to draw (`episodes.questions`). `shots` are counted in all. `tasks` are tasks, or subjects as
    task/concept; none: all there are."""

    tasks: tuple[str, ...] = ()
    coherence: Coherence = "concept"
    form: Form = "open"
    options: int = 4  # answers in play, at most
    balanced: bool = False  # every option once in a support before one comes again
    shots: tuple[int, ...] = (0, 1, 2, 4, 8)
    episodes: int = 256
    names: NameKind = "pseudo"  # of invented answers
    seed: int = 0
    support_split: str | None = None
    query_split: str | None = None
    only: bool = False  # supports without coherence are about `tasks` too; else about all there are
    said: bool = False  # what is seen is said in front of the question, and no picture is shown


def check_link_plan(plan: EpisodePlan, dataset: Dataset) -> None:
    """A plan that contradicts itself, or asks for what the data set does not know."""
    shots, splits = plan.shots_per_class, {item.split for item in dataset.items}
    kinds = ((plan.names, NameKind), (plan.negatives, Negatives), (plan.rule, Rule), (plan.order, Order))
    for chosen, kind in kinds:
        if chosen not in get_args(kind):
            raise InputError(f"{chosen!r} is none of {', '.join(get_args(kind))}.")
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
        raise InputError(f"false labels {plan.false_labels:g}: give a share from 0 to 1.")
    for split in (plan.support_split, plan.query_split):
        if split is not None and split not in splits:
            there = first_few(sorted(repr(each) for each in splits))
            raise InputError(f"{dataset.root}: no picture is of the split {split!r}; there is {there}.")
    if plan.groups_apart and not any(item.group for item in dataset.items):
        raise InputError(f"{dataset.root}: no picture has a group, so groups cannot be kept apart.")


def check_task_plan(plan: TaskPlan) -> None:
    """Raises `InputError` for a plan that cannot be."""
    if not 2 <= plan.options <= len(LETTERS):
        raise InputError(f"--options {plan.options}: give 2 to {len(LETTERS)}.")
    if plan.episodes < 1 or not plan.shots or min(plan.shots) < 0:
        raise InputError(f"--shots {plan.shots}, --episodes {plan.episodes}: give at least one, none below 0.")
    if plan.balanced and plan.coherence != "concept":
        raise InputError(f"--balanced: with --coherence {plan.coherence} turns are about other answers. Leave one out.")
