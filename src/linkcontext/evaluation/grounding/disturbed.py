"""Comparisons of probes that disturb a support: an irrelevant example, the relevant one elsewhere, a contradiction.

The first two are weaknesses that SMMILE found in medical models (arXiv 2506.21355); that models learn least what
contradicts what they know was found with NVRD (arXiv 2606.05409).
"""

from linkcontext.evaluation.grounding.effects import Effect, paired_difference
from linkcontext.evaluation.grounding.probe import Comparison
from linkcontext.evaluation.grounding.results import ConditionResults
from linkcontext.evaluation.text import format_difference


def compare_noise(results: ConditionResults) -> Comparison:
    """One irrelevant example in the support: accuracy above chance where it stands in the weaker place."""
    conditions = {"irrelevant example first": "noise-first", "irrelevant example last": "noise-last"}
    label, effect, figures = results.weakest_above_chance(conditions, "noise")
    loss = _difference(results, "shown", conditions[label], "noise loss")
    costs = f"; the {label} costs it {_with_interval(loss)}"
    return Comparison(
        "is as right with an irrelevant example as without",
        (results.figure("as drawn", "shown"), *figures),
        f"in the weaker place, {label}",
        effect,
        "it is right with an irrelevant example too",
        "nothing shows that it is right with an irrelevant example",
        costs if loss.ci95[0] > 0 else f"; nothing shows that the example costs it anything, {_with_interval(loss)}",
    )


def compare_relevant(results: ConditionResults) -> Comparison:
    """An example of the query's class first or last: accuracy above chance in the weaker place, and the difference."""
    conditions = {"relevant first": "relevant-first", "relevant last": "relevant-last"}
    label, effect, figures = results.weakest_above_chance(conditions, "relevant")
    recency = _difference(results, "relevant-last", "relevant-first", "recency")
    if recency.ci95[0] > 0:
        more = f"; the last place helps it, by {_with_interval(recency)} over the first"
    elif recency.ci95[1] < 0:
        more = f"; the last place harms it, by {_with_interval(recency)} against the first"
    else:
        more = f"; nothing shows that first or last matters to it, {_with_interval(recency)}"
    return Comparison(
        "is as right with the most relevant example first as last",
        (results.figure("as drawn", "shown"), *figures),
        f"in the weaker place, {label}",
        effect,
        "it is right wherever the most relevant example stands",
        "nothing shows that it is right wherever the most relevant example stands",
        more,
    )


def compare_contradiction(results: ConditionResults) -> Comparison:
    """Names that say the opposite of the other examples, or of what the model knows: accuracy by the names that most
    examples show, above chance in the weakest condition.
    """
    conditions = {
        "one example contradicts, first": "contradicted-first",
        "one example contradicts, last": "contradicted-last",
        "all contradict what it knows": "swapped",
    }
    label, effect, figures = results.weakest_above_chance(conditions, "contradiction")
    weaker = min(("contradicted-first", "contradicted-last"), key=lambda name: results.row(name)["accuracy"])
    one, known = (_difference(results, "shown", name, "contradiction loss", name) for name in (weaker, "swapped"))
    return Comparison(
        "follows what most examples say, also against what it knows",
        (results.figure("no contradiction", "shown"), *figures),
        f"in the weakest, {label}",
        effect,
        "it follows what most examples say, also against one of them and against what it knows",
        "nothing shows that it follows what most examples say against one of them and against what it knows",
        f"; one example costs it {_with_interval(one)}, contradicting what it knows {_with_interval(known)}",
    )


def _difference(results: ConditionResults, condition: str, other: str, *stream: str) -> Effect:
    """The accuracy of a condition minus that of another, on the same queries."""
    return paired_difference(results.at(condition), results.at(other), 1.0, *stream)


def _with_interval(effect: Effect) -> str:
    low, high = map(format_difference, effect.ci95)
    return f"{format_difference(effect.value)} [{low}, {high}]"
