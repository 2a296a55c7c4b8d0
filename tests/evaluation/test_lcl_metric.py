"""The released metric, with each of its defects shown beside what strict matching says."""

import pytest

from linkcontext.evaluation import answers, lcl_metric
from linkcontext.evaluation.metrics import metric_rows
from linkcontext.records import Candidate, Episode, Prediction, Turn


def names(*shown):
    return [Candidate(name, name, name) for name in shown]


@pytest.mark.parametrize(
    ("reply", "target", "other", "counted"),
    [
        ('there is "icemic" in the image.', "icemic", "ice cream", True),
        ('there is "ice cream" in the image.', "icemic", "ice cream", False),
        ("an icemic, no ice cream", "icemic", "ice cream", False),
        ("", "icemic", "ice cream", False),
        ("a tree", "icemic", "ice cream", False),
        ("an icemic", "IceMic", "Ice Cream", True),  # names are taken in lower case
    ],
)
def test_by_hand(reply, target, other, counted):
    assert lcl_metric.lcl_correct(reply, target, [other]) is counted


@pytest.mark.parametrize(
    ("reply", "target", "other", "counted", "truly"),
    [
        ("kit fox", "fox", "kit fox", True, "kit fox"),  # the target is taken out first, and "kit " is left
        ("Fox", "fox", "wolf", False, "fox"),  # the raw reply is searched, the name is in lower case
        ("foxglove", "fox", "wolf", True, None),  # a substring is enough
        ("jack-o'-lantern", "jack-o'-lantern", "pumpkin", False, "jack-o'-lantern"),  # marks leave the target alone
    ],
)
def test_its_defects(reply, target, other, counted, truly):
    assert lcl_metric.lcl_correct(reply, target, [other]) is counted
    assert answers.match(reply, names(target, other)) == truly


def predictions(*replies):
    """One episode of foxes and kit foxes, each queried equally often, and what was said."""
    a, b = names("fox", "kit fox")
    queries = tuple(Turn(f"{i}.png", c.class_id, c.name) for i, c in enumerate((a, b) * (len(replies) // 2)))
    support = (Turn("s", "fox", "fox"), Turn("t", "kit fox", "kit fox"))
    episode = Episode("e0", "link", "real", 2, (1,), (a, b), support, queries)
    blind = {"copy_first": "fox", "copy_last": "kit fox"}
    said = [
        Prediction("e0", episode.query_id(i), 1, (), q.class_id, reply, {}, "", ("s", "t"), blind)
        for i, (q, reply) in enumerate(zip(queries, replies, strict=True))
    ]
    return {"e0": episode}, said


def test_a_row_by_hand():
    episodes, said = predictions("fox", "Kit fox", "kit fox", "kit fox")
    (row,) = lcl_metric.lcl_rows(episodes, iter(said))
    (strict,) = metric_rows(episodes, said)
    assert row.keys() == strict.keys()
    # right: fox for fox; "Kit fox" holds no "kit fox"; "kit fox" counts for the fox and for the kit fox
    assert (row["scoring"], row["accuracy"], row["n_queries"], row["chance"]) == ("lcl_legacy", 0.75, 4, 0.0)
    assert strict["accuracy"] == 0.75
    assert row["answered"] == 1.0
    assert row["ci95"][0] < 0.75 < row["ci95"][1]
    assert row["baselines"] == strict["baselines"]


def test_silence_is_worth_nothing_and_likelihood_has_no_such_row():
    episodes, said = predictions("", "")
    (row,) = lcl_metric.lcl_rows(episodes, said)
    assert (row["accuracy"], row["answered"]) == (0.0, 0.0)
    episodes, said = predictions(None, None)
    assert lcl_metric.lcl_rows(episodes, said) == []


def test_several_others_all_count():
    assert lcl_metric.lcl_correct("a fox", "fox", ["wolf", "dog"])
    assert not lcl_metric.lcl_correct("a fox or a dog", "fox", ["wolf", "dog"])
