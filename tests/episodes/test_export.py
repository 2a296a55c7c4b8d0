"""Episodes for other tools: read back as they were, and taken by TRL's own collator."""

import dataclasses
import json

import pytest

from linkcontext.data.class_folders import open_folder
from linkcontext.data.problems import Problems
from linkcontext.data.readers.conversations import read_conversations
from linkcontext.data.writers import write_conversations
from linkcontext.episodes.export import export_conversations
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.scaffold import SCAFFOLDS, query_messages
from linkcontext.episodes.scaffold import image_ids as pictures_of
from linkcontext.errors import InputError

PLAN = EpisodePlan(ways=2, shots_per_class=(0, 2), episodes=2, names="pseudo")


@pytest.fixture(scope="module")
def drawn(pictures):
    dataset = open_folder(pictures)
    return dataset, sample_episodes(dataset, PLAN).episodes


def test_a_conversation_for_each_query_and_shot_count_with_the_prompt_s_words(drawn):
    dataset, episodes = drawn
    told = list(export_conversations(episodes, dataset, SCAFFOLDS["turns"], "query"))
    assert len(told) == 2 * 2 * 2
    assert [each.id for each in told[:4]] == [f"{episodes[0].id}/q{q}/k{k}" for k in (0, 2) for q in (0, 1)]
    episode, last = episodes[0], told[3]
    messages = query_messages(episode, 1, 2, SCAFFOLDS["turns"], episode.queries[1].answer)
    assert list(last.pictures) == [str(dataset.path(item).resolve()) for item in pictures_of(messages)]
    words = [[part.get("text") for part in message["content"]] for message in messages]
    assert [[part.get("text") for part in message["content"]] for message in last.messages] == words
    assert [message.get("loss") for message in last.messages] == [None, False] * 4 + [None, True]
    every = list(export_conversations(episodes, dataset, SCAFFOLDS["turns"], "every"))
    assert all("loss" not in message for each in every for message in each.messages)


@pytest.fixture(scope="module")
def drawn_pairs(drawn):
    """The same, each turn with the episode's first picture beside its own."""
    dataset, episodes = drawn

    def paired(turns):
        return tuple(dataclasses.replace(turn, others=(episodes[0].queries[0].item,)) for turn in turns)

    return dataset, [dataclasses.replace(e, support=paired(e.support), queries=paired(e.queries)) for e in episodes]


@pytest.mark.parametrize("kind", ["drawn", "drawn_pairs"])
@pytest.mark.parametrize("supervise", ["every", "query"])
@pytest.mark.parametrize("scaffold", ["turns", "single_turn", "lcl"])
@pytest.mark.parametrize("layout", ["llava", "messages", "trl"])
def test_what_is_exported_is_read_back_equal(request, tmp_path, layout, scaffold, supervise, kind):
    dataset, episodes = request.getfixturevalue(kind)
    told = list(export_conversations(episodes, dataset, SCAFFOLDS[scaffold], supervise))
    path = tmp_path / "e.json"
    if layout == "llava" and (scaffold == "lcl" or (scaffold == "turns" and supervise == "query")):
        with pytest.raises(InputError, match="LLaVA's layout has neither system messages nor answers without loss"):
            write_conversations(told, path, layout)
        return
    write_conversations(told, path, layout)
    if layout == "llava":  # where the last answer is the only one, LLaVA learns it without being told so
        told = [
            dataclasses.replace(t, messages=tuple({k: m[k] for k in ("role", "content")} for m in t.messages))
            for t in told
        ]
    assert list(read_conversations(path, Problems(strict=True))) == told


@pytest.mark.parametrize("supervise", ["every", "query"])
def test_trl_s_collator_accepts_what_is_exported(drawn, tmp_path, supervise):
    sft = pytest.importorskip("trl.trainer.sft_trainer", reason="trl is in linkcontext[bench] alone")
    datasets = pytest.importorskip("datasets", reason="needs linkcontext[hub]")
    from linkcontext.models.loading import load_processor  # noqa: PLC0415 - torch

    dataset, episodes = drawn
    told = list(export_conversations(episodes, dataset, SCAFFOLDS["turns"], supervise))
    write_conversations(told, tmp_path / "e.jsonl", "trl")
    table = datasets.load_dataset(
        "json", data_files=str(tmp_path / "e.jsonl"), split="train", cache_dir=str(tmp_path / "c")
    )
    table = table.cast_column("images", datasets.List(datasets.Image()))
    mini = load_processor("mini")
    collator = sft.DataCollatorForVisionLanguageModeling(mini, completion_only_loss=supervise == "query")
    batch = collator([table[n] for n in range(4)])
    assert batch["pixel_values"].shape[0] == sum(len(each.pictures) for each in told[:4])
    row = batch["input_ids"][3]
    mark = mini.tokenizer.convert_tokens_to_ids(mini.image_token)
    assert (row == mark).sum() == (batch["input_ids"][0] == mark).sum() * len(told[3].pictures)
    learnt = mini.tokenizer.decode(batch["labels"][3][batch["labels"][3] != -100])
    answers = [message["content"][0]["text"] for message in told[3].messages if message["role"] == "assistant"]
    if supervise == "query":
        assert learnt.replace(mini.tokenizer.eos_token, "").strip() == answers[-1]
    else:
        assert all(answer in learnt for answer in answers)


def test_ms_swift_and_llama_factory_see_marks_and_absolute_paths(drawn, tmp_path):
    dataset, episodes = drawn
    write_conversations(
        export_conversations(episodes[:1], dataset, SCAFFOLDS["turns"], "query"), tmp_path / "e.jsonl", "messages"
    )
    rows = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    first = rows[0]
    assert first["messages"][0] == {"role": "user", "content": "<image>What is this?"}
    assert first["messages"][1]["loss"] is True
    assert first["images"] == [str(dataset.path(episodes[0].queries[0].item).resolve())]
    assert [sum(m["content"].count("<image>") for m in row["messages"]) for row in rows] == [
        len(r["images"]) for r in rows
    ]
