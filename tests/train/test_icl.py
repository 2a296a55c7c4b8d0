"""Training on conversations that share a sense, from pictures to a checkpoint that the benchmark can ask."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from linkcontext.cli import main
from linkcontext.config import ModelConfig, eval_config
from linkcontext.data.images import sha256
from linkcontext.data.manifest import Dataset, write_manifest
from linkcontext.episodes.questions import HELD_OUT
from linkcontext.episodes.scaffold import SCAFFOLDS
from linkcontext.errors import InputError
from linkcontext.evaluation import aggregate
from linkcontext.evaluation.metrics import grouped
from linkcontext.evaluation.run_dir import read_run
from linkcontext.evaluation.runner import configured, run_evaluation, run_folder
from linkcontext.evaluation.task import find_task
from linkcontext.jsonl import read_jsonl
from linkcontext.records import Episode, Item, Prediction, Question
from linkcontext.report.page import write_report
from linkcontext.source import open_data
from linkcontext.train.examples import open_examples, task_plan
from linkcontext.train.loop import train
from linkcontext.train.setup import make_accelerator
from linkcontext.worlds.scenes import write_scenes

SUBJECTS = ("attribute", "caption", "count", "location", "naming", "relation", "rule", "same-different")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A few scenes of every kind."""
    out = tmp_path_factory.mktemp("world") / "scenes"
    write_scenes(out, seed=1, classes=6, images=8, scenes=72, size=32)
    return str(out)


def test_training_on_conversations_goes_on_to_the_same_losses(config, curve, scenes, tmp_path):
    options = {"mixture": ("icl=0.7", "link=0.3"), "icl_data": scenes, "turns": (1, 3), "steps": 4, "save_every": 2}
    train(config(**options, out=str(tmp_path / "whole")))
    train(config(**{**options, "steps": 4}, out=str(tmp_path / "parts")))
    (tmp_path / "parts" / "latest").write_text("checkpoint-2\n")
    train(config(**options, out=str(tmp_path / "parts")))
    assert curve("whole") == pytest.approx(curve("parts"), rel=0, abs=1e-6)
    told = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert {name: len(digest) for name, digest in told["data"].items()} == {
        f"{name}{part}": 64 for name in ("icl", "link") for part in ("", " annotations")
    }


def test_letters_are_learnt_without_pictures(config, scenes, tmp_path):
    options = {"mixture": ("letters",), "icl_data": scenes, "turns": (2,), "batch": 2, "steps": 1}
    run = config(**options, format="open", out=str(tmp_path / "letters"))
    data = open_examples(run)
    examples = data.mixture(2, 0)
    for example in (*data.longest, *(examples.example(n) for n in range(2))):
        asked, answered, *_ = example.conversations[-1]
        (text,) = (part["text"] for part in asked["content"])
        assert text.startswith("It is ") and text.endswith("Answer with the option's letter.")
        assert answered["content"][0]["text"] in "ABCD"
        assert not example.pictures
        assert example.id.startswith("letters/")
    assert list(data.digests) == ["letters", "letters annotations"]
    train(run)
    with pytest.raises(InputError, match="--mixture letters: the scaffold single_turn has no turns"):
        open_examples(config(**options, scaffold="single_turn"))
    with pytest.raises(InputError, match="--device cuda:99: "):  # and no training on a CPU instead
        make_accelerator(config(**options, model=ModelConfig(device="cuda:99")))


@pytest.mark.parametrize("coherence", ["concept", "task", "none"])
def test_held_out_types_of_tasks_are_not_trained_on(config, scenes, coherence):
    data = open_data(scenes)
    plan = task_plan(config(icl_data=scenes, coherence=coherence), data)
    assert plan.tasks == ("attribute", "caption", "count", "location", "naming")
    assert not set(plan.tasks) & set(HELD_OUT)
    about = {}  # the tasks that a question belongs to: "What is this?" asks for names and for an invented word
    for question in (question for item in data.items for question in item.questions):
        about.setdefault(question.question, set()).add(question.task)
    run = {"icl_data": scenes, "mixture": ("icl",), "turns": (4,), "batch": 8, "steps": 4, "format": "open"}

    def learnt(**more):
        examples = open_examples(config(**run, coherence=coherence, **more)).mixture(32, 0)
        return [m["content"][-1]["text"] for n in range(32) for m in examples.example(n).conversations[-1][::2]]

    assert all(about[question] & {*plan.tasks} for question in learnt())
    assert set(learnt(tasks=("attribute/colour",))) == {"What colour is it?"}
    assert all("relation" in about[question] for question in learnt(tasks=("relation",)))


