"""One visitor of the web page: a dialogue, the pictures that were sent, and what was said. Nothing here knows Gradio.

Files that were sent are read once, checked, and kept under the hash of their content; names and paths that a browser
told are never opened.
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from linkcontext.data.images import HEAD, open_image, sha256, suffix
from linkcontext.data.upload import FILES, UPLOAD_BYTES, by_folder, lay_out, unpack
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.sample import sample
from linkcontext.errors import InputError
from linkcontext.models.load import Model
from linkcontext.source import open_data
from linkcontext.teach.dialogue import Dialogue, Reply, pictures_of
from linkcontext.teach.learner import Answer, Learner
from linkcontext.teach.pack import read_pack, write_pack

SHOWN, ASKED = 4, 2  # pictures of each thing of an example


@dataclass(frozen=True, slots=True)
class Line:
    """What was said by whom, with its pictures."""

    who: str  # you, model, or sorry where a sentence says what went wrong
    text: str
    pictures: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Session:
    """What one visitor has taught and said. `folder` is the session's own and goes with it."""

    model: Model
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="linkcontext-")))
    lines: list[Line] = field(default_factory=list)
    unseen: tuple[Path, ...] = ()  # pictures of an example that can be asked about

    def __post_init__(self) -> None:
        self.dialogue = Dialogue(Learner(self.model))

    def close(self) -> None:
        """Remove what was sent."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def teach(self, name: str, files: Sequence[Path]) -> list[str]:
        """Show pictures under a name; sentences about what happened."""
        if not name.strip() or not files:
            raise InputError("a name and at least one picture of it are needed. Give both.")
        reply = self.dialogue.teach(name, self._keep(files))
        return [reply.text, *reply.notes]

    def teach_archive(self, archive: Path) -> list[str]:
        """Teach from a zip with one folder of pictures for each name."""
        with tempfile.TemporaryDirectory(dir=self.folder) as into:
            unpack(archive, Path(into))
            return self._teach_folder(Path(into))

    def teach_folder(self, files: Mapping[str, Path]) -> list[str]:
        """Teach from a folder with one folder of pictures for each name: paths in it, and the files that were sent."""
        with tempfile.TemporaryDirectory(dir=self.folder) as into:
            lay_out(files, Path(into))
            return self._teach_folder(Path(into))

    def teach_example(self, spec: str, seed: int) -> list[str]:
        """Start over with three classes of a data set under invented names, and pictures to ask about."""
        dataset = open_data(spec)
        plan = EpisodePlan(3, (SHOWN,), episodes=1, queries=3 * ASKED, names="pseudo", seed=seed)
        (episode,) = sample(dataset, plan).episodes
        self.restart()
        named = {
            c.name: [dataset.path(turn.item) for turn in episode.support if turn.class_id == c.class_id]
            for c in episode.candidates
        }
        said, notes = self.dialogue.lesson(named)
        self.unseen = tuple(dataset.path(query.item) for query in episode.queries)
        return [*said, *notes]

    def ask(self, file: Path) -> tuple[Path, Reply]:
        """What a picture that was sent is called."""
        (picture,) = self._keep([file])
        return picture, self.dialogue.ask(picture)

    def ask_unseen(self, number: int) -> tuple[Path, Reply]:
        """What a picture of the example is called."""
        return self.unseen[number], self.dialogue.ask(self.unseen[number])

    def say(self, text: str, files: Sequence[Path]) -> None:
        """Say something in the chat. What cannot be done is a line of its own, and the chat goes on."""
        kept: tuple[Path, ...] = ()
        try:
            kept = self._keep(files)
            self.lines.append(Line("you", text, kept))
            reply = self.dialogue.say(text, kept)
            self.lines.append(Line("model", reply.text, notes=reply.notes))
        except InputError as error:
            said = () if self.lines and self.lines[-1].who == "you" else (Line("you", text),)
            self.lines += [*said, Line("sorry", str(error))]

    def restart(self) -> None:
        """Forget everything."""
        self.dialogue = Dialogue(Learner(self.model))
        self.lines, self.unseen = [], ()

    def save_pack(self) -> Path:
        """What was taught, in a file that can be kept and opened again."""
        if len(self.dialogue.learner.shown) < 2:
            raise InputError("teach at least two names before a pack is made: with one there is nothing to choose.")
        path = self.folder / "taught.pack"
        write_pack(self.dialogue.learner, path)
        return path

    def open_pack(self, file: Path) -> list[str]:
        """Start over with what a pack has. Only one that was taught to this very model: it needs no picture's file."""
        with _as_sent(file):
            pack = read_pack(file)
            try:
                for name in pack.concepts:
                    self.dialogue.learner.sayable(name)
                if pack.told["model"]["identity"] != self.model.identity:
                    raise InputError(
                        f"{file}: was taught to {pack.model}, and {self.model.name} is served. Teach the pictures "
                        "here, or start the page with --model."
                    )
                told = {**pack.told, "paths": {item: item for items in pack.concepts.values() for item in items}}
                dialogue = Dialogue(dataclasses.replace(pack, told=told).learner(self.model))
                dialogue.tokens()
            except (KeyError, TypeError, AttributeError, RuntimeError) as error:  # a forged file says anything
                raise InputError(f"{file}: a damaged pack ({error}). Send it again.") from error
        self.restart()
        self.dialogue = dialogue
        return [f"{name}: {pictures_of(dialogue.learner, name)}." for name in dialogue.learner.shown]

    def likest(self, answer: Answer) -> list[tuple[str, bytes, float]]:
        """The pictures that were shown and are most like the one asked about: name, PNG, cosine."""
        small = self.dialogue.learner.thumbnails
        return [(n.name, small[n.picture], n.similarity) for n in answer.nearest if n.picture in small]

    def _teach_folder(self, folder: Path) -> list[str]:
        found = by_folder(folder)
        said, notes = self.dialogue.lesson({name: self._keep(paths) for name, paths in found.pictures.items()})
        return [*said, *notes, *(f"Left out: {problem}" for problem in found.problems)]

    def _keep(self, files: Sequence[Path]) -> tuple[Path, ...]:
        """Copies of files that are pictures, each under its content's hash."""
        if len(files) > FILES:
            raise InputError(f"{len(files):,} files are more than the {FILES:,} that are taken at once. Send fewer.")
        for file in files:
            if file.stat().st_size > UPLOAD_BYTES:
                raise InputError(f"{file.name}: larger than {UPLOAD_BYTES // 1_000_000} MB. Send a smaller one.")
            with _as_sent(file):
                open_image(file)
        kept = []
        for file in files:
            with file.open("rb") as opened:
                ending = suffix(opened.read(HEAD))
            kept.append(self.folder / f"{sha256(file)}{ending}")
            if not kept[-1].exists():
                shutil.copyfile(file, kept[-1])
        return tuple(kept)


@contextmanager
def _as_sent(file: Path) -> Iterator[None]:
    """What is wrong with a file is told by the name that it was sent under, not by where it lies."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(str(file), file.name)) from error
