"""explain.json of a run: how each support picture changed some answers, and the prefix tree of some prompts.

`evaluation.attribution` writes it with a model; reading it needs none. A run may lack the file.
"""

from dataclasses import dataclass
from pathlib import Path

from linkcontext.errors import InputError
from linkcontext.evaluation.run_dir import RunFolder, read_object
from linkcontext.jsonl import from_dict

FILE = "explain.json"


@dataclass(frozen=True, slots=True)
class AnswerAttribution:
    """An answer's log-probability in nats, its end token included, and the same without each support turn."""

    class_id: str
    logprob: float
    without: tuple[float, ...]  # in the order of the support


@dataclass(frozen=True, slots=True)
class QueryAttribution:
    """A query's right answer, followed by the chosen answer if that is another."""

    query_id: str
    answers: tuple[AnswerAttribution, ...]


@dataclass(frozen=True, slots=True)
class TreeToken:
    """A token of a tree. The placeholders of a picture count as one token, `times` long; `item` is its id or empty."""

    text: str
    times: int
    item: str
    scored: bool  # its log-probability is part of an answer's score


@dataclass(frozen=True, slots=True)
class TreeSegment:
    """The contiguous tokens `start` to `end` (exclusive) between two forks, after those of the segment `parent`."""

    start: int
    end: int
    parent: int  # -1 for a root


@dataclass(frozen=True, slots=True)
class TreeView:
    """The prefix tree of some queries of one episode at one shot count. It has no tokens if prefixes are not shared."""

    episode_id: str
    shots_per_class: int
    prompts: int
    written_out: int  # number of tokens of the separate prompts
    merged: int  # number of tokens of the tree
    tokens: tuple[TreeToken, ...]
    pieces: tuple[TreeSegment, ...]


@dataclass(frozen=True, slots=True)
class Attribution:
    """The content of explain.json. Scoring its `prompts`, besides those of the run, took `seconds`."""

    shots_per_class: int
    engine: str
    prompts: int
    seconds: float
    queries: tuple[QueryAttribution, ...]
    reading: TreeView


def read_attribution(path: Path) -> Attribution:
    """Read an explain.json. Raises `InputError` for a damaged file."""
    values = read_object(path, ("shots_per_class", "engine", "prompts", "seconds", "queries", "reading"))
    attribution = from_dict(Attribution, values, str(path))
    if complaint := _complaint(attribution):
        raise InputError(f"{path}: the file is damaged ({complaint}). Remove it and evaluate again.")
    return attribution


def _complaint(attribution: Attribution) -> str:
    """What is wrong with an attribution: a query without answers, or segments that are no tree; "" if it is sound."""
    if not all(query.answers for query in attribution.queries):
        return "a query has no answer"
    at = 0
    for number, segment in enumerate(attribution.reading.pieces):
        if segment.start != at or segment.end <= at or not -1 <= segment.parent < number:
            return "its segments do not form a tree"
        at = segment.end
    return "" if at == len(attribution.reading.tokens) else "its segments do not form a tree"


def attribution_of(folder: RunFolder) -> Attribution | None:
    """The attribution in the folder of a run, or None. Raises `InputError` for one that belongs to another run."""
    path = folder.path / FILE
    if not path.exists():
        return None
    attribution = read_attribution(path)
    predictions = {p.query_id: p for p in folder.predictions if p.shots_per_class == attribution.shots_per_class}
    for query in attribution.queries:
        prediction = predictions.get(query.query_id)
        classes = {c.class_id for c in folder.episodes[prediction.episode_id].candidates} if prediction else set()
        if (
            prediction is None
            or query.answers[0].class_id != prediction.gold
            or not {answer.class_id for answer in query.answers} <= classes
            or any(len(answer.without) != len(prediction.support_ids) for answer in query.answers)
        ):
            raise InputError(f"{path}: {query.query_id} is another query in this run. Remove the file.")
    if attribution.reading.episode_id not in folder.episodes:
        raise InputError(f"{path}: {attribution.reading.episode_id} is not an episode of this run. Remove the file.")
    return attribution
