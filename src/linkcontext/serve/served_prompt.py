"""The messages that precede every conversation with a served pack, and the names that need no run of the model."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from linkcontext.data.images import Upload
from linkcontext.episodes.scaffold import Message, build_messages, image_ids
from linkcontext.errors import InputError
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.scoring.protocol import Sources
from linkcontext.serve.openai_protocol import ChatRequest
from linkcontext.teach.learner import Learner
from linkcontext.teach.recogniser import Recogniser
from linkcontext.teach.support import retrieves


@dataclass(frozen=True)
class ServedPrompt:
    """What a served model name adds to a conversation: the pictures and names of a pack, or nothing."""

    messages: list[Message] = field(default_factory=list)
    sources: Sources = field(default_factory=dict)
    features: Mapping[str, ImageFeatures] = field(default_factory=dict)
    recogniser: Recogniser = field(default_factory=lambda: Recogniser({}, ""))
    digest: str | None = None  # of the pack's pictures, names and wording
    learner: Learner | None = None  # names pictures by its head

    @classmethod
    def of(cls, learner: Learner, where: Path) -> "ServedPrompt":
        """The support of a learner. Raises `InputError` if it depends on the query or is not made of turns."""
        if not learner.scaffold.turns:
            raise InputError(
                f"{where}: its support is not a series of turns and cannot be served. Teach it with --scaffold turns."
            )
        if learner.select == "rices" and learner.shots_per_class is not None:
            raise InputError(
                f"{where}: its support depends on the query and cannot be served. Teach it with --select medoid."
            )
        turns = build_messages(learner.choose_support(), learner.scaffold)
        digest = hashlib.sha256(json.dumps([turns, learner.pictures.by_name]).encode()).hexdigest()
        sources: Sources = {item: (item, path) for item, path in learner.pictures.paths.items()}
        return cls(turns, sources, learner.pictures.features, Recogniser.of(learner), digest, learner)

    def before(self, messages: list[Message]) -> list[Message]:
        """A client's messages behind those of the pack. Leading system messages stay first, as templates require."""
        system = len(list(takewhile(lambda message: message["role"] == "system", messages)))
        return [*messages[:system], *self.messages, *messages[system:]]

    def taught_name(self, chat: ChatRequest, messages: list[Message], sources: Sources) -> str | None:
        """The name of a taught picture, if its name is all that a conversation asks for.

        None if the client has shown the picture before: it may have corrected the name, which only the model can read.
        """
        if not _wants_text_alone(chat):
            return None
        own = Counter(image_ids(messages)) - Counter(image_ids(self.messages))
        if max(own.values(), default=0) > 1:
            return None
        return self.recogniser.name(messages, sources)

    def picture_to_name(self, chat: ChatRequest, messages: list[Message], sources: Sources) -> Upload | None:
        """The picture that a head names, if its name is all that a client asks for in its only message.

        None if the pack is named by the language model after the pictures of the prompt, and if the client has said
        more: then the model is asked.
        """
        if self.learner is None or not _wants_text_alone(chat):
            return None
        if self.learner.choose_head().head == "lm" and not retrieves(self.learner):
            return None
        item = self.recogniser.item_to_name(messages) if len(messages) == len(self.messages) + 1 else None
        source = sources[item][1] if item is not None else None
        return source if isinstance(source, Upload) else None


def _wants_text_alone(chat: ChatRequest) -> bool:
    """Whether a name without log-probabilities can answer a request."""
    return chat.ending == "none" and not chat.stops and not chat.logprobs and chat.prompt_logprobs is None
