"""Ask a model behind a server what a pack taught: its pictures are sent with every question."""

import math
from dataclasses import dataclass
from pathlib import Path

from linkcontext.data.images import sha256
from linkcontext.episodes.prompt import answered, conversation
from linkcontext.errors import InputError
from linkcontext.evaluate.answers import match
from linkcontext.models.remote import Remote, Served
from linkcontext.models.score import Ask
from linkcontext.records import Candidate, Turn
from linkcontext.teach.learner import Answer
from linkcontext.teach.pack import Pack


@dataclass
class Away:
    """A pack and a server. Raises `InputError` where the pack's pictures are gone or have changed."""

    pack: Pack
    served: Served

    def __post_init__(self) -> None:
        self.pack.whole(self.served.name)
        self.remote = Remote(self.served, {item: (item, path) for item, path in self.pack.paths.items()})

    def ask(self, picture: Path) -> Answer:
        """Name a picture: by the likelihood of each name where the server tells it, else by its reply.

        By its reply all probability is with the name that it says. Raises `InputError` where it says none or several.
        """
        query = self._query(picture, "")
        messages = conversation(self._others(query), self.pack.wording, query)
        names = list(self.pack.concepts)
        if not self.remote.scores:
            (reply,) = self.remote.generate([messages])
            said = match(reply, [Candidate(name, name, name) for name in names])
            if said is None:
                raise InputError(
                    f"{picture}: {self.served.name} says {reply!r}, which is none of the names, or several."
                )
            return Answer(said, {name: float(name == said) for name in names})
        asked = Ask(messages, tuple(answered(messages, self.pack.wording, name) for name in names))
        scores = [value for value, _ in self.remote.score([asked])[0]]
        weights = [math.exp(value - max(scores)) for value in scores]
        found = {name: weight / math.fsum(weights) for name, weight in zip(names, weights, strict=True)}
        return Answer(max(found, key=found.__getitem__), found)

    def say(self, picture: Path, question: str = "") -> str:
        """The server's words about a picture, after what the pack taught."""
        query = self._query(picture, question)
        return self.remote.generate([conversation(self._others(query), self.pack.wording, query)])[0]

    def _others(self, query: Turn) -> list[Turn]:
        """What is shown before this query: a picture is never its own example."""
        rounds = [Turn(item, name, name) for item, name in self.pack.told["rounds"]]
        return [turn for turn in rounds if turn.item != query.item]

    def _query(self, picture: Path, question: str) -> Turn:
        if not picture.is_file():
            raise InputError(f"{picture}: no such picture.")
        content = sha256(picture)
        self.remote.sources.setdefault(content, (content, picture))
        return Turn(content, "", "", question)
