"""Attribution by ablation: an answer's log-probability without each support turn. No attention, no gradients.

All shortened prompts of an episode share one prefix tree, so common tokens are computed once. This costs time besides
the evaluation, so only some episodes of a run are explained.
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
from linkcontext.jsonl import to_json
from linkcontext.progress import progress
from linkcontext.records import Episode, Prediction
from linkcontext.scoring.protocol import ScoringModel, ScoringRequest
from linkcontext.storage import write_text

log = logging.getLogger("linkcontext")
USUAL = 4  # episodes that are explained by default
LARGEST = 40  # support pictures up to which they are: leaving one out computes all later ones again
QUERIES, CANDIDATES = 2, 3  # maximum of each in the drawn tree


def write_attribution(
    scorer: ScoringModel,
    scaffold: Scaffold,
    episodes: Sequence[Episode],
    predictions: Sequence[Prediction],
    out: Path,
    count: int | None = None,
) -> None:
    """Explain the `count` episodes that the report shows first, and write explain.json into the folder of the run.

    By default 4 episodes are explained, and none if the model cannot share prefixes or a support has more than 40
    pictures. A file that already covers the episodes is kept.
    """
    examples = select_examples(grouped({episode.id: episode for episode in episodes}, predictions))
    if count is None:
        largest = max(len(p.support_ids) for pairs in examples.episodes.values() for _, p in pairs)
        count = 0 if scorer.lacks("shared prefixes") or largest > LARGEST else USUAL
    if count == 0:
        return
    if why := scorer.lacks("log-probabilities"):
        log.warning("--explain: answers are not explained, because log-probabilities are needed: %s.", why)
        return
    wrong, right = examples.first(count)
    episodes_shown = [examples.episodes[name] for name in (*wrong, *right)]
    wanted = {p.query_id: _classes(e, p, examples.scoring) for pairs in episodes_shown for e, p in pairs}
    if (out / FILE).exists():
        known = {q.query_id: [a.class_id for a in q.answers] for q in read_attribution(out / FILE).queries}
        if wanted.items() <= known.items():
            return
    begun = time.perf_counter()
    queries: list[QueryAttribution] = []
    with progress("Explaining", len(episodes_shown)) as advance:
        for pairs in episodes_shown:
            queries += attribute_queries(scorer, scaffold, pairs, examples.scoring)
            advance()
    seconds = time.perf_counter() - begun
    prompts = sum(1 + len(answer.without) for query in queries for answer in query.answers)
    tree = view_tree(scorer, scaffold, episodes_shown[0][0][0])
    shots = examples.shots_per_class
    attribution = Attribution(shots, scorer.engine, prompts, round(seconds, 3), tuple(queries), tree)
    write_text(to_json(attribution) + "\n", out / FILE)


def _classes(episode: Episode, prediction: Prediction, scoring: str) -> list[str]:
    """The right class, and the chosen class if it is another."""
    chosen = chosen_class(prediction, scoring, episode.candidates)
    return list(dict.fromkeys(c for c in (prediction.gold, chosen) if c is not None))


def attribute_queries(
    scorer: ScoringModel, scaffold: Scaffold, pairs: Sequence[Pair], scoring: str
) -> list[QueryAttribution]:
    """Score an episode's queries with the whole support and without each support turn.

    `pairs` are queries of one episode at one number of shots. All requests go to the model at once.
    """
    queries = {e.query_id(i): turn for e, _ in pairs for i, turn in enumerate(e.queries)}
    requests, classes = [], []
    for episode, prediction in pairs:
        names = {c.class_id: c.name for c in episode.candidates}
        wanted, shown = _classes(episode, prediction, scoring), episode.shown(prediction.shots_per_class)
        supports = [shown, *(shown[:i] + shown[i + 1 :] for i in range(len(shown)))]
        for turns in supports:
            query = queries[prediction.query_id]
            prompt = build_messages(turns, scaffold, query)
            answered = tuple(build_messages(turns, scaffold, query, names[class_id]) for class_id in wanted)
            requests.append(ScoringRequest(prompt, answered))
        classes.append((prediction.query_id, wanted, len(supports)))
    rows = iter(scorer.score(requests))
    attributions = []
    for query_id, wanted, count in classes:
        scores = [[value for value, _ in next(rows)] for _ in range(count)]
        answers = [
            AnswerAttribution(class_id, whole, tuple(without))
            for class_id, (whole, *without) in zip(wanted, zip(*scores, strict=True), strict=True)
        ]
        attributions.append(QueryAttribution(query_id, tuple(answers)))
    return attributions


def view_tree(scorer: ScoringModel, scaffold: Scaffold, episode: Episode) -> TreeView:
    """The prefix tree of an episode's first queries at its smallest number of shots above 0, right names first."""
    shots = min((k for k in episode.shots_per_class if k > 0), default=0)
    queries = range(min(QUERIES, len(episode.queries)))
    golds = [episode.queries[q].class_id for q in queries]
    named = {c.class_id: c.name for c in episode.candidates}
    names = [named[c] for c in dict.fromkeys([*golds, *named])][: max(CANDIDATES, len(set(golds)))]
    conversations = [query_messages(episode, q, shots, scaffold, name) for q in queries for name in names]
    if scorer.lacks("shared prefixes"):
        return TreeView(episode.id, shots, len(conversations), 0, 0, (), ())
    return _tree_view(scorer, conversations, episode.id, shots)


def _tree_view(scorer: ScoringModel, conversations: Sequence[list[Message]], episode_id: str, shots: int) -> TreeView:
    tree, items = scorer.prefix_tree(conversations)
    tokens: list[TreeToken] = []
    pieces = []
    for segment in tree.segments:
        start = len(tokens)
        picture = tree.image[segment.start : segment.end]
        # The tokens of a picture are contiguous and include its delimiters and row breaks.
        cuts = np.flatnonzero((picture < 0) | (np.diff(picture, prepend=-1) != 0))
        for at, length in zip(cuts, np.diff(cuts, append=len(picture)), strict=True):
            token, number = segment.start + int(at), int(picture[at])
            text = scorer.loaded.tokenizer.decode([int(tree.ids[token])])
            item = items[number] if number >= 0 else ""
            tokens.append(TreeToken(text, int(length), item, bool(tree.weight[token])))
        pieces.append(TreeSegment(start, len(tokens), segment.parent))
    count = len(conversations)
    written_out = sum(len(tree.path(sequence)) for sequence in range(count))
    return TreeView(episode_id, shots, count, written_out, len(tree), tuple(tokens), tuple(pieces))
