"""What was left out of data, in sentences."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from linkcontext.errors import InputError, first_few


@dataclass(slots=True)
class Problems:
    """Collects a sentence for everything that is left out. If `strict`, the first one is raised as an `InputError`.

    `reasons` maps the paths of files that `scan` left out to the reasons.
    """

    strict: bool
    sentences: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, sentence: str) -> None:
        """Add a sentence about something of the user's that is left out. Raises it if `strict`."""
        if self.strict:
            raise InputError(sentence)
        self.sentences.append(sentence)

    @contextmanager
    def leaving_out(self) -> Iterator[None]:
        """`add` the `InputError` that the block raises: the record that it reads is left out."""
        try:
            yield
        except InputError as error:
            self.add(str(error))

    def note(self, sentence: str) -> None:
        """Add a sentence that is no reason to stop, even if `strict`."""
        self.sentences.append(sentence)

    def nothing_usable(self, source: str, kind: str) -> InputError:
        """The error for a source without a usable record of a kind, with the reasons."""
        because = f" Left out: {first_few(self.sentences, whole=True)}" if self.sentences else ""
        return InputError(f"{source}: holds no {kind} that can be used.{because}")
