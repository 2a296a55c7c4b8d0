"""Rows of metrics, computed from episodes and predictions alone.

A row never has an accuracy alone: beside it are its intervals, the number of queries, the chance level, policies that
ignore the query picture, and nearest neighbours in the model's own vision features.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from linkcontext.episodes.ids import drawn_as
from linkcontext.errors import InputError
from linkcontext.evaluation import answers
from linkcontext.evaluation.intervals import clustered_wilson, for_new_classes
from linkcontext.evaluation.power import detectable
from linkcontext.records import Candidate, Episode, Prediction, Turn

LIKELIHOODS = ("likelihood_sum", "likelihood_mean", "likelihood_pmi", "likelihood_calibrated")
SCORINGS = (*LIKELIHOODS, "head", "generate")
# A policy with several versions is reported by its best one, because a baseline should be hard to beat.
BASELINES = {
    "copy_first": ("copy_first",),
    "copy_last": ("copy_last",),
    "majority": ("majority",),
    "nearest_centroid": ("nearest_centroid_tokens", "nearest_centroid_pooled"),
    "nearest_support": ("nearest_support_tokens", "nearest_support_pooled"),
}

Row = dict[str, Any]
Pair = tuple[Episode, Prediction]


class Key(NamedTuple):
    """The properties that the queries of one row share."""

    task: str
    names: str
    ways: int
    shots_per_class: int
    scoring: str


def available_scorings(prediction: Prediction) -> tuple[str, ...]:
    """The scorings that a prediction has data for, in the order of `SCORINGS`."""
    scores = prediction.candidates
    available = {
        "likelihood_sum": bool(scores),
        "likelihood_mean": bool(scores),
        "likelihood_pmi": bool(scores) and all(score.null_logprob is not None for score in scores),
        "likelihood_calibrated": bool(scores) and all(score.prior_logprob is not None for score in scores),
        "head": bool(scores) and all(score.head_logprob is not None for score in scores),
        "generate": prediction.reply is not None,
    }
    return tuple(scoring for scoring in SCORINGS if available[scoring])


def candidate_scores(prediction: Prediction, scoring: str) -> dict[str, float]:
    """Class id -> score in nats.

    The score is the summed log-probability, its mean per token, its difference from that with a grey query picture
    (PMI), its difference from the name's prior over the support's pictures (calibrated), or the log-probability that
    the run's head gives. Raises `InputError` for a score that is not finite.
    """
    scores = {}
    for score in prediction.candidates:
        value = {
            "likelihood_sum": score.logprob,
            "likelihood_mean": score.logprob / score.tokens if score.tokens else math.nan,
            "likelihood_pmi": math.nan if score.null_logprob is None else score.logprob - score.null_logprob,
            "likelihood_calibrated": math.nan if score.prior_logprob is None else score.logprob - score.prior_logprob,
            "head": math.nan if score.head_logprob is None else score.head_logprob,
        }[scoring]
        if not math.isfinite(value):
            raise InputError(
                f"predictions.jsonl: {prediction.query_id} at {prediction.shots_per_class} shots per class "
                f"has {value} as {scoring} of {score.name!r}. The model's numbers overflowed; evaluate again with "
                "another --dtype."
            )
        scores[score.class_id] = value
    return scores


def best_candidates(prediction: Prediction, scoring: str, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """The class ids with the best score: several if they tie exactly, none if a reply names none or several."""
    if scoring == "generate":
        matched = answers.match(prediction.reply or "", candidates)
        return () if matched is None else (matched,)
    scores = candidate_scores(prediction, scoring)
    best = max(scores.values())
    return tuple(class_id for class_id, score in scores.items() if score == best)


def chosen_class(prediction: Prediction, scoring: str, candidates: Sequence[Candidate]) -> str | None:
    """The chosen class id; None for an exact tie, and for a reply that names none or several of `candidates`."""
    best = best_candidates(prediction, scoring, candidates)
    return best[0] if len(best) == 1 else None


def credit(prediction: Prediction, scoring: str, candidates: Sequence[Candidate]) -> float:
    """1 for right, 0 for wrong, and 1 / (number tied) if the right class is among tied ones.

    This is the expected value of breaking ties at random. Breaking them by position would reward a blind model for the
    order of the candidates.
    """
    best = best_candidates(prediction, scoring, candidates)
    return 1 / len(best) if prediction.gold in best else 0.0


def metric_rows(episodes: Mapping[str, Episode], predictions: Iterable[Prediction]) -> list[Row]:
    """One row per (task, names, ways, shots per class, scoring), sorted by it, whatever the order of the predictions.

    Decisions are computed from log-probabilities and replies; the stored `correct` is not read. Exact ties count as
    fractions (see `credit`).

    Raises:
        InputError: The episode or the query of a prediction is missing or differs, or a prediction comes twice.
    """
    return [_row(key, pairs) for key, pairs in grouped(episodes, predictions).items()]


class Place(NamedTuple):
    """The accuracy of queries whose class has its only support picture at position `place`, counted from 0."""

    place: int
    accuracy: float
    ci95: tuple[float, float]
    n_queries: int


def accuracy_by_position(pairs: Iterable[Pair], scoring: str) -> list[Place]:
    """Accuracy by the position of the only support picture of the queried class: does a model read the middle too?

    `pairs` are those of `grouped`; only pairs with one shot per class are used.
    """
    places: defaultdict[int, list[tuple[float, str, str]]] = defaultdict(list)
    for episode, prediction in pairs:
        if prediction.shots_per_class == 1:
            worth = credit(prediction, scoring, episode.candidates)
            at = support_position(episode, prediction.gold)
            places[at].append((worth, drawn_as(episode.id), query_picture(episode, prediction)))
    return [
        Place(
            place,
            math.fsum(c for c, *_ in values) / len(values),
            clustered_wilson(*zip(*values, strict=True)),
            len(values),
        )
        for place, values in sorted(places.items())
    ]


def query_picture(episode: Episode, prediction: Prediction) -> str:
    """The id of the query's first picture, or the question if it has no picture."""
    query = episode.queries[int(prediction.query_id.rpartition("/q")[2])]
    return query.item or query.question


