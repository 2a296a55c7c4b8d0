"""One support whose pictures a head learns, and the queries that it names."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from linkcontext.config import HeadName
from linkcontext.episodes.scaffold import Scaffold
from linkcontext.evaluation.head_choice import choose_head
from linkcontext.evaluation.heads import HEADS, Features, Labels, Scores, Views, head_scores
from linkcontext.evaluation.name_scores import left_out_log_probabilities, without_name_bias
from linkcontext.evaluation.pairs import left_out_pair_scores, pair_scores
from linkcontext.evaluation.picture_vectors import kinds_of, own_vectors, rows_of_kind
from linkcontext.records import Turn
from linkcontext.scoring.protocol import ScoringModel


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
                scores[part] = head_scores(HEADS[part], views[choice.features], labels, rows, len(self.names))
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
        return without_name_bias(rows, self.support, self.names)
