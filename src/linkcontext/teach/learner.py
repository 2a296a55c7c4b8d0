"""Teach a model names for things by showing pictures of them, then ask it about others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from linkcontext.data.images import sha256
from linkcontext.episodes.prompt import SCAFFOLDS, Scaffold, conversation
from linkcontext.errors import InputError
from linkcontext.models.load import Model
from linkcontext.models.score import Ask, Scorer
from linkcontext.models.vision import Eyes
from linkcontext.records import Turn


@dataclass(frozen=True, slots=True)
class Answer:
    """What a picture is called: the likeliest name, and the probability of each name taught."""

    name: str
    probabilities: dict[str, float]


@dataclass
class Learner:
    """A model and what it was shown. Nothing is trained: what was shown stands in the prompt."""

    model: Model
    scaffold: Scaffold = field(default_factory=lambda: SCAFFOLDS["turns"])
    shown: dict[str, list[str]] = field(default_factory=dict)  # name -> item ids

    def __post_init__(self) -> None:
        self.scorer = Scorer(self.model, Eyes(self.model), {})

    def teach(self, named: Mapping[str, Iterable[str | Path]]) -> None:
        """Show pictures under their names: {"cactihog": [paths]}. Names taught before get more pictures."""
        for name, pictures in named.items():
            paths = [Path(picture) for picture in pictures]
            if not name.strip() or not paths:
                raise InputError(f"{name!r}: a name and at least one picture are needed to teach something.")
            self.shown.setdefault(name.strip(), []).extend(self._remember(path) for path in paths)

    def ask(self, picture: str | Path) -> Answer:
        """Name a picture. The probabilities are over the names that were taught."""
        if len(self.shown) < 2:
            raise InputError("teach at least two names before asking: with one there is nothing to choose.")
        query = Turn(self._remember(Path(picture)), "", "")
        turns = self._rounds(leave_out=query.item)
        answers = tuple(conversation(turns, self.scaffold, query, name) for name in self.shown)
        (scores,) = self.scorer.score([Ask(conversation(turns, self.scaffold, query), answers)])
        chances = torch.tensor([value for value, _ in scores]).softmax(0).tolist()
        found = dict(zip(self.shown, chances, strict=True))
        return Answer(max(found, key=found.__getitem__), found)

    def say(self, picture: str | Path) -> str:
        """The model's own words about a picture, after what it was shown."""
        query = Turn(self._remember(Path(picture)), "", "")
        (reply,) = self.scorer.generate([conversation(self._rounds(leave_out=query.item), self.scaffold, query)])
        return reply

    def _remember(self, path: Path) -> str:
        if not path.is_file():
            raise InputError(f"{path}: no such picture.")
        content = sha256(path)
        self.scorer.sources[content] = (content, path)
        return content

    def _rounds(self, leave_out: str) -> list[Turn]:
        """What was shown, one of each name at a time. A picture is never its own example."""
        rows = {name: [item for item in items if item != leave_out] for name, items in self.shown.items()}
        most = max(map(len, rows.values()), default=0)
        return [Turn(row[i], name, name) for i in range(most) for name, row in rows.items() if i < len(row)]
