"""Ask a model behind a server what a pack taught: its pictures are sent with every question."""

import math
from dataclasses import dataclass
from pathlib import Path

from linkcontext.data.images import pixels, sha256
from linkcontext.episodes.scaffold import build_messages, with_answer
from linkcontext.errors import InputError
from linkcontext.evaluation.answers import match
from linkcontext.models.prompting import REPLY_TOKENS
from linkcontext.records import Candidate, Turn
from linkcontext.scoring.protocol import ScoringModel, ScoringRequest
from linkcontext.teach.learner import Answer, in_rounds
from linkcontext.teach.pack import Pack


@dataclass
class Away:
    """A pack and a server. Raises `InputError` where the pack's pictures are gone or have changed."""

    pack: Pack
    model: ScoringModel

    def __post_init__(self) -> None:
        self.support = self._support()
        paths = self.pack.whole(self.model.card.name)
        self.looks = {pixels(path): item for item, path in paths.items()}
        self.remote = self.model.with_pictures({item: (item, path) for item, path in paths.items()})

    def ask(self, picture: Path) -> Answer:
        """Name a picture. One that was taught has its own name; any other is named by the likelihood of each name, or
        by the server's reply if it gives no likelihoods.

        A reply gives all probability to the name in it. Raises `InputError` for a reply that names none or several.
        """
        query = self._query(picture, "")
        names = list(self.pack.concepts)
        if taught := next((name for name, items in self.pack.concepts.items() if query.item in items), None):
            return Answer(taught, {name: float(name == taught) for name in names}, taught=True)
        messages = build_messages(self.support, self.pack.wording, query)
        if self.remote.lacks("log-probabilities"):
            (reply,) = self.remote.generate([messages], self._new_tokens)
            said = match(reply, [Candidate(name, name, name) for name in names])
            if said is None:
                raise InputError(
                    f"{picture}: {self.model.card.name} says {reply!r}, which is none of the names, or several."
                )
            return Answer(said, {name: float(name == said) for name in names})
        asked = ScoringRequest(messages, tuple(with_answer(messages, self.pack.wording, name) for name in names))
        scores = [value for value, _ in self.remote.score([asked])[0]]
        weights = [math.exp(value - max(scores)) for value in scores]
        found = {name: weight / math.fsum(weights) for name, weight in zip(names, weights, strict=True)}
        return Answer(max(found, key=found.__getitem__), found)

    def say(self, picture: Path, question: str = "") -> str:
        """The server's words about a picture, after what the pack taught."""
        query = self._query(picture, question)
        messages = build_messages(self.support, self.pack.wording, query)
        return self.remote.generate([messages], self._new_tokens)[0]

    @property
    def _new_tokens(self) -> int:
        return self.model.card.prompting.max_new_tokens or REPLY_TOKENS

    def _support(self) -> list[Turn]:
        """The pictures that are shown before a query. Raises `InputError` for a choice that somebody else made."""
        pack, header = self.pack, self.pack.header
        chosen = [Turn(item, name, name) for item, name in header.rounds]
        if pack.believed or chosen == in_rounds(header.concepts):
            return chosen
        raise InputError(
            f"{pack.path}: shows only some of its pictures, chosen by another user or on another machine. "
            "Use --trust-pack if you trust its author, or teach its pictures anew."
        )

    def _query(self, picture: Path, question: str) -> Turn:
        if not picture.is_file():
            raise InputError(f"{picture}: no such picture.")
        content = self.looks.get(pixels(picture), sha256(picture))
        self.remote.sources.setdefault(content, (content, picture))
        return Turn(content, "", "", question)
