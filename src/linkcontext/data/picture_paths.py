"""Looks for the pictures that a file of another tool names."""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from linkcontext.data import images
from linkcontext.data.formats import SUFFIXES
from linkcontext.data.problems import Problems
from linkcontext.errors import NAMED, InputError, excerpt, first_few


def possible_paths(name: str) -> list[str]:
    """The paths below the folder of the file that names a picture where the picture may be.

    A file from another system may separate folders by backslashes, or compose letters with accents in another way.
    """
    names = [name]
    if not name.isascii():
        names += [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    if "\\" in name:
        names.append(name.replace("\\", "/"))
    return [path for each in dict.fromkeys(names) for path in (each, f"images/{each}")]


@dataclass(slots=True)
class PictureFinder:
    """Looks for pictures below `root`, and counts the records whose pictures are missing."""

    source: str
    root: Path
    problems: Problems
    missing: list[str] = field(default_factory=list)  # names of the first few
    count: int = 0

    def find(self, pictures: Iterable[Sequence[str]], where: str) -> list[str] | None:
        """A path below the root for each picture, given the paths to try; None if one is missing or not a picture.

        Raises `InputError` in this case if problems are strict.
        """
        existing = []
        for names in pictures:
            paths = (path for name in names for path in possible_paths(name))
            # os.path: a file may name a million pictures, and making a Path takes longer than looking for the file.
            path = next((path for path in paths if os.path.isfile(os.path.join(self.root, path))), "")  # noqa: PTH113, PTH118
            existing.append(path)
            if not path:
                self._count_missing(names[0], where)
            elif not path.lower().endswith(SUFFIXES) and not self._begins_as_picture(path, where):
                return None
        return existing if all(existing) else None

    def _count_missing(self, name: str, where: str) -> None:
        if self.problems.strict:
            raise InputError(
                f"{where}: its picture {excerpt(name)} is not below {self.root}. Give its folder with --images."
            )
        self.count += 1
        if len(self.missing) < NAMED and name not in self.missing:
            self.missing.append(name)

    def _begins_as_picture(self, path: str, where: str) -> bool:
        """Whether a file without a picture's suffix has the first bytes of one."""
        try:
            images.refuse_other_kinds(self.root / path)
        except InputError as error:
            self.problems.add(f"{where}: {error}")
            return False
        return True

    def report(self) -> None:
        """Add a sentence about the missing pictures to the problems."""
        if self.count:
            self.problems.note(
                f"{self.source}: left out because a picture is not below {self.root}: {self.count} times "
                f"({first_few(self.missing)}, ...). Unpack the pictures, or say where they are with --images."
            )
