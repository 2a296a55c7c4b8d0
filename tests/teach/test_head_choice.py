"""Which head names pictures: the best on pictures that are left out, with the choice inside of what is counted."""

import numpy as np
import pytest
import torch

from linkcontext.errors import InputError
from linkcontext.evaluation import head_choice
from linkcontext.evaluation.head_choice import MIXED, HeadChoice, choose_head
from linkcontext.evaluation.heads import HEADS, left_out_scores, log_softmax
from linkcontext.evaluation.picture_vectors import own_vectors
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.prefix_tree import ImageTokens
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data
from linkcontext.teach.learner import Learner
from linkcontext.teach.naming import left_out_by_model, views_by_kind
from linkcontext.teach.pack import read_pack
from linkcontext.teach.pack_writing import write_pack
from linkcontext.teach.taught_pictures import TaughtPictures

STREAM = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], 6)


def clusters(spread):
    """Unit vectors float32[18, 1, 8] around one centre for each name, without changed copies."""
    centres = np.eye(3, 8, dtype=np.float32)
    rows = centres[LABELS] + spread * np.random.default_rng(1).normal(size=(18, 8)).astype(np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True))[:, None]


def model_scores(right):
    """Scores of a language model that names this share of the pictures right."""
    rows = np.where(STREAM.random(18)[:, None] < right, np.eye(3)[LABELS], np.eye(3)[(LABELS + 1) % 3])
    return 5 * rows


def never():
    raise AssertionError("the language model is not needed")


def test_auto_takes_features_where_they_tell_and_the_model_where_they_do_not():
    clear, noise = {"tokens": clusters(0.05)}, {"tokens": clusters(9)}
    chosen = choose_head("auto", clear, LABELS, 3, lambda: model_scores(0.3))
    assert chosen.head == "centroid"  # the simplest of those that are always right
    assert (chosen.right, chosen.pictures, chosen.features) == (18, 18, "tokens")
    chosen = choose_head("auto", noise, LABELS, 3, lambda: model_scores(1))
    assert "lm" in chosen.parts
    assert chosen.right > 15


def test_the_kind_of_features_is_the_one_that_tells():
    kinds = {"tokens": clusters(9), "pooled": clusters(0.05)}
    assert choose_head("linear", kinds, LABELS, 3, never).features == "pooled"


def test_a_head_that_is_wanted_is_taken_and_judged():
    for head in ("centroid", "knn", "linear"):
        chosen = choose_head(head, {"tokens": clusters(0.3)}, LABELS, 3, never)
        assert chosen.head == head
        assert chosen.pictures == 18
        assert f"({head})" in chosen.describe()
        assert f"{chosen.right} of 18 right" in chosen.describe()
    assert choose_head("lm", {"tokens": clusters(1)}, LABELS, 3, never) == HeadChoice("lm")


def test_right_is_counted_with_the_choice_inside():
    """Of many heads that guess, the luckiest is not believed: what is counted is what the others would have chosen."""
    counted = []
    for seed in range(60):
        stream = np.random.default_rng(seed)
        rows = stream.normal(size=(18, 1, 8)).astype(np.float32)
        chosen = choose_head("auto", {"tokens": rows}, LABELS, 3, lambda s=stream: s.normal(size=(18, 3)))
        counted.append(chosen.right)
    assert np.mean(counted) / 18 == pytest.approx(1 / 3, abs=0.05)


