"""nvrd: rows by severity and by change, whose queries are changed pictures and whose supports are not."""

import json
from collections import Counter

import pytest
from PIL import Image

from linkcontext.config import eval_config
from linkcontext.episodes.scaffold import SCAFFOLDS
from linkcontext.errors import InputError
from linkcontext.evaluation.runner import configured, run_evaluation
from linkcontext.evaluation.task import find_task
from linkcontext.evaluation.validate import check_blind_policies


@pytest.fixture(scope="module")
def sample_data(tmp_path_factory):
    """Three known objects, changed by noise up to level 7 and by colour at level 1; a single novel one."""
    root, made = tmp_path_factory.mktemp("nvrd"), 0
    mapping = []
    for path, word in (("known/a", "dax"), ("known/b", "fep"), ("known/c", "wug"), ("novel/d", "blick")):
        folder, name = path.split("/")
        changed = [f"{folder}/perturbations_comp/noise/{name}_{level}" for level in (1, 5, 6, 7)]
        for picture in (path, *changed, f"{folder}/perturbations_comp/color/{name}_1"):
            (root / picture).parent.mkdir(parents=True, exist_ok=True)
            made += 1
            Image.effect_noise((8, 8), made).save(root / f"{picture}.png")
        mapping.append({"fp": f"/home/x/nvrd/{path}.png", "ref": word})
    (root / "nonce_word_mapping.json").write_text(json.dumps(mapping))
    return root


def config(sample_data, **options):
    return eval_config(data=f"nvrd:{sample_data}", **options)


def test_rows_by_severity_and_by_change(sample_data):
    task = find_task("nvrd")
    options = configured(config(sample_data, episodes=5), task)
    assert configured(options, task) == options
    drawn = task.open(options.episodes, SCAFFOLDS["turns"])
    rows = Counter(episode.task for episode in drawn.episodes)
    assert rows == dict.fromkeys(
        (
            "nvrd known, severity 01-05",
            "nvrd known, severity 06-10",
            "nvrd change: color",
            "nvrd change: noise",
        ),
        5,
    )
    assert [line.partition(":")[0] for line in drawn.left_out if "novel, severity" in line] == [
        "nvrd novel, severity 01-05",
        "nvrd novel, severity 06-10",
    ]
    check_blind_policies(drawn.episodes)
    for episode in drawn.episodes:
        shown = [drawn.dataset.item(turn.item) for turn in episode.support]
        asked = [drawn.dataset.item(turn.item) for turn in episode.queries]
        assert {item.split for item in shown} == {"original"}
        assert {turn.answer for turn in episode.support} <= {"dax", "fep", "wug", "blick"}
        levels = {item.facts["severity"] for item in asked}
        if "severity 06" in episode.task:
            assert levels <= {6, 7}
        if "change" in episode.task:
            assert {item.facts["change"] for item in asked} == {episode.task.removeprefix("nvrd change: ")}


def test_a_model_is_measured_by_severity(sample_data, nano, tmp_path):
    run = config(sample_data, episodes=2, model=str(nano), explain=0, out=str(tmp_path / "run"))
    metrics = run_evaluation(run, benchmark="nvrd")
    figures = {(row["task"], row["names"], row["n_queries"]) for row in metrics["rows"]}
    assert ("nvrd known, severity 06-10", "real", 4) in figures
    assert len({task for task, *_ in figures}) == 4


def test_what_the_benchmark_sets_itself_is_refused(sample_data):
    task = find_task("nvrd")
    with pytest.raises(InputError, match="--shots-per-class: --benchmark nvrd sets this itself"):
        configured(config(sample_data, shots=(4,)), task)
    with pytest.raises(InputError, match="--benchmark nvrd needs --data nvrd:DIR"):
        configured(eval_config(), task)
    with pytest.raises(InputError, match="no episode can be drawn"):
        task.open(configured(config(sample_data, ways=5), task).episodes, SCAFFOLDS["turns"])
