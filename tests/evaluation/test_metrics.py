import dataclasses
import itertools
import json
import random

import pytest

from linkcontext.episodes.ids import for_query
from linkcontext.errors import InputError
from linkcontext.evaluation.intervals import wilson
from linkcontext.evaluation.metrics import (
    accuracy_by_position,
    available_scorings,
    candidate_scores,
    chosen_class,
    credit,
    metric_rows,
)
from linkcontext.evaluation.power import detectable
from linkcontext.records import Candidate, Episode, Prediction, Score, Turn

CLASSES = ("cat", "dog")


def episode(index=0, names=("plimbo", "tavork"), kind="pseudo", classes=CLASSES, truths=CLASSES):
    candidates = tuple(Candidate(c, n, t) for c, n, t in zip(classes, names, truths, strict=True))
    support = tuple(Turn(f"{c}/1.png", c, n) for c, n in zip(classes, names, strict=True))
    queries = tuple(Turn(f"{c}/2.png", c, n) for c, n in zip(classes, names, strict=True))
    return Episode(f"e{index}", "naming", kind, len(classes), (1,), candidates, support, queries)


def prediction(of, query, logprobs=None, *, reply=None, tokens=(1, 1), null=(0.0, 0.0), shots=1, baselines=None):
    scores = () if logprobs is None else zip(of.candidates, logprobs, null, tokens, strict=True)
    return Prediction(
        of.id,
        of.query_id(query),
        shots,
        tuple(Score(c.class_id, c.name, p, n, t) for c, p, n, t in scores),
        of.queries[query].class_id,
        reply,
        {},
        "0" * 64,
        ("cat/1.png", "dog/1.png"),
        baselines or {},
    )


def by_scoring(found):
    return {row["scoring"]: row for row in found}


def test_the_three_likelihoods_decide_differently():
    e = episode()
    p = prediction(e, 0, (-3.0, -4.0), tokens=(2, 4), null=(-1.0, -5.0))
    # sums -3 > -4; means -1.5 < -1; excess over the grey picture -2 < 1
    assert candidate_scores(p, "likelihood_mean") == {"cat": -1.5, "dog": -1.0}
    assert candidate_scores(p, "likelihood_pmi") == {"cat": -2.0, "dog": 1.0}
    decisions = [chosen_class(p, s, e.candidates) for s in ("likelihood_sum", "likelihood_mean", "likelihood_pmi")]
    assert decisions == ["cat", "dog", "dog"]
    assert [row["accuracy"] for row in metric_rows({e.id: e}, [p])] == [1.0, 0.0, 0.0]


def test_a_row_by_hand():
    episodes = {e.id: e for e in (episode(0), episode(1))}
    baselines = {
        "copy_first": "cat",
        "copy_last": "dog",
        "nearest_centroid_tokens": "cat",
        "nearest_centroid_pooled": None,
        "nearest_support_tokens": "dog",
    }
    said = {
        ("e0", 0): "Cat? A plimbo.",
        ("e0", 1): "tavork",
        ("e1", 0): "plimbo or tavork",
        ("e1", 1): "plimbo",
    }
    made = [prediction(episodes[e], q, reply=reply, baselines=baselines) for (e, q), reply in said.items()]
    assert metric_rows(episodes, made) == [
        {
            "task": "naming",
            "names": "pseudo",
            "ways": 2,
            "shots_per_class": 1,
            "scoring": "generate",
            "accuracy": 0.5,
            "ci95": list(wilson(0.5, 2)),  # two episodes, one all right and one all wrong: worth two queries
            "ci95_classes": None,
            "n_queries": 4,
            "n_episodes": 2,
            "n_pictures": 2,
            "shorter": None,
            "detectable": detectable(wilson(0.5, 2), 2),
            "answered": 0.75,
            "chance": 0.5,
            "truth": None,
            "baselines": {
                "copy_first": 0.5,
                "copy_last": 0.5,
                "majority": None,
                "nearest_centroid": 0.5,
                "nearest_support": 0.5,
            },
        }
    ]


