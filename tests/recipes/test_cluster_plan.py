"""The plan on paper: sums by hand, a simulation with known ends, and constants that are those of the benchmarks."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plan():
    spec = importlib.util.spec_from_file_location("cluster_plan", ROOT / "recipes" / "cluster_plan.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["cluster_plan"] = module  # its dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["cluster_plan"]


def values(made):
    return {figure.what: figure.value for figure in made.figures}


def test_constants_are_those_of_the_benchmarks(plan):
    """Within a tenth: another run of them may differ, and then the head of the recipe is to be brought up to date."""
    scale = json.loads((ROOT / "benchmarks" / "results" / "scale.json").read_text())
    mining = json.loads((ROOT / "benchmarks" / "results" / "mining.json").read_text())
    manifest, features, evaluation = scale["manifest"], scale["features"], scale["evaluation"]
    (few, slow), (many, slower) = [(row["classes"], row["seconds"]) for row in scale["search"][1:]]
    pair = (slower * few - slow * many) / (many**2 * few - few**2 * many)  # seconds are a n + b n²
    made = {
        "item_memory": manifest["memory_bytes_per_picture"],
        "item_disk": manifest["disk_bytes_per_picture"],
        "item_read_s": manifest["read_s_per_million"] / 1e6,
        "scan_s": scale["scan_s_per_picture"],
        "digest_s": (manifest["digest_s_per_million"] + manifest["choose_s_per_million"]) / 1e6,
        "read_picture_s": mining["encoding"]["cpu_seconds_per_picture"]["reading"],
        "picture_disk": 1e3 * mining["encoding"]["jpeg_kb"],
        "feature_disk": features["disk_bytes_per_picture"],
        "feature_read_s": features["read_s_per_class"] / 100,
        "list_s": scale["listing_s_per_million_files"] / 1e6,
        "rank_class_s": (slow - pair * few**2) / few,
        "rank_pair_s": pair,
        "neighbours_memory": scale["search"][-1]["memory_bytes_per_class"],
        "neighbours_disk": scale["search"][-1]["line_bytes"],
        "episode_memory": evaluation["episode_memory_bytes"],
        "episode_draw_s": evaluation["draw_s_per_million_episodes"] / 1e6,
        "prediction_memory": evaluation["prediction_memory_bytes"],
        "prediction_disk": evaluation["prediction_disk_bytes"],
        "prediction_read_s": (
            evaluation["read_s_per_million_predictions"] + evaluation["metrics_s_per_million_predictions"]
        )
        / 1e6,
        "store_round_trip_s": 1 / evaluation["store_round_trips_per_second"],
        "host_s": scale["host_work"]["s_outside_of_the_network"],
    }
    assert dataclasses.asdict(plan.Measured()) == pytest.approx(made, rel=0.1)


def test_tokens_by_hand(plan):
    """One shot, two ways: a support of 2 pictures; without and with it a query of each class and a grey one."""
    inputs = plan.Inputs(shots=(0, 1), picture_tokens=10, text_tokens=5, answer_tokens=2)
    tree, whole, predictions = plan.tokens(inputs)
    assert predictions == 4
    assert tree == 2 * 15 + 2 * 3 * (15 + 2 * 2)
    assert whole == 3 * 2 * (15 + 2) + 3 * 2 * (2 * 15 + 15 + 2)


def test_twice_the_gpus_halve_the_time_and_not_the_gpu_hours(plan):
    few, many = (values(plan.mining(plan.Inputs(gpus=gpus), plan.Measured())) for gpus in (64, 128))
    assert many["time on all GPUs"] == pytest.approx(few["time on all GPUs"] / 2)
    assert many["GPU hours"] == pytest.approx(few["GPU hours"])
    assert many["ranking on one core, the GPUs wait"] == few["ranking on one core, the GPUs wait"]


def test_what_limits_mining_is_named(plan):
    def limit(**inputs):
        (named,) = [
            f.what for f in plan.mining(plan.Inputs(**inputs), plan.Measured()).figures if "limited by" in f.what
        ]
        return named.rpartition("limited by ")[2]

    assert limit() == "the GPUs"
    assert limit(encoder_rate=400e12) == "reading on CPUs"
    assert limit(disk_rate=1e6) == "storage"


def test_limits_tell_what_breaks(plan):
    large, small = (plan.mining(plan.Inputs(pictures=n, classes=n / 1000), plan.Measured()) for n in (1e9, 1e6))
    assert any(limit.share > 1 for limit in large.limits)
    assert all(limit.share < 1 for limit in small.limits)
    text = "\n".join(plan.lines("Mining", large))
    assert "BREAKS list of pictures in memory, in each process" in text
    assert text.index("BREAKS") < text.index("holds")  # the worst first


def test_a_simulation_without_chance(plan):
    inputs = plan.Inputs(gpus=4, spread=0, failures_per_gpu_year=0)
    assert plan.simulate(inputs, 8, 3600, 0) == (2, 1, 0, 0)
    run = plan.simulate(inputs, 9, 3600, 1800)  # a ninth unit keeps one of four busy
    assert (run.hours, run.restarts, run.lost) == (3.5, 0, 0)
    assert run.used == pytest.approx(9 / (4 * 3.5))


def test_failures_lose_units_in_work_and_nothing_else(plan):
    quiet = plan.Inputs(gpus=8, failures_per_gpu_year=0)
    often = dataclasses.replace(quiet, failures_per_gpu_year=365.25 * 24 / 80)  # one in ten hours
    for seed in range(5):
        with_failures = plan.simulate(dataclasses.replace(often, seed=seed), 1000, 600, 60)
        without = plan.simulate(dataclasses.replace(quiet, seed=seed), 1000, 600, 60)
        assert with_failures.hours >= without.hours
        assert with_failures.lost <= 8 * with_failures.restarts
        assert with_failures.used <= 1
    assert sum(plan.simulate(dataclasses.replace(often, seed=s), 1000, 600, 60).restarts for s in range(5)) > 0


def test_a_launch_that_fails_before_it_has_begun_is_given_up(plan):
    inputs = plan.Inputs(gpus=8, failures_per_gpu_year=365.25 * 24)  # eight an hour
    run = plan.simulate(inputs, 100, 60, 10 * 3600)
    assert (run.hours, run.restarts, run.lost) == (float("inf"), plan.PATIENCE, 0)


def test_the_command_prints_the_plan(plan, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["cluster_plan.py", "--pictures", "1e6", "--classes", "1e3", "--episodes", "1e3"])
    plan.main()
    text = capsys.readouterr().out
    assert all(word in text for word in ("Mining", "Evaluating", "What breaks first", "Simulated launches"))
