"""What moved an answer: by the oracle of shortened prompts, one at a time, and written once."""

import dataclasses
import json

import pytest

from linkcontext.config import eval_config
from linkcontext.data.class_folders import open_folder
from linkcontext.data.images import open_image
from linkcontext.episodes.scaffold import SCAFFOLDS, query_messages
from linkcontext.evaluation.attribution import attribute_queries, view_tree
from linkcontext.evaluation.attribution_file import attribution_of, read_attribution
from linkcontext.evaluation.example_selection import select_examples
from linkcontext.evaluation.metrics import chosen_class, grouped
from linkcontext.evaluation.run_dir import read_run
from linkcontext.evaluation.runner import run_evaluation, run_folder
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.loading import load_model
from linkcontext.report.page import write_report
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringRequest


@pytest.fixture(scope="module")
def model(nano):
    return load_model(str(nano), device="cpu")


@pytest.fixture(scope="module")
def config(nano, pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("explained") / "run"
    return eval_config(model=str(nano), data=str(pictures), shots=(0, 2), episodes=6, explain=2, out=str(out))


@pytest.fixture(scope="module")
def folder(config, model):
    run_evaluation(config, LocalModel(model))
    return read_run(run_folder(config))


def scorer(model, pictures, engine="auto"):
    dataset = open_folder(pictures)
    sources = {item.id: (item.sha256, dataset.root / item.path) for item in dataset.items}
    return LocalModel(model, VisionEncoder(model, open_image), sources, requested=engine)


def test_leaving_one_out_is_asking_the_shortened_prompt(model, pictures, folder):
    """A support written anew without the picture, one prompt at a time through the model's own processor."""
    oracle = scorer(model, pictures, "reference")
    told = attribution_of(folder)
    asked = {p.query_id: p for p in folder.predictions if p.shots_per_class == 2}
    assert len(told.queries) == 4  # two episodes of two queries
    for query in told.queries:
        prediction = asked[query.query_id]
        episode = folder.episodes[prediction.episode_id]
        chosen = chosen_class(prediction, "likelihood_sum", episode.candidates)
        assert [a.class_id for a in query.answers] == list(dict.fromkeys([prediction.gold, chosen]))
        number = next(i for i in (0, 1) if episode.query_id(i) == query.query_id)
        names = {c.class_id: c.name for c in episode.candidates}
        for answer in query.answers:
            whole = next(s.logprob for s in prediction.candidates if s.class_id == answer.class_id)
            assert answer.logprob == pytest.approx(whole, abs=1e-4)
            assert len(answer.without) == 4
            for left, value in enumerate(answer.without):
                support = [turn for place, turn in enumerate(episode.support) if place != left]
                short = dataclasses.replace(episode, ways=1, support=tuple(support))
                asks, says = (
                    query_messages(short, number, 3, SCAFFOLDS["turns"], a) for a in (None, names[answer.class_id])
                )
                [[(expected, _)]] = oracle.score([ScoringRequest(asks, (says,))])
                assert value == pytest.approx(expected, abs=1e-4)


def test_it_does_not_matter_what_is_explained_beside_it(model, pictures, folder):
    pairs = next(iter(select_examples(grouped(folder.episodes, folder.predictions)).episodes.values()))
    both = attribute_queries(scorer(model, pictures), SCAFFOLDS["turns"], pairs, "likelihood_sum")
    alone = [
        attribute_queries(scorer(model, pictures), SCAFFOLDS["turns"], [pair], "likelihood_sum")[0] for pair in pairs
    ]
    for one, other in zip(both, alone, strict=True):
        for a, b in zip(one.answers, other.answers, strict=True):
            assert (a.logprob, *a.without) == pytest.approx((b.logprob, *b.without), abs=1e-4)


def test_the_prompt_that_is_shown_is_the_tree_that_is_run(model, pictures, folder):
    episode = next(iter(folder.episodes.values()))
    evaluator = scorer(model, pictures)
    seen = view_tree(evaluator, SCAFFOLDS["turns"], episode)
    assert (seen.prompts, seen.shots_per_class) == (4, 2)
    assert sum(token.times for token in seen.tokens) == seen.merged < seen.written_out
    turns, queries = episode.shown(2), episode.queries
    assert [token.item for token in seen.tokens if token.item] == [turn.item for turn in (*turns, *queries)]
    leaves = [number for number in range(len(seen.pieces)) if all(p.parent != number for p in seen.pieces)]
    said = ["".join(t.text for t in seen.tokens[seen.pieces[n].start : seen.pieces[n].end] if t.scored) for n in leaves]
    names = [next(c.name for c in episode.candidates if c.class_id == query.class_id) for query in queries]
    assert said == [f"{name}<|end|>" for name in names] * 2
    assert view_tree(scorer(model, pictures, "reference"), SCAFFOLDS["turns"], episode).tokens == ()


def test_the_file_is_kept_and_more_is_added_when_asked(model, config, folder):
    path = folder.path / "explain.json"
    before = path.read_bytes()
    for count in (0, 1, 2):
        run_evaluation(dataclasses.replace(config, explain=count), LocalModel(model))
        assert path.read_bytes() == before
    predictions = (folder.path / "predictions.jsonl").read_bytes()
    run_evaluation(dataclasses.replace(config, explain=3), LocalModel(model))
    assert len(read_attribution(path).queries) == 6
    assert (folder.path / "predictions.jsonl").read_bytes() == predictions
    assert "6 queries were asked again" in write_report(folder.path).read_text(encoding="utf-8")


def test_the_reference_engine_explains_when_asked(model, config, tmp_path):
    asked = dataclasses.replace(config, engine="reference", out=str(tmp_path / "reference"))
    run_evaluation(dataclasses.replace(asked, explain=None), LocalModel(model))
    assert not (tmp_path / "reference" / "explain.json").exists()
    run_evaluation(dataclasses.replace(asked, explain=1), LocalModel(model))
    found = json.loads((tmp_path / "reference" / "explain.json").read_text())
    assert (found["engine"], len(found["queries"])) == ("reference", 2)
    assert "computed every prompt separately" in write_report(tmp_path / "reference").read_text(encoding="utf-8")
