"""Similarities of pictures: by hand on unit vectors, and by oracle."""

import pytest
import torch

from linkcontext.teach.similarity import best_similarity_kind, left_out_similarities, most_similar_rows


def unit(*degrees):
    """Unit vectors float32[n, 1, 2] by their angles: a row for each picture, without changed copies."""
    radians = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    return torch.stack([radians.cos(), radians.sin()], -1)[:, None]


def cosine(degrees):
    return float(torch.deg2rad(torch.tensor(float(degrees))).cos())


def test_the_most_similar_copy_of_a_picture_counts():
    rows = torch.cat([unit(0, 90), unit(40, 100)], 1)
    assert most_similar_rows(rows, unit(45)[0, 0]).tolist() == pytest.approx([cosine(5), cosine(45)])


def test_each_picture_is_left_out_alone_and_with_its_class():
    own, others = left_out_similarities(unit(0, 10, 90, 95), [0, 0, 1, 1])
    assert own.tolist() == pytest.approx([cosine(a) for a in (10, 10, 5, 5)])
    assert others.tolist() == pytest.approx([cosine(a) for a in (90, 80, 80, 85)], abs=1e-6)


def test_a_copy_of_the_left_out_picture_is_left_out_too():
    rows = torch.cat([unit(0, 30, 90), unit(1, 31, 91)], 1)
    own, _ = left_out_similarities(rows, [0, 0, 1])
    assert float(own[0]) == pytest.approx(cosine(30), abs=1e-6)


def test_of_many_pictures_evenly_spaced_ones_are_left_out(monkeypatch):
    rows = torch.nn.functional.normalize(torch.randn(50, 1, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    labels = [place % 2 for place in range(50)]
    every = left_out_similarities(rows, labels)
    monkeypatch.setattr("linkcontext.teach.similarity.MOST", 3)
    some = left_out_similarities(rows, labels)
    places = [0, 24, 49]
    assert [part.tolist() for part in some] == [part[places].tolist() for part in every]


def test_the_kind_that_tells_names_from_other_things_is_taken():
    alike, apart = unit(0, 50, 10, 60), unit(0, 10, 90, 95)
    assert best_similarity_kind({"tokens": alike, "pooled": apart}, [0, 0, 1, 1]) == "pooled"
    assert best_similarity_kind({"tokens": apart, "pooled": alike}, [0, 0, 1, 1]) == "tokens"
    assert best_similarity_kind({"tokens": apart, "pooled": apart}, [0, 0, 1, 1]) == "tokens"  # the first of equals


def test_a_kind_that_is_hardly_better_is_not_taken(monkeypatch):
    nearly, apart = unit(0, 10, 24, 100), unit(0, 10, 90, 95)
    labels = [0, 0, 1, 1]
    own, others = left_out_similarities(nearly, labels)
    assert sum(float(a > b) for a in own for b in others) / 16 < 1
    monkeypatch.setattr("linkcontext.teach.similarity.MARGIN", 0.9)
    assert best_similarity_kind({"tokens": nearly, "pooled": apart}, labels) == "tokens"
    monkeypatch.setattr("linkcontext.teach.similarity.MARGIN", 0.0)
    assert best_similarity_kind({"tokens": nearly, "pooled": apart}, labels) == "pooled"


def test_the_first_kind_is_taken_where_nothing_can_be_left_out_and_no_numbers_are_passed_over():
    alike, apart = unit(0, 50, 10), unit(0, 10, 90)
    assert best_similarity_kind({"tokens": alike, "pooled": apart}, [0, 0, 1]) == "tokens"
    assert best_similarity_kind({"tokens": alike * float("nan"), "pooled": apart}, [0, 0, 1]) == "pooled"
    assert best_similarity_kind({"tokens": alike * float("nan")}, [0, 0, 1]) == "tokens"
