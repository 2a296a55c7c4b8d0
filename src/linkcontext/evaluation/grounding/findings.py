"""Judge what a probe's conditions show: a finding for every probe, and one conclusion. Needs no model.

The effects come from `comparisons`; their p-values are adjusted together (Holm).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from linkcontext.evaluation.grounding.comparisons import PROBES, Comparison, ConditionResults, Figure
from linkcontext.evaluation.intervals import Interval
from linkcontext.evaluation.power import LEVEL, detectable, holm
from linkcontext.evaluation.text import listed, share
from linkcontext.records import Episode, Prediction

# Effects as shares of what a model that always follows the support shows. Below the first an effect is a trace, however
# sure; "does not link" is said only where every effect that linking has is surely below the second.
TRACE, WORTH = 0.1, 0.25
LINKING = ("label swap", "false labels", "shuffled pictures", "blank pictures", "no pictures", "new names")
REACH = {
    "order": "in every order",
    "place": "wherever a picture stands",
    "wording": "in every wording tried",
    "ways": "with every number of ways tried",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One probe. `effect` is of `measured`; `passes`: it is no trace, and no chance after Holm's adjustment."""

    probe: str
    linker: str  # what a model that links would show
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
    """`conclusion` (links, partly, does not link, not shown), `sentence`, `findings` and `rows`, as JSON has them."""
    answers = ConditionResults.of(episodes, predictions)
    findings = judge_all(answers)
    conclusion, sentence = conclude(model, findings, answers)
    return {
        "conclusion": conclusion,
        "sentence": sentence,
        "findings": [asdict(finding) for finding in findings],
        "rows": list(answers.rows.values()),
    }


def judge_all(answers: ConditionResults) -> list[Finding]:
    """Judge every probe."""
    probes = [make(answers) for make in PROBES]
    adjusted = holm([probe.effect.p for probe in probes])
    return [judged(probe, p) for probe, p in zip(probes, adjusted, strict=True)]


def conclude(model: str, findings: Sequence[Finding], answers: ConditionResults) -> tuple[str, str]:
    """Sum up all findings in one word and one sentence."""
    linking = [f for f in findings if f.probe in LINKING]
    passed, failed = ([f.probe for f in linking if f.passes is truth] for truth in (True, False))
    shown = answers.figure("", "shown")
    right = f"{share(shown.accuracy)} [{share(shown.ci95[0])}, {share(shown.ci95[1])}] of {shown.n_queries:,} queries"
    if not failed:
        far, not_far = ([REACH[f.probe] for f in findings if f.probe in REACH and f.passes is t] for t in (True, False))
        beyond = f" It does so {listed(far)}." if far else ""
        beyond += f" Not shown: that it does so {listed(not_far)}." if not_far else ""
        return "links", (
            f"{model} links: it gives {right} the right one of names that it cannot know, where chance is "
            f"{share(shown.chance)}, follows the names it is shown, and loses this without the pictures.{beyond}"
        )
    if passed:
        return "partly", (
            f"{model} links in part: as a linker's are its answers to {listed(passed)}; those to {listed(failed)} "
            "are not."
        )
    least = max(f.detectable or 1.0 for f in linking)
    if all(f.ci95[1] <= WORTH * f.full for f in linking):
        return "does not link", (
            f"{model} does not link: it gives {right} the right name, where chance is {share(shown.chance)}, and "
            "nothing that was done to pictures and names changes that as it would for a model that links."
        )
    return "not shown", (
        f"Nothing shows that {model} links, and so few episodes could have shown only effects above {share(least)}: "
        "ask for more --episodes."
    )


def judged(probe: Comparison, p_holm: float) -> Finding:
    """Judge a probe by its adjusted p-value."""
    e = probe.effect
    surely, least = p_holm <= LEVEL, detectable(e.ci95, min(e.n_episodes, e.n_pictures))
    passes = surely and e.value >= TRACE * e.full
    verdict = probe.yes if passes else probe.no
    if surely and not passes:
        verdict += f" but in a trace, {share(e.value)} of {share(e.full)}"
    elif not passes:
        verdict += " (one episode shows nothing)" if least is None else f" (an effect above {share(least)} would show)"
    return Finding(
        probe.name,
        probe.linker,
        probe.figures,
        probe.measured,
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
        verdict + probe.more,
    )
