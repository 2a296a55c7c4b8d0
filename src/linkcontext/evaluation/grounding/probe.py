"""A probe: conditions under which the same episodes are asked, and what is compared between them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from linkcontext.evaluation.grounding.effects import Effect
from linkcontext.evaluation.grounding.results import ConditionResults, Figure
from linkcontext.records import Episode, Item


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a probe measured, before it is judged beside the others.

    Attributes:
        linker: What a model that links would show.
        figures: The accuracies that are compared.
        measured: The effect in words.
        effect: The effect. If the probe compares several things, that of the weakest.
        yes, no: The verdict if the effect passes, and if it does not. `more` is added to both.
    """

    linker: str
    figures: tuple[Figure, ...]
    measured: str
    effect: Effect
    yes: str
    no: str
    more: str = ""


@dataclass(frozen=True, slots=True)
class DrawnEpisodes:
    """The episodes of a probe, as its conditions change them.

    `episodes` are those of the condition `shown`, at the largest shots per class alone. `redraw` draws episodes with
    the same queries and other options of `EpisodePlan`, for example `redraw(false_labels=0.5)`. `pictures` are those
    that a support may show.
    """

    episodes: Sequence[Episode]
    redraw: Callable[..., Sequence[Episode]]
    pictures: Sequence[Item] = ()

    @property
    def shots_per_class(self) -> int:
        """The largest shots per class."""
        return self.episodes[0].shots_per_class[-1]


@dataclass(frozen=True, slots=True)
class GroundingProbe:
    """One way to ask whether answers come from the pictures.

    Attributes:
        name: The name in reports.
        compare: What the results of all conditions show.
        conditions: Episodes by the name of the condition. The conditions `shown`, `ways-N` and `wording-NAME` are
            always there (`grounding.conditions`).
        required: A model that links must pass this probe.
        reach: For a probe that is not required: how the conclusion says that it passes, as in "in every order".
        extends: The conditions add to the support, so the data or the model's context may be too small for them. The
            probe is then left out, with the reason.
    """

    name: str
    compare: Callable[[ConditionResults], Comparison]
    conditions: Mapping[str, Callable[[DrawnEpisodes], Iterable[Episode]]] = field(default_factory=dict)
    required: bool = False
    reach: str = ""
    extends: bool = False
