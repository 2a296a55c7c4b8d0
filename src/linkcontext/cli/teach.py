"""The commands that teach a model: demo, teach, pack and chat."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from linkcontext.cli.terminal import console, print_problems
from linkcontext.config import Augmentation, HeadName, Loading
from linkcontext.errors import InputError
from linkcontext.metavars import (
    WITHOUT_DEFAULT,
    Folder,
    ModelName,
    NameList,
    OptionalFile,
    OptionalFolder,
    OptionalModel,
    OptionalNumber,
    OptionalPack,
    OptionalShots,
    OptionalText,
    PackPath,
    ScaffoldName,
)
from linkcontext.models.prompting import Prompting
from linkcontext.source import data_help
from linkcontext.teach.pack_file import check_new_pack, check_pack_file, stamp

if TYPE_CHECKING:
    from linkcontext.scoring.protocol import ScoringModel
    from linkcontext.teach.learner import Learner
    from linkcontext.teach.pack import Pack
    from linkcontext.teach.rejection import OperatingPoint

TrustPack = Annotated[
    bool,
    tyro.conf.arg(
        help="Use the image features in a pack that another user or machine wrote, so that its pictures need not be "
        "there. Only for packs whose authors you trust."
    ),
]


@dataclass(frozen=True, slots=True)
class Demo:
    """Show a model invented things and handwritten digits under new names, and ask it about other pictures of them."""

    data: OptionalFolder = None
    """A folder of class folders to use instead: at most five of its classes, under their own and under made-up
    names."""
    model: ModelName = "mini"
    """`mini`, which is compared with `mini-base` (not trained to learn from its context), or any other model."""
    out: Folder = "runs/demo"
    """The folder for demo.html and the runs of its table. Files of an earlier demo are replaced."""
    seed: int = 0
    """Another seed gives other things, pictures and names."""
    prompting: Annotated[Prompting, tyro.conf.arg(name="reply")] = field(default_factory=Prompting)

    def run(self) -> None:
        """Run the demo."""
        console.print("Loading the library and the models ...", style="dim")  # importing torch takes seconds
        from linkcontext.demo import demo

        demo(self.data, self.model, Path(self.out), self.seed, console, self.prompting)


@dataclass(frozen=True, slots=True)
class Teach:
    """Show a model pictures under their names, and save what it was taught in a pack.

    The weights do not change. `linkcontext ask zoo.pack new.png` then names a picture, or answers "none of these".
    """

    data: Annotated[str, tyro.conf.arg(metavar="DATA", help=data_help())]
    out: PackPath
    """The pack to write, for example zoo.pack. Names and pictures are added to a pack that exists."""
    model: OptionalModel = None
    """mini, mini-base, a folder or a Hugging Face id. Default: mini, or the model of the pack that exists."""
    classes: NameList = ()
    """Teach only these classes."""
    shots_per_class: OptionalShots = None
    """Show at most K pictures per class. Default: as many as fit into the model's context."""
    select: Literal["medoid", "random", "rices"] = "medoid"
    """Which pictures to show if there are more: medoid, the most representative ones; random; or rices, those most
    similar to each query, which then has a support of its own and takes longer."""
    head: HeadName = "auto"
    """What names pictures. lm: the language model, whose prompt has the taught pictures; centroid, knn, linear:
    classifiers on image features (nearest class mean, three nearest pictures, logistic regression); mix: these four
    together; auto: the best of these on taught pictures that are left out in turn. Not tried by auto: pairs (the
    language model is asked of each taught picture whether it shows the same thing), and tabicl, a classifier that needs
    the package tabicl and its weights from the hub."""
    encoder: OptionalModel = None
    """Another vision encoder, whose features can be used beside or instead of the model's own: mini-clip, a folder
    or a Hugging Face id such as facebook/dinov2-small. Left-out pictures decide which features are used."""
    augment: Annotated[tuple[Augmentation, ...], WITHOUT_DEFAULT] = ()
    """Also fit the classifiers to changed copies of the pictures: flip (the mirror image), crop (five parts)."""
    accept: OptionalNumber = None
    """"None of these": accept at least this share of pictures of taught classes. Default: 0.95."""
    reject: OptionalNumber = None
    """"None of these": reject at least this share of pictures of other classes. Not with --accept."""
    scaffold: ScaffoldName = "turns"
    """The wording around the pictures: turns, single_turn, lcl, or a JSON file."""
    licence: OptionalText = None
    """The terms under which the pack may be used: any text, stored in the pack."""
    state: bool = True
    """Store the KV cache of the support in the pack. Without it the pack is small, and the first question is slower."""
    strict: bool = False
    """Stop at the first unreadable picture instead of leaving it out."""
    trust_pack: TrustPack = False
    loading: Annotated[Loading, tyro.conf.arg(name="model")] = field(default_factory=Loading)

    def run(self) -> None:
        """Teach, and print what is in the pack."""
        from linkcontext.source import open_data

        out = Path(self.out)
        dataset = open_data(self.data, self.strict, fewest=1)
        from linkcontext.teach.class_pictures import nested_classes, pictures_by_class_name
        from linkcontext.teach.pack_writing import locked

        named = pictures_by_class_name(dataset, self.classes)
        print_problems((*dataset.problems, *nested_classes(dataset)))
        new = None if out.exists() else self._new_learner(named)  # what is refused here leaves no lock file
        with locked(out):
            pack, choices = self._write(out, named, new)
        console.print("\n".join([*pack.describe(), *choices]), markup=False, soft_wrap=True)

    def _write(self, out: Path, named: dict[str, list[Path]], new: "Learner | None") -> tuple["Pack", list[str]]:
        """Add the pictures to the pack that exists, or write a new one; with it what else to know of the lesson."""
        from linkcontext.teach.lesson_notes import name_notes
        from linkcontext.teach.pack import read_pack
        from linkcontext.teach.pack_writing import write_pack
        from linkcontext.teach.rejection import describe_choices

        earlier = read_pack(out, self.trust_pack) if out.exists() else None
        if earlier is not None:
            new = self._earlier_learner(earlier)
        learner = self._new_learner(named) if new is None else new
        self._refuse_single(learner.pictures.names, named)
        before = learner.pictures.copy().by_name
        learner.teach(self._accepted(learner.model, named))
        licence = self.licence if self.licence is not None else earlier.licence if earlier else ""
        keep_state = self.state and (earlier is None or earlier.has_state)  # a pack without state stays without
        pack = write_pack(learner, out, licence, keep_state)
        choices = describe_choices(learner.rejection_curve())
        return pack, [*name_notes(learner, before), *([choices] if choices else [])]

    def _refuse_single(self, taught: Iterable[str], named: Iterable[str]) -> None:
        """Raise `InputError` if the names taught before and those of the folder are a single one."""
        from linkcontext.teach.names import canonical_name

        if len({*taught, *map(canonical_name, named)}) < 2:
            raise InputError(f"{self.data}: has one class, and a pack needs at least two. Give a folder with more.")

    def _new_learner(self, named: Iterable[str]) -> "Learner":
        from linkcontext.episodes.scaffold import load_scaffold
        from linkcontext.evaluation.open_model import open_model
        from linkcontext.scoring.protocol import require
        from linkcontext.teach.encoder import load_picture_encoder
        from linkcontext.teach.learner import Learner

        self._refuse_single((), named)
        point = operating_point(self.accept, self.reject)
        model = open_model(self.loading.of(self.model or "mini"))
        require(model, "token ids", "a pack")
        scaffold = load_scaffold(self.scaffold)
        return Learner(
            model,
            scaffold,
            shots_per_class=self.shots_per_class,
            select=self.select,
            head=self.head,
            encoder=load_picture_encoder(self.encoder, self.loading.device) if self.encoder else None,
            augment=self.augment,
            point=point,
        )

    def _earlier_learner(self, pack: "Pack") -> "Learner":
        from linkcontext.teach.pack_learner import model_of

        given = {
            "shots-per-class": self.shots_per_class is not None,
            "select": self.select != "medoid",
            "head": self.head != "auto",
            "encoder": self.encoder is not None,
            "augment": bool(self.augment),
            "accept": self.accept is not None,
            "reject": self.reject is not None,
            "scaffold": self.scaffold != "turns",
        }
        for flag in (flag for flag, is_given in given.items() if is_given):
            raise InputError(f"--{flag}: can be given for new packs only, and {pack.path} exists. Leave the flag out.")
        return pack.learner(model_of(pack, self.model, self.loading))

    def _accepted(self, model: "ScoringModel", named: dict[str, list[Path]]) -> dict[str, list[Path]]:
        """The pictures that the model's image processor accepts. Others are reported; --strict refuses the first."""
        from linkcontext.teach.class_pictures import accepted_pictures

        accepted, problems = accepted_pictures(model, named)
        if problems and self.strict:
            raise InputError(problems[0])
        print_problems(problems)
        return accepted


