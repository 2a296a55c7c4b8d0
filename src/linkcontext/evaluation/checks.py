"""Checks that the records of a run are sound and belong together: its episodes, and the predictions about them.

Records from the folder of a run are checked before the run is resumed, reported or compared, because a file may come
from another run or may have been edited.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from linkcontext.errors import InputError, first_few
from linkcontext.records import Episode, Prediction, Turn

ROUNDING = 1e-3  # how far rounding may lift a sum of log-probabilities above 0
ANEW = "Evaluate again into an empty folder."
Queries = Mapping[str, tuple[Episode, Turn]]  # query id -> its episode, and the query


def episodes_by_id(episodes: Iterable[Episode], where: str) -> dict[str, Episode]:
    """The episodes by their ids. Raises `InputError`, naming `where`, for a repeated or malformed one."""
    known: dict[str, Episode] = {}
    for episode in episodes:
        if complaint := _malformed(episode):
            raise InputError(f"{where}: {episode.id}: {complaint}. The file is damaged. {ANEW}")
        if episode.id in known:
            raise InputError(f"{where}: {episode.id} comes twice. The file is damaged. {ANEW}")
        known[episode.id] = episode
    return known


def _malformed(episode: Episode) -> str:
    """What is wrong with an episode; "" if it is well-formed."""
    classes = Counter(candidate.class_id for candidate in episode.candidates)
    if not classes or max(classes.values()) > 1:
        return "its candidates must be one or more different classes"
    if not episode.queries or any(query.class_id not in classes for query in episode.queries):
        return "it must have queries, each of a candidate's class"
    shots = episode.shots_per_class
    if not shots or len(set(shots)) < len(shots) or min(shots) < 0 or episode.ways < 1:
        return "its shots per class must be different numbers from 0, and its ways at least 1"
    if len(episode.support) < episode.ways * max(shots):
        return f"its support has {len(episode.support)} turns, fewer than {episode.ways} ways x {max(shots)} shots"
    return ""


def queries_of(episodes: Mapping[str, Episode]) -> Queries:
    """Query id -> the episode, and the query."""
    return {e.query_id(i): (e, query) for e in episodes.values() for i, query in enumerate(e.queries)}


def check_predictions(
    episodes: Mapping[str, Episode], predictions: Iterable[Prediction], where: str
) -> tuple[Prediction, ...]:
    """The predictions, after a check that each is about a query of these episodes, and possible.

    Raises `InputError`, naming `where` and the query, for a prediction that is about no query or shots per class of the
    episodes, that has other candidates, another right class or another support than its episode, that holds a
    log-probability above 0 or an answer of no tokens, that comes twice, or that was scored in other ways than the rest.
    """
    queries, checked = queries_of(episodes), tuple(predictions)
    seen: set[tuple[str, int]] = set()
    first: dict[bool, Prediction] = {}
    for prediction in checked:
        about = f"{where}: {prediction.query_id} at {prediction.shots_per_class} shots per class"
        if complaint := _foreign(prediction, queries) or _impossible(prediction):
            raise InputError(f"{about} {complaint}. The file is of another run, or was edited. {ANEW}")
        alike = first.setdefault(prediction.shots_per_class > 0, prediction)  # without a support, no calibrated scores
        if _scored(prediction) != _scored(alike):
            raise InputError(
                f"{about} has {_scored(prediction)}, and {alike.query_id} has {_scored(alike)}. "
                f"The file holds lines of different runs. {ANEW}"
            )
        if (prediction.query_id, prediction.shots_per_class) in seen:
            raise InputError(f"{about} comes twice and would count twice. Remove one of the lines. {ANEW}")
        seen.add((prediction.query_id, prediction.shots_per_class))
    return checked


def _foreign(prediction: Prediction, queries: Queries) -> str:
    """Why a prediction does not belong to the episodes of this run; "" if it does."""
    if prediction.query_id not in queries:
        return "is about no query of this run's episodes"
    episode, query = queries[prediction.query_id]
    shown = episode.shown(prediction.shots_per_class)
    names = [(candidate.class_id, candidate.name) for candidate in episode.candidates]
    scored = [(score.class_id, score.name) for score in prediction.candidates]
    classes = {turn.class_id for turn in shown} | {class_id for class_id, _ in names}
    strays = {answer for answer in prediction.baselines.values() if answer is not None} - classes
    has = {
        f"names the episode {prediction.episode_id}": prediction.episode_id != episode.id,
        f"has shots that its episode does not have ({', '.join(map(str, episode.shots_per_class))})": (
            prediction.shots_per_class not in episode.shots_per_class
        ),
        f"has the right class {prediction.gold!r}, whereas its query has {query.class_id!r}": (
            prediction.gold != query.class_id
        ),
        "has other candidates than its episode": bool(scored) and scored != names,
        "has another support than its episode": prediction.support_ids != tuple(turn.item for turn in shown),
        f"has a baseline that answers {min(strays, default='')!r}, which is not a class of its episode": bool(strays),
    }
    return next((complaint for complaint, holds in has.items() if holds), "")


def _impossible(prediction: Prediction) -> str:
    """Why no model can have made a prediction; "" if it is possible."""
    if not prediction.candidates and prediction.reply is None:
        return "has neither likelihoods nor a reply"
    for score in prediction.candidates:
        if score.tokens < 1:
            return f"has {score.tokens} tokens for {score.name!r}"
        values = (score.logprob, score.null_logprob, score.prior_logprob, score.head_logprob)
        above = [value for value in values if value is not None and value > ROUNDING]
        if above:
            return f"has {above[0]:g} as a log-probability of {score.name!r}, which is above 0"
    for name in ("null_logprob", "prior_logprob", "head_logprob"):
        if len({getattr(score, name) is None for score in prediction.candidates}) > 1:
            return f"has {name} for some of its candidates only"
    if not re.fullmatch("[0-9a-f]{64}", prediction.prompt_sha256):
        return f"has {prediction.prompt_sha256[:20]!r} as its prompt's hash"
    return ""


def _scored(prediction: Prediction) -> str:
    """The kinds of scores that a prediction has, in words."""
    score = prediction.candidates[0] if prediction.candidates else None
    kinds = {
        "likelihoods": score is not None,
        "those of a grey query": score is not None and score.null_logprob is not None,
        "those of the support's pictures": score is not None and score.prior_logprob is not None,
        "those of a head": score is not None and score.head_logprob is not None,
        "a reply": prediction.reply is not None,
    }
    return " and ".join(kind for kind, there in kinds.items() if there)


def expected(episodes: Iterable[Episode]) -> Counter[int]:
    """The number of predictions of a complete run, by shots per class."""
    counts: Counter[int] = Counter()
    for episode in episodes:
        for shots in episode.shots_per_class:
            counts[shots] += len(episode.queries)
    return counts


def unfinished(episodes: Iterable[Episode], predictions: Sequence[Prediction]) -> str:
    """A sentence about the missing predictions of a run; "" if it is complete."""
    wanted, there = expected(episodes), Counter(prediction.shots_per_class for prediction in predictions)
    if wanted == there:
        return ""
    lacks = [f"{shots} shots: {wanted[shots] - there[shots]:,} of {wanted[shots]:,}" for shots in sorted(wanted)]
    lacks = [text for text, shots in zip(lacks, sorted(wanted), strict=True) if wanted[shots] > there[shots]]
    return (
        f"This run is not finished: {wanted.total() - there.total():,} of its {wanted.total():,} predictions are "
        f"missing ({first_few(lacks)}). Its figures use those that exist. Their queries are not counterbalanced, so "
        "policies that ignore the query may be off chance. Run the same command again to finish it."
    )
