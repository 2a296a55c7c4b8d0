"""The table of probes: the conditions of each, and what they show of a model.

To add a probe, add a `GroundingProbe` to `PROBES` (docs/adding.md).
"""

from collections.abc import Callable

from linkcontext.evaluation.grounding import changes
from linkcontext.evaluation.grounding.disturbed import compare_contradiction, compare_noise, compare_relevant
from linkcontext.evaluation.grounding.effects import agreement, paired_difference, pairs_above_chance, weakest
from linkcontext.evaluation.grounding.probe import Comparison, GroundingProbe
from linkcontext.evaluation.grounding.results import ConditionResults, Figure
from linkcontext.evaluation.metrics import support_position
from linkcontext.evaluation.text import format_share, join_words
from linkcontext.models.synthetic_images import BLANK

FALSE_SHARES = (0.25, 0.5, 0.75, 1.0)  # of a support's names
ORDERS = 3  # besides the one that is drawn


def compare_label_swap(results: ConditionResults) -> Comparison:
    """Real names swapped: accuracy by the names that are shown, above chance."""
    shown, row = results.figure("by the names shown", "swapped"), results.row("swapped")
    knows = shown.ci95[1] < shown.chance
    return Comparison(
        "gives the name that is shown, as often as with new names",
        (shown,),
        "with real names swapped",
        pairs_above_chance(results.at("swapped"), "swap"),
        "it gives the name that is shown, whatever it is called otherwise",
        "it gives the names it knew instead" if knows else "nothing shows that it follows swapped names",
        f"; the true name in {format_share(row['truth'])}",
    )


def compare_false_labels(results: ConditionResults) -> Comparison:
    """False names in the support: accuracy without any minus accuracy when all are false."""
    curve = [results.figure(f"{part:.0%} false", f"false-{part:g}") for part in FALSE_SHARES]
    return Comparison(
        "gives the true name ever less often, and is below chance when all are false",
        (results.figure("none false", "shown"), *curve),
        "none false less all false",
        paired_difference(results.at("shown"), results.at(f"false-{FALSE_SHARES[-1]:g}"), 1.0, "false"),
        "it believes the names that it is shown",
        "nothing shows that it believes the names that it is shown",
    )


def compare_without(condition: str, label: str, yes: str, no: str) -> Callable[[ConditionResults], Comparison]:
    """A support that tells nothing: accuracy as drawn minus accuracy under the condition."""

    def compare(results: ConditionResults) -> Comparison:
        drawn = results.figure("as drawn", "shown")
        return Comparison(
            "falls to chance",
            (drawn, results.figure(label, condition)),
            f"as drawn less {label}",
            paired_difference(results.at("shown"), results.at(condition), 1 - drawn.chance, condition),
            yes,
            no,
        )

    return compare


def compare_new_names(results: ConditionResults) -> Comparison:
    """Invented names: accuracy above chance, beside that of real names with a support and without."""
    known = results.figure("real, not shown", "real", 0)
    knows = known.ci95[0] > known.chance
    return Comparison(
        "is right with invented names too; without a support knows only what it was taught",
        (results.figure("invented", "shown"), results.figure("real", "real"), known),
        "with invented names",
        pairs_above_chance(results.at("shown"), "names"),
        "it is right with names that it cannot know",
        "nothing shows that it is right with names that it cannot know",
        "; it knows real names without being shown" if knows else "",
    )


def compare_orders(results: ConditionResults) -> Comparison:
    """Other orders of the support: accuracy above chance in the weakest, and agreement between two."""
    conditions = {f"order {i}": name for i, name in enumerate(("shown", *results.conditions("order-")), 1)}
    effects = {label: pairs_above_chance(results.at(name), "order", name) for label, name in conditions.items()}
    label, effect = weakest(effects)
    same, (low, high) = agreement([results.at(name) for name in conditions.values()])
    return Comparison(
        "is right in every order, and says the same",
        tuple(results.figure(label, name) for label, name in conditions.items()),
        f"in the weakest, {label}",
        effect,
        "it is right in every order",
        "nothing shows that it is right in every order",
        f"; two orders get the same answer in {format_share(same)} [{format_share(low)}, {format_share(high)}]",
    )


