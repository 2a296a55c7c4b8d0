"""Recognise taught pictures in a conversation by their pixels: their names need no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from linkcontext.data.images import pixels
from linkcontext.episodes.scaffold import Message
from linkcontext.scoring.protocol import Sources
from linkcontext.teach.dialogue import NAMING
from linkcontext.teach.learner import Learner


@dataclass(frozen=True)
class Recogniser:
    """The name of each taught picture by the hash of its pixels, and the question with which names are asked for."""

    names: Mapping[str, str]
    question: str

    @classmethod
    def of(cls, learner: Learner) -> "Recogniser":
        """The pictures that a learner was taught."""
        shown = {item: name for name, items in learner.shown.items() for item in items}
        return cls({learner.pixels[item]: name for item, name in shown.items()}, learner.scaffold.question)

    def name(self, messages: Sequence[Message], sources: Sources) -> str | None:
        """The name of the one picture that the last message shows, if it was taught and the message asks for its name.

        Raises `InputError` where the picture cannot be read.
        """
        if not self.names or not messages or messages[-1]["role"] != "user":
            return None
        parts = messages[-1]["content"]
        items = [part["image"] for part in parts if part["type"] == "image"]
        words = " ".join(" ".join(part["text"] for part in parts if part["type"] == "text").split())
        if len(items) != 1 or not (NAMING.fullmatch(words) or words.casefold() == self.question.casefold()):
            return None
        return self.names.get(pixels(sources[items[0]][1]))
