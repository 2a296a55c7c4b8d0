import dataclasses
import math

import pytest

from linkcontext.evaluation.example_selection import main_scoring, main_shots
from linkcontext.evaluation.metrics import grouped
from linkcontext.evaluation.run_dir import read_run
from linkcontext.records import Score
from linkcontext.report.gallery import gallery, probabilities


@pytest.fixture
def groups_and_root(make_run):
    run = make_run(episodes=30)
    folder = read_run(run)
    return grouped(folder.episodes, folder.predictions), run.parent / "pictures"


def test_half_wrong_half_right_as_far_as_there_are(groups_and_root):
    groups, root = groups_and_root
    drawn = gallery(groups, root, limit=6)
    assert (len(drawn.wrong), len(drawn.right)) == (3, 3)
    assert all(any(q.verdict != "right" for q in e.queries) for e in drawn.wrong)
    assert all(q.verdict == "right" for e in drawn.right for q in e.queries)
    everything = gallery(groups, root, limit=100)
    assert len(everything.wrong) + len(everything.right) == 30
    assert f"{len(everything.wrong)} with an answer that is not right" in drawn.how
    assert "6 of the 30 episodes with 4 shots per class, judged by likelihood sum" in drawn.how
    few = gallery(groups, root, limit=len(everything.right) + 20)
    assert len(few.right) == len(everything.right)


def test_the_episodes_drawn_depend_on_nothing_but_the_run(groups_and_root):
    groups, root = groups_and_root
    turned = {key: pairs[::-1] for key, pairs in reversed(groups.items())}
    drawn, again = (gallery(g, root, limit=6) for g in (groups, turned))
    assert [e.id for e in (*drawn.wrong, *drawn.right)] == [e.id for e in (*again.wrong, *again.right)]
    ids = [e.id for e in gallery(groups, root, limit=8).right]
    assert ids != sorted(ids)  # not simply the first


def test_an_episode_is_shown_as_the_model_saw_it(groups_and_root):
    groups, root = groups_and_root
    opened = gallery(groups, root).right[0]
    episode, prediction = next(
        pair for key, pairs in groups.items() for pair in pairs if pair[0].id == opened.id and key.shots_per_class == 4
    )
    assert [picture.label for shown in opened.support for picture in shown.pictures] == list(prediction.support_ids)
    assert {(s.name, s.truth) for s in opened.support} == {("plimbo", "circle"), ("tavork", "square")}
    assert all(p.uri.startswith("data:image/png;base64,iVBOR") for s in opened.support for p in s.pictures)
    query = opened.queries[0]
    assert query.shown.pictures[0].label == episode.queries[0].item
    assert math.fsum(bar.probability for bar in query.bars) == pytest.approx(1)
    assert [bar.gold for bar in query.bars] == [c.class_id == prediction.gold for c in episode.candidates]
    assert query.reply.startswith("It is a ")
    assert (query.question, query.why) == ("", None)


def test_an_answer_that_is_no_candidate_is_shown_as_it_was_said(groups_and_root):
    groups, root = groups_and_root
    told = {  # captions are told about pictures of their own; a query's candidates are about its picture alone
        key: [
            (dataclasses.replace(e, support=tuple(dataclasses.replace(t, class_id="a red owl") for t in e.support)), p)
            for e, p in pairs
        ]
        for key, pairs in groups.items()
    }
    opened, plain = gallery(told, root).right[0], gallery(groups, root).right[0]
    assert [(s.name, s.truth) for s in opened.support] == [(s.name, "") for s in plain.support]


def test_pictures_that_are_gone_or_damaged_are_labelled(groups_and_root):
    groups, root = groups_and_root
    (root / "circle" / "0.png").unlink()
    (root / "square" / "0.png").write_bytes(b"no picture")
    drawn = gallery(groups, root)
    labels = {p.label for e in drawn.right for s in e.support for p in s.pictures if p.uri is None}
    assert labels == {"circle/0.png is missing", "square/0.png cannot be read"}
    assert drawn.missing == 2


def test_probabilities_by_hand(groups_and_root):
    groups, _ = groups_and_root
    prediction = next(iter(groups.values()))[0][1]
    scores = tuple(Score(c, c, p, 0.0, 1) for c, p in (("a", -1000.0), ("b", -1000.0 - math.log(3))))
    shares = probabilities(dataclasses.replace(prediction, candidates=scores), "likelihood_sum")
    assert shares == {"a": pytest.approx(0.75), "b": pytest.approx(0.25)}


def test_ties_are_neither_right_nor_wrong(groups_and_root):
    groups, root = groups_and_root
    tied = {
        key: [
            (
                e,
                dataclasses.replace(p, candidates=tuple(dataclasses.replace(s, logprob=-1.0) for s in p.candidates)),
            )
            for e, p in pairs
        ]
        for key, pairs in groups.items()
    }
    drawn = gallery(tied, root, limit=2)
    assert (len(drawn.wrong), len(drawn.right)) == (2, 0)
    assert {q.verdict for e in drawn.wrong for q in e.queries} == {"tied"}
    assert [e.right for e in drawn.wrong] == [1.0, 1.0]


@pytest.mark.parametrize(("counts", "expected"), [([0, 1, 2, 4, 8, 16], 4), ([0], 0), ([3, 5], 3), ([16, 8], 8)])
def test_which_shot_count_is_shown(counts, expected):
    assert main_shots(counts) == expected


def test_which_scoring_is_shown():
    assert main_scoring(["generate", "likelihood_mean", "likelihood_sum"]) == "likelihood_sum"
    assert main_scoring(["generate"]) == "generate"
