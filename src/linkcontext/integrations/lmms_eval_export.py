"""Writes episodes as a folder of tasks that lmms-eval loads with `--include_path`.

NAME.yaml             replies, matched strictly (output_type generate_until)
NAME_likelihood.yaml  likelihoods of the candidates (output_type multiple_choice), for models that give them
episodes.jsonl        a line for each query at each number of shots
pictures/             each picture once, upright and RGB
utils.py, answers.py  the functions of the tasks, and strict matching as `linkcontext eval` does it
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from linkcontext.data.images import portable
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.scaffold import Scaffold, query_messages
from linkcontext.errors import InputError
from linkcontext.models.prompting import REPLY_TOKENS
from linkcontext.records import Episode
from linkcontext.storage import write_folder

SUFFIXES = {"image/jpeg": "jpg", "image/png": "png"}


def export_lmms_eval(
    episodes: Sequence[Episode], dataset: Dataset, scaffold: Scaffold, out: Path, new_tokens: int = REPLY_TOKENS
) -> str:
    """Write the folder `out`, whole or not at all, and return the name of its task of replies.

    The name is `linkcontext_` and that of the folder. `new_tokens` is the maximum length of a reply.

    Raises:
        InputError: `out` is not empty or cannot be written, a picture cannot be opened, or there is no episode.
    """
    if not episodes:
        raise InputError(
            f"{out}: there is no episode to export. Choose other data, or fewer --ways or --shots-per-class."
        )
    words = re.sub(r"[^a-z0-9]+", "_", out.resolve().name.casefold()).strip("_")
    task = f"linkcontext_{words or 'episodes'}"
    write_folder(out, lambda folder: _write(folder, episodes, dataset, scaffold, task, new_tokens))
    return task


@dataclass
class _Pictures:
    """Writes pictures into `folder`, each content once."""

    dataset: Dataset
    folder: Path
    _names: dict[str, str] = field(default_factory=dict)  # content -> path in the folder

    def name(self, item_id: str) -> str:
        """The path of a picture in the folder."""
        content = self.dataset.item(item_id).content
        if content not in self._names:
            kind, data = portable(self.dataset.path(item_id))
            name = f"pictures/{content[:32]}.{SUFFIXES[kind]}"
            (self.folder / name).write_bytes(data)
            self._names[content] = name
        return self._names[content]


def _write(
    folder: Path, episodes: Sequence[Episode], dataset: Dataset, scaffold: Scaffold, task: str, new_tokens: int
) -> None:
    """Write the files of the folder."""
    (folder / "pictures").mkdir()
    pictures = _Pictures(dataset, folder)
    rows: set[tuple[str, int]] = set()
    several = len({episode.task for episode in episodes}) > 1
    with (folder / "episodes.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for episode in episodes:
            for shots in episode.shots_per_class:
                row = (f"{re.sub(r'[^a-z0-9]+', '_', episode.task.casefold())}_k" if several else "k", shots)
                rows.add(row)
                for number in range(len(episode.queries)):
                    record = _record(episode, number, shots, scaffold, pictures)
                    file.write(json.dumps({**record, "row": f"{row[0]}{shots}"}, ensure_ascii=False) + "\n")
    for source in ("integrations/lmms_eval_folder/utils.py", "evaluation/answers.py"):
        (folder / Path(source).name).write_bytes(files("linkcontext").joinpath(source).read_bytes())
    for name, text in _tasks(task, [f"{kind}{shots}" for kind, shots in sorted(rows)], new_tokens).items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def _record(episode: Episode, query: int, shots: int, scaffold: Scaffold, pictures: _Pictures) -> dict[str, Any]:
    """The line of a query at a number of shots. All parts of messages have all keys, as tables of `datasets` need."""
    messages = [
        {
            "role": message["role"],
            "content": [
                {
                    "type": part["type"],
                    "text": part.get("text"),
                    "image": pictures.name(part["image"]) if part["type"] == "image" else None,
                }
                for part in message["content"]
            ],
        }
        for message in query_messages(episode, query, shots, scaffold)
    ]
    return {
        "id": f"{episode.query_id(query)}/k{shots}",
        "class_id": episode.queries[query].class_id,
        "answer": episode.queries[query].answer,
        "candidates": [
            {"class_id": c.class_id, "name": c.name, "answer": scaffold.query_answer.replace("{answer}", c.name)}
            for c in episode.candidates
        ],
        "messages": messages,
    }


def _tasks(task: str, rows: Sequence[str], new_tokens: int) -> dict[str, str]:
    """The names and texts of the YAML files."""

    def metrics(*names: str) -> str:
        return "".join(
            f"  - metric: {name}_{row}\n    aggregation: mean\n    higher_is_better: true\n"
            for name in names
            for row in rows
        )

    data = """dataset_path: json
dataset_kwargs:
  data_files:
    test: episodes.jsonl
test_split: test
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_messages: !function utils.doc_to_messages
"""
    replies = f"""task: {task}
{data}output_type: generate_until
doc_to_target: answer
generation_kwargs:
  max_new_tokens: {new_tokens}
  temperature: 0
  do_sample: false
  until: []
process_results: !function utils.process_results
metric_list:
{metrics("accuracy", "answered")}metadata:
  version: 1
"""
    likelihoods = f"""task: {task}_likelihood
{data}output_type: multiple_choice
doc_to_choice: !function utils.doc_to_choice
doc_to_target: !function utils.doc_to_target
target_delimiter: ""
process_results: !function utils.process_likelihoods
metric_list:
{metrics("accuracy")}metadata:
  version: 1
"""
    return {task: replies, f"{task}_likelihood": likelihoods}
