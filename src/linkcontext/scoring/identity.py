"""Digests of what a run measures or trains; a run is resumed only if they are the same.

The figures of a folder belong to one model, one processor and one wording. The path of a model does not show this,
because its weights may change. Of a model behind a server only what the server reports can be compared; `linkcontext
serve` reports the same digests.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from linkcontext.data.images import sha256
from linkcontext.episodes.render import encode, render_text
from linkcontext.episodes.scaffold import SCAFFOLDS, Message, build_messages
from linkcontext.models.feature_store import fingerprint
from linkcontext.models.model import FILE_KEYS, Model
from linkcontext.models.synthetic_images import CHECKED
from linkcontext.records import Turn

UNKNOWN = "unknown: a server has them, and reports nothing that would tell when they change"
VERSIONS = ("transformers_version", "_from_model_config")  # of a generation config: they describe a file

REPORTED = "measured"  # the field of a model of `linkcontext serve` that has its digests
DIGEST = re.compile("[0-9a-f]{64}")

Measured = dict[str, Any]


def measured(model: Model) -> Measured:
    """Digests, by name, of everything that a model's answers depend on besides the prompt."""
    return {
        "weights": fingerprint(dict(model.network.state_dict()), ""),
        "configuration": digest_of(model.configuration),
        "adapter": _adapter(model.adapter),
        "processor": digest_of(_processor(model)),
        "chat_template": digest_of(_rendered(model)),
        "generation": without_keys(model.network.generation_config.to_dict(), VERSIONS),
    }


def of_model(model: Model, conversations: Iterable[Sequence[Message]]) -> Measured:
    """`measured`, and a digest of conversations as the model reads them."""
    return {**measured(model), "prompts": prompts(model, conversations)}


def measured_by_server(server: Mapping[str, Any]) -> Measured:
    """The same of a model behind a server, as far as the server reports it; `server` is all that it reports."""
    return {"weights": _weights(server.get(REPORTED)), "server": server}


def prompts(model: Model, conversations: Iterable[Sequence[Message]]) -> str:
    """A digest of conversations as the model reads them: token ids, with pictures by their ids."""
    read = [
        encode(messages, model.chat_template, "none" if _open(messages) else "last", reply=_open(messages))
        for messages in conversations
    ]
    return digest_of([[tokens.ids, tokens.labels, tokens.pictures] for tokens in read])


def _open(messages: Sequence[Message]) -> bool:
    """Whether the assistant is to speak next."""
    return bool(messages[-1]["role"] != "assistant")


def _weights(reported: Any) -> str:
    """The digest of the weights that a server reports, if it does."""
    digest = reported.get("weights") if isinstance(reported, dict) else None
    return digest if isinstance(digest, str) and DIGEST.fullmatch(digest) else UNKNOWN


def _processor(model: Model) -> Any:
    images = model.image_processing
    words = model.tokenizer
    if words.is_fast:
        backend = json.loads(words.backend_tokenizer.to_str())
        # Padding and truncation are set with each call, and change no prompt.
        tokenizer = without_keys(backend, ("padding", "truncation"))
    else:
        tokenizer = {"vocabulary": words.get_vocab()}
    return {"images": without_keys(images, FILE_KEYS), "tokenizer": tokenizer, "special": words.special_tokens_map}


def _rendered(model: Model) -> list[str]:
    """A small conversation with two pictures as the chat template writes it, up to its answer and with it."""
    turn, query = Turn(CHECKED[0], "", "lum"), Turn(CHECKED[1], "", "")
    made = (build_messages([turn], SCAFFOLDS["turns"], query, answer) for answer in (None, "dax"))
    return [render_text(messages, model.chat_template, reply=_open(messages))[0] for messages in made]


def _adapter(named: str | None) -> str | None:
    """A digest of an adapter's files, or its name on the hub; None where there is no adapter."""
    if named is None or not Path(named).is_dir():
        return named
    files = sorted(path for path in Path(named).iterdir() if path.name.startswith("adapter_") and path.is_file())
    return digest_of([[path.name, sha256(path)] for path in files])


def without_keys(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The values but for those of some names."""
    return {key: value for key, value in values.items() if key not in names}


def digest_of(value: Any) -> str:
    """SHA-256 (64 hex digits) of a value as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