@dataclass(frozen=True, slots=True)
class ChangePack:
    """Show what is in a pack; remove or rename names, or add those of another pack. The file is changed in place."""

    pack: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PACK")]
    """A pack that `linkcontext teach` wrote."""
    remove: NameList = ()
    """Names to remove, with their pictures."""
    rename: Annotated[tuple[tuple[str, str], ...], tyro.conf.arg(metavar="OLD NEW ...", help_behavior_hint="")] = ()
    """Pairs of an old and a new name: OLD NEW [OLD NEW ...]. If NEW is taught already, it gets the pictures of both."""
    merge: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PACK ...", help_behavior_hint="")] = ()
    """Packs whose names and pictures to add."""
    licence: OptionalText = None
    """The terms under which the pack may be used."""
    out: OptionalPack = None
    """Write the changed pack to this new file, and leave the one that was read unchanged."""
    severity: OptionalFile = None
    """Change the pictures more and more (blur, noise, darkness, turning, shrinking, covering), print how many are still
    accepted and recognised, and draw it to this PNG or SVG file."""
    model: OptionalModel = None
    """The model of the pack. Needed only if another user or machine wrote it and the model is not bundled."""
    trust_pack: TrustPack = False
    loading: Annotated[Loading, tyro.conf.arg(name="model")] = field(default_factory=Loading)

    def run(self) -> None:
        """Change the pack if a flag says so, and print what is in it."""
        check_pack_file(Path(self.pack))
        if self.out and Path(self.out).resolve() != Path(self.pack).resolve():
            check_new_pack(Path(self.out))
        from linkcontext.teach.pack import read_pack
        from linkcontext.teach.pack_writing import locked

        if self.remove or self.rename or self.merge or self.licence is not None or self.out:
            with locked(Path(self.out or self.pack)):
                pack = self._write()
        else:
            pack = read_pack(Path(self.pack), self.trust_pack)
        console.print("\n".join(pack.describe()), markup=False, soft_wrap=True)
        if self.severity is not None:
            self._draw_severity(pack, Path(self.severity))

    def _draw_severity(self, pack: "Pack", out: Path) -> None:
        """Print and draw how far the taught things may change."""
        from linkcontext.teach.pack_learner import model_of
        from linkcontext.teach.severity import describe_severity, draw_severity, severity_curve

        if out.suffix.lower() not in (".png", ".svg"):
            raise InputError(
                f"--severity {out}: the curve is written as a PNG or SVG file. Give such a "
                "name, for example severity.png."
            )
        rows = severity_curve(pack.learner(model_of(pack, self.model, self.loading)))
        console.print("\n".join(describe_severity(rows)), markup=False, soft_wrap=True, highlight=False)
        draw_severity(rows, out)
        console.print(f"drawn to {out}", markup=False, soft_wrap=True)

    def _write(self) -> "Pack":
        """Change the pack and write it."""
        from linkcontext.teach.pack import read_pack
        from linkcontext.teach.pack_learner import model_of
        from linkcontext.teach.pack_writing import write_pack

        pack = read_pack(Path(self.pack), self.trust_pack)
        others = [read_pack(Path(other), self.trust_pack) for other in self.merge]
        licences = {pack.licence, *(other.licence for other in others)}
        if self.licence is None and len(licences) > 1:
            listed = ", ".join(repr(licence or "none given") for licence in sorted(licences))
            raise InputError(f"--merge: the packs have different licences: {listed}. Give one for all with --licence.")
        model = model_of(pack, self.model, self.loading)
        learner = pack.learner(model)
        for name in self.remove:
            learner.forget(name)
        for old, new in self.rename:
            learner.rename(old, new)
        for other in others:
            learner.pictures.merge(other.learner(model).pictures)
        licence = pack.licence if self.licence is None else self.licence
        out = Path(self.out or self.pack)
        return write_pack(learner, out, licence, pack.has_state, new=out.resolve() != pack.path.resolve())