def test_a_checkpoint_is_asked_all_tasks_in_both_forms(config, scenes, tmp_path):
    options = {"mixture": ("icl",), "icl_data": scenes, "steps": 1, "turns": (2,), "supervise": "query"}
    last = train(config(**options, held_out=scenes, held_out_tasks=("attribute/colour",), held_out_shots=(0, 1)))
    asked = eval_config(model=str(last), data=scenes, shots=(0, 2), episodes=27, out=str(tmp_path / "eval"))
    rows = run_evaluation(asked, benchmark="world-icl")["rows"]
    assert {row["task"].rpartition(" ")[2] for row in rows} == {"open", "choice"}
    kept = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    folder = read_run(tmp_path / "eval")
    lines = aggregate.mean_rows(rows, groups=grouped(folder.episodes, folder.predictions))
    assert kept["means"] == lines
    assert kept["curves"] == aggregate.shot_curves(lines)
    (tmp_path / "eval" / "metrics.json").unlink()
    page = write_report(tmp_path / "eval")  # which makes them of the rows, where the file is gone
    for told in (page.read_text(), page.with_suffix(".md").read_text()):
        assert "ICL efficiency" in told and "unseen tasks" in told
    with pytest.raises(
        InputError, match="--unseen Counting: the data have no such type of task, only attribute, caption"
    ):
        run_evaluation(replace(asked, unseen=("Counting",)), benchmark="world-icl")
    assert {(line["tasks"], line["form"], line["shots"]) for line in lines} == {
        (tasks, form, k)
        for tasks in ("seen tasks", "unseen tasks", *SUBJECTS)
        for form in ("open", "choice")
        for k in (0, 2)
    }


def test_means_over_subjects_by_hand():
    def row(task, accuracy, chance, n):
        return {
            "task": task,
            "shots_per_class": 2,
            "scoring": "likelihood_sum",
            "accuracy": accuracy,
            "chance": chance,
            "n_queries": n,
            "baselines": {"copy_first": chance, "copy_last": None},
        }

    rows = [
        row("attribute/colour open", 0.5, 0.25, 8),
        row("count/things open", 0.7, 0.25, 4),
        row("count/parts choice", 0.3, 0.5, 4),
        row("rule/sum open", 0.1, 0.25, 2),
    ]
    lines = {(line["tasks"], line["form"]): line for line in aggregate.mean_rows(rows)}
    both = lines["seen tasks", "open"]
    assert (both["tasks"], both["form"], both["n_subjects"], both["n_queries"]) == ("seen tasks", "open", 2, 12)
    assert both["accuracy"] == pytest.approx(0.6)
    assert both["gain"] == pytest.approx(0.35)
    assert both["baselines"] == {"copy_first": 0.25, "copy_last": None}
    # Student's t with one degree of freedom: 12.706 standard errors of .1
    assert both["ci95"] == [0.0, 1.0]
    held = lines["unseen tasks", "open"]
    assert (held["accuracy"], held["ci95"]) == (0.1, None)
    assert lines["seen tasks", "choice"]["accuracy"] == lines["count", "choice"]["accuracy"] == 0.3
    other = {(line["tasks"], line["form"]): line for line in aggregate.mean_rows(rows, unseen=("count",))}
    assert other["unseen tasks", "open"]["accuracy"] == 0.7


def test_efficiency_is_the_area_above_no_shots_by_hand():
    def line(shots, accuracy, form="open"):
        return {"tasks": "t", "form": form, "scoring": "generate", "shots": shots, "accuracy": accuracy}

    one, two, three = aggregate.shot_curves(
        [line(0, 0.2), line(4, 0.6), line(1, 0.4), line(1, 0.5, "choice"), line(0, 0.3, "x")]
    )
    # from 0 to 1 the gain is .1 on average, from 1 to 4 it is .3: (.1 + .9) / 4
    assert one["efficiency"] == pytest.approx(0.25)
    assert (one["zero_shot"], one["peak"], one["peak_shots"]) == (0.2, 0.6, 4)
    assert (two["zero_shot"], two["efficiency"], two["peak"]) == (None, None, 0.5)
    assert three["efficiency"] is None


@pytest.mark.parametrize(
    ("benchmark", "options", "sentence"),
    [
        ("world-icl", {"tasks": ("attribute",), "format": "choice"}, "--format: --benchmark world-icl"),
        ("fewshot", {"tasks": ("attribute",)}, "--tasks: --benchmark fewshot"),
        ("seed", {}, "the folder made by `linkcontext data FILE --layout seed"),
    ],
)
def test_flags_that_a_benchmark_decides_are_refused(benchmark, options, sentence):
    with pytest.raises(InputError, match=sentence):
        configured(eval_config(**options), find_task(benchmark))


def opened(benchmark, **options):
    """The configuration as a benchmark reads it, and what it opens."""
    task = find_task(benchmark)
    config = configured(eval_config(**options), task)
    return config, task.open(config.episodes, SCAFFOLDS["turns"])


