"""Heads on image features: by hand on points in the plane, and each left out from what judges it."""

import importlib

import numpy as np
import pytest

from linkcontext.errors import InputError
from linkcontext.evaluation.heads import (
    HEADS,
    LEAST,
    best_temperature,
    centroid,
    evenly_spaced,
    fit_to_views,
    knn,
    left_out_parts,
    left_out_scores,
    linear,
    log_softmax,
    smoothed_losses,
)

SIMPLE = {"centroid": centroid, "knn": knn, "linear": linear}


def temperature(scores, labels):
    return best_temperature(smoothed_losses(scores, labels))


def unit(angles):
    """Points on the unit circle, by their angles in degrees."""
    radians = np.deg2rad(np.asarray(angles, np.float32))
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


FEATURES, LABELS = unit([0, 10, 20, 90, 100, 110]), np.array([0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize("head", SIMPLE)
def test_the_nearer_name_has_the_higher_score(head):
    scores = SIMPLE[head](FEATURES, LABELS, 2)(unit([15, 95]))
    assert scores.shape == (2, 2)
    assert scores.argmax(1).tolist() == [0, 1]


def test_a_centroid_is_the_cosine_with_the_mean():
    scores = centroid(FEATURES, LABELS, 2)(unit([10, 55]))
    assert scores[0] == pytest.approx([1, np.cos(np.deg2rad(90))], abs=1e-6)
    assert scores[1] == pytest.approx([np.cos(np.deg2rad(45))] * 2, abs=1e-6)


def test_neighbours_share_by_their_distance():
    scores = knn(FEATURES, LABELS, 2)(unit([50]))  # 20, 90 and 10 are nearest: 30, 40 and 40 degrees away
    near, far = 1 / (1 - np.cos(np.deg2rad(30))), 1 / (1 - np.cos(np.deg2rad(40)))
    share = (near + far) / (near + 2 * far)
    assert np.exp(scores[0]) - 1e-3 == pytest.approx([share, 1 - share], abs=1e-4)


@pytest.mark.parametrize("head", SIMPLE)
def test_a_head_takes_a_name_with_one_picture(head):
    assert SIMPLE[head](FEATURES[:4], LABELS[:4], 2)(unit([95])).argmax(1).tolist() == [1]


@pytest.mark.parametrize("head", SIMPLE)
def test_a_picture_without_features_gets_finite_scores_and_no_warning(head, recwarn):
    """Zeros have no direction; two opposite pictures of a name have a mean of zeros."""
    features = np.stack([*unit([0, 180, 90, 100]), np.zeros(2, np.float32)])
    scores = SIMPLE[head](features, np.array([0, 0, 1, 1, 1]), 2)(np.stack([*unit([95]), np.zeros(2, np.float32)]))
    assert np.isfinite(scores).all()
    assert scores[0].argmax() == 1
    assert not [str(one.message) for one in recwarn]


def test_one_picture_of_every_name_is_left_out_at_once():
    assert [part.tolist() for part in left_out_parts(LABELS)] == [[0, 3], [1, 4], [2, 5]]
    assert [part.tolist() for part in left_out_parts(np.array([0, 1, 1, 2]))] == [[1], [2]]  # the only ones stay
    assert left_out_parts(np.array([0, 1])) == []
    many = left_out_parts(np.repeat([0, 1, 2], 100))
    assert len(many) == 10
    assert sorted(np.concatenate(many).tolist()) == list(range(300))
    assert all(np.bincount(np.repeat([0, 1, 2], 100)[part]).tolist() == [10] * 3 for part in many)


@pytest.mark.parametrize("head", SIMPLE)
def test_a_picture_does_not_judge_a_head_that_has_seen_it(head):
    """By oracle: fitted without the part, one part at a time."""
    scores = left_out_scores(SIMPLE[head], FEATURES[:, None], LABELS, 2)
    for part in ([0, 3], [1, 4], [2, 5]):
        rest = [place for place in range(6) if place not in part]
        expected = SIMPLE[head](FEATURES[rest], LABELS[rest], 2)(FEATURES[part])
        assert scores[part] == pytest.approx(expected)
    single = left_out_scores(SIMPLE[head], FEATURES[:4, None], LABELS[:4], 2)
    assert np.isnan(single[3]).all()
    assert np.isfinite(single[:3]).all()


@pytest.mark.parametrize("head", SIMPLE)
def test_changed_copies_are_left_out_with_their_picture(head):
    """By oracle: fitted to the other pictures and their copies; the copies themselves are not judged."""
    views = np.stack([FEATURES, unit([5, 15, 25, 85, 95, 105])], 1)
    scores = left_out_scores(SIMPLE[head], views, LABELS, 2)
    for part in ([0, 3], [1, 4], [2, 5]):
        rest = [place for place in range(6) if place not in part]
        rows = np.concatenate([views[rest, 0], views[rest, 1]])
        expected = SIMPLE[head](rows, np.tile(LABELS[rest], 2), 2)(FEATURES[part])
        assert scores[part] == pytest.approx(expected, abs=2e-3)  # an optimiser stops a little earlier or later


def test_a_temperature_makes_probabilities_that_fit():
    """Of scores whose softmax is right as they are, and of the same scores stretched."""
    stream = np.random.default_rng(0)
    scores = stream.normal(size=(3000, 3))
    probabilities = np.exp(log_softmax(scores))
    labels = np.array([stream.choice(3, p=row) for row in probabilities])
    assert temperature(scores, labels) == pytest.approx(1, rel=0.15)

    assert temperature(scores / 1000, labels) == pytest.approx(temperature(scores, labels) / 1000, rel=0.1)


def test_no_support_makes_a_head_certain():
    """Eight of eight right: the next one is wrong with a probability of about one in ten."""
    scores, labels = np.tile([[1.0, 0.0], [0.0, 1.0]], (4, 1)), np.tile([0, 1], 4)
    most = float(np.exp(log_softmax(scores / temperature(scores, labels)))[0, 0])
    assert most == pytest.approx(1 - 0.5 / 10, abs=0.01)


@pytest.mark.heavy
def test_tabicl_runs_with_the_weights_that_its_package_finds(monkeypatch, tmp_path):
    """With random weights in the place of those from the hub: its probabilities, a column for each name."""
    torch, package = pytest.importorskip("torch"), pytest.importorskip("tabicl", reason="pip install '.[tabicl]'")
    classifier = importlib.import_module("tabicl._sklearn.classifier")
    torch.manual_seed(0)
    # As narrow as its three transformers allow; classes and layers as in the published one.
    sizes = {"embed_dim": 16, "col_nhead": 2, "row_nhead": 2, "icl_nhead": 2, "icl_num_blocks": 2}
    network = classifier.TabICL(**sizes)
    for weight in network.parameters():  # some begin at zero, and the classes would be equally likely
        torch.nn.init.normal_(weight, std=0.3)
    checkpoint = tmp_path / "random.ckpt"
    torch.save({"config": sizes, "state_dict": network.state_dict()}, checkpoint)
    monkeypatch.setattr(classifier, "hf_hub_download", lambda **_: str(checkpoint))
    features, labels = np.concatenate([FEATURES, FEATURES]), np.concatenate([LABELS, LABELS])
    queries = unit([15, 50, 95])
    scores = HEADS["tabicl"](features, labels, 3)(queries)
    expected = package.TabICLClassifier(model_path=checkpoint).fit(features, labels).predict_proba(queries)
    assert scores.shape == (3, 3)
    assert np.exp(scores[:, :2]) == pytest.approx(expected + LEAST, abs=1e-6)
    assert np.ptp(expected[:, 0]) > 1e-5  # queries differ
    assert np.exp(scores[:, 2]) == pytest.approx(LEAST)  # of the third name there is no picture


def test_tabicl_without_its_package_is_a_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tabicl", None)
    with pytest.raises(InputError, match="pip install tabicl"):
        HEADS["tabicl"](FEATURES, LABELS, 2)


def test_a_name_with_one_picture_counts_as_often_as_the_others():
    """By hand, and by oracle: three neighbours can be of it, and the regression's classes have equal weights."""
    rows, few = FEATURES[[0, 1, 2, 3]][:, None], np.array([0, 0, 0, 1])
    found = fit_to_views(knn, rows, few, 2)(FEATURES)
    assert found == pytest.approx(knn(FEATURES[[0, 1, 2, 3, 3, 3]], np.array([0, 0, 0, 1, 1, 1]), 2)(FEATURES))
    uneven = np.array([0, 0, 0, 1, 1])  # of two pictures, the first comes again
    found_uneven = knn(FEATURES[:5], uneven, 2)(FEATURES)
    assert found_uneven == pytest.approx(knn(FEATURES[[0, 1, 2, 3, 4, 3]], np.array([0, 0, 0, 1, 1, 1]), 2)(FEATURES))
    assert found[3:].argmax(1).tolist() == [1, 1, 1]
    middle = linear(FEATURES[[0, 0, 0, 3]], few, 2)(unit([45]))[0]
    assert middle[0] == pytest.approx(middle[1], abs=0.01)  # without equal weights the three win


def test_a_sample_is_spread_over_all():
    assert evenly_spaced(3, 5).tolist() == [0, 1, 2]
    assert evenly_spaced(9, 5).tolist() == [0, 2, 4, 6, 8]
    assert evenly_spaced(0, 5).tolist() == []
