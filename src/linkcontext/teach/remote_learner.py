"""Ask a model behind a server about what a pack taught. The pack's pictures are sent with every question."""

import math
from dataclasses import dataclass
from pathlib import Path

from linkcontext.data.images import pixels, sha256
from linkcontext.episodes.scaffold import build_messages, with_answer
from linkcontext.errors import InputError
from linkcontext.evaluation.answers import match
from linkcontext.records import Candidate, Turn
from linkcontext.scoring.protocol import ScoringModel, ScoringRequest
from linkcontext.teach.answer import Answer
from linkcontext.teach.pack import Pack
from linkcontext.teach.support import interleave
from linkcontext.teach.taught_pictures import existing


@dataclass
class RemoteLearner:
    """A pack, and a model that runs behind a server.

    Raises `InputError` if the pack's pictures are missing or have changed.
    """

    pack: Pack
    model: ScoringModel

    def __post_init__(self) -> None:
        self.support = self._support()
        paths = self.pack.existing_pictures(self.model.card.name)
        self.pixel_hashes = {pixels(path): item for item, path in paths.items()}
        self.model = self.model.with_pictures({item: (item, path) for item, path in paths.items()})

    def ask(self, picture: Path) -> Answer:
        """Name a picture. A picture that was taught has the name it was taught under.

        For any other the names are scored, or, if the server gives no log-probabilities, the server's reply is matched
        with the names; the matched name then has probability 1. Raises `InputError` for a reply that has no name or
        several.
        """
        query = self._query(picture, "")
        concepts = self.pack.concepts
        if taught := next((name for name, items in concepts.items() if query.item in items), None):
            return Answer(taught, _certain(taught, list(concepts)), taught=True)
        if self.model.lacks("log-probabilities"):
            return self._match_reply(picture, query, list(concepts))
        return self._score(query, list(concepts))

    def _score(self, query: Turn, names: list[str]) -> Answer:
        """The most likely name, with probabilities from the log-probabilities of all names."""
        messages = build_messages(self.support, self.pack.scaffold, query)
        request = ScoringRequest(messages, tuple(with_answer(messages, self.pack.scaffold, name) for name in names))
        scores = [value for value, _ in self.model.score([request])[0]]
        weights = [math.exp(value - max(scores)) for value in scores]
        probabilities = {name: weight / math.fsum(weights) for name, weight in zip(names, weights, strict=True)}
        return Answer(max(probabilities, key=probabilities.__getitem__), probabilities)

    def _match_reply(self, picture: Path, query: Turn, names: list[str]) -> Answer:
        """The name in the server's reply."""
        messages = build_messages(self.support, self.pack.scaffold, query)
        (reply,) = self.model.generate([messages], self.model.card.prompting.reply_tokens)
        name = match(reply, [Candidate(name, name, name) for name in names])
        if name is None:
            raise InputError(
                f"{picture}: {self.model.card.name} replies {reply!r}, which has none of the names, or several."
            )
        return Answer(name, _certain(name, names))

    def say(self, picture: Path, question: str = "") -> str:
        """Generate a reply about a picture, after the pack's pictures."""
        messages = build_messages(self.support, self.pack.scaffold, self._query(picture, question))
        return self.model.generate([messages], self.model.card.prompting.reply_tokens)[0]

    def _support(self) -> list[Turn]:
        """The pictures shown before a query. Raises `InputError` if an untrusted pack chose some of them."""
        pack, header = self.pack, self.pack.header
        turns = [Turn(item, name, name) for item, name in header.rounds]
        if pack.trusted or turns == interleave(header.concepts):
            return turns
        raise InputError(
            f"{pack.path}: shows only some of its pictures, chosen by another user or on another machine. Use "
            "--trust-pack if you trust its author, or teach its pictures again."
        )

    def _query(self, picture: Path, question: str) -> Turn:
        item = self.pixel_hashes.get(pixels(existing(picture)), sha256(picture))
        self.model.sources.setdefault(item, (item, picture))
        return Turn(item, "", "", question)


def _certain(name: str, names: list[str]) -> dict[str, float]:
    return {other: float(other == name) for other in names}