def test_benchmarks_take_the_flags_of_tasks_and_keep_the_answers_of_files(scenes):
    asked, found = opened("world-icl", data=scenes, coherence="task", options=3, shots=(2,), episodes=27)
    episodes = found.episodes
    assert all(e.task.endswith(" task-coherent") for e in episodes)
    assert asked.episodes.names == "pseudo"
    assert configured(eval_config(data=scenes), find_task("vl-icl")).episodes.names == "real"
    everything = eval_config(data=scenes, tasks=("all", "attribute/colour"))
    assert everything.episodes.task_plan().tasks == ()
    assert len(run_folder(everything).parts) == 2
    for options in ({"coherence": "task"}, {"tasks": ("attribute",), "ways": 3}):
        with pytest.raises(InputError, match=r"--(coherence|ways): not (without|together with) --tasks"):
            find_task("world-icl").open(eval_config(data=scenes, **options).episodes, SCAFFOLDS["turns"])


def test_fewshot_among_more_ways_than_letters_asks_openly():
    _, found = opened("fewshot", data="digits", ways=10, shots=(1,), episodes=2)
    assert [e.id for e in found.episodes] == ["open-e00000", "open-e00001"]
    assert found.left_out == ["choice: left out, 10 ways, but there are only 8 letters"]


def test_fewshot_asks_the_same_episodes_both_ways(pictures):
    _, found = opened("fewshot", data=str(pictures), shots=(1,), episodes=3, names="real")
    plain, choice = found.episodes[:3], found.episodes[3:]
    assert [e.id for e in plain] == [e.id.replace("choice", "open") for e in choice]
    for a, b in zip(plain, choice, strict=True):
        assert [t.item for t in a.queries] == [t.item for t in b.queries]
        assert {c.name for c in b.candidates} == {"A", "B"}


@pytest.fixture
def pairs(tmp_path):
    """Pictures of which two are shown at a time, as VL-ICL's matching has them."""
    root = tmp_path / "pairs"
    items = []
    for n in range(20):
        path = root / f"{n}.png"
        root.mkdir(exist_ok=True)
        Image.effect_noise((24, 24), 20 + n).save(path)
        split = ("query", "support")[n % 2]
        told = [
            Question("match", "alike", "Same?", answer, others=(f"{other % 20}.png",))
            for answer, other in (("yes", n), ("no", n + 2))
        ]
        items.append(Item(path.name, path.name, "p", "p", sha256(path), split, questions=tuple(told)))
    write_manifest(Dataset(root, tuple(items)))
    return str(root)


def test_questions_about_two_pictures_are_asked_and_shown(nano, pairs, tmp_path):
    found = {}
    for engine in ("auto", "reference"):
        out = tmp_path / engine
        asked = ["eval", "--benchmark", "vl-icl", "--data", pairs, "--model", str(nano), "--engine", engine]
        main([*asked, "--shots", "0", "2", "--episodes", "4", "--scoring", "both", "--out", str(out)])
        found[engine] = list(read_jsonl(Prediction, out / "predictions.jsonl"))
        assert '<span class="together">' in (out / "report.html").read_text()
    episodes = {e.id: e for e in read_jsonl(Episode, tmp_path / "auto" / "episodes.jsonl")}
    assert len(found["auto"]) == 2 * 4 * 2 * 2  # forms, episodes, shots, queries
    for fast, slow in zip(found["auto"], found["reference"], strict=True):
        assert fast.prompt_sha256 == slow.prompt_sha256
        assert fast.reply == slow.reply
        for one, other in zip(fast.candidates, slow.candidates, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert one.null_logprob == pytest.approx(other.null_logprob, abs=1e-4)
        assert set(fast.baselines) == {"copy_first", "copy_last"}  # no vector stands for two pictures
        turns = (*episodes[fast.episode_id].support, *episodes[fast.episode_id].queries)
        assert all(len(turn.pictures) == 2 for turn in turns)
        assert fast.support_ids == tuple(turn.item for turn in episodes[fast.episode_id].shown(fast.shots_per_class))


def test_what_is_still_known_stands_beside(nano, scenes, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LINKCONTEXT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("linkcontext.worlds.readers.TAUGHT_IMAGES", 1)
    out = tmp_path / "run"
    asked = ["eval", "--benchmark", "world-icl", "--data", scenes, "--model", str(nano), "--tasks", "count"]
    asked += ["--shots", "0", "--episodes", "3", "--out", str(out)]
    for wrong in (("gone.json",), (scenes,), ("world:taught", "--probe")):
        with pytest.raises(SystemExit):
            main([*asked, "--retention", *wrong])
        assert not out.exists()
    main([*asked, "--retention", "world:taught"])
    told = json.loads((out / "retention" / "metrics.json").read_text())["rows"]
    assert {row["n_queries"] for row in told} == {3}
    assert "describing" in capsys.readouterr().out
    for page in ("report.html", "report.md"):
        text = (out / page).read_text()
        assert "What the model still knows without a support" in text and "describing" in text
