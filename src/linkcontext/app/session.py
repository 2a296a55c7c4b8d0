"""One visitor of the web page: a dialogue, the pictures that were sent, and what was said. Nothing here knows Gradio.

Files that were sent are read once, checked, and kept under the hash of their content; names and paths that a browser
told are never opened.
"""

import dataclasses
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from linkcontext.data.formats import HEAD
from linkcontext.data.images import open_image, sha256, suffix
from linkcontext.data.uploads import FILES, UPLOAD_BYTES, by_folder, lay_out, unpack
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.errors import InputError
from linkcontext.models.loading import Model
from linkcontext.source import open_data
from linkcontext.storage import read_errors, replacing
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
    _sent: dict[Path, list[str]] = field(default_factory=dict, init=False, repr=False)  # the names of sent files

    def __post_init__(self) -> None:
        self.dialogue = Dialogue(Learner(self.model))

    def close(self) -> None:
        """Remove what was sent."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def teach(self, name: str, files: Sequence[Path]) -> list[str]:
        """Show pictures under a name; sentences about what happened."""
        if not name.strip() or not files:
            raise InputError("a name and at least one picture of it are needed. Give both.")
        with self._named_as_sent():
            reply = self.dialogue.teach(name, self._keep(files))
        return [reply.text, *reply.notes]

    def teach_archive(self, archive: Path) -> list[str]:
        """Teach from a zip with one folder of pictures for each name."""
        with self._named_as_sent(archive), tempfile.TemporaryDirectory(dir=self.folder) as into:
            unpack(archive, Path(into))
            return self._teach_folder(Path(into))

    def teach_folder(self, files: Mapping[str, Path]) -> list[str]:
        """Teach from a folder with one folder of pictures for each name: paths in it, and the files that were sent."""
        with self._named_as_sent(), tempfile.TemporaryDirectory(dir=self.folder) as into:
            lay_out(files, Path(into))
            return self._teach_folder(Path(into))

    def teach_example(self, spec: str, seed: int) -> list[str]:
        """Start over with three classes of a data set under invented names, and pictures to ask about."""
        dataset = open_data(spec)
        plan = EpisodePlan(3, (SHOWN,), episodes=1, queries=3 * ASKED, names="pseudo", seed=seed)
        (episode,) = sample_episodes(dataset, plan).episodes
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
        with self._named_as_sent():
            (picture,) = self._keep([file])
            return picture, self.dialogue.ask(picture)

    def ask_unseen(self, number: int) -> tuple[Path, Reply]:
        """What a picture of the example is called."""
        return self.unseen[number], self.dialogue.ask(self.unseen[number])

    def say(self, text: str, files: Sequence[Path]) -> None:
        """Say something in the chat. What cannot be done is a line of its own, and the chat goes on."""
        kept: tuple[Path, ...] = ()
        try:
            with self._named_as_sent():
                kept = self._keep(files)
                self.lines.append(Line("you", text, kept))
                if text.startswith("/"):
                    raise InputError(
                        f"{text.split(maxsplit=1)[0]}: there are no commands here. Send a picture, and say or ask."
                    )
                reply = self.dialogue.say(text, kept)
            own = ("In the model's own words, about the last picture.",) if reply.own_words is not None else ()
            self.lines.append(Line("model", reply.text, notes=(*own, *reply.notes)))
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
        with self._named_as_sent():
            write_pack(self.dialogue.learner, path)
        return path

    def open_pack(self, file: Path) -> list[str]:
        """Start over with the content of a pack that was written here for this model. No picture's file is opened."""
        with self._named_as_sent(file):
            pack = read_pack(file)
            if not pack.sealed:
                raise InputError(
                    f"{file}: was not written by this page's user on this machine. Teach its pictures here."
                )
            if pack.header.model.identity != self.model.identity:
                raise InputError(
                    f"{file}: was taught to {pack.model}, and {self.model.name} is served. Teach the pictures "
                    "here, or start the page with --model."
                )
            places = {item: str(self.folder / item) for item in pack.header.items}  # there are no such files
            nowhere = dataclasses.replace(pack.header, paths=places)
            dialogue = Dialogue(dataclasses.replace(pack, header=nowhere).learner(self.model))
            dialogue.tokens()
        self.restart()
        self.dialogue = dialogue
        return [f"{name}: {pictures_of(dialogue.learner, name)}." for name in dialogue.learner.shown]

    def likest(self, answer: Answer) -> list[tuple[str, bytes, float]]:
        """The pictures that were shown and are most like the one asked about: name, PNG, cosine."""
        small = self.dialogue.learner.thumbnails
        return [(n.name, small[n.picture], n.similarity) for n in answer.nearest if n.picture in small]

    def _teach_folder(self, folder: Path) -> list[str]:
        classes = by_folder(folder)
        named = {
            name: self._keep(paths, [path.relative_to(folder).as_posix() for path in paths])
            for name, paths in classes.pictures.items()
        }
        lines, notes = self.dialogue.lesson(named)
        return [*lines, *notes, *(f"Left out: {problem}" for problem in classes.problems)]

    def _keep(self, files: Sequence[Path], names: Sequence[str] = ()) -> tuple[Path, ...]:
        """Copies of pictures, each named by the hash of its content. `names` are the names they were sent under."""
        if len(files) > FILES:
            raise InputError(f"{len(files):,} files are more than the {FILES:,} that are taken at once. Send fewer.")
        names = names or [file.name for file in files]
        for file, name in zip(files, names, strict=True):
            self._sent.setdefault(file, []).append(name)
            with read_errors(file):
                size = file.stat().st_size
            if size > UPLOAD_BYTES:
                raise InputError(f"{name}: larger than {UPLOAD_BYTES // 1_000_000} MB. Send a smaller one.")
            open_image(file)
        kept = []
        for file, name in zip(files, names, strict=True):
            with file.open("rb") as opened:
                ending = suffix(opened.read(HEAD))
            path = self.folder / f"{sha256(file)}{ending}"
            self._sent.setdefault(path, []).append(name)
            if not path.exists():
                with replacing(path) as new:
                    shutil.copyfile(file, new)
            kept.append(path)
        return tuple(kept)

    @contextmanager
    def _named_as_sent(self, *files: Path) -> Iterator[None]:
        """Errors name files as they were sent, never by their paths on this machine."""
        self._sent = {file: [file.name] for file in files}
        try:
            yield
        except InputError as error:
            sentence = str(error)
            for path in sorted(self._sent, key=lambda path: -len(str(path))):
                sentence = sentence.replace(str(path), " and ".join(dict.fromkeys(self._sent[path])))
            here = rf"{re.escape(str(self.folder))}/(tmp\w+/)?"  # also in a folder that an archive was unpacked into
            raise InputError(re.sub(here, "", sentence)) from error
        except OSError as error:  # whose path is one of this machine
            raise InputError(
                f"what was sent could not be kept ({error.strerror}). Is the server's disk full?"
            ) from error
