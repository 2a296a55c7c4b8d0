"""The folder for lmms-eval: read as lmms-eval reads it, and matched as `linkcontext eval` matches."""

import dataclasses
import importlib.util
import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from linkcontext.cli import main
from linkcontext.data.class_folders import open_folder
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.scaffold import SCAFFOLDS, image_ids, query_messages
from linkcontext.errors import InputError
from linkcontext.evaluation.answers import match
from linkcontext.integrations.lmms_eval_export import export_lmms_eval
from linkcontext.models.prompting import without_reasoning


@pytest.fixture(scope="module")
def drawn(pictures):
    dataset = open_folder(pictures)
    return dataset, sample_episodes(dataset, EpisodePlan(ways=2, shots_per_class=(0, 2), episodes=3)).episodes


@pytest.fixture(scope="module")
def folder(drawn, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "My Episodes"
    assert export_lmms_eval(drawn[1], drawn[0], SCAFFOLDS["turns"], out, 7) == "linkcontext_my_episodes"
    return out


def tasks(folder):
    """The tasks of a folder by name, with `!function` resolved as lmms-eval resolves it."""

    class Loader(yaml.SafeLoader):
        pass

    spec = importlib.util.spec_from_file_location("utils", folder / "utils.py")
    utils = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(utils)
    Loader.add_constructor("!function", lambda _, node: getattr(utils, node.value.removeprefix("utils.")))
    read = [yaml.load(path.read_text(), Loader) for path in sorted(folder.glob("*.yaml"))]
    return {task["task"]: task for task in read}


def records(folder):
    return [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]


def test_each_query_at_each_shot_count_is_a_record_with_the_prompt_of_an_evaluation(drawn, folder):
    dataset, episodes = drawn
    read = records(folder)
    assert [r["id"] for r in read] == [f"{e.query_id(q)}/k{k}" for e in episodes for k in (0, 2) for q in (0, 1)]
    assert {r["row"] for r in read} == {"k0", "k2"}
    task = tasks(folder)["linkcontext_my_episodes"]
    cases = [(e, q, k) for e in episodes for k in (0, 2) for q in (0, 1)]
    for record, (episode, query, shots) in zip(read, cases, strict=True):
        expected = query_messages(episode, query, shots, SCAFFOLDS["turns"])
        shown = task["doc_to_messages"](record)
        texts = [[(p["type"], p.get("text")) for p in message["content"]] for message in expected]
        assert [[(p["type"], p.get("text")) for p in message["content"]] for message in shown] == texts
        assert [message["role"] for message in shown] == [message["role"] for message in expected]
        originals = [Image.open(dataset.path(item)).convert("RGB") for item in image_ids(expected)]
        urls = [p["url"] for message in shown for p in message["content"] if p["type"] == "image"]
        for picture, original in zip(task["doc_to_visual"](record), originals, strict=True):
            assert np.array_equal(picture, original)
        assert [url.tobytes() for url in urls] == [original.tobytes() for original in originals]
        assert task["doc_to_text"](record).count("<image>") == len(originals)
        assert record["answer"] == episode.queries[query].answer
    contents = {dataset.item(t.item).content for e in episodes for t in (*e.support, *e.queries)}
    assert len(list((folder / "pictures").iterdir())) == len(contents)  # each picture once


def test_tasks_name_their_data_and_metrics(folder):
    replies, likelihoods = tasks(folder).values()
    assert replies["generation_kwargs"] == {"max_new_tokens": 7, "temperature": 0, "do_sample": False, "until": []}
    assert likelihoods["output_type"] == "multiple_choice"
    for task, metrics in ((replies, ("accuracy", "answered")), (likelihoods, ("accuracy",))):
        assert task["dataset_kwargs"] == {"data_files": {"test": "episodes.jsonl"}}
        assert [m["metric"] for m in task["metric_list"]] == [f"{name}_{k}" for name in metrics for k in ("k0", "k2")]


REPLIES = ["{gold}", "It is {gold}.", "{other}", "{gold} or {other}", "{GOLD}", "x{gold}", "", "no idea", "{gold}-7"]


def test_replies_are_matched_as_by_eval(drawn, folder):
    process = tasks(folder)["linkcontext_my_episodes"]["process_results"]
    episode, record = drawn[1][0], records(folder)[0]
    gold, other = record["answer"], next(c.name for c in episode.candidates if c.name != record["answer"])
    worth = {}
    for reply in REPLIES:
        text = reply.format(gold=gold, other=other, GOLD=gold.upper())
        named = match(text, episode.candidates)
        worth[reply] = process(record, [text])
        assert worth[reply] == {"accuracy_k0": float(named == record["class_id"]), "answered_k0": named is not None}
    assert [worth[reply]["accuracy_k0"] for reply in REPLIES[:6]] == [1, 1, 0, 0, 1, 0]
    for reply in (f"<think>{other}?</think> {gold}", f"{other}?</think> {gold}", f" <think>{gold}", f"<b> {gold}"):
        named = match(without_reasoning(reply) or "", episode.candidates)
        assert process(record, [reply])["accuracy_k0"] == (named == record["class_id"]) == (reply != f" <think>{gold}")


def test_likelihoods_are_losses_or_log_probabilities(folder):
    task = tasks(folder)["linkcontext_my_episodes_likelihood"]
    record = records(folder)[0]
    right = task["doc_to_target"](record)
    assert task["doc_to_choice"](record)[right] == record["answer"]

    def accuracy(of_right, of_wrong):
        values = [(of_right, True), (of_wrong, False)] if right == 0 else [(of_wrong, False), (of_right, True)]
        return task["process_results"](record, values)["accuracy_k0"]

    assert accuracy(0.5, 2.0) == 1  # losses: the smaller one is likelier
    assert accuracy(-0.5, -2.0) == 1  # log-probabilities: the larger one
    assert accuracy(2.0, 0.5) == accuracy(-2.0, -0.5) == 0
    assert accuracy(1.5, 1.5) == accuracy(-1.5, -1.5) == 0.5
    for values in ((1.0, -1.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match=r"e00000/q0/k0: .* neither losses nor log-probabilities"):
            accuracy(*values)


def test_a_folder_can_be_moved(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    task = tasks(moved)["linkcontext_my_episodes"]
    assert task["doc_to_visual"](records(moved)[0])[0].size == (32, 32)


def test_rows_of_several_tasks_are_apart(drawn, tmp_path):
    dataset, (one, two, _) = drawn
    episodes = [dataclasses.replace(one, task="count/legs"), dataclasses.replace(two, task="colour")]
    export_lmms_eval(episodes, dataset, SCAFFOLDS["turns"], tmp_path / "x")
    assert {record["row"] for record in records(tmp_path / "x")} == {
        f"{task}_k{shots}" for task in ("count_legs", "colour") for shots in (0, 2)
    }


def test_the_command_writes_the_folder_and_wants_a_place(pictures, tmp_path, capsys):
    main(["episodes", "--data", str(pictures), "--shots", "1", "--episodes", "2", "--max-new-tokens", "9",
          "--export", "lmms-eval", "--out", str(tmp_path / "two")])  # fmt: skip
    assert "tasks linkcontext_two and linkcontext_two_likelihood of 2 episodes" in capsys.readouterr().out
    assert tasks(tmp_path / "two")["linkcontext_two"]["generation_kwargs"]["max_new_tokens"] == 9
    with pytest.raises(SystemExit, match="2"):
        main(["episodes", "--data", str(pictures), "--episodes", "2", "--export", "lmms-eval"])
    assert "--export lmms-eval: also give --out, the folder to write" in capsys.readouterr().err


def test_what_cannot_be_exported_is_refused(drawn, tmp_path):
    dataset, episodes = drawn
    with pytest.raises(InputError, match="no episode to export"):
        export_lmms_eval((), dataset, SCAFFOLDS["turns"], tmp_path / "none")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="the folder is not empty"):
        export_lmms_eval(episodes, dataset, SCAFFOLDS["turns"], tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
