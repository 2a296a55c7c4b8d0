"""Mixtures: shares, replay, and examples that depend on their number alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from linkcontext.data.class_folders import open_folder
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.plan import TaskPlan
from linkcontext.episodes.questions import TaskSampler
from linkcontext.episodes.scaffold import SCAFFOLDS
from linkcontext.errors import InputError
from linkcontext.evaluation.tasks.question_files import file_recall_test
from linkcontext.records import Item, Question
from linkcontext.train import mixture
from linkcontext.train.mixture import Mixture, icl, link, picks, shares, taught
from linkcontext.train.samplers import Lessons, Strategy


def from_file(path, answers, seed):
    return mixture.from_file(file_recall_test(path, SCAFFOLDS["turns"], answers, seed), path, seed)


@pytest.fixture(scope="module")
def llava(pictures, tmp_path_factory):
    """Two conversations of two answers and one."""
    root = tmp_path_factory.mktemp("llava")
    items = open_folder(pictures).items
    records = []
    for number, answers in enumerate((2, 1)):
        name = f"{number}.png"
        shutil.copy(pictures / items[number].path, root / name)
        said = []
        for at in range(answers):
            said.append({"from": "human", "value": ("<image>\n" if at == 0 else "") + f"question {at}?"})
            said.append({"from": "gpt", "value": f"answer {number} {at}"})
        records.append({"id": number, "image": name, "conversations": said})
    (root / "talk.json").write_text(json.dumps(records))
    return root / "talk.json"


def said(messages):
    return "".join(part.get("text", "<image>") for part in messages[-1]["content"])


def test_shares_by_hand():
    assert shares(["link"]) == {"link": 1.0}
    assert shares(["link", "taught"]) == {"link": 0.5, "taught": 0.5}  # the paper's mix
    assert shares(["link=0.7", "a=b/talk.json=0.3"]) == {"link": 0.7, "a=b/talk.json": 0.3}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["link=0.5", "taught=0.4"], "sum to 1, not to 0.9"),
        (["link=1.5", "taught=-0.5"], "above 0"),
        (["link", "vqa"], "'vqa' is none of"),
        (["link=0.5", "taught"], "give each task a share"),
        (["link=a"], "give each task a share"),
        (["link", "link"], "each once"),
        ([], "one task or more"),
    ],
)
def test_a_mixture_that_is_none_is_a_sentence(words, why):
    with pytest.raises(InputError, match=why):
        shares(words)


def test_tasks_come_as_often_as_their_shares_and_each_in_its_own_order():
    found = picks([0.2, 0.5, 0.3], 20_000, 0)
    assert np.bincount(found) / 20_000 == pytest.approx([0.2, 0.5, 0.3], abs=0.015)
    assert (picks([0.2, 0.5, 0.3], 50, 0) == found[:50]).all()
    seen = []
    made = Mixture.of([(0.5, lambda i: seen.append(("a", i))), (0.5, lambda i: seen.append(("b", i)))], 40, 0)
    for n in range(40):
        made.example(n)
    for name in "ab":
        assert [i for task, i in seen if task == name] == list(range(sum(task == name for task, _ in seen)))


def test_link_examples_share_their_support_and_can_learn_every_answer(pictures):
    dataset = open_folder(pictures)
    lessons = Lessons.of(dataset, Strategy("2-way", support=4, queries=3))
    example = link(lessons, dataset, SCAFFOLDS["turns"], every=False)(0)
    lesson = lessons.lesson(0)
    assert [said(m) for m in example.conversations] == [q.answer for q in lesson.queries]
    assert all(m[:8] == example.conversations[0][:8] for m in example.conversations)
    assert set(example.pictures) == {turn.item for turn in (*lesson.support, *lesson.queries)}
    every = link(lessons, dataset, SCAFFOLDS["lcl"], every=True)(0)
    assert len(every.conversations) == 4 + 3
    assert [said(m) for m in every.conversations[:4]] == [
        f'there is "{t.answer}" in the image. [END EXAMPLE]' for t in lesson.support
    ]
    with pytest.raises(InputError, match="has no answers"):
        link(lessons, dataset, SCAFFOLDS["single_turn"], every=True)


def test_conversations_of_a_file_are_replayed_with_all_their_answers(llava):
    task = from_file(llava, 100, 0)
    two = [task(0), task(1)]
    assert sorted(example.id for example in two) == ["talk.json/record 0", "talk.json/record 1"]
    (long,) = [example for example in two if example.id.endswith("0")]
    assert sorted(said(m) for m in long.conversations) == ["answer 0 0", "answer 0 1"]
    assert task(0) == from_file(llava, 100, 0)(0)
    assert len({task(i).id for i in (2, 3)}) == 2  # the second epoch has both again
    lines = llava.with_suffix(".jsonl")
    lines.write_text("".join(json.dumps(record) + "\n" for record in json.loads(llava.read_text())))
    assert shares([str(lines)]) == {str(lines): 1.0}
    assert from_file(lines, 100, 0)(0).conversations == task(0).conversations


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        from_file(tmp_path / "gone.json", 10, 0)


def test_taught_concepts_are_asked_about_on_pictures_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv("LINKCONTEXT_CACHE", str(tmp_path))
    monkeypatch.setattr("linkcontext.worlds.readers.REPLAY_IMAGES", 1)
    monkeypatch.setattr("linkcontext.worlds.folder.TAUGHT", 4)
    monkeypatch.setattr("linkcontext.worlds.folder.taught_names", lambda: ["aba", "bab", "cac", "dad"])
    task = taught(0)
    examples = [task(i) for i in range(12)]
    assert {next(iter(e.pictures)) for e in examples[:4]} == {f"{n}/0000.png" for n in ("aba", "bab", "cac", "dad")}
    assert len({said(m) for e in examples for m in e.conversations}) > 4
    assert examples == [task(i) for i in range(12)]


def test_icl_conversations_learn_every_answer_or_the_last():
    items = []
    for n in range(24):
        question = Question("attribute", "colour", "What colour?", ("red", "blue")[n % 2], ("red", "blue"))
        items.append(Item(f"{n}.png", f"{n}.png", "p", "p", f"{n:064d}", questions=(question,)))
    data = Dataset(Path("gallery"), tuple(items))
    sampler = TaskSampler.of(data, TaskPlan(shots=(1, 3)))
    every = icl(sampler, data, SCAFFOLDS["turns"], True, (1, 3, 3), 0)
    last = icl(sampler, data, SCAFFOLDS["turns"], False, (1, 3, 3), 0)
    lengths = [len(every(n).conversations) for n in range(300)]
    assert {1, 3} == set(lengths)
    assert lengths.count(3) / 300 == pytest.approx(2 / 3, abs=0.08)
    for n in range(20):
        assert last(n).conversations == every(n).conversations[-1:]
        assert [len(messages) for messages in every(n).conversations] == [2 * (k + 1) for k in range(lengths[n])]
        assert said(every(n).conversations[0]) in ("red", "blue")
    assert every(0, 3).conversations == icl(sampler, data, SCAFFOLDS["turns"], True, (3,), 0)(0).conversations
    with pytest.raises(InputError, match="has no turns"):
        icl(sampler, data, SCAFFOLDS["single_turn"], True, (1,), 0)