def test_queries_with_supports_of_their_own_are_clustered_as_they_were_drawn():
    """Two drawn episodes of two queries, each query an episode of its own: one all right, one all wrong."""
    own = {}
    for index, query in itertools.product(range(2), range(2)):
        drawn = episode(index)
        one = dataclasses.replace(drawn, id=for_query(drawn.id, query, 1), queries=(drawn.queries[query],))
        own[one.id] = one
    made = [prediction(e, 0, reply=e.queries[0].answer if e.id.startswith("e0") else "?") for e in own.values()]
    (row,) = metric_rows(own, made)
    assert (row["n_queries"], row["n_episodes"]) == (4, 2)
    assert row["ci95"] == list(wilson(0.5, 2))
    assert row["detectable"] == detectable(wilson(0.5, 2), 2)


def test_baselines_take_the_better_version_and_need_every_query():
    e = episode()
    tokens, pooled = {"nearest_centroid_tokens": "cat"}, {"nearest_centroid_pooled": "cat"}
    both = [
        prediction(e, 0, (0.0, -1.0), baselines={**tokens, **pooled}),
        prediction(e, 1, (0.0, -1.0), baselines={**tokens, "nearest_centroid_pooled": "dog"}),
    ]
    row = metric_rows({e.id: e}, both)[0]
    assert row["baselines"]["nearest_centroid"] == 1.0  # pooled; tokens would have .5
    assert row["baselines"]["copy_first"] is None
    half = [both[0], prediction(e, 1, (0.0, -1.0), baselines=tokens)]
    assert metric_rows({e.id: e}, half)[0]["baselines"]["nearest_centroid"] == 0.5


def test_accuracy_by_the_place_of_the_only_support():
    first, second = episode(0), episode(1)
    second = dataclasses.replace(second, support=second.support[::-1])
    pairs = [
        (first, prediction(first, 0, (-1.0, -2.0))),  # cat stands first, right
        (first, prediction(first, 1, (-1.0, -2.0))),  # dog stands second, wrong
        (second, prediction(second, 0, (-1.0, -2.0))),  # cat stands second, right
        (second, prediction(second, 1, (-3.0, -2.0))),  # dog stands first, right
        (second, prediction(second, 1, (-1.0, -2.0), shots=2)),  # two supports of a class: no one place
    ]
    found = accuracy_by_position(pairs, "likelihood_sum")
    assert [(p.place, p.accuracy, p.n_queries) for p in found] == [(0, 1.0, 2), (1, 0.5, 2)]
    assert all(p.ci95[0] <= p.accuracy <= p.ci95[1] for p in found)


def test_a_tie_counts_its_share():
    e = episode(classes=("a", "b", "c"), names=("x", "y", "z"), truths=("a", "b", "c"))
    tied = prediction(e, 0, (-1.0, -1.0, -2.0), tokens=(1, 1, 1), null=(0.0, 0.0, 0.0))
    assert chosen_class(tied, "likelihood_sum", e.candidates) is None
    assert credit(tied, "likelihood_sum", e.candidates) == 0.5
    lost = dataclasses.replace(tied, query_id=e.query_id(2), gold="c")
    assert credit(lost, "likelihood_sum", e.candidates) == 0.0
    assert by_scoring(metric_rows({e.id: e}, [tied, lost]))["likelihood_sum"]["accuracy"] == 0.25


def test_a_model_that_sees_nothing_is_exactly_at_chance():
    episodes = {f"e{i}": episode(i) for i in range(9)}
    made = [prediction(e, q, (-1.0, -1.0)) for e in episodes.values() for q in (0, 1)]
    assert {row["accuracy"] for row in metric_rows(episodes, made)} == {0.5}


