"""Heads in an evaluation: they answer as `ask` does, a centroid is the baseline, and pairs are asked one by one."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from linkcontext.config import eval_config
from linkcontext.episodes.scaffold import SCAFFOLDS
from linkcontext.errors import InputError
from linkcontext.evaluation.head_task import HeadTask
from linkcontext.evaluation.pairs import left_out_pair_scores, pair_log_odds, pair_scores
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.jsonl import read_jsonl
from linkcontext.models.loading import load_model
from linkcontext.records import Episode, Prediction, Turn
from linkcontext.report.page import write_report
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data
from linkcontext.teach.learner import Learner


class SameKind:
    """A model that answers "yes" for two pictures whose ids begin with the same letter; it counts what it is asked."""

    def __init__(self):
        self.asked = []

    def score(self, requests, on=None):
        rows = []
        for request in requests:
            first, second = [p["image"] for p in request.messages[-1]["content"] if p["type"] == "image"]
            answers = [answer[-1]["content"][0]["text"] for answer in request.answers]
            self.asked.append((first, second))
            rows.append([((0.0 if (first[0] == second[0]) == (answer == "yes") else -4.0), 1) for answer in answers])
        return rows


def test_pairs_ask_of_each_support_picture_with_the_query_first():
    model, labels = SameKind(), np.array([0, 0, 1])
    assert pair_log_odds(model, "a9", ["a1", "b1"]).tolist() == [4, -4]
    assert model.asked == [("a9", "a1"), ("a9", "b1")]
    assert pair_scores(model, "b9", ["a1", "a2", "b1"], labels, 2).tolist() == [-4, 4]
    scores = left_out_pair_scores(model, ["a1", "a2", "b1"], labels, 2)
    assert scores[:2].tolist() == [[4, -4], [4, -4]]
    assert np.isnan(scores[2]).all()  # the only picture of its name


def test_a_head_by_pairs_follows_the_names_that_are_shown():
    support = [Turn("a1", "A", "lum"), Turn("b1", "B", "dax"), Turn("a2", "A", "lum"), Turn("b2", "B", "dax")]
    model = SimpleNamespace(score=SameKind().score)
    task = HeadTask(model, SCAFFOLDS["turns"], support, ["dax", "lum"])
    rows = task.log_probabilities("pairs", [Turn("a9", "A", ""), Turn("b9", "B", "")], np.zeros((2, 2)))
    assert np.exp(rows).sum(1) == pytest.approx([1, 1])
    assert rows.argmax(1).tolist() == [1, 0]


def options(tmp_path, **more):
    return eval_config(model="mini", data="world:3", episodes=2, shots=(0, 1, 4), ways=2, explain=0, **more)


def head_rows(out):
    """The episodes by id, and each prediction with its log-probabilities by the head."""
    episodes = {episode.id: episode for episode in read_jsonl(Episode, out / "episodes.jsonl")}
    found = [
        (p, {s.name: s.head_logprob for s in p.candidates}) for p in read_jsonl(Prediction, out / "predictions.jsonl")
    ]
    return episodes, found


@pytest.mark.parametrize("head", ["auto", "mix", "knn", "pairs"])
def test_an_evaluation_answers_as_ask_does(nano, tmp_path, head):
    """By oracle: a learner that is taught the support of each episode, and is asked about its queries."""
    out, model = tmp_path / head, LocalModel(load_model(str(nano)))
    metrics = run_evaluation(options(tmp_path, head=head, out=str(out)), model)
    assert [row["shots_per_class"] for row in metrics["rows"] if row["scoring"] == "head"] == [1, 4]
    dataset = open_data("world:3")
    episodes, found = head_rows(out)
    for prediction, by_name in found:
        episode = episodes[prediction.episode_id]
        if prediction.shots_per_class == 0:
            assert set(by_name.values()) == {None}
            continue
        learner = Learner(model, head=head)
        shown = episode.shown(prediction.shots_per_class)
        learner.teach({name: [dataset.path(t.item) for t in shown if t.answer == name] for name in by_name})
        support = [Turn(learner.pictures.id_of(dataset.path(t.item)), t.answer, t.answer) for t in shown]
        learner.computed.restore(learner.pictures.key, support=support)  # in the order of the episode
        query = episode.queries[int(prediction.query_id.rpartition("q")[2])]
        expected = learner.ask(dataset.path(query.item)).probabilities
        assert {name: np.exp(value) for name, value in by_name.items()} == pytest.approx(expected, abs=1e-4)


def test_a_centroid_head_is_the_baseline_and_a_run_goes_on(mini, tmp_path):
    out = tmp_path / "centroid"
    config = options(tmp_path, head="centroid", out=str(out))
    metrics = run_evaluation(config, LocalModel(mini))
    for prediction in read_jsonl(Prediction, out / "predictions.jsonl"):
        if prediction.shots_per_class == 1:  # with one picture of each nothing is left out, and the first kind is used
            best = max(prediction.candidates, key=lambda score: score.head_logprob).class_id
            assert best == prediction.baselines["nearest_centroid_tokens"]
    lines = (out / "predictions.jsonl").read_text().splitlines(keepends=True)
    (out / "predictions.jsonl").write_text("".join(lines[:-3]))
    assert run_evaluation(config, LocalModel(mini))["rows"] == metrics["rows"]
    assert "head" in Path(write_report(out)).read_text()
    assert json.loads((out / "config.json").read_text())["config"]["head"] == "centroid"


def test_what_a_head_cannot_do_is_refused(tmp_path):
    for more, named in (
        ({"scoring": "generate"}, "--scoring generate"),
        ({"select": "rices", "choose_from": 4}, "--select rices"),
    ):
        with pytest.raises(InputError, match=f"--head knn: not together with {named}"):
            options(tmp_path, head="knn", **more)
