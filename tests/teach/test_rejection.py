""" "None of these": thresholds by hand, and what users choose and read."""

import pytest
import torch

from linkcontext.errors import InputError
from linkcontext.teach.rejection import (
    OperatingPoint,
    RejectionThreshold,
    curve_of,
    describe_choices,
    describe_rejection,
    nearest_pictures,
)
from linkcontext.teach.taught_pictures import TaughtPictures

OWN, OTHERS = torch.tensor([0.9, 0.8, 0.7, 0.4]).double(), torch.tensor([0.5, 0.3, 0.2, 0.6]).double()
CURVE = curve_of(OWN, OTHERS, 4)


def test_a_curve_has_every_threshold_that_makes_a_difference():
    places = [round(point.similarity, 3) for point in CURVE]
    assert places == [0.2, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.9]
    assert [point.recall for point in CURVE] == [1, 1, 1, 0.75, 0.75, 0.75, 0.5, 0.25, 0]
    assert [point.rejection_rate for point in CURVE] == [0, 0.25, 0.5, 0.5, 0.75, 1, 1, 1, 1]
    for point in CURVE:  # by oracle
        assert point.recall == float((point.similarity <= OWN).double().mean())
        assert point.rejection_rate == float((point.similarity > OTHERS).double().mean())


def test_the_highest_threshold_that_accepts_enough_and_the_lowest_that_rejects_enough():
    assert OperatingPoint(accept=0.75).choose(CURVE).similarity == pytest.approx(0.65)
    assert OperatingPoint(accept=1).choose(CURVE).similarity == pytest.approx(0.35)
    assert OperatingPoint(reject=0.5).choose(CURVE).similarity == pytest.approx(0.35)
    assert OperatingPoint(reject=1).choose(CURVE).similarity == pytest.approx(0.65)
    same = torch.tensor([0.5, 0.5]).double()
    assert OperatingPoint(reject=1).choose(curve_of(same, same, 2)).recall == 0  # a price, but it is done
    assert OperatingPoint(accept=0.95).choose(curve_of(same, same, 2)).rejection_rate == 0


@pytest.mark.parametrize("shares", [{"accept": 0}, {"accept": 95}, {"reject": -1}, {"reject": 1.5}])
def test_shares_lie_between_0_and_1(shares):
    with pytest.raises(InputError, match=r"must be a share between 0 and 1, for example 0\.95"):
        OperatingPoint(**shares)


def test_what_users_read():
    for taught, why in (
        ({"a": ["1", "2"], "b": ["3"]}, "needs two pictures of each name, and there is one of b. Teach it another one"),
        ({"a": ["1", "2"], "b": ["3", "4"]}, "needs at least 20 pictures, and 4 are taught"),
        ({"a": [*"abcdefghijklmnopqrstuvw"]}, "needs two names, and a model"),
    ):
        assert f'Never answers "none of these": that {why}' in describe_rejection(None, taught)
    assert "With 2,000 of the 16,000 pictures left out" in describe_rejection(RejectionThreshold(0.8, 1, 1, 16_000), {})
    text = describe_rejection(RejectionThreshold(0.83, 0.95, 0.4, 40), {})
    assert "below similarity 0.830" in text
    assert "the 40 pictures" in text
    assert "accepts 95% of pictures of taught classes and rejects 40%" in text
    assert describe_choices([]) == ""
    assert "--accept 0.8 rejects 50%, --accept 0.9 rejects 50%" in describe_choices(CURVE)


def test_similarity_is_that_of_the_most_similar_picture():
    rows = {"a": (1.0, 0.0), "b": (0.0, 1.0), "c": (0.6, 0.8)}
    pictures = TaughtPictures({"x": ["a"], "y": ["b", "c"]})
    pictures.vectors = {item: {"tokens": torch.tensor([row])} for item, row in rows.items()}
    similarity, nearest = nearest_pictures(pictures, {"tokens": torch.tensor([[0.8, 0.6]])})
    assert similarity == pytest.approx(0.96)
    assert [(near.name, near.picture) for near in nearest] == [("y", "c"), ("x", "a"), ("y", "b")]
    assert [near.similarity for near in nearest] == pytest.approx([0.96, 0.8, 0.6])