def support_position(episode: Episode, class_id: str) -> int:
    """The position of a class in the episode's first round, counted from 0."""
    return [turn.class_id for turn in episode.shown(1)].index(class_id)


def grouped(episodes: Mapping[str, Episode], predictions: Iterable[Prediction]) -> dict[Key, list[Pair]]:
    """The (episode, prediction) pairs of each row, sorted. Raises `InputError` like `metric_rows`."""
    groups: defaultdict[Key, list[Pair]] = defaultdict(list)
    queries = {e.query_id(i): (e, query) for e in episodes.values() for i, query in enumerate(e.queries)}
    seen: set[tuple[str, int]] = set()
    for prediction in predictions:
        episode = _check(prediction, queries)
        if (once := (prediction.query_id, prediction.shots_per_class)) in seen:
            raise InputError(
                f"predictions.jsonl: {once[0]} at {once[1]} shots per class comes twice and would count "
                "twice. Remove one of the lines, or evaluate again into an empty folder."
            )
        seen.add(once)
        for scoring in available_scorings(prediction):
            key = Key(episode.task, episode.names, episode.ways, prediction.shots_per_class, scoring)
            groups[key].append((episode, prediction))
    ordered = sorted(groups, key=lambda key: (*key[:4], SCORINGS.index(key.scoring)))
    return {key: sorted(groups[key], key=lambda pair: pair[1].query_id) for key in ordered}


def _check(prediction: Prediction, queries: Mapping[str, tuple[Episode, Turn]]) -> Episode:
    """The episode of a prediction, after a check that the prediction is about its query."""
    where = f"predictions.jsonl: {prediction.query_id}"
    if prediction.query_id not in queries:
        raise InputError(f"{where} is not a query of episodes.jsonl. The two files are from different runs.")
    episode, query = queries[prediction.query_id]
    expected = {candidate.class_id for candidate in episode.candidates}
    scored = {score.class_id for score in prediction.candidates}
    if prediction.gold != query.class_id or (scored and scored != expected):
        raise InputError(
            f"{where} has another right class or other candidates than in episodes.jsonl. "
            "The two files are from different runs."
        )
    return episode


