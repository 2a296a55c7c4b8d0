"""The command that asks a model about pictures after it was taught a pack."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from linkcontext.cli.teach import TrustPack, operating_point
from linkcontext.cli.terminal import console, harmless, print_json, remark
from linkcontext.config import HeadName, Loading
from linkcontext.data.formats import SUFFIXES
from linkcontext.errors import InputError, first_few
from linkcontext.metavars import WITHOUT_DEFAULT, OptionalModel, OptionalNumber, OptionalText
from linkcontext.python_words import did_you_mean_path
from linkcontext.teach.pack_file import check_pack_file

if TYPE_CHECKING:
    from linkcontext.teach.answer import Answer
    from linkcontext.teach.pack import Pack


@dataclass(frozen=True, slots=True)
class AskPack:
    """Ask a model what is in new pictures, after it was taught the names and pictures of a pack."""

    pack: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PACK")]
    """A pack that `linkcontext teach` wrote."""
    pictures: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE ...", help_behavior_hint="")
    ]
    """Pictures to ask about, or folders of pictures."""
    question: OptionalText = None
    """Ask this question instead of asking for the name, and print the model's reply."""
    model: OptionalModel = None
    """Another model than the pack's, which is taught again from the pictures. openai:URL#NAME is a model behind a
    server."""
    head: Annotated[HeadName | None, tyro.conf.DisallowNone, WITHOUT_DEFAULT] = None
    """What names the pictures, instead of the head of the pack (see `linkcontext teach --help`)."""
    encoder: OptionalModel = None
    """Another vision encoder instead of the pack's own; see `linkcontext teach --help`."""
    accept: OptionalNumber = None
    """"None of these": accept at least this share of pictures of taught classes, instead of the share in the pack."""
    reject: OptionalNumber = None
    """"None of these": reject at least this share of pictures of other classes. Not with --accept."""
    json: bool = False
    """Print a JSON object for each picture."""
    trust_pack: TrustPack = False
    loading: Annotated[Loading, tyro.conf.arg(name="model")] = field(default_factory=Loading)

    def run(self) -> None:
        """Ask, and print a line for each picture."""
        self._check()
        check_pack_file(Path(self.pack))
        if missing := [picture for picture in self.pictures if not _is_readable(Path(picture))]:
            raise InputError(f"{missing[0]}: {_no_picture(missing[0])}")
        from linkcontext.teach.encoder import load_picture_encoder
        from linkcontext.teach.pack import read_pack
        from linkcontext.teach.pack_learner import model_of
        from linkcontext.teach.rejection import describe_rejection

        pictures = self._all_pictures()
        pack = read_pack(Path(self.pack), self.trust_pack)
        encoder = load_picture_encoder(self.encoder, self.loading.device) if self.encoder else None
        learner = pack.learner(model_of(pack, self.model, self.loading), encoder)
        if self.head is not None:
            learner.head = self.head
        if self.accept is not None or self.reject is not None:
            learner.point = operating_point(self.accept, self.reject)
        if not learner.model.lacks("token ids") and not self.json and self.question is None:
            threshold = learner.estimate_rejection_threshold()
            remark(learner.choose_head().describe())
            remark(describe_rejection(threshold, learner.pictures.by_name))
        for picture in pictures:
            if self.question is not None:
                self._print_reply(picture, learner.say(Path(picture), self.question))
            else:
                self._print_answer(picture, learner.ask(Path(picture)), pack)

    def _all_pictures(self) -> list[str]:
        """The paths of the pictures, with those in the folders that are given."""
        from linkcontext.teach.given_pictures import pictures_in_folder

        return [str(path) for given in self.pictures for path in pictures_in_folder(given) or (given,)]

    def _check(self) -> None:
        """Raise `InputError` for a question or pictures that are not there, and for a picture in the pack's place."""
        if not self.pictures:
            raise InputError(_one_word(Path(self.pack)))
        if self.question is not None and not self.question.strip():
            raise InputError("--question: is empty. Write a question, or leave the flag out to get the name.")
        if packs := [path for path in self.pictures if Path(path).suffix == ".pack"]:
            raise InputError(f"{packs[0]}: the pack comes first: linkcontext ask {packs[0]} {self.pack}")

    def _print_reply(self, picture: str, reply: str) -> None:
        if self.json:
            print_json({"picture": picture, "reply": reply})
        else:
            console.print(harmless(f"{picture}: {reply}"), markup=False, soft_wrap=True)

    def _print_answer(self, picture: str, answer: "Answer", pack: "Pack") -> None:
        from linkcontext.teach.answer import answer_line

        if self.json:
            print_json({"picture": picture, **_answer_json(answer, pack)})
        else:
            files = {item: f"{path.name}, " for item, path in pack.paths.items()}
            near = [f"{n.name} ({files.get(n.picture, '')}{n.similarity:.4f})" for n in answer.nearest]
            line = f"{picture}: {answer_line(answer)}" + (f"  most like: {', '.join(near)}" if near else "")
            console.print(harmless(line), markup=False, soft_wrap=True)


def _one_word(given: Path) -> str:
    """What to type where `ask` got a single path: a pack, or a picture or folder in its place."""
    if not (given.is_dir() or given.name.lower().endswith(SUFFIXES)):
        return f"ask needs pictures after the pack. Example: linkcontext ask {shlex.quote(str(given))} new.jpg"
    pack = next(iter(sorted(Path().glob("*.pack"))), Path("zoo.pack"))
    both = f"{shlex.quote(str(pack))} {shlex.quote(str(given))}"
    return f"ask needs a pack, and then the pictures. Example: linkcontext ask {both}"


def _is_readable(path: Path) -> bool:
    """Whether a path is a file, or a folder with pictures directly in it."""
    return path.is_file() or (path.is_dir() and any(each.name.lower().endswith(SUFFIXES) for each in path.iterdir()))


def _no_picture(given: str) -> str:
    """What is wrong with something that is no picture's file, and what to do."""
    path = Path(given)
    if "://" in given:
        return "an address. Pictures are never fetched: save the picture, and give its file."
    if path.is_dir():
        inner = any(each.is_dir() for each in path.iterdir())
        return f"a folder without pictures in it.{f' Name the folders in it: {path}/*' if inner else ''}"
    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    if "*" in given:
        return f"no file matches this pattern.{f' The folder has {first_few([*map(str, beside)])}.' if beside else ''}"
    return f"no such picture.{did_you_mean_path(path, beside)}"


def _answer_json(answer: "Answer", pack: "Pack") -> dict[str, Any]:
    """An answer as `ask --json` prints it. `fit` is the old name of `similarity`, until version 0.3.

    The path of a taught picture is null if it was taught without a file.
    """
    paths = {item: str(path) for item, path in pack.paths.items()}
    return {
        "name": answer.name,
        "probabilities": answer.probabilities,
        "similarity": answer.similarity,
        "fit": answer.similarity,
        "nearest": [
            {
                "name": near.name,
                "picture": near.picture,
                "similarity": near.similarity,
                "path": paths.get(near.picture),
            }
            for near in answer.nearest
        ],
        "taught": answer.taught,
    }
