"""Tuned models to the Hugging Face Hub, with a model card. `linkcontext.load("OWNER/NAME")` loads them from there."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from linkcontext.errors import InputError
from linkcontext.hub_files import upload_folder
from linkcontext.jsonl import read_json

LATEST = "latest"  # in the folder of a training: the name of its last checkpoint
KINDS = {".json", ".jinja", ".txt", ".model", ".safetensors"}  # files of a model that transformers reads
STATE = "training.safetensors"  # what a training goes on from


def push_model(folder: Path, repo_id: str, private: bool | None, token: str | None, message: str) -> str:
    """Write the model in a folder to a repository and return the address of the commit.

    The folder is a model, a LoRA adapter, or a training, whose last checkpoint is taken. A README.md in it is the model
    card; otherwise one is written. What a training needs to go on is left out.

    Raises `InputError` if there is no model in the folder, and for what `upload_folder` raises.
    """
    model = _checkpoint(folder)
    kind = next((name for name in ("adapter_config.json", "config.json") if (model / name).is_file()), None)
    if kind is None or not list(model.glob("*.safetensors")):
        raise InputError(f"{folder}: no model. Give a folder with config.json and weights in safetensors.")
    with tempfile.TemporaryDirectory() as place:
        out = Path(place)
        for path in sorted(model.iterdir()):
            if path.is_file() and path.suffix in KINDS and path.name != STATE:
                _link_or_copy(path, out / path.name)
        own = model / "README.md"
        card = own.read_text(encoding="utf-8") if own.is_file() else model_card(model, repo_id, kind)
        (out / "README.md").write_text(card, encoding="utf-8")
        return upload_folder(out, repo_id, private, token, message)


def model_card(model: Path, repo_id: str, kind: str) -> str:
    """The card of a model: how it is loaded, and how it was trained, as far as its training says it."""
    values = _object(model / kind)
    training = _object(model.parent / "config.json") if model.parent.joinpath(LATEST).is_file() else {}
    base = str(training.get("model", {}).get("name") or values.get("base_model_name_or_path") or "")
    named = f"base_model: {base}\n" if re.fullmatch(r"[\w.-]+/[\w.-]+", base) else ""
    adapter = kind == "adapter_config.json"
    how = f'linkcontext.load({base!r}, adapter="FOLDER")' if adapter else f"linkcontext.load({repo_id!r})"
    trained = [
        *([f"Tuned from `{base}`."] if base else []),
        *([f"Trained with `{training['command']}`, to {model.name}."] if "command" in training else []),
    ]
    return f"""---
library_name: {"peft" if adapter else "transformers"}
pipeline_tag: image-text-to-text
tags: [linkcontext, in-context-learning, vision-language-model]
{named}---

# {repo_id}

A vision-language model of the type `{values.get("model_type", values.get("peft_type", "unknown"))}` that learns from
the pictures in its context. {" ".join(trained)}

```python
import linkcontext

learner = {how}
learner.teach({{"cactihog": ["a.png", "b.png"], "plimbo": ["c.png", "d.png"]}})
print(learner.ask("e.png"))
print(linkcontext.evaluate(learner, "digits", shots=(1, 4)))
```

No accuracy is given here: the line above measures it on your data.
"""


def _checkpoint(folder: Path) -> Path:
    """The folder itself, or the last checkpoint of a training."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Give the folder of a model.")
    pointer = folder / LATEST
    return folder / pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else folder


def _object(path: Path) -> dict[str, Any]:
    values = read_json(path) if path.is_file() else {}
    return values if isinstance(values, dict) else {}


def _link_or_copy(path: Path, to: Path) -> None:
    """Weights are gigabytes: a link is enough where the system makes one."""
    try:
        to.symlink_to(path.resolve())
    except OSError:
        shutil.copyfile(path, to)
