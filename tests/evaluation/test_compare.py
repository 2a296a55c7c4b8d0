import dataclasses
import itertools
import json

import numpy as np
import pytest

from linkcontext.app.runs import comparison
from linkcontext.episodes.ids import RICES, for_query
from linkcontext.errors import InputError
from linkcontext.evaluation.compare import clustered_p, compare, comparison_notes, paired_interval, sign_flip_p, within
from linkcontext.evaluation.power import holm
from linkcontext.evaluation.run_dir import read_run
from linkcontext.jsonl import read_jsonl, write_jsonl
from linkcontext.records import Candidate, Episode, Prediction, Turn

CANDIDATES = (Candidate("cat", "plimbo", "cat"), Candidate("dog", "tavork", "dog"))


def episode(index, shots=(1,)):
    turns = tuple(Turn(f"{c.class_id}/{k}.png", c.class_id, c.name) for k in range(max(shots)) for c in CANDIDATES)
    queries = tuple(Turn(f"{c.class_id}/{9 + index}.png", c.class_id, c.name) for c in CANDIDATES)
    return Episode(f"e{index}", "naming", "pseudo", 2, shots, CANDIDATES, turns, queries)


def write_run(run, right, shots=(1,), digest="d"):
    """A run in which query q of episode e is answered rightly where `right[e][q]`, at every shot count."""
    episodes = [episode(i, shots) for i in range(len(right))]
    predictions = [
        Prediction(
            e.id,
            e.query_id(q),
            k,
            (),
            e.queries[q].class_id,
            e.queries[q].answer if ok else "?",
            {},
            "0" * 64,
            tuple(turn.item for turn in e.shown(k)),
        )
        for e, answers in zip(episodes, right, strict=True)
        for q, ok in enumerate(answers)
        for k in shots
    ]
    run.mkdir()
    write_jsonl(episodes, run / "episodes.jsonl")
    write_jsonl(predictions, run / "predictions.jsonl")
    data = {"spec": "pets", "root": "pets", "digest": digest, "problems": []}
    config = {"command": "linkcontext eval", "config": {}, "model": {}, "data": data, "versions": {}}
    (run / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return run


def test_a_row_by_hand(tmp_path):
    a = write_run(tmp_path / "a", [(1, 0), (1, 1), (0, 0), (1, 1)])
    b = write_run(tmp_path / "b", [(1, 1), (1, 1), (1, 0), (0, 1)])
    (row,) = compare(a, b)
    low, high = row.pop("ci95")
    least = row.pop("detectable")
    assert row == {
        "task": "naming",
        "names": "pseudo",
        "ways": 2,
        "shots_per_class": 1,
        "scoring": "generate",
        "n_queries": 8,
        "n_episodes": 4,
        "n_pictures": 8,
        "unpaired_a": 0,
        "unpaired_b": 0,
        "accuracy_a": 0.625,
        "accuracy_b": 0.75,
        "difference": 0.125,
        "p": 1.0,  # +1 +1 -1: each of the eight patterns sums to 1 or more in size
        "p_holm": 1.0,
        "chance": 0.5,
    }
    # Half the interval below is 3.182 errors of .239; t(3) has .978 at .80, and together they are .996.
    assert least == pytest.approx((3.182446 + 0.978472) * 0.2393568, abs=1e-4)
    # Per episode +.5, 0, +.5, -.5: standard error .2394, t(3) = 3.1824; more than z^2 / (4 + z^2) = .490.
    assert (low, high) == pytest.approx((0.125 - 3.182446 * 0.2393568, 0.125 + 3.182446 * 0.2393568), abs=1e-5)


def test_rows_are_adjusted_for_each_other(tmp_path):
    draws = np.random.default_rng(1)
    right = [draws.random((30, 2)) < share for share in (0.5, 0.9)]
    a, b = (write_run(tmp_path / name, told, shots=(1, 2, 4)) for name, told in zip("ab", right, strict=True))
    found = compare(a, b)
    ps = [row["p"] for row in found]
    assert [row["p_holm"] for row in found] == holm(ps)
    assert sorted(ps)[0] * 3 == min(row["p_holm"] for row in found) < 0.05


def test_swapping_the_runs_turns_the_sign(tmp_path):
    draws = np.random.default_rng(0)
    a = write_run(tmp_path / "a", draws.random((40, 2)) < 0.6)
    b = write_run(tmp_path / "b", draws.random((40, 2)) < 0.9)
    (one,), (other,) = compare(a, b), compare(b, a)
    assert one["difference"] == -other["difference"] > 0.1
    assert one["ci95"] == pytest.approx([-end for end in reversed(other["ci95"])])
    assert one["p"] == other["p"] < 0.01


def test_the_order_of_lines_changes_nothing(tmp_path):
    draws = np.random.default_rng(4)
    a = write_run(tmp_path / "a", draws.random((30, 2)) < 0.6)
    b = write_run(tmp_path / "b", draws.random((30, 2)) < 0.7)
    before = compare(a, b)
    for name in ("episodes.jsonl", "predictions.jsonl"):
        lines = (b / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (b / name).write_text("".join(reversed(lines)), encoding="utf-8")
    assert compare(a, b) == before


def test_a_run_against_itself_is_equal_but_not_for_certain(tmp_path):
    a = write_run(tmp_path / "a", [(1, 0)] * 20)
    (row,) = compare(a, a)
    assert (row["difference"], row["p"]) == (0.0, 1.0)
    assert row["ci95"] == pytest.approx([-0.161, 0.161], abs=1e-3)  # 3.8415 / 23.8415
    assert within(row, 0.17)
    assert not within(row, 0.03)


def test_pairs_are_what_both_have(tmp_path):
    a = write_run(tmp_path / "a", [(1, 1)] * 6, shots=(1, 4))
    b = write_run(tmp_path / "b", [(1, 0)] * 9, shots=(1, 2, 4, 16))
    found = compare(a, b)
    assert [(r["shots_per_class"], r["n_queries"], r["unpaired_a"], r["unpaired_b"]) for r in found] == [
        (1, 12, 0, 6),
        (4, 12, 0, 6),
    ]


def test_other_episodes_are_refused(tmp_path):
    a, b = (write_run(tmp_path / name, [(1, 1)] * 3) for name in "ab")
    changed = [dataclasses.replace(episode(i), support=episode(i).support[::-1]) for i in range(3)]
    write_jsonl(changed, b / "episodes.jsonl")
    shown = {e.id: tuple(turn.item for turn in e.support) for e in changed}
    made = [
        dataclasses.replace(p, support_ids=shown[p.episode_id]) for p in read_jsonl(Prediction, b / "predictions.jsonl")
    ]
    write_jsonl(made, b / "predictions.jsonl")
    with pytest.raises(InputError, match=r"Episode e0 is not the same .* seeds or the data differ"):
        compare(a, b)


def test_what_differs_and_what_is_missing_is_said(tmp_path):
    a, b = (write_run(tmp_path / name, [(1, 1)] * 3) for name in "ab")
    for run, weights, seed in ((a, "1", 0), (b, "2", 1)):
        config = json.loads((run / "config.json").read_text())
        config |= {
            "measured": {"weights": weights, "adapter": None},
            "config": {"episodes": {"seed": seed}, "out": run.name},
        }
        (run / "config.json").write_text(json.dumps(config))
    assert comparison_notes(read_run(a), read_run(b)) == ["A and B differ in the model's weights, seed (0, 1)."]
    assert comparison_notes(read_run(a), read_run(a)) == ["A and B differ in nothing that was recorded."]
    assert "a and b differ in the model" in comparison(tmp_path, "a", "b")  # the web page says it too
    kept = (b / "config.json").read_text()
    (b / "config.json").write_text(json.dumps({**json.loads(kept), "measured": {}}))
    told = "A and B differ in seed (0, 1). Only one of them records the adapter, the model's weights."
    assert comparison_notes(read_run(a), read_run(b))[0] == told
    (b / "config.json").write_text(kept)
    lines = (b / "predictions.jsonl").read_text().splitlines(keepends=True)
    (b / "predictions.jsonl").write_text("".join(lines[:-2]))
    assert comparison_notes(read_run(a), read_run(b))[0].startswith(
        f"{b}: This run is not finished: 2 of its 6 predictions"
    )
    config = json.loads((b / "config.json").read_text())
    served = {"model": {"class": "served"}, "measured": {"weights": "unknown: a server has them"}}
    (b / "config.json").write_text(json.dumps({**config, **served}))
    assert comparison_notes(read_run(a), read_run(b))[-1].startswith(f"{b}: The model's weights are unknown")


def test_selections_are_paired_by_drawn_query(tmp_path):
    """a as drawn, b with a support of its own for each query: the same rows as of two runs as they were drawn."""
    a = write_run(tmp_path / "a", [(1, 0), (1, 1), (0, 0)], shots=(1, 2))
    b = write_run(tmp_path / "b", [(1, 1), (0, 1), (1, 0)], shots=(1, 2))
    plain = compare(a, b)
    own = {
        (e.query_id(q), k): dataclasses.replace(
            e,
            id=for_query(e.id, q, k),
            task=f"naming{RICES}",
            shots_per_class=(k,),
            support=e.shown(k)[::-1],
            queries=(query,),
        )
        for e in read_jsonl(Episode, b / "episodes.jsonl")
        for q, query in enumerate(e.queries)
        for k in e.shots_per_class
    }
    made = [
        dataclasses.replace(
            p, episode_id=e.id, query_id=e.query_id(0), support_ids=tuple(turn.item for turn in e.support)
        )
        for p in read_jsonl(Prediction, b / "predictions.jsonl")
        for e in [own[p.query_id, p.shots_per_class]]
    ]
    write_jsonl(own.values(), b / "episodes.jsonl")
    write_jsonl(made, b / "predictions.jsonl")
    assert compare(a, b) == plain
    assert [row["task"] for row in compare(b, b)] == [f"naming{RICES}"] * 2
    assert [(row["n_queries"], row["n_episodes"]) for row in compare(b, b)] == [(6, 3)] * 2
    others = [dataclasses.replace(e, queries=(Turn("x.png", e.queries[0].class_id, "x"),)) for e in own.values()]
    write_jsonl(others, b / "episodes.jsonl")
    with pytest.raises(InputError, match="Episode e0 is not the same"):
        compare(a, b)


def test_other_pictures_and_other_shot_counts_are_refused(tmp_path):
    a = write_run(tmp_path / "a", [(1, 1)] * 3)
    other = write_run(tmp_path / "b", [(1, 1)] * 3, digest="e")
    with pytest.raises(InputError, match="different pictures"):
        compare(a, other)
    with pytest.raises(InputError, match="in common"):
        compare(a, write_run(tmp_path / "c", [(1, 1)] * 3, shots=(2,)))


def test_a_missing_or_damaged_file_is_named(tmp_path):
    a, b = (write_run(tmp_path / name, [(1, 1)] * 3) for name in "ab")
    text = (b / "predictions.jsonl").read_text(encoding="utf-8")
    for damage, sentence in (
        (text[:-20] + "\n", "predictions.jsonl:6"),
        ("", "is empty"),
        ("[1]\n", "JSON object"),
    ):
        (b / "predictions.jsonl").write_text(damage, encoding="utf-8")
        with pytest.raises(InputError, match=sentence):
            compare(a, b)
    (b / "predictions.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"predictions\.jsonl"):
        compare(a, b)
    (b / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.json: command"):
        compare(a, b)
    (b / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json is not there"):
        compare(a, b)


@pytest.mark.parametrize("count", [1, 5, 13])
def test_the_exact_p_equals_counting_by_hand(count):
    sums = np.random.default_rng(count).integers(-2, 4, count) + 0.0
    sums[0] = 3.0
    patterns = itertools.product((-1, 1), repeat=count)
    extreme = [abs(float(np.dot(signs, sums))) >= abs(sums.sum()) for signs in patterns]
    assert sign_flip_p(sums, "x") == np.mean(extreme)


def test_the_drawn_p_is_close_to_the_exact_one():
    # Of 20 episodes that differ 14 are better: twice the binomial tail, .115318.
    assert sign_flip_p(np.array([1.0] * 14 + [-1.0] * 6 + [0.0] * 100), "x") == pytest.approx(0.1153, abs=0.01)


def test_p_is_never_nothing_and_is_seeded():
    sums = np.ones(400)
    assert sign_flip_p(sums, "x") == 1 / 10_001
    noisy = np.random.default_rng(0).normal(0.05, 1, 300)
    assert sign_flip_p(noisy, "x", 1) == sign_flip_p(noisy, "x", 1)


def test_one_episode_says_nothing():
    assert paired_interval(np.array([1.0, 0.0]), ["e0", "e0"]) == (-1.0, 1.0)


@pytest.mark.parametrize(("better", "worse"), [(0.0, 0.02), (0.05, 0.05), (0.15, 0.3)])
def test_coverage_of_the_paired_interval(better, worse):
    draws = np.random.default_rng(3)
    episodes = [f"e{i // 2}" for i in range(160)]
    held = claimed = 0
    for _ in range(300):
        luck = np.repeat(draws.random(80), 2)  # the two queries of an episode share their luck
        luck = np.where(draws.random(160) < 0.5, luck, draws.random(160))
        differences = np.where(luck < better, 1.0, np.where(luck > 1 - worse, -1.0, 0.0))
        low, high = paired_interval(differences, episodes)
        held += low <= better - worse <= high
        claimed += within({"ci95": [low, high]}, worse - better - 1e-9)
    assert held >= 0.925 * 300
    assert claimed <= 0.06 * 300  # "within" is claimed falsely in at most about 2.5 % of the runs


def test_differences_are_clustered_by_picture_too():
    differences = np.array([1.0 if i % 17 < 6 else 0.0 for i in range(340)])
    episodes, pictures = [f"e{i // 2}" for i in range(340)], [f"p{i % 17}" for i in range(340)]
    wide, narrow = paired_interval(differences, episodes, pictures), paired_interval(differences, episodes)
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])
    assert clustered_p(differences, (episodes, pictures), "x") == sign_flip_p(np.full(6, 20.0), "x") == 2 / 64
    assert sign_flip_p(np.array([1.0] * 120), "x") < 0.001
