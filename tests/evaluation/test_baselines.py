"""What stands beside an accuracy: policies that do not use the language model, by hand."""

from dataclasses import dataclass

import pytest
import torch

from linkcontext.episodes.ids import RICES
from linkcontext.evaluation.baselines import baselines
from linkcontext.evaluation.nearest import nearest
from linkcontext.records import Candidate, Episode, Turn


def vector(*values):
    return torch.tensor(values, dtype=torch.float32)


# The query is nearest to the first picture of "b"; the mean of "a" is nearer than the mean of "b".
POINTS = {"a1": (1.0, 0.0), "b1": (0.6, 0.8), "a2": (0.9, 0.3), "b2": (-1.0, 0.2), "q": (0.7, 0.714)}


@dataclass
class Features:
    mean: torch.Tensor
    pooled: None = None


@dataclass
class Pictures:
    """Image features by hand, in the place of a model and of its pictures."""

    sources: dict
    alone: bool | None = None

    @property
    def pictures(self):
        return self

    def lacks(self, capability):
        assert capability == "image features"
        return ""

    def features(self, items, alone=False):
        self.alone = alone
        return [Features(vector(*POINTS[item])) for item in items]


def episode(task="link"):
    support = tuple(Turn(item, item[0], item[0]) for item in ("a1", "b1", "a2", "b2"))
    candidates = tuple(Candidate(name, name, name) for name in "ab")
    return Episode("e", task, "real", 2, (0, 1, 2), candidates, support, (Turn("q", "a", "a"),))


def test_the_query_is_compared_with_the_support():
    of = episode()
    model = Pictures({item: (item, item) for item in POINTS})
    policies = baselines(model, of, 2, of.queries[0])
    assert policies == {
        "copy_first": "a",
        "copy_last": "b",
        "nearest_centroid_tokens": "a",
        "nearest_support_tokens": "b",
    }
    assert model.alone is False
    one = baselines(model, of, 1, of.queries[0])
    assert (one["nearest_centroid_tokens"], one["nearest_support_tokens"]) == ("b", "b")
    none = baselines(model, of, 0, of.queries[0])
    assert set(none.values()) == {None}
    assert model.alone is True


def test_the_majority_answers_where_the_support_was_chosen():
    of = episode(f"link{RICES}")
    model = Pictures({})  # no picture is known, so that no other policy answers
    assert baselines(model, of, 2, of.queries[0]) == {"copy_first": "a", "copy_last": "b", "majority": "b"}


@pytest.mark.parametrize(("query", "near"), [((1, 0), "a"), ((0, 1), "b"), ((-1, 0), "b")])
def test_nearest_by_cosine(query, near):
    supports = [vector(2, 0), vector(0, 1), vector(-0.1, 0.1)]
    assert nearest(vector(*query), supports, ["a", "b", "b"]) == (near, near)


def test_nothing_is_near_without_a_support():
    assert nearest(vector(1, 0), [], []) == (None, None)
