"""What moved an answer: its log-probability once more with each support turn left out. No attention, no gradient.

All shortened prompts of an episode are lines of one tree, so that what they share is run once. Still it is work
beside the evaluation's, and so only some episodes of a run are explained.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linkcontext.episodes.scaffold import Message, Scaffold, build_messages, query_messages
from linkcontext.evaluation.attribution_file import (
    FILE,
    AnswerAttribution,
    Attribution,
    QueryAttribution,
    TreeSegment,
    TreeToken,
    TreeView,
    read_attribution,
)
from linkcontext.evaluation.example_selection import select_examples
from linkcontext.evaluation.metrics import Pair, chosen_class, grouped
from linkcontext.progress import progress
from linkcontext.records import Episode, Prediction, to_json
from linkcontext.scoring.protocol import ScoringModel, ScoringRequest
from linkcontext.storage import write_text

log = logging.getLogger("linkcontext")
USUAL, LARGEST = 4, 40  # episodes, and pictures of a support: with each one, all behind it are read again
QUERIES, CANDIDATES = 2, 3  # of an episode whose tree is shown: more would be no drawing any more


def write_attribution(
    scorer: ScoringModel,
    wording: Scaffold,
    episodes: Sequence[Episode],
    predictions: Sequence[Prediction],
    out: Path,
    count: int | None = None,
) -> None:
    """Write explain.json of `count` episodes into a run's folder, of those that its page opens first.

    By default 4, and none where the model runs every shortened prompt whole, or with supports of
    more than 40 pictures. A file that tells of them already stays as it is.
    """
    picked = select_examples(grouped({episode.id: episode for episode in episodes}, predictions))
    if count is None:
        largest = max(len(p.support_ids) for pairs in picked.episodes.values() for _, p in pairs)
        count = 0 if scorer.lacks("shared prefixes") or largest > LARGEST else USUAL
    if count == 0:
        return
    if why := scorer.lacks("log-probabilities"):
        log.warning("--explain: answers are not explained, because log-probabilities are needed: %s.", why)
        return
    wrong, right = picked.first(count)
    chosen = [picked.episodes[name] for name in (*wrong, *right)]
    wanted = {p.query_id: _classes(e, p, picked.scoring) for pairs in chosen for e, p in pairs}
    if (out / FILE).exists():
        there = {q.query_id: [a.class_id for a in q.answers] for q in read_attribution(out / FILE).queries}
        if wanted.items() <= there.items():
            return
    begun = time.perf_counter()
    found: list[QueryAttribution] = []
    with progress("Explaining", len(chosen)) as advance:
        for pairs in chosen:
            found += attribute_queries(scorer, wording, pairs, picked.scoring)
            advance()
    seconds = time.perf_counter() - begun
    prompts = sum(1 + len(answer.without) for query in found for answer in query.answers)
    seen = view_tree(scorer, wording, chosen[0][0][0])
    told = Attribution(picked.shots_per_class, scorer.engine, prompts, round(seconds, 3), tuple(found), seen)
    write_text(to_json(told) + "\n", out / FILE)


def _classes(episode: Episode, prediction: Prediction, scoring: str) -> list[str]:
    """The right class, and the one decided for where it is another."""
    chosen = chosen_class(prediction, scoring, episode.candidates)
    return list(dict.fromkeys(c for c in (prediction.gold, chosen) if c is not None))


def attribute_queries(
    scorer: ScoringModel, wording: Scaffold, pairs: Sequence[Pair], scoring: str
) -> list[QueryAttribution]:
    """The queries of one episode at one shot count, each scored with its whole support and without each turn of it."""
    queries = {e.query_id(i): turn for e, _ in pairs for i, turn in enumerate(e.queries)}
    asks, classes = [], []
    for episode, prediction in pairs:
        names = {c.class_id: c.name for c in episode.candidates}
        wanted, shown = _classes(episode, prediction, scoring), episode.shown(prediction.shots_per_class)
        supports = [shown, *(shown[:i] + shown[i + 1 :] for i in range(len(shown)))]
        for turns in supports:
            said = [
                build_messages(turns, wording, queries[prediction.query_id], a) for a in (None, *map(names.get, wanted))
            ]
            asks.append(ScoringRequest(said[0], tuple(said[1:])))
        classes.append((prediction.query_id, wanted, len(supports)))
    rows = iter(scorer.score(asks))
    found = []
    for query_id, wanted, count in classes:
        scores = [[value for value, _ in next(rows)] for _ in range(count)]
        told = [
            AnswerAttribution(c, whole, tuple(left))
            for c, (whole, *left) in zip(wanted, zip(*scores, strict=True), strict=True)
        ]
        found.append(QueryAttribution(query_id, tuple(told)))
    return found


def view_tree(scorer: ScoringModel, wording: Scaffold, episode: Episode) -> TreeView:
    """The tree of an episode's first queries at the smallest shots per class above 0, with the right names first."""
    shots = min((k for k in episode.shots_per_class if k > 0), default=0)
    queries = range(min(QUERIES, len(episode.queries)))
    golds = [episode.queries[q].class_id for q in queries]
    named = {c.class_id: c.name for c in episode.candidates}
    names = [named[c] for c in dict.fromkeys([*golds, *named])][: max(CANDIDATES, len(set(golds)))]
    told = [query_messages(episode, q, shots, wording, name) for q in queries for name in names]
    if scorer.lacks("shared prefixes"):
        return TreeView(episode.id, shots, len(told), 0, 0, (), ())
    return _drawn(scorer, told, episode.id, shots)


def _drawn(scorer: ScoringModel, told: Sequence[list[Message]], episode_id: str, shots: int) -> TreeView:
    tree, items = scorer.prefix_tree(told)
    tokens: list[TreeToken] = []
    pieces = []
    for segment in tree.segments:
        start = len(tokens)
        picture = tree.image[segment.start : segment.end]
        # A picture's tokens follow one another, its marks and row breaks among them.
        cuts = np.flatnonzero((picture < 0) | (np.diff(picture, prepend=-1) != 0))
        for at, length in zip(cuts, np.diff(cuts, append=len(picture)), strict=True):
            token, number = segment.start + int(at), int(picture[at])
            text = scorer.loaded.tokenizer.decode([int(tree.ids[token])])
            item = items[number] if number >= 0 else ""
            tokens.append(TreeToken(text, int(length), item, bool(tree.weight[token])))
        pieces.append(TreeSegment(start, len(tokens), segment.parent))
    written_out = sum(len(tree.path(line)) for line in range(len(told)))
    return TreeView(episode_id, shots, len(told), written_out, len(tree), tuple(tokens), tuple(pieces))
