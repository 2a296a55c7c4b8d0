"""Which pictures are shown, where there are more than are to be shown."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from linkcontext.config import eval_config
from linkcontext.data.images import open_image
from linkcontext.episodes.ids import drawn_as
from linkcontext.errors import InputError
from linkcontext.evaluation.compare import compare
from linkcontext.evaluation.draw import draw_choosable, draw_configured
from linkcontext.evaluation.medoids import majority, medoids, rices, vector
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.inference.vision import VisionEncoder
from linkcontext.jsonl import read_jsonl
from linkcontext.models.loading import load_model
from linkcontext.records import Episode
from linkcontext.source import open_data


def test_medoids_stand_for_all_by_hand():
    """Three at one place, two at another, one aside: the medoid is of the three, then one of the two, then the rest."""
    angles = torch.tensor([0.0, 90.0, 0.0, 45.0, 90.0, 0.0]).deg2rad()
    vectors = torch.stack([angles.cos(), angles.sin()], 1)
    chosen = medoids(vectors, 3)
    assert [float(angles[place].rad2deg()) for place in chosen[1:]] != []
    assert medoids(vectors, 2) == chosen[:2]
    assert sorted(medoids(vectors, 9)) == list(range(6))
    # By cosine the one at 45 degrees has .71 x 5 + 1, one at 0 has 3 + .71: it stands for all best alone.
    assert chosen[0] == 3
    assert {chosen[1], chosen[2]} <= {0, 1, 2, 4, 5}
    assert angles[chosen[1]] == 0  # three gain more than two


def test_rices_has_the_likest_last_and_the_majority_takes_their_side():
    vectors = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.5]]), dim=-1)
    order = rices(torch.tensor([1.0, 0.0]), vectors, 3)
    assert order == [1, 3, 0]
    assert majority(["a", "b", "b"]) == "b"
    assert majority(["b", "a"]) == "a"
    assert majority([]) is None


@pytest.fixture
def config(nano, pictures, tmp_path):
    def make(select, **changes):
        options = {"model": str(nano), "data": str(pictures), "shots": (0, 1, 2), "episodes": 4, "choose_from": 4}
        return eval_config(**{**options, "select": select, "out": str(tmp_path / select), **changes})

    return make


def test_chosen_supports_are_among_those_there_and_as_asked(config, nano, tmp_path):
    found = {name: run_evaluation(config(name)) for name in ("random", "medoid", "rices")}
    episodes = {name: list(read_jsonl(Episode, tmp_path / name / "episodes.jsonl")) for name in found}
    dataset = open_data(config("random").episodes.data)
    stock = {e.id: e for e in draw_choosable(config("random").episodes, dataset).episodes}
    eyes = VisionEncoder(load_model(str(nano)), open_image)
    eyes.encode([(item.sha256, dataset.root / item.path) for item in dataset.items])
    seen = {item.id: vector(eyes.get(item.sha256)) for item in dataset.items}
    assert episodes["random"] == list(draw_configured(config("random").episodes, dataset).episodes)
    for plain, medoid in zip(episodes["random"], episodes["medoid"], strict=True):
        assert plain.support == stock[plain.id].support[:4]
        assert medoid.queries == plain.queries
        assert [turn.class_id for turn in medoid.support] == [turn.class_id for turn in plain.support]
        for candidate in medoid.candidates:
            own = [t.item for t in stock[medoid.id].support if t.class_id == candidate.class_id]
            best = max(own, key=lambda item: sum(float(seen[item] @ seen[other]) for other in own))
            assert next(t.item for t in medoid.support if t.class_id == candidate.class_id) == best
    assert len(episodes["rices"]) == 4 * 2 * 3
    for one in episodes["rices"]:
        (query,), near = one.queries, [float(seen[one.queries[0].item] @ seen[t.item]) for t in one.support]
        assert len(one.support) == 2 * one.shots_per_class[0]
        assert near == sorted(near)
        others = [t.item for t in stock[drawn_as(one.id)].support if t not in one.support]
        assert all(float(seen[query.item] @ seen[item]) <= near[0] + 1e-6 for item in others if near)
    tasks = {name: {row["task"] for row in metrics["rows"]} for name, metrics in found.items()}
    assert tasks == {"random": {"link"}, "medoid": {"link-medoid"}, "rices": {"link-rices"}}
    for one, other in itertools.permutations(found, 2):
        pairs = compare(tmp_path / one, tmp_path / other)
        assert {(row["task"], row["n_queries"], row["n_episodes"]) for row in pairs} == {("link", 8, 4)}
        assert all(row["unpaired_a"] == row["unpaired_b"] == 0 for row in pairs)
        assert {row["difference"] for row in pairs if not row["shots_per_class"]} == {0}
    votes = {row["shots_per_class"]: row["baselines"]["majority"] for row in found["rices"]["rows"]}
    assert {row["n_episodes"] for metrics in found.values() for row in metrics["rows"]} == {4}
    assert votes[0] is None
    assert votes[2] is not None
    assert all(row["baselines"]["majority"] is None for row in found["medoid"]["rows"])


def test_what_cannot_be_chosen_is_a_sentence(config):
    with pytest.raises(InputError, match="give --choose-from"):
        config("medoid", choose_from=None)
    with pytest.raises(InputError, match="fewer than the 2"):
        config("medoid", choose_from=1)
    with pytest.raises(InputError, match="not together with --order"):
        config("medoid", order="shuffled")
    with pytest.raises(InputError, match=r"--select rices needs image features.*whole prompts"):
        run_evaluation(config("rices", engine="reference"))
