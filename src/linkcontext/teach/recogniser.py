"""Recognise taught pictures in a conversation by their pixels, so that their names need no run of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from linkcontext.data.images import hash_pixels
from linkcontext.episodes.scaffold import Message
from linkcontext.scoring.protocol import Sources
from linkcontext.teach.learner import Learner
from linkcontext.teach.sentences import NAMING


@dataclass(frozen=True)
class Recogniser:
    """The names of taught pictures by the hash of their pixels, and the scaffold's question for a name."""

    names: Mapping[str, str]
    question: str

    @classmethod
    def of(cls, learner: Learner) -> "Recogniser":
        """A recogniser for the pictures that a learner was taught."""
        pictures = learner.pictures
        names = {pictures.pixel_hashes[item]: name for name, own in pictures.by_name.items() for item in own}
        return cls(names, learner.scaffold.question)

    def name(self, messages: Sequence[Message], sources: Sources) -> str | None:
        """The name of the one picture in the last message, if it was taught and the message asks for its name.

        None otherwise. Raises `InputError` if the picture cannot be read.
        """
        item = self.item_to_name(messages)
        return None if item is None else self.names.get(hash_pixels(sources[item][1]))

    def item_to_name(self, messages: Sequence[Message]) -> str | None:
        """The id of the one picture in the last message, if the message asks for its name; None otherwise."""
        if not self.names or not messages or messages[-1]["role"] != "user":
            return None
        parts = messages[-1]["content"]
        items = [part["image"] for part in parts if part["type"] == "image"]
        words = " ".join(" ".join(part["text"] for part in parts if part["type"] == "text").split())
        if len(items) != 1 or not (NAMING.fullmatch(words) or words.casefold() == self.question.casefold()):
            return None
        return str(items[0])