def test_swapped_names_have_a_truth_column():
    e = episode(names=("dog", "cat"), kind="swapped")  # what people call a cat is shown as "dog"
    shown = prediction(e, 0, (-1.0, -2.0), reply="dog")
    true = prediction(e, 1, (-1.0, -2.0), reply="dog")  # the query is a dog, and called "cat" here
    found = by_scoring(metric_rows({e.id: e}, [shown, true]))
    assert (found["likelihood_sum"]["accuracy"], found["likelihood_sum"]["truth"]) == (0.5, 0.5)
    tied = prediction(e, 0, (-1.0, -1.0))
    assert metric_rows({e.id: e}, [tied])[0]["truth"] == 0.5
    silent = [prediction(e, 0, reply="?"), prediction(e, 1, reply="dog")]
    assert (metric_rows({e.id: e}, silent)[0]["accuracy"], metric_rows({e.id: e}, silent)[0]["truth"]) == (0.0, 0.5)


def test_three_swapped_names_where_neither_shown_nor_true_is_said():
    e = episode(classes=("a", "b", "c"), names=("b", "c", "a"), truths=("a", "b", "c"), kind="swapped")
    row = metric_rows({e.id: e}, [prediction(e, 0, reply="c")])[0]  # "b" was shown, "a" is true
    assert (row["accuracy"], row["truth"]) == (0.0, 0.0)
    assert metric_rows({e.id: e}, [prediction(e, 0, reply="a")])[0]["truth"] == 1.0


def test_only_scorings_with_data_have_rows():
    e = episode()
    assert [r["scoring"] for r in metric_rows({e.id: e}, [prediction(e, 0, reply="")])] == ["generate"]
    both = metric_rows({e.id: e}, [prediction(e, 0, (0.0, -1.0), reply="plimbo")])
    assert [r["scoring"] for r in both] == ["likelihood_sum", "likelihood_mean", "likelihood_pmi", "generate"]
    assert metric_rows({e.id: e}, []) == []


def test_order_of_predictions_changes_nothing_and_correct_is_not_read():
    episodes = {f"e{i}": episode(i, kind="pseudo" if i % 2 else "real") for i in range(12)}
    chance = random.Random(0)
    made = [
        prediction(e, q, (-chance.random(), -chance.choice([0.2, 0.4])), reply="tavork", shots=k)
        for e in episodes.values()
        for q in (0, 1)
        for k in (0, 2, 16)
    ]
    expected = metric_rows(episodes, made)
    lying = [dataclasses.replace(p, correct={"likelihood_sum": True}) for p in made]
    chance.shuffle(lying)
    assert metric_rows(dict(reversed(episodes.items())), lying) == expected
    assert [(r["names"], r["shots_per_class"]) for r in expected[::4]] == [
        (names, shots) for names in ("pseudo", "real") for shots in (0, 2, 16)
    ]
    assert json.loads(json.dumps(expected)) == expected


def test_order_changes_not_even_the_last_digit():
    classes = ("a", "b", "c")
    chance = random.Random(1)
    episodes = {f"e{i}": episode(i, classes=classes, names=("x", "y", "z"), truths=classes) for i in range(60)}
    made = [
        prediction(e, q, chance.choices((-1.0, -2.0), k=3), tokens=(1, 1, 1), null=(0.0, 0.0, 0.0))
        for e in episodes.values()
        for q in (0, 1, 2)
    ]  # credits of 1, 1/2, 1/3 and 0, whose sums round differently in another order
    expected = metric_rows(episodes, made)
    for _ in range(5):
        chance.shuffle(made)
        assert metric_rows(episodes, made) == expected


