"""Heads in an evaluation: each learns the pictures of one support, and names the queries after it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from linkcontext.config import HeadName
from linkcontext.episodes.scaffold import Scaffold
from linkcontext.evaluation.head_choice import choose_head
from linkcontext.evaluation.heads import HEADS, Features, Labels, Scores, Views, fit_to_views, log_softmax
from linkcontext.evaluation.name_scores import left_out_log_probabilities, without_name_bias
from linkcontext.evaluation.pairs import left_out_pair_scores, pair_scores
from linkcontext.evaluation.picture_vectors import kinds_of, own_vectors, rows_of_kind
from linkcontext.records import Turn
from linkcontext.scoring.protocol import ScoringModel

if TYPE_CHECKING:
    from linkcontext.evaluation.evaluator import QueryCase


def head_log_probabilities(
    scorer: ScoringModel,
    scaffold: Scaffold,
    head: HeadName,
    cases: Sequence["QueryCase"],
    scores: Mapping[int, Sequence[tuple[float, int]]],
    priors: Mapping[tuple[str, int], Sequence[float]],
) -> dict[int, list[float]]:
    """Index of a case with a support -> each candidate's log-probability among the candidates by a head.

    `scores` are the language model's, by the index of a case, and `priors` its means by episode and shots per class.
    """
    by_support: dict[tuple[str, int], list[int]] = {}
    for place, case in enumerate(cases):
        if case.shots_per_class > 0:
            by_support.setdefault((case.episode.id, case.shots_per_class), []).append(place)
    rows: dict[int, list[float]] = {}
    for key, places in by_support.items():
        episode, shots = cases[places[0]].episode, cases[places[0]].shots_per_class
        model_scores = np.array([[value for value, _ in scores[place]] for place in places])
        model_scores = log_softmax(model_scores) - np.array(priors.get(key, 0.0))
        queries = [episode.queries[cases[place].query] for place in places]
        task = HeadTask(scorer, scaffold, episode.shown(shots), [candidate.name for candidate in episode.candidates])
        rows |= zip(places, task.log_probabilities(head, queries, model_scores).tolist(), strict=True)
    return rows


@dataclass(frozen=True, slots=True)
class HeadTask:
    """A support whose turns show the names that a head has to tell apart.

    The labels are the names that are shown, so that a head follows them as the language model can.
    """

    scorer: ScoringModel
    scaffold: Scaffold
    support: Sequence[Turn]
    names: Sequence[str]

    def log_probabilities(self, head: HeadName, queries: Sequence[Turn], model_scores: Scores) -> Scores:
        """float64[queries, names]: the log-probability of each name among the names, by a head.

        `model_scores` are the language model's own, float64[queries, names], corrected as those of `ask` are.
        """
        labels, items = self.labels, [turn.item for turn in self.support]
        views = {} if head == "pairs" else self.views()
        choice = choose_head(head, views, labels, len(self.names), lambda: self._left_out(head))
        scores: dict[HeadName, Scores] = {"lm": model_scores}
        for part in choice.parts:
            if part in HEADS:
                rows = self._vectors(queries, choice.features)
                scores[part] = fit_to_views(HEADS[part], views[choice.features], labels, len(self.names))(rows)
        if "pairs" in choice.parts:
            pairs = [pair_scores(self.scorer, query.item, items, labels, len(self.names)) for query in queries]
            scores["pairs"] = np.stack(pairs)
        return choice.log_probabilities(scores)

    @property
    def labels(self) -> Labels:
        """For each picture of the support the place of its name."""
        return np.array([self.names.index(turn.answer) for turn in self.support])

    def views(self) -> dict[str, Views]:
        """float32[support, 1, width] by kind: the vectors of the support's pictures."""
        vectors = [own_vectors([each]) for each in self.scorer.pictures.features([turn.item for turn in self.support])]
        return {kind: np.stack([rows_of_kind(one, kind).numpy() for one in vectors]) for kind in kinds_of(vectors)}

    def _vectors(self, queries: Sequence[Turn], kind: str) -> Features:
        features = self.scorer.pictures.features([query.item for query in queries])
        return np.concatenate([rows_of_kind(own_vectors([each]), kind).numpy() for each in features])

    def _left_out(self, head: HeadName) -> Scores:
        """The language model's scores of each picture of the support, as `choose_head` wants them."""
        if head == "pairs":
            return left_out_pair_scores(self.scorer, [t.item for t in self.support], self.labels, len(self.names))
        rows = left_out_log_probabilities(self.scorer, self.scaffold, self.support, self.names)
        shown = [*{turn.item: turn for turn in self.support}.values()]
        place = {turn.item: number for number, turn in enumerate(shown)}
        scores = without_name_bias(rows, shown, self.names)
        by_turn: Scores = scores[[place[turn.item] for turn in self.support]]
        return by_turn
