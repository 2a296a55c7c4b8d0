"""Judges the predictions of a probe: a finding for every probe, and one conclusion. No model is needed.

The p-values of all probes are adjusted together (Holm 1979).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from linkcontext.evaluation.grounding import probes
from linkcontext.evaluation.grounding.probe import Comparison
from linkcontext.evaluation.grounding.results import ConditionResults, Figure
from linkcontext.evaluation.intervals import Interval
from linkcontext.evaluation.power import LEVEL, detectable, holm
from linkcontext.evaluation.text import format_share, join_words
from linkcontext.records import Episode, Prediction

# Shares of the effect of a model that always follows the support. An effect below MIN_EFFECT is a trace, however small
# its p-value. The conclusion is "does not link" only if the intervals of all required effects end below MAX_ABSENT.
MIN_EFFECT, MAX_ABSENT = 0.1, 0.25


@dataclass(frozen=True, slots=True)
class Finding:
    """A judged probe. `passes` is true if the effect is more than a trace and significant after Holm's adjustment.

    The other fields are those of `Comparison` and `Effect`; `detectable` is the smallest effect that would pass.
    """

    probe: str
    linker: str
    figures: tuple[Figure, ...]
    measured: str
    effect: float
    ci95: Interval
    p: float
    p_holm: float
    full: float
    detectable: float | None
    n_queries: int
    n_episodes: int
    n_pictures: int
    passes: bool
    verdict: str


def judge_predictions(model: str, episodes: Mapping[str, Episode], predictions: Iterable[Prediction]) -> dict[str, Any]:
    """The content of probe.json: `conclusion` (links, partly, does not link, not shown), `sentence`, and the rest."""
    results = ConditionResults.of(episodes, predictions)
    findings = judge_all(results)
    conclusion, sentence = conclude(model, findings, results)
    return {
        "conclusion": conclusion,
        "sentence": sentence,
        "findings": [asdict(finding) for finding in findings],
        "rows": list(results.rows.values()),
    }


def judge_all(results: ConditionResults) -> list[Finding]:
    """A finding for every probe of the table whose conditions were predicted."""
    comparisons = {probe.name: probe.compare(results) for probe in probes.PROBES if results.has(probe.conditions)}
    adjusted = holm([comparison.effect.p for comparison in comparisons.values()])
    return [judge(name, compared, p) for (name, compared), p in zip(comparisons.items(), adjusted, strict=True)]


def conclude(model: str, findings: Sequence[Finding], results: ConditionResults) -> tuple[str, str]:
    """Summarise all findings in one word and one sentence."""
    required = {probe.name for probe in probes.PROBES if probe.required}
    reach = {probe.name: probe.reach for probe in probes.PROBES if probe.reach}
    linking = [f for f in findings if f.probe in required]
    passed, failed = ([f.probe for f in linking if f.passes is truth] for truth in (True, False))
    shown = results.figure("", "shown")
    low, high = map(format_share, shown.ci95)
    right = f"{format_share(shown.accuracy)} [{low}, {high}] of {shown.n_queries:,} queries"
    if not failed:
        far, not_far = ([reach[f.probe] for f in findings if f.probe in reach and f.passes is t] for t in (True, False))
        beyond = f" It does so {join_words(far)}." if far else ""
        beyond += f" Not shown: that it does so {join_words(not_far)}." if not_far else ""
        return "links", (
            f"{model} links: it gives {right} the right one of names that it cannot know, where chance is "
            f"{format_share(shown.chance)}, follows the names it is shown, and loses this without the pictures.{beyond}"
        )
    if passed:
        return "partly", (
            f"{model} links in part: as a linker's are its answers to {join_words(passed)}; those to "
            f"{join_words(failed)} are not."
        )
    least = max(f.detectable or 1.0 for f in linking)
    if all(f.ci95[1] <= MAX_ABSENT * f.full for f in linking):
        return "does not link", (
            f"{model} does not link: it gives {right} the right name, where chance is {format_share(shown.chance)}, "
            "and nothing that was done to pictures and names changes that as it would for a model that links."
        )
    return "not shown", (
        f"Nothing shows that {model} links, and so few episodes could have shown only effects above "
        f"{format_share(least)}: ask for more --episodes."
    )


def _why_not(value: float, least: float | None, p_holm: float) -> str:
    """Why an effect that is not significant shows nothing. `least` is the smallest that would, of one probe alone."""
    if least is None:
        return "one episode shows nothing"
    if value > least:
        return (
            f"the effect could be chance: adjusted for all probes, p is {format_share(p_holm)}; ask for more --episodes"
        )
    return f"an effect above {format_share(least)} would show"


def judge(name: str, comparison: Comparison, p_holm: float) -> Finding:
    """Judge a probe by its effect and the adjusted p-value."""
    e = comparison.effect
    significant, least = p_holm <= LEVEL, detectable(e.ci95, min(e.n_episodes, e.n_pictures))
    passes = significant and e.value >= MIN_EFFECT * e.full
    verdict = comparison.yes if passes else comparison.no
    if significant and not passes:
        verdict += f" but in a trace, {format_share(e.value)} of {format_share(e.full)}"
    elif not passes:
        verdict += f" ({_why_not(e.value, least, p_holm)})"
    return Finding(
        name,
        comparison.linker,
        comparison.figures,
        comparison.measured,
        e.value,
        e.ci95,
        e.p,
        p_holm,
        e.full,
        least,
        e.n_queries,
        e.n_episodes,
        e.n_pictures,
        passes,
        verdict + comparison.more,
    )