def test_new_classes_have_an_interval_from_six_classes_on():
    classes = [f"c{i}" for i in range(7)]
    duels = [(a, b) for a in classes for b in classes if a < b]
    episodes = {f"e{i}": episode(i, classes=duel, truths=duel, names=("x", "y")) for i, duel in enumerate(duels)}
    # Whoever meets the class c0 fails, c0 itself and the other.
    made = [
        prediction(e, q, (-1.0, -2.0) if ("c0" in duels[int(e.id[1:])]) == (q == 1) else (-2.0, -1.0))
        for e in episodes.values()
        for q in (0, 1)
    ]
    row = metric_rows(episodes, made)[0]
    assert row["accuracy"] == pytest.approx(30 / 42)
    low, high = row["ci95_classes"]
    # Without c0 all 30 queries left are right; without another class, with all its episodes, 20 of 30.
    variance = 6 / 7 * ((1 - 5 / 7) ** 2 + 6 * (20 / 30 - 5 / 7) ** 2)
    assert low == pytest.approx(30 / 42 - 2.446912 * variance**0.5, abs=1e-6)
    assert low < row["ci95"][0]
    assert high == 1.0
    few = {
        k: e for k, e in episodes.items() if "c6" not in k and {"c5", "c6"}.isdisjoint(c.class_id for c in e.candidates)
    }
    assert metric_rows(few, [p for p in made if p.episode_id in few])[0]["ci95_classes"] is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"query_id": "e9/q0"}, "e9/q0 is not a query of episodes.jsonl"),
        ({"gold": "dog"}, "another right class"),
        ({"candidates": (Score("cow", "x", 0.0, 0.0, 1),)}, "other candidates"),
        ({"candidates": tuple(Score(c, c, float("nan"), 0.0, 1) for c in CLASSES)}, "overflowed"),
        ({"candidates": tuple(Score(c, c, -1.0, 0.0, 0) for c in CLASSES)}, "likelihood_mean"),
    ],
)
def test_files_that_do_not_belong_together(change, sentence):
    e = episode()
    wrong = dataclasses.replace(prediction(e, 0, (0.0, -1.0)), **change)
    with pytest.raises(InputError, match=sentence):
        metric_rows({e.id: e}, [wrong])


def test_a_query_that_comes_twice():
    e = episode()
    with pytest.raises(InputError, match="e0/q0 at 1 shots per class comes twice"):
        metric_rows({e.id: e}, [prediction(e, 0, (0.0, -1.0))] * 2)


def test_without_a_grey_query_there_is_no_pmi():
    e = episode()
    p = prediction(e, 0, (-1.0, -2.0), null=(None, None))
    assert available_scorings(p) == ("likelihood_sum", "likelihood_mean")
    assert [row["scoring"] for row in metric_rows({e.id: e}, [p])] == ["likelihood_sum", "likelihood_mean"]
    with pytest.raises(InputError, match="likelihood_pmi"):
        candidate_scores(p, "likelihood_pmi")


def test_how_often_the_shorter_name_was_chosen_by_hand():
    e, equal = episode(0), episode(1)
    pairs = [
        prediction(e, 0, (-1.0, -2.0), tokens=(2, 4)),  # the shorter one, rightly
        prediction(e, 1, (-1.0, -2.0), tokens=(2, 4)),  # the shorter one, wrongly
        prediction(equal, 0, (-1.0, -2.0), tokens=(3, 3)),  # names of one length say nothing
        prediction(equal, 1, (-1.0, -1.0), tokens=(4, 2)),  # a tie is half of each
    ]
    row = by_scoring(metric_rows({each.id: each for each in (e, equal)}, pairs))["likelihood_sum"]
    assert row["shorter"] == {"chosen": 2.5 / 3, "right": 2 / 3, "n_queries": 3}
    named = [prediction(e, 0, reply="plimbo"), prediction(e, 1, reply="what?")]  # letters, without tokens: 6 and 6
    assert by_scoring(metric_rows({e.id: e}, named))["generate"]["shorter"] is None
    of = episode(names=("plim", "tavork"))
    named = [prediction(of, 0, reply="tavork"), prediction(of, 1, reply="what?")]
    assert by_scoring(metric_rows({of.id: of}, named))["generate"]["shorter"] == {
        "chosen": 0.0,
        "right": 1.0,
        "n_queries": 1,
    }


def test_a_preference_for_a_name_is_taken_off():
    e = episode()
    p = prediction(e, 1, (-1.0, -1.5), tokens=(1, 4))
    assert "likelihood_calibrated" not in available_scorings(p)
    scores = [dataclasses.replace(s, prior_logprob=v) for s, v in zip(p.candidates, (-0.2, -2.0), strict=True)]
    p = dataclasses.replace(p, candidates=tuple(scores))
    assert candidate_scores(p, "likelihood_calibrated") == {"cat": -0.8, "dog": 0.5}
    assert [chosen_class(p, s, e.candidates) for s in ("likelihood_sum", "likelihood_calibrated")] == ["cat", "dog"]
