"""Exported episodes in the trainers that they are for: TRL takes a step, LLaMA-Factory and ms-swift encode them.

LLaMA-Factory and ms-swift need older versions of transformers than this library, so each runs in an environment of its
own: LINKCONTEXT_LLAMA_FACTORY and LINKCONTEXT_MS_SWIFT name its Python.
"""

import json
import os
import subprocess

import pytest

from linkcontext.data.class_folders import open_folder
from linkcontext.data.writers import write_conversations
from linkcontext.episodes.export import export_conversations
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.scaffold import SCAFFOLDS, query_messages
from linkcontext.models import bundled

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def drawn(pictures):
    dataset = open_folder(pictures)
    return dataset, sample_episodes(dataset, EpisodePlan(ways=2, shots_per_class=(0, 2), episodes=2)).episodes


@pytest.fixture(scope="module", params=["every", "query"])
def exported(request, drawn, tmp_path_factory):
    """The folder of exported episodes in both layouts; their supervision; for each row its pictures and answers."""
    dataset, episodes = drawn
    folder = tmp_path_factory.mktemp("exported")
    rows = list(export_conversations(episodes, dataset, SCAFFOLDS["turns"], request.param))
    for layout in ("messages", "trl"):
        write_conversations(rows, folder / f"{layout}.jsonl", layout)
    answers = [[m["content"][0]["text"] for m in row.messages if m["role"] == "assistant"] for row in rows]
    learnt = answers if request.param == "every" else [row[-1:] for row in answers]
    return folder, request.param, [(len(row.pictures), names) for row, names in zip(rows, learnt, strict=True)]


def encoded_by(variable, script, folder, *arguments):
    """What a script prints last, run by the Python that an environment variable names: JSON."""
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} names no Python with this trainer")
    (folder / "script.py").write_text(script)
    done = subprocess.run(
        [python, "script.py", str(bundled.folder("mini")), *arguments],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


LLAMA_FACTORY = """
import json, sys
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

options = dict(stage="sft", do_train=True, finetuning_type="full", model_name_or_path=sys.argv[1], dataset="episodes",
               dataset_dir=".", template="llava", cutoff_len=4096, output_dir="out", overwrite_cache=True, use_cpu=True,
               report_to="none", mask_history=sys.argv[2] == "query")
model, data, training, _, _ = get_train_args(options)
parts = load_tokenizer(model)
words = parts["tokenizer"]
template = get_template_and_fix_tokenizer(words, data)
rows = get_dataset(template, model, data, training, stage="sft", **parts)["train_dataset"]
mark = words.convert_tokens_to_ids("<image>")
print(json.dumps([[len(row["images"]), row["input_ids"].count(mark), words.decode([i for i in row["labels"] if i >= 0])]
                  for row in rows]))
"""
DATASET_INFO = {  # as docs/data.md has it
    "episodes": {
        "file_name": "messages.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }
}


def test_llama_factory_encodes_the_conversations(exported):
    folder, supervise, expected = exported
    (folder / "dataset_info.json").write_text(json.dumps(DATASET_INFO))
    rows = encoded_by("LINKCONTEXT_LLAMA_FACTORY", LLAMA_FACTORY, folder, supervise)
    check(rows, expected, "<|end|>")


MS_SWIFT = """
import json, sys
from swift.dataset import load_dataset
from swift.model import get_processor
from swift.template import get_template

processor = get_processor(sys.argv[1], model_type="llava1_5_hf")
words = processor.tokenizer
template = get_template(processor)
template.set_mode("train")
table, _ = load_dataset(["messages.jsonl"], load_from_cache_file=False)
rows, mark = [template.encode(row) for row in table], words.convert_tokens_to_ids("<image>")
learnt = [words.decode([token for token in row["labels"] if token >= 0]) for row in rows]
counts = [(len(row["pixel_values"]), row["input_ids"].count(mark)) for row in rows]
print(json.dumps([[*both, text] for both, text in zip(counts, learnt)]))
"""


def test_ms_swift_encodes_the_conversations(exported):
    folder, _, expected = exported
    check(encoded_by("LINKCONTEXT_MS_SWIFT", MS_SWIFT, folder), expected, "</s>")


def check(rows, expected, end):
    """Pictures are there, each with its tokens, and what is learnt are the answers, each with an end token."""
    assert [(pictures, learnt) for pictures, _, learnt in rows] == [
        (pictures, "".join(name + end for name in names)) for pictures, names in expected
    ]
    (size,) = {tokens / pictures for pictures, tokens, _ in rows}
    assert size >= 16  # of mini: 17 tokens a picture, one of which some templates leave out


@pytest.mark.filterwarnings("ignore")  # warnings of trl and of what it imports
def test_trl_takes_a_step_with_the_loss_of_our_engine(exported, drawn, mini, tmp_path):
    trl = pytest.importorskip("trl", reason="trl is in linkcontext[bench] alone")
    datasets = pytest.importorskip("datasets", reason="needs linkcontext[hub]")
    from linkcontext.models.loading import load_model  # noqa: PLC0415
    from linkcontext.scoring.local import LocalModel  # noqa: PLC0415
    from linkcontext.scoring.protocol import ScoringRequest  # noqa: PLC0415

    folder, supervise, _ = exported
    table = datasets.load_dataset(
        "json", data_files=str(folder / "trl.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    ).cast_column("images", datasets.List(datasets.Image()))
    fresh = load_model("mini", device="cpu")  # it is changed
    trainer = trl.SFTTrainer(
        model=fresh.network,
        processing_class=fresh.processor,
        train_dataset=table,
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=len(table), logging_steps=1,
            report_to="none", use_cpu=True, max_length=None, save_strategy="no", learning_rate=1e-4,
            gradient_checkpointing=False, bf16=False,
        ),
    )  # fmt: skip
    before = fresh.network.lm_head.weight.detach().clone()
    trainer.train()
    assert not fresh.network.lm_head.weight.equal(before)
    if supervise == "query":  # the loss of every token of the answers, which our engine scores too
        dataset, episodes = drawn
        sources = {item.id: (item.content, dataset.path(item.id)) for item in dataset.items}
        prompts = [
            (query_messages(e, q, k, SCAFFOLDS["turns"]), query_messages(e, q, k, SCAFFOLDS["turns"], query.answer))
            for e in episodes
            for k in e.shots_per_class
            for q, query in enumerate(e.queries)
        ]
        scores = LocalModel(mini).with_pictures(sources).score([ScoringRequest(p, (whole,)) for p, whole in prompts])
        total, tokens = (sum(row[0][place] for row in scores) for place in (0, 1))
        assert trainer.state.log_history[0]["loss"] == pytest.approx(-total / tokens, abs=1e-3)