def test_the_kind_of_features_is_chosen_without_the_pictures_that_are_counted():
    """Of two kinds of noise the luckier one is not believed: two names are guessed right half of the time."""
    labels, counted = np.repeat([0, 1], 4), []
    for seed in range(60):
        rows = np.random.default_rng(seed).normal(size=(2, 8, 1, 32)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
        kinds = {"tokens": rows[0], "pooled": rows[1]}
        counted.append(choose_head("centroid", kinds, labels, 2, never).right)
    assert np.mean(counted) / 8 == pytest.approx(1 / 2, abs=0.05)


def test_features_that_are_no_numbers_are_refused_and_zeros_are_taken():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    tokens = ImageTokens(*[np.zeros(1, np.int64)] * 3)
    images = [ImageFeatures(tokens, row[None]) for row in rows]
    pictures = TaughtPictures({"a": ["1"], "b": ["2"]})
    pictures.vectors = {"1": own_vectors(images[:1]), "2": own_vectors(images[1:])}
    assert views_by_kind(pictures)["tokens"] == pytest.approx(np.array([[[0.6, 0.8]], [[0, 0]]]))
    pictures = pictures.copy()
    pictures.vectors["1"] = own_vectors([ImageFeatures(tokens, rows[:1] * float("nan"))])
    with pytest.raises(InputError, match=r"not finite numbers.*\(--head lm\)"):
        views_by_kind(pictures)


def test_without_features_or_second_pictures_auto_is_the_language_model():
    assert choose_head("auto", {}, LABELS, 3, never) == HeadChoice("lm")
    single = choose_head("auto", {"tokens": clusters(1)[[0, 6, 12]]}, np.arange(3), 3, lambda: np.full((3, 3), np.nan))
    assert single == HeadChoice("lm")
    wanted = choose_head("centroid", {"tokens": clusters(1)[[0, 6, 12]]}, np.arange(3), 3, never)
    assert (wanted.head, wanted.pictures) == ("centroid", 0)
    with pytest.raises(InputError, match=r"head knn \(--head\): this model shows no image features\. Use the head lm"):
        choose_head("knn", {}, LABELS, 3, never)


def test_two_pictures_of_one_name_and_one_of_another_are_enough():
    kinds = {"tokens": clusters(0.1)[[0, 1, 6]], "pooled": clusters(0.2)[[0, 1, 6]]}
    model = np.array([[1.0, 0.0], [1.0, 0.0], [np.nan, np.nan]])
    chosen = choose_head("auto", kinds, np.array([0, 0, 1]), 2, lambda: model)
    assert chosen.pictures == 2


def test_the_language_model_alone_keeps_its_probabilities():
    scores = STREAM.normal(size=(4, 3))
    assert HeadChoice("lm").log_probabilities({"lm": scores}) == pytest.approx(log_softmax(scores))


def test_a_mixture_is_the_mean_of_its_parts():
    scores = {part: STREAM.normal(size=(2, 3)) for part in MIXED}
    temperatures = {**dict.fromkeys(MIXED, 0.5), "mix": 2.0}
    mean = np.mean([log_softmax(scores[part] / 0.5) for part in MIXED], axis=0)
    expected = log_softmax(mean / 2)
    assert HeadChoice("mix", "tokens", temperatures).log_probabilities(scores) == pytest.approx(expected)


@pytest.fixture(scope="module")
def lesson():
    """Four pictures of two things, and others of them."""
    classes = list(open_data("world:3").by_class().values())
    dataset = open_data("world:3")
    named = {name: [dataset.path(item.id) for item in classes[at]] for name, at in (("lum", 0), ("dax", 5))}
    return {name: paths[:4] for name, paths in named.items()}, {name: paths[8] for name, paths in named.items()}


def test_a_learner_answers_by_its_head(mini, lesson):
    taught, new = lesson
    learner = Learner(LocalModel(mini))
    learner.teach(taught)
    assert learner.choose_head().pictures == 8
    answers = {}
    for head in ("lm", "centroid", "knn", "linear", "mix", "auto"):
        learner.head = head
        answers[head] = learner.ask(new["lum"]).probabilities
        assert sum(answers[head].values()) == pytest.approx(1)
    assert len({round(answers[head]["lum"], 6) for head in ("lm", "centroid", "knn", "linear")}) == 4
    assert answers["auto"] == answers[learner.choose_head().head]
    learner.teach({"lum": [new["lum"]]})
    assert learner.choose_head().pictures == 9


def test_the_model_does_not_see_what_is_left_out(mini, lesson):
    """By oracle: a learner that was never shown the pictures."""
    taught, _ = lesson
    learner = Learner(LocalModel(mini), head="lm")
    learner.teach(taught)
    scores = left_out_by_model(learner)
    without = Learner(LocalModel(mini), head="lm")
    without.teach({name: paths[1:] for name, paths in taught.items()})
    without.computed.restore(without.pictures.key, name_bias=[0.0, 0.0])
    first, second = (np.log([*without.ask(taught[name][0]).probabilities.values()]) for name in ("lum", "dax"))
    # The scores are less the mean of each name, which falls out of the difference.
    assert scores[0] - scores[4] == pytest.approx(first - second, abs=1e-3)


def test_a_pack_keeps_the_head(mini, lesson, tmp_path):
    taught, new = lesson
    learner = Learner(LocalModel(mini), head="mix")
    learner.teach(taught)
    pack = write_pack(learner, tmp_path / "two.pack")
    assert pack.head == "mix"
    assert any("left out in turn" in line and "(mix)" in line for line in pack.describe())
    again = read_pack(pack.path).learner(LocalModel(mini))
    assert again.computed.values["head mix"] == learner.choose_head()  # not computed again
    assert again.ask(new["dax"]).probabilities == pytest.approx(learner.ask(new["dax"]).probabilities, abs=1e-6)
    again.head = "centroid"
    assert again.choose_head().head == "centroid"


def test_of_many_pictures_a_sample_is_left_out_and_no_regression_is_fitted(monkeypatch, caplog):
    """By oracle: the choice is that of the three heads that remain, on the pictures that are counted."""
    kinds = {"tokens": clusters(0.3), "pooled": clusters(2)}
    monkeypatch.setattr(head_choice, "MOST", 6)
    monkeypatch.setattr(head_choice, "MOST_TO_FIT", 18 * 3 - 1)
    monkeypatch.setitem(head_choice.HEADS, "linear", never)
    chosen = choose_head("auto", kinds, LABELS, 3, lambda: model_scores(0.3))
    assert chosen.pictures == 6
    assert chosen.head in ("centroid", "knn")
    assert chosen.features == "tokens"
    assert "linear and mix are not tried" in caplog.text


def test_scores_of_some_pictures_are_those_of_all():
    """By invariance."""
    rows, wanted = clusters(0.5), np.array([0, 7, 13, 14])
    for head in ("centroid", "knn"):
        every = left_out_scores(HEADS[head], rows, LABELS, 3)
        some = left_out_scores(HEADS[head], rows, LABELS, 3, wanted)
        assert some[wanted] == pytest.approx(every[wanted], abs=1e-6)
        assert np.isnan(np.delete(some, wanted, 0)).all()


def test_where_no_shown_picture_can_be_left_out_heads_on_features_are_judged():
    """One picture of each name is shown, and others can be left out of the classifiers."""
    chosen = choose_head("auto", {"tokens": clusters(0.05)}, LABELS, 3, lambda: np.full((18, 3), np.nan))
    assert (chosen.head, chosen.right, chosen.pictures) == ("centroid", 18, 18)


def test_a_mixture_of_which_no_shown_picture_can_be_left_out_is_not_judged():
    chosen = choose_head("mix", {"tokens": clusters(0.05)}, LABELS, 3, lambda: np.full((18, 3), np.nan))
    assert (chosen.head, chosen.features, chosen.pictures) == ("mix", "tokens", 0)
