"""Retention: what is asked, what counts as right, and a run that can be stopped."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from linkcontext import cli
from linkcontext.config import eval_config
from linkcontext.data.class_folders import open_folder
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import SCAFFOLDS, image_ids
from linkcontext.errors import InputError
from linkcontext.evaluation.runner import configured, run_evaluation, run_folder
from linkcontext.evaluation.tasks.recall_questions import RecallAnswer, RecallQuestion, RecallTest
from linkcontext.evaluation.tasks.retention import RETENTION
from linkcontext.evaluation.tasks.retention_rows import choice_credit, f1, retention_rows
from linkcontext.evaluation.tasks.world_recall import world_recall_test
from linkcontext.models import unreadable
from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.worlds.folder import write_seed

TURNS = SCAFFOLDS["turns"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world") / "w"
    write_seed(root, 12, 2, 3, 32)
    return open_folder(root)


@pytest.fixture(scope="module")
def model(nano):
    return load_model(str(nano), device="cpu")


def perfect(exam):
    """What a model would answer that knows everything."""
    return {
        probe.id: RecallAnswer(
            probe.id, probe.gold[0], tuple(float(name == probe.gold[0]) for name in probe.candidates)
        )
        for probe in exam.questions
    }


def by_task(found):
    return {(row["task"], row["scoring"]): row for row in found}


def test_questions_and_right_answers_come_from_the_facts(world):
    exam = world_recall_test(world, TURNS, 5, 0)
    assert [probe.task for probe in exam.questions] == ["naming"] * 5 + ["counting"] * 5 + ["describing"] * 5
    for probe in exam.questions:
        item = world.item(image_ids(probe.messages)[0])
        asked = probe.messages[0]["content"][1]["text"]
        assert len(probe.messages) == 1
        assert probe.cluster == item.class_id
        if probe.task == "naming":
            assert (asked, probe.gold) == ("What is this?", (item.name,))
            assert len(set(probe.candidates)) == 10
            assert item.name in probe.candidates
        elif probe.task == "counting":
            assert asked.startswith("How many ")
            assert probe.gold == (str(item.facts["count"]),)
        else:
            assert (asked, probe.gold) == ("Describe this.", (item.facts["caption"],))


def test_fewer_questions_are_the_first_of_more_whatever_the_order_of_the_data(world):
    few, many = world_recall_test(world, TURNS, 3, 0), world_recall_test(world, TURNS, 99, 0)
    assert many.total == len(many.questions) == 3 * 24
    for task in ("naming", "counting", "describing"):
        assert [p for p in few.questions if p.task == task] == [p for p in many.questions if p.task == task][:3]
    assert {p.id for p in world_recall_test(world, TURNS, 3, 1).questions} != {p.id for p in few.questions}


def test_the_place_of_the_right_name_tells_nothing(world):
    exam = world_recall_test(world, TURNS, 99, 0)
    naming = [probe for probe in exam.questions if probe.candidates]
    assert all(list(probe.candidates) == sorted(probe.candidates) for probe in naming)
    others = [set(probe.candidates) - {probe.gold[0]} for probe in naming]
    assert len({frozenset(names) for names in others}) > 12  # drawn for each question


def test_a_model_that_knows_everything_gets_one_and_one_that_knows_nothing_gets_zero(world):
    exam = world_recall_test(world, TURNS, 24, 0)
    assert [row["accuracy"] for row in retention_rows(exam, perfect(exam))] == [1.0] * 4
    wrong = {probe.id: RecallAnswer(probe.id, "nothing", (0.0,) * len(probe.candidates)) for probe in exam.questions}
    found = by_task(retention_rows(exam, wrong))
    # Ten ties are worth a tenth.
    assert found.pop(("naming", "likelihood_sum"))["accuracy"] == pytest.approx(0.1)
    assert [row["accuracy"] for row in found.values()] == [0.0] * 3


def test_rows_and_their_references(world):
    exam = world_recall_test(world, TURNS, 24, 0)
    found = by_task(retention_rows(exam, perfect(exam)))
    assert list(found) == [
        ("naming", "likelihood_sum"),
        ("naming", "generate"),
        ("counting", "generate"),
        ("describing", "generate"),
    ]
    assert [row["metric"] for row in found.values()] == ["accuracy", "accuracy", "accuracy", "f1"]
    assert [row["chance"] for row in found.values()] == [0.1, 1 / 12, 0.2, None]
    counts = [item.facts["count"] for item in exam.dataset.items]
    commonest = max(counts.count(n) for n in counts) / len(counts)
    assert found["counting", "generate"]["blind"] == pytest.approx(commonest)
    assert found["naming", "generate"]["blind"] == pytest.approx(1 / 12)
    assert found["naming", "likelihood_sum"]["blind"] is None
    assert 0 < found["describing", "generate"]["blind"] < 1
    for row in found.values():
        assert row["n_queries"] == 24
        # Twelve classes of two pictures are worth twelve questions, not twenty-four.
        assert row["ci95"] == pytest.approx([0.757, 1.0], abs=0.001)


def test_a_reply_is_matched_against_all_names_and_numbers_may_be_words(world):
    exam = world_recall_test(world, TURNS, 1, 0)
    naming, counting, _ = exam.questions
    word = {"2": "Two.", "3": "three", "4": "four", "5": "five", "6": "6."}[counting.gold[0]]
    other = next(name for name in exam.names if name not in naming.candidates)
    said = perfect(exam)
    said[counting.id] = RecallAnswer(counting.id, word)
    said[naming.id] = dataclasses.replace(said[naming.id], reply=f"A {naming.gold[0].upper()}!")
    assert [row["accuracy"] for row in retention_rows(exam, said)] == [1.0] * 4
    said[naming.id] = dataclasses.replace(said[naming.id], reply=f"{naming.gold[0]} or {other}")
    assert by_task(retention_rows(exam, said))["naming", "generate"]["accuracy"] == 0.0


def test_choice():
    probe = RecallQuestion("p", "naming", "a", (), ("b",), ("a", "b", "c"))
    assert choice_credit(probe, RecallAnswer("p", "", (-3.0, -1.0, -2.0))) == 1.0
    assert choice_credit(probe, RecallAnswer("p", "", (-1.0, -1.0, -2.0))) == 0.5
    assert choice_credit(probe, RecallAnswer("p", "", (-1.0, -2.0, -3.0))) == 0.0


def test_f1_by_hand():
    true = "creature of 3 parts: red box, blue dotted star, pink moon"  # states five attributes
    assert f1(true, true) == 1.0
    assert f1("Creature of 3 parts: pink moon, red box, blue dotted star.", true) == 1.0
    # "creature" and "3 parts" and one part of three are stated; one of the four is wrong.
    assert f1("creature of 3 parts: red box, blue star", true) == pytest.approx(2 * 3 / (4 + 5))
    assert f1("creature of 2 parts: red box, pink moon", true) == pytest.approx(2 * 3 / (4 + 5))
    assert f1("", true) == 0.0
    assert f1("grey glyph of 2 strokes", true) == 0.0


def test_vqa_and_llava_rows():
    people = ("red",) * 3 + ("blue",) * 7
    probes = (
        RecallQuestion("1", "vqa", "x", (), people),
        RecallQuestion("2", "vqa", "y", (), ("two",) * 10),
        RecallQuestion("3", "llava", "x", (), ("A dog",)),
        RecallQuestion("4", "llava", "y", (), ("red dog",)),
    )
    exam = RecallTest(Dataset(None, ()), probes, (), 4)
    said = {
        "1": RecallAnswer("1", "Red"),
        "2": RecallAnswer("2", "2"),
        "3": RecallAnswer("3", "dog."),
        "4": RecallAnswer("4", "dog"),
    }
    vqa, llava = retention_rows(exam, said)
    assert (vqa["metric"], vqa["accuracy"], vqa["n_queries"]) == ("vqa_accuracy", pytest.approx((0.9 + 1) / 2), 2)
    assert (llava["metric"], llava["accuracy"]) == ("exact_match", 0.5)
    assert vqa["blind"] == pytest.approx(0.5)  # always "blue", or always "two"
    assert vqa["chance"] is llava["chance"] is None


def test_a_world_without_facts_or_with_few_names_is_refused(world):
    bare = tuple(dataclasses.replace(item, facts={}) for item in world.items)
    with pytest.raises(InputError, match="comes without the facts of a drawn world"):
        world_recall_test(Dataset(world.root, bare), TURNS, 1, 0)
    odd = tuple(dataclasses.replace(item, facts={**item.facts, "family": "fish"}) for item in world.items)
    with pytest.raises(InputError, match="comes without the facts"):
        world_recall_test(Dataset(world.root, odd), TURNS, 1, 0)
    few = tuple(item for item in world.items if item.name in sorted(world.names())[:9])
    with pytest.raises(InputError, match="has 9 names, and 10 are needed"):
        world_recall_test(Dataset(world.root, few), TURNS, 1, 0)


def test_the_flags_as_this_benchmark_reads_them():
    config = configured(eval_config(episodes=7, seed=3), RETENTION)
    assert (config.episodes.data, config.episodes.shots, config.scoring) == ("world:taught", (0,), "both")
    assert (config.episodes.episodes, config.episodes.seed) == (7, 3)
    assert configured(config, RETENTION) == config
    assert run_folder(config, "retention").as_posix() == "runs/mini-retention-world-taught-seed3"
    assert configured(eval_config(data="digits"), RETENTION).episodes.data == "digits"
    with pytest.raises(InputError, match="--ways, --groups-apart: --benchmark retention asks without"):
        configured(eval_config(ways=3, groups_apart=True), RETENTION)
    with pytest.raises(InputError, match="--shots-per-class: "):
        configured(eval_config(shots=(4,)), RETENTION)
    with pytest.raises(InputError, match="at least one question"):
        configured(eval_config(episodes=0), RETENTION)


@pytest.fixture
def config(nano, world, tmp_path):
    options = {"model": str(nano), "data": str(world.root), "episodes": 4, "out": str(tmp_path / "run")}
    return eval_config(**options)


def test_a_run_that_was_killed_goes_on_and_ends_the_same(config, model, tmp_path):
    metrics = run_evaluation(config, LocalModel(model), benchmark="retention")
    run = tmp_path / "run"
    assert {path.name for path in run.glob("[!.]*")} == {
        "config.json",
        "questions.jsonl",
        "answers.jsonl",
        "metrics.json",
    }
    assert json.loads((run / "metrics.json").read_text()) == metrics
    told = metrics["counters"]
    assert (told["engine"], told["questions"], told["questions_in_data"]) == ("prefix-cache", 12, 72)
    assert [row["n_queries"] for row in metrics["rows"]] == [4] * 4
    text = (run / "answers.jsonl").read_text()
    assert len(text.splitlines()) == 12
    (run / "answers.jsonl").write_text(text[: len(text) // 2])  # in the middle of a line
    (run / "metrics.json").unlink()
    assert run_evaluation(config, LocalModel(model), benchmark="retention")["rows"] == metrics["rows"]
    assert [json.loads(line)["probe"] for line in (run / "answers.jsonl").read_text().splitlines()] == [
        json.loads(line)["probe"] for line in text.splitlines()
    ]


def test_the_batch_changes_no_row(config, model, tmp_path):
    one = run_evaluation(
        dataclasses.replace(config, batch=1, out=str(tmp_path / "one")), LocalModel(model), benchmark="retention"
    )
    assert one["rows"] == run_evaluation(config, LocalModel(model), benchmark="retention")["rows"]


def test_other_runs_folders_are_refused(config, model, tmp_path):
    run_evaluation(config, LocalModel(model), benchmark="retention")
    with pytest.raises(InputError, match=r"another configuration .*episodes was 4 and is 5"):
        more = dataclasses.replace(config.episodes, episodes=5)
        run_evaluation(dataclasses.replace(config, episodes=more), LocalModel(model), benchmark="retention")
    (tmp_path / "run" / "episodes.jsonl").write_text("")
    with pytest.raises(InputError, match="holds a run of episodes"):
        run_evaluation(config, LocalModel(model), benchmark="retention")


def test_a_picture_that_the_processor_refuses_is_not_asked_about(config, model, tmp_path, monkeypatch):
    Image.new("RGB", (70, 70), "red").save(tmp_path / "good.png")
    Image.new("RGB", (3000, 2), "red").save(tmp_path / "bad.png")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "red"}]
    file = tmp_path / "talk.json"
    file.write_text(json.dumps([{"image": name, "conversations": turns} for name in ("good.png", "bad.png")]))
    monkeypatch.setattr(unreadable, "_reason", lambda model, size: "refused" if size == (3000, 2) else "")
    options = {"model": config.model.model, "data": str(file), "out": config.out}
    metrics = run_evaluation(eval_config(**options), LocalModel(model), benchmark="retention")
    assert metrics["counters"]["questions"] == 1
    told = next(tmp_path.glob("*/config.json")).read_text()
    assert "left out: 1 (bad.png): refused" in told
    with pytest.raises(InputError, match=r"bad\.png"):
        run_evaluation(eval_config(**options, strict=True), LocalModel(model), benchmark="retention")


def test_a_file_of_questions_from_the_command_line(nano, tmp_path, capsys):
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / "a.png")
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat"}]
    (tmp_path / "talk.json").write_text(json.dumps([{"id": "1", "image": "a.png", "conversations": talk}]))
    flags = ["--model", str(nano), "--data", str(tmp_path / "talk.json"), "--out", str(tmp_path / "run")]
    cli.main(["eval", "--benchmark", "retention", *flags])
    printed = capsys.readouterr().out
    assert "llava generate same .000 [.000, .793] 1 – 1.000" in " ".join(printed.split())
    (tmp_path / "a.png").unlink()
    with pytest.raises(SystemExit) as stopped:
        cli.main(["eval", "--benchmark", "retention", *flags])
    assert stopped.value.code == 2
    assert "record 0/answer 0: its picture a.png is not there" in capsys.readouterr().err
