"""Pictures that a visitor of the web page has sent.

They are read once, checked, and stored under the hash of their content. Names and paths that a browser sends are never
opened.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from linkcontext.data.formats import HEAD
from linkcontext.data.images import open_image, sha256, suffix
from linkcontext.data.uploads import FILES, UPLOAD_BYTES
from linkcontext.errors import InputError
from linkcontext.storage import read_errors, replacing


@dataclass
class StoredPictures:
    """The folder of one visitor's pictures, and the names under which files were sent."""

    folder: Path
    names: dict[Path, str] = field(default_factory=dict)  # of each stored picture, as it was sent last
    _sent: dict[Path, list[str]] = field(default_factory=dict, init=False, repr=False)

    def close(self) -> None:
        """Remove all files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def store(self, files: Sequence[Path], names: Sequence[str] = ()) -> tuple[Path, ...]:
        """Check pictures and copy them, all or none. `names` are those they were sent under."""
        names = names or [file.name for file in files]
        self._refuse_too_many(files)
        for file, name in zip(files, names, strict=True):
            self._check(file, name)
        return tuple(self._copy(file, name) for file, name in zip(files, names, strict=True))

    def store_readable(self, files: Sequence[Path]) -> tuple[tuple[Path, ...], list[str]]:
        """Copy the pictures among the files; returns their copies, each once, and a sentence about each other file."""
        self._refuse_too_many(files)
        stored: dict[Path, None] = {}
        problems = []
        for file in files:
            try:
                with self.errors_as_sent(file):
                    self._check(file, file.name)
                    stored[self._copy(file, file.name)] = None
            except InputError as error:
                problems.append(f"Left out: {error}")
        return tuple(stored), problems

    @contextmanager
    def errors_as_sent(self, *files: Path) -> Iterator[None]:
        """Rewrite paths in errors to the names under which files were sent: a browser must not learn the paths here."""
        self._sent = {file: [file.name] for file in files}
        try:
            yield
        except InputError as error:
            sentence = str(error)
            names = {path: [name] for path, name in self.names.items()} | self._sent
            for path in sorted(names, key=lambda path: -len(str(path))):
                sentence = sentence.replace(str(path), " and ".join(dict.fromkeys(names[path])))
            here = rf"{re.escape(str(self.folder))}/(tmp\w+/)?"  # an archive is unpacked into a folder tmp...
            raise InputError(re.sub(here, "", sentence)) from error
        except OSError as error:  # it names a path of this machine
            raise InputError(f"the files could not be stored ({error.strerror}). Is the server's disk full?") from error

    def _check(self, file: Path, name: str) -> None:
        self._sent.setdefault(file, []).append(name)
        with read_errors(file):
            size = file.stat().st_size
        if size > UPLOAD_BYTES:
            raise InputError(f"{name}: is larger than {UPLOAD_BYTES // 1_000_000} MB. Send a smaller file.")
        open_image(file)

    def _copy(self, file: Path, name: str) -> Path:
        with file.open("rb") as opened:
            ending = suffix(opened.read(HEAD))
        path = self.folder / f"{sha256(file)}{ending}"
        self._sent.setdefault(path, []).append(name)
        self.names[path] = name
        if not path.exists():
            with replacing(path) as new:
                shutil.copyfile(file, new)
        return path

    def _refuse_too_many(self, files: Sequence[Path]) -> None:
        if len(files) > FILES:
            raise InputError(f"{len(files):,} files are more than the {FILES:,} that can be sent at once. Send fewer.")