def _row(key: Key, pairs: Sequence[Pair]) -> Row:
    predictions = [prediction for _, prediction in pairs]
    credits = [credit(prediction, key.scoring, episode.candidates) for episode, prediction in pairs]
    ids = [drawn_as(episode.id) for episode, _ in pairs]
    pictures = [query_picture(episode, prediction) for episode, prediction in pairs]
    ci95 = clustered_wilson(credits, ids, pictures)
    taking_part = [{candidate.class_id for candidate in episode.candidates} for episode, _ in pairs]
    ci95_classes = for_new_classes(credits, [p.gold for p in predictions], taking_part, ci95)
    return {
        **key._asdict(),
        "accuracy": math.fsum(credits) / len(pairs),
        "ci95": list(ci95),
        "ci95_classes": None if ci95_classes is None else list(ci95_classes),
        "n_queries": len(pairs),
        "n_episodes": len(set(ids)),
        "n_pictures": len(set(pictures)),
        "detectable": detectable(ci95, min(len(set(ids)), len(set(pictures)))),
        "answered": _answered(key, pairs),
        "shorter": shorter(key.scoring, pairs),
        "chance": chance(pairs),
        "truth": _truth(key, pairs) if key.names == "swapped" else None,
        "baselines": {name: _baseline(predictions, policies) for name, policies in BASELINES.items()},
    }


def chance(pairs: Sequence[Pair]) -> float:
    """The expected accuracy of guessing among the candidates."""
    counts = [len(episode.candidates) for episode, _ in pairs]
    return 1 / counts[0] if len(set(counts)) == 1 else math.fsum(1 / count for count in counts) / len(counts)


def _answered(key: Key, pairs: Sequence[Pair]) -> float:
    """The share of replies that name exactly one candidate; 1 for likelihoods."""
    if key.scoring != "generate":
        return 1.0
    return sum(chosen_class(p, key.scoring, e.candidates) is not None for e, p in pairs) / len(pairs)


def shorter(scoring: str, pairs: Sequence[Pair]) -> dict[str, float] | None:
    """How often the shortest candidate name was `chosen`, and how often it was `right`.

    Only the `n_queries` count whose candidate names differ in length and for which a name was chosen; the result is
    None if there are none. Lengths are numbers of tokens, or of characters if only replies were generated.
    """
    chosen, right = [], []
    for episode, prediction in pairs:
        lengths = {score.class_id: score.tokens for score in prediction.candidates}
        lengths = lengths or {c.class_id: len(c.name) for c in episode.candidates}
        best = best_candidates(prediction, scoring, episode.candidates)
        least = {class_id for class_id, length in lengths.items() if length == min(lengths.values())}
        if best and len(least) < len(lengths):
            chosen.append(len(least.intersection(best)) / len(best))
            right.append(float(prediction.gold in least))
    if not chosen:
        return None
    n = len(chosen)
    return {"chosen": math.fsum(chosen) / n, "right": math.fsum(right) / n, "n_queries": n}


def _truth(key: Key, pairs: Sequence[Pair]) -> float:
    """The share of answers with the true name of the query's class, to which the support gives another name."""
    shares = []
    for episode, prediction in pairs:
        best = best_candidates(prediction, key.scoring, episode.candidates)
        shown = {candidate.class_id: candidate.name for candidate in episode.candidates}
        true_name = next(c.truth for c in episode.candidates if c.class_id == prediction.gold)
        shares.append(sum(shown[class_id] == true_name for class_id in best) / max(len(best), 1))
    return math.fsum(shares) / len(pairs)


def _baseline(predictions: Sequence[Prediction], policies: Sequence[str]) -> float | None:
    """The accuracy of the best of the policies that answered every query; None if there is none."""
    shares = []
    for policy in policies:
        answered = [prediction.baselines.get(policy) for prediction in predictions]
        # A policy that answered only some queries would not be measured on the same queries as the model.
        if None not in answered:
            right = sum(a == p.gold for a, p in zip(answered, predictions, strict=True))
            shares.append(right / len(predictions))
    return max(shares, default=None)