def compare_places(results: ConditionResults) -> Comparison:
    """One picture of each class: accuracy above chance for queries of the class at the weakest place."""
    # With 1 shot per class all conditions have single pictures. Only these have drawn supports and the run's own
    # wording.
    names = [name for name in ("shown", *results.conditions("ways-")) if (name, 1) in results.pairs]
    ways, condition = max((results.pairs[name, 1][0][0].ways, name) for name in names)
    pairs = results.pairs[condition, 1]
    accuracy_by_position = [[(e, p) for e, p in pairs if support_position(e, p.gold) == place] for place in range(ways)]
    chance = 1 / ways
    effects = {
        f"place {place + 1} of {ways}": pairs_above_chance(queries, "place", place)
        for place, queries in enumerate(accuracy_by_position)
    }
    figures = tuple(
        Figure(label, e.value + chance, (e.ci95[0] + chance, e.ci95[1] + chance), e.n_queries, chance)
        for label, e in effects.items()
    )
    label, effect = weakest(effects)
    return Comparison(
        "reads every place of the support",
        figures,
        f"one picture of each class, at the weakest, {label}",
        effect,
        "it reads every place",
        "nothing shows that it reads every place",
    )


def compare_wordings(results: ConditionResults) -> Comparison:
    """Other scaffolds: accuracy above chance in the weakest."""
    conditions = {"its own": "shown"} | {name.removeprefix("wording-"): name for name in results.conditions("wording-")}
    label, effect, figures = results.weakest_above_chance(conditions, "wording")
    return Comparison(
        "is right in other words too",
        figures,
        f"in the weakest, {label}",
        effect,
        "it is right in every wording tried",
        "nothing shows that it is right in every wording tried",
    )


def compare_ways(results: ConditionResults) -> Comparison:
    """Other numbers of classes: accuracy above chance with the weakest."""
    by_ways = {results.at(name)[0][0].ways: name for name in ("shown", *results.conditions("ways-"))}
    conditions = {f"{ways} ways": by_ways[ways] for ways in sorted(by_ways)}
    label, effect, figures = results.weakest_above_chance(conditions, "ways")
    return Comparison(
        "is above chance among more names too",
        figures,
        f"with the weakest, {label}",
        effect,
        f"it is above chance with {join_words([str(ways) for ways in sorted(by_ways)])} ways",
        "nothing shows that it is above chance with every number of ways",
    )


PROBES: tuple[GroundingProbe, ...] = (
    GroundingProbe("label swap", compare_label_swap, {"swapped": changes.redraw(names="swapped")}, required=True),
    GroundingProbe(
        "false labels",
        compare_false_labels,
        {f"false-{part:g}": changes.redraw(false_labels=part) for part in FALSE_SHARES},
        required=True,
    ),
    GroundingProbe(
        "shuffled pictures",
        compare_without(
            "shuffled",
            "pictures shuffled",
            "it matters which picture has which name",
            "nothing shows that it matters which picture has which name",
        ),
        {"shuffled": changes.shuffle_pictures},
        required=True,
    ),
    GroundingProbe(
        "blank pictures",
        compare_without(
            "blank",
            "supports grey",
            "it needs to see the support's pictures",
            "nothing shows that it looks at the support's pictures",
        ),
        {"blank": changes.with_support_pictures(BLANK)},
        required=True,
    ),
    GroundingProbe(
        "no pictures",
        compare_without(
            "none",
            "support without pictures",
            "it needs the support's pictures",
            "nothing shows that it needs the support's pictures",
        ),
        {"none": changes.with_support_pictures("")},
        required=True,
    ),
    GroundingProbe(
        "order",
        compare_orders,
        {f"order-{number}": changes.reorder_support(number) for number in range(1, ORDERS + 1)},
        reach="in every order",
    ),
    GroundingProbe("place", compare_places, reach="wherever a picture stands"),
    GroundingProbe(
        "new names", compare_new_names, {"real": changes.redraw_with_no_support(names="real")}, required=True
    ),
    GroundingProbe("wording", compare_wordings, reach="in every wording tried"),
    GroundingProbe("ways", compare_ways, reach="with every number of ways tried"),
    GroundingProbe(
        "noise",
        compare_noise,
        {f"noise-{place}": changes.add_irrelevant(place) for place in changes.PLACES},
        reach="with an irrelevant example in the support",
        extends=True,
    ),
    GroundingProbe(
        "relevant last",
        compare_relevant,
        {f"relevant-{place}": changes.move_relevant(place) for place in changes.PLACES},
        reach="wherever the most relevant example stands",
    ),
    GroundingProbe(
        "contradiction",
        compare_contradiction,
        {f"contradicted-{place}": changes.add_contradiction(place) for place in changes.PLACES},
        reach="against names that contradict the other examples or what it knows",
        extends=True,
    ),
)
