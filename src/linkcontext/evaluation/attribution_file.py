"""explain.json of a run: how each support picture moved some answers, and a prompt as the model reads it.

It is made by the model and read without one. A run may lack it.
"""

from dataclasses import dataclass
from pathlib import Path

from linkcontext.errors import InputError
from linkcontext.evaluation.run_dir import RunFolder, read_object
from linkcontext.records import from_dict

FILE = "explain.json"


@dataclass(frozen=True, slots=True)
class AnswerAttribution:
    """An answer's log-probability (nats, end of answer included), and what it is without each support turn."""

    class_id: str
    logprob: float
    without: tuple[float, ...]  # in the order of the support


@dataclass(frozen=True, slots=True)
class QueryAttribution:
    """A query: the right answer, and behind it the one decided for where that is another."""

    query_id: str
    answers: tuple[AnswerAttribution, ...]


@dataclass(frozen=True, slots=True)
class TreeToken:
    """A token of a tree. A picture's placeholders are one, `times` of them; `item` is empty where there is none."""

    text: str
    times: int
    item: str
    asked: bool  # its log-probability is part of an answer's score


@dataclass(frozen=True, slots=True)
class TreeSegment:
    """Tokens `start` to `end` of a list, which follow one another without a fork after those of `parent`."""

    start: int
    end: int
    parent: int  # -1 at the root


@dataclass(frozen=True, slots=True)
class TreeView:
    """The tree of some queries of one episode at one shot count. No tokens where nothing is shared."""

    episode_id: str
    shots_per_class: int
    prompts: int
    written_out: int  # tokens of the prompts one by one
    merged: int  # tokens of the tree
    tokens: tuple[TreeToken, ...]
    pieces: tuple[TreeSegment, ...]


@dataclass(frozen=True, slots=True)
class Attribution:
    """What explain.json holds. `prompts` were scored for it beside the run's own, which took `seconds`."""

    shots_per_class: int
    engine: str
    prompts: int
    seconds: float
    queries: tuple[QueryAttribution, ...]
    reading: TreeView


def read_attribution(path: Path) -> Attribution:
    """The explanation in a file; an `InputError` when it is damaged."""
    values = read_object(path, ("shots_per_class", "engine", "prompts", "seconds", "queries", "reading"))
    explanation = from_dict(Attribution, values, str(path))
    if complaint := _complaint(explanation):
        raise InputError(f"{path}: no explanation ({complaint}). It is damaged: remove it and evaluate again.")
    return explanation


def _complaint(found: Attribution) -> str:
    """Whether queries have answers, and pieces make one tree; empty where they do."""
    if not all(query.answers for query in found.queries):
        return "a query has no answer"
    at = 0
    for number, piece in enumerate(found.reading.pieces):
        if piece.start != at or piece.end <= at or not -1 <= piece.parent < number:
            return "its tree does not hang together"
        at = piece.end
    return "" if at == len(found.reading.tokens) else "its tree does not hang together"


def attribution_of(folder: RunFolder) -> Attribution | None:
    """The explanation in a run's folder, None where there is none; an `InputError` when it is of another run."""
    path = folder.path / FILE
    if not path.exists():
        return None
    found = read_attribution(path)
    support = {p.query_id: p for p in folder.predictions if p.shots_per_class == found.shots_per_class}
    for query in found.queries:
        asked = support.get(query.query_id)
        classes = {c.class_id for c in folder.episodes[asked.episode_id].candidates} if asked else set()
        if (
            asked is None
            or query.answers[0].class_id != asked.gold
            or not {answer.class_id for answer in query.answers} <= classes
            or any(len(answer.without) != len(asked.support_ids) for answer in query.answers)
        ):
            raise InputError(f"{path}: {query.query_id} is another query in this run. Remove the file.")
    if found.reading.episode_id not in folder.episodes:
        raise InputError(f"{path}: {found.reading.episode_id} is no episode of this run. Remove the file.")
    return found
