"""Packs to and from the Hugging Face Hub.

A repository has `linkcontext.pack`, a model card, and the pictures if their owner gives them. It does not have the
paths of pictures on the owner's machine.
"""

import dataclasses
import hashlib
import re
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import save_file

from linkcontext.data.formats import HEAD
from linkcontext.data.images import suffix
from linkcontext.errors import InputError
from linkcontext.hub_files import download_files, upload_folder
from linkcontext.jsonl import to_json
from linkcontext.models import bundled
from linkcontext.models.feature_store import fingerprint
from linkcontext.storage import cache_dir, written_once
from linkcontext.teach.pack import Pack, read_pack
from linkcontext.teach.rejection import describe_rejection

FILE, PICTURES = "linkcontext.pack", "pictures"  # the names in a repository
PICTURE = re.compile(r"[0-9a-f]{64}\.[a-z]{3,4}")


def push_pack(
    pack: Pack, repo_id: str, private: bool | None, with_pictures: bool, token: str | None, message: str
) -> str:
    """Write a pack to a repository and return the address of the commit; see `Pack.push_to_hub`."""
    with tempfile.TemporaryDirectory() as folder:
        files = _copied_pictures(pack, Path(folder) / PICTURES) if with_pictures else {}
        header = dataclasses.replace(pack.header, paths=files)
        text = to_json(header)
        metadata = {"pack": text, "digest": fingerprint(pack.tensors, text), "seal": ""}
        save_file(pack.tensors, Path(folder) / FILE, metadata)
        (Path(folder) / "README.md").write_text(pack_card(pack, repo_id, with_pictures), encoding="utf-8")
        return upload_folder(Path(folder), repo_id, private, token, message)


def fetch_pack(repo_id: str, revision: str | None, token: str | None, trust: bool) -> Pack:
    """The pack of a repository, copied to the cache folder; see `Pack.from_pretrained`."""
    snapshot = download_files(repo_id, [FILE, f"{PICTURES}/*"], revision, token)
    if not (snapshot / FILE).is_file():
        raise InputError(f"{repo_id}: has no {FILE}. A model is loaded with linkcontext.load({repo_id!r}).")

    def copy(out: Path) -> None:
        # The hub's cache has links. Pictures beside the pack have to be files in its folder.
        shutil.copyfile(snapshot / FILE, out / FILE)
        (out / PICTURES).mkdir()
        for path in (snapshot / PICTURES).glob("*"):
            if PICTURE.fullmatch(path.name):
                shutil.copyfile(path, out / PICTURES / path.name)

    key = hashlib.sha256(f"{repo_id} {snapshot.name}".encode()).hexdigest()[:16]
    return read_pack(written_once(cache_dir() / "packs" / key, copy) / FILE, trust)


def pack_card(pack: Pack, repo_id: str, with_pictures: bool) -> str:
    """The model card of a pack."""
    names = "\n".join(f"- {name}: {len(items)} pictures" for name, items in pack.concepts.items())
    model = pack.model
    base = f"base_model: {model}\n" if re.fullmatch(r"[\w.-]+/[\w.-]+", model) else ""
    trust = "" if with_pictures else ", trust=True"
    named = "" if model in bundled.NAMES else f", model={model!r}"
    pictures = (
        "The pictures are in this repository, so that any model can be taught them again."
        if with_pictures
        else "The pictures themselves are not in this repository: only the model that was taught can use the pack, and "
        "its features are used only by those who trust its author (`trust=True`)."
    )
    return f"""---
library_name: linkcontext
tags: [linkcontext, few-shot, vision-language-model]
{base}---

# {repo_id}

What `{model}` was taught by showing it pictures, without training. It tells these apart:

{names}

```python
import linkcontext

pack = linkcontext.Pack.from_pretrained({repo_id!r}{trust})
learner = linkcontext.Learner.load(pack{named})
print(learner.ask("new.jpg"))
```

{pack.header.head.choice().describe()} {describe_rejection(pack.rejection_threshold, pack.concepts)} These figures are
those of its author.

The pack has a thumbnail and the image features of every picture. {pictures}

Licence: {pack.licence or "none given"}. Written with linkcontext {pack.header.versions.get("linkcontext", "")}.
"""


def _copied_pictures(pack: Pack, folder: Path) -> dict[str, str]:
    """Copy a pack's pictures into a folder; their paths beside the pack, by id.

    Raises `InputError` if pictures are gone, have changed, or were taught without a file.
    """
    folder.mkdir()
    places = {}
    for item, path in pack.existing_pictures("another model").items():
        with path.open("rb") as file:
            ending = suffix(file.read(HEAD)) or ".png"
        shutil.copyfile(path, folder / f"{item}{ending}")
        places[item] = f"{PICTURES}/{item}{ending}"
    return places