@dataclass(frozen=True, slots=True)
class Chat:
    """Teach a model in a dialogue: show a picture by its path and say what it is, ask about others, correct it.

    Lines are typed or piped; /help lists what you can write: `cat.png: this is a cactihog`, `other.png`, `no, that is
    a plimbo`. Taught names stay to the end; when the context is full, the oldest other answers are dropped.
    """

    pack: OptionalPack = None
    """Begin with the names and pictures of a pack."""
    model: OptionalModel = None
    """Default: mini, or the pack's model. openai:URL#NAME is a model behind a server."""
    context: int = 0
    """Maximum number of tokens of a prompt. Default: the model's context. Not for a model behind a server."""
    trust_pack: TrustPack = False
    loading: Annotated[Loading, tyro.conf.arg(name="model")] = field(default_factory=Loading)

    def run(self) -> None:
        """Answer lines until they end."""
        if self.pack:
            check_pack_file(Path(self.pack))
        from linkcontext.evaluation.open_model import open_model
        from linkcontext.teach.chat import chat, input_lines
        from linkcontext.teach.dialogue import Dialogue
        from linkcontext.teach.learner import Learner
        from linkcontext.teach.pack import read_pack
        from linkcontext.teach.pack_learner import model_of

        if self.context < 0:
            raise InputError(f"--context {self.context}: must be above 0.")
        own = {Path(self.pack).resolve(): stamp(Path(self.pack))} if self.pack else {}  # as it was before it is read
        pack = read_pack(Path(self.pack), self.trust_pack) if self.pack else None
        if pack is not None:
            learner = pack.learner(model_of(pack, self.model, self.loading))
            dialogue = Dialogue(learner, self.context, licence=pack.licence, packs=own)
        else:
            dialogue = Dialogue(Learner(open_model(self.loading.of(self.model or "mini"))), self.context)
        chat(dialogue, input_lines(print), print)


def operating_point(accept: float | None, reject: float | None) -> "OperatingPoint":
    """What "none of these" is to accept or reject. Raises `InputError` for both, and for impossible shares."""
    from linkcontext.teach.rejection import ACCEPT, OperatingPoint

    if accept is not None and reject is not None:
        raise InputError("--accept and --reject: choose one of them; each of them sets the threshold.")
    return OperatingPoint(ACCEPT if accept is None else accept, reject)
