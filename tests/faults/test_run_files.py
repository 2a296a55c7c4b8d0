"""Mutated files of runs, probes and retention runs: each is refused with a sentence, or read as a run; no traceback."""

import json
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linkcontext.config import eval_config
from linkcontext.errors import InputError
from linkcontext.evaluation.compare import compare
from linkcontext.evaluation.runner import probe_grounding, probe_of_run, run_evaluation, run_folder
from linkcontext.models.loading import load_model
from linkcontext.report.page import write_report
from linkcontext.report.probe import write_probe
from linkcontext.scoring.local import LocalModel
from linkcontext.worlds.folder import write_seed

pytestmark = pytest.mark.heavy

RUN = ("config.json", "episodes.jsonl", "predictions.jsonl", "metrics.json", "explain.json")
FILES = (
    *RUN,
    *(f"probe/{name}" for name in ("config.json", "episodes.jsonl", "predictions.jsonl", "probe.json")),
    *(f"retention/{name}" for name in ("config.json", "questions.jsonl", "answers.jsonl", "metrics.json")),
)
VALUES = (None, True, False, 0, -1, 3, 99, 2**70, 10**400, 0.5, -1e308, 1e999, float("nan"), "", "x", "\0", "\ud800")
VALUES = (
    *VALUES,
    "é" * 5000,
    "../../x",
    "{{ x }}",
    "</script>",
    [],
    [[]],
    {},
    {"a": 1},
    [1, "a", None],
    "a\nb",
    "e00000/q0",
)


@pytest.fixture(scope="module")
def folder(nano, tmp_path_factory):
    """A whole run with a probe and a retention run in it, and what they were asked with."""
    root = tmp_path_factory.mktemp("mutated")
    write_seed(root / "w", 12, 8, 3, 32)
    options = {"model": str(nano), "data": str(root / "w"), "shots": (0, 1), "episodes": 3, "scoring": "both"}
    config = eval_config(**options, out=str(root / "run"))
    model = load_model(str(nano), device="cpu")
    run_evaluation(config, LocalModel(model))
    probe_grounding(probe_of_run(config, run_folder(config)), LocalModel(model))
    run_evaluation(asked_of_retention(root / "run", config), LocalModel(model), benchmark="retention")
    return root / "run", config, model


def asked_of_retention(run, config):
    return eval_config(model=config.model.model, data=config.episodes.data, episodes=3, out=str(run / "retention"))


def mutated(text: bytes, chance: random.Random) -> bytes:
    """One fault: of bytes, of lines, or of a value somewhere in the JSON."""
    kind = chance.choice(("cut", "flip", "insert", "line", "value", "value", "value", "value", "value"))
    place = chance.randrange(len(text))
    if kind == "cut":
        return text[:place]
    if kind == "flip":
        return text[:place] + bytes([text[place] ^ 1 << chance.randrange(8)]) + text[place + 1 :]
    if kind == "insert":
        strange = (b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b"\xff\xfe", b"\n", b"NaN", b"\x80\x04K\x01.")
        return text[:place] + chance.choice(strange) + text[place:]
    lines = text.splitlines(keepends=True)
    if kind == "line":
        chosen = chance.randrange(len(lines))
        change = chance.choice(("twice", "gone", "moved"))
        line = lines[chosen] if change == "twice" else lines.pop(chosen)
        return b"".join(lines if change == "gone" else [*lines, line])
    whole = len(lines) > 1 and lines[0].strip() in (b"{", b"[")
    chosen = 0 if whole else chance.randrange(len(lines))
    values = json.loads(text if whole else lines[chosen])
    changed = json.dumps(replaced(values, chance)).encode() + b"\n"
    return changed if whole else b"".join([*lines[:chosen], changed, *lines[chosen + 1 :]])


def replaced(values, chance: random.Random):
    """The JSON value with one thing in it replaced, taken away or added."""
    if isinstance(values, dict | list) and values and chance.random() < 0.85:
        keys = list(values) if isinstance(values, dict) else list(range(len(values)))
        key = chance.choice(keys)
        if chance.random() < 0.08:
            del values[key]
        elif chance.random() < 0.05 and isinstance(values, dict):
            values["more"] = 1
        else:
            values[key] = replaced(values[key], chance)
        return values
    return chance.choice(VALUES)


def used(run: Path, whole: Path, config, model, name: str, action: str) -> None:
    """What a user does with the folder."""
    mine = eval_config(
        model=config.model.model,
        data=config.episodes.data,
        shots=config.episodes.shots,
        episodes=config.episodes.episodes,
        scoring=config.scoring,
        out=str(run),
    )
    if action == "report":
        write_report(run)
        if name.startswith("probe/"):
            write_probe(run / "probe")
            write_report(run / "probe")
    elif action == "compare":
        pair = (run / "probe", whole / "probe") if name.startswith("probe/") else (run, whole)
        compare(*pair)
    elif name.startswith("probe/"):
        probe_grounding(probe_of_run(mine, run), LocalModel(model))
    elif name.startswith("retention/"):
        run_evaluation(asked_of_retention(run, mine), LocalModel(model), benchmark="retention")
    else:
        run_evaluation(mine, LocalModel(model))


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning")  # matplotlib's, of names in scripts that its font lacks
def test_no_mutated_file_ends_in_a_traceback(folder, count, tmp_path):
    whole, config, model = folder
    outcomes = {"refused": 0, "read": 0}

    @settings(max_examples=count(300), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        name=st.sampled_from(FILES),
        action=st.sampled_from(("report", "report", "compare", "resume")),
        seed=st.integers(0, 2**32),
    )
    def attack(name, action, seed):
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        (run / name).write_bytes(mutated((run / name).read_bytes(), random.Random(seed)))
        try:
            used(run, whole, config, model, name, action)
            outcomes["read"] += 1
        except InputError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1

    attack()
    assert min(outcomes.values()) > 0, outcomes
    print(outcomes)
