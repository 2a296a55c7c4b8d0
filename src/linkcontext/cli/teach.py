"""Teaching and asking: in the terminal, in a browser, behind an endpoint."""

import importlib.util
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from linkcontext.cli.terminal import console, harmless, print_json, print_problems
from linkcontext.config import Loading, ModelConfig
from linkcontext.errors import InputError
from linkcontext.models.prompting import Prompting

if TYPE_CHECKING:
    from linkcontext.models.loading import Model
    from linkcontext.serve.openai_protocol import Limits
    from linkcontext.teach.learner import Learner
    from linkcontext.teach.pack import Pack
    from linkcontext.teach.remote_learner import Away

TrustPack = Annotated[
    bool,
    tyro.conf.arg(
        help="Use what a pack from another user or machine says of its pictures, which then need not be there. Only "
        "for packs whose authors you trust."
    ),
]


@dataclass(frozen=True, slots=True)
class Demo:
    """Show the bundled model invented things and handwritten digits under new names, and ask it about others."""

    data: str | None = None
    """Your own folder of class folders instead: at most five classes of it, under their names and under others."""
    model: str = "mini"
    """`mini` (beside `mini-base`, which did not learn to do this), or any other model, alone."""
    out: str = "runs/demo"
    """The folder for demo.html and the runs of its table; those of an earlier demo are written anew."""
    seed: int = 0
    """Another seed draws another world, other pictures and other names."""
    prompting: Annotated[Prompting, tyro.conf.arg(name="")] = field(default_factory=Prompting)

    def run(self) -> None:
        """Show it."""
        from linkcontext.demo import demo

        demo(self.data, self.model, Path(self.out), self.seed, console, self.prompting)


@dataclass(frozen=True, slots=True)
class Teach:
    """Show a model pictures under their names, and keep what it was taught in a pack that can be asked.

    Nothing is trained. `linkcontext ask zoo.pack new.png` then names a picture, or says that it is none of these.
    """

    data: str
    """A folder of class folders, or anything else that eval takes: digits, world:SEED, hf:NAME."""
    out: str
    """The pack to write, for example zoo.pack. One that is there gets further names and pictures."""
    model: str | None = None
    """mini, mini-base, a folder or a hub id. Default: mini, or the model of the pack that is there."""
    classes: tuple[str, ...] = ()
    """Only these names."""
    shots_per_class: int | None = None
    """Show so many pictures of each name, of all that are there. Default: all that fit."""
    select: Literal["medoid", "random", "rices"] = "medoid"
    """Which are shown, where there are more: those that stand for the others best, by chance, or those most like each
    picture that is asked about (rices; every question then costs a support of its own)."""
    scaffold: str = "turns"
    """turns, single_turn, lcl, or a JSON file."""
    licence: str | None = None
    """How the pack may be used: any text, kept in it."""
    state: bool = True
    """Keep the support's keys and values in the pack. Without them it is small, and the first question costs more."""
    strict: bool = False
    """Fail on the first bad picture."""
    trust_pack: TrustPack = False
    loading: Annotated[Loading, tyro.conf.arg(name="")] = field(default_factory=Loading)

    def run(self) -> None:
        """Teach."""
        from linkcontext.source import open_data
        from linkcontext.teach.pack import changing, named_pictures

        out = Path(self.out)
        dataset = open_data(self.data, self.strict, fewest=1)
        named = named_pictures(dataset, self.classes)
        print_problems(dataset.problems)
        with changing(out):
            pack = self._taught(out, named)
        console.print("\n".join(pack.describe()), markup=False, soft_wrap=True)

    def _taught(self, out: Path, named: dict[str, list[Path]]) -> "Pack":
        """The pack that is there, or a new one, with these pictures."""
        from linkcontext.episodes.scaffold import load_scaffold
        from linkcontext.evaluation.runner import local
        from linkcontext.teach.learner import Learner, checked
        from linkcontext.teach.pack import read_pack, write_pack

        earlier = read_pack(out, self.trust_pack) if out.exists() else None
        if earlier is not None:
            given = {
                "shots-per-class": self.shots_per_class is not None,
                "select": self.select != "medoid",
                "scaffold": self.scaffold != "turns",
            }
            if any(given.values()):
                flag = next(flag for flag, is_given in given.items() if is_given)
                raise InputError(f"--{flag}: is for new packs, and {out} is one already. Leave it out.")
            learner = earlier.learner(_local_model(earlier, self.model, self.loading))
        else:
            model = local(self.loading.of(self.model or "mini"))
            learner = Learner(model, load_scaffold(self.scaffold), {}, self.shots_per_class, self.select)
        if len({*learner.shown, *map(checked, named)}) < 2:
            raise InputError(f"{self.data}: one name. With one there is nothing to choose; at least two are needed.")
        learner.teach(self._taken(learner.model, named))
        licence = self.licence if self.licence is not None else earlier.licence if earlier else ""
        kept = self.state and (earlier is None or earlier.keeps_state)  # a pack stays as it was written
        return write_pack(learner, out, licence, kept)

    def _taken(self, model: "Model", named: dict[str, list[Path]]) -> dict[str, list[Path]]:
        """The pictures that the model's image processor takes. Others are named; --strict refuses the first."""
        from linkcontext.models.unreadable import refused

        reasons = refused(model, {str(path): path for paths in named.values() for path in paths})
        problems = [f"{path}: left out: {reason}." for path, reason in reasons.items()]
        if problems and self.strict:
            raise InputError(problems[0])
        print_problems(problems)
        taken = {name: [path for path in paths if str(path) not in reasons] for name, paths in named.items()}
        return {name: paths for name, paths in taken.items() if paths}


@dataclass(frozen=True, slots=True)
class AskPack:
    """Ask what is in a picture, of what a pack was taught."""

    pack: Annotated[str, tyro.conf.Positional]
    """A pack that `linkcontext teach` wrote."""
    pictures: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Pictures to ask about."""
    question: str | None = None
    """Ask this instead of the name, and print the model's own words."""
    model: str | None = None
    """Another model than the pack's, which is taught from the pictures again; openai:URL#NAME: one behind a server,
    which no pack can choose."""
    json: bool = False
    """Print a JSON object for each picture."""
    trust_pack: TrustPack = False
    loading: Annotated[Loading, tyro.conf.arg(name="")] = field(default_factory=Loading)

    def run(self) -> None:
        """Ask."""
        from linkcontext.evaluation.runner import opened
        from linkcontext.teach.pack import operating, read_pack
        from linkcontext.teach.remote_learner import Away

        pack = read_pack(Path(self.pack), self.trust_pack)
        if missing := [picture for picture in self.pictures if not Path(picture).is_file()]:
            raise InputError(f"{missing[0]}: no such picture.")
        if not self.pictures:
            raise InputError("name a picture to ask about.")
        model = None if self.model is None else opened(self.loading.of(self.model))
        learner: Learner | Away
        if model is not None and model.lacks("token ids"):
            learner = Away(pack, model)
        else:
            learner = taught = pack.learner(_local_model(pack, None, self.loading) if model is None else model.loaded)
            if not self.json and self.question is None:
                console.print(operating(taught.point), markup=False, soft_wrap=True)
        for picture in self.pictures:
            self._answer(learner, pack, picture)

    def _answer(self, learner: "Learner | Away", pack: "Pack", picture: str) -> None:
        """Ask about one picture and print the answer."""
        import dataclasses

        from linkcontext.teach.learner import spoken

        if self.question is not None:
            payload: dict[str, Any] = {"picture": picture, "reply": learner.say(Path(picture), self.question)}
            line = f"{picture}: {payload['reply']}"
        else:
            answer = learner.ask(Path(picture))
            payload = {"picture": picture, **dataclasses.asdict(answer)}
            payload["nearest"] = [{**near, "path": str(pack.paths[near["picture"]])} for near in payload["nearest"]]
            near = [f"{n.name} ({pack.paths[n.picture].name}, {n.similarity:.2f})" for n in answer.nearest]
            line = f"{picture}: {spoken(answer)}" + (f"  most like: {', '.join(near)}" if near else "")
        if self.json:
            print_json(payload)
        else:
            console.print(harmless(line), markup=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class ChangePack:
    """Look into a pack, take names away, rename them, or put another pack's into it. It is changed in place."""

    pack: Annotated[str, tyro.conf.Positional]
    """A pack that `linkcontext teach` wrote."""
    remove: tuple[str, ...] = ()
    """Names to take away, with their pictures."""
    rename: tuple[tuple[str, str], ...] = ()
    """Old name, new name; more of them in the same way."""
    merge: tuple[str, ...] = ()
    """Packs whose names and pictures are added."""
    licence: str | None = None
    """How the pack may be used."""
    out: str | None = None
    """Write the changed pack here, and leave the one that was read as it is."""
    model: str | None = None
    """The model that the pack was taught to. Needed for a pack from elsewhere whose model is not bundled."""
    trust_pack: TrustPack = False
    loading: Annotated[Loading, tyro.conf.arg(name="")] = field(default_factory=Loading)

    def run(self) -> None:
        """Look, or change."""
        from linkcontext.teach.pack import changing, read_pack

        if self.remove or self.rename or self.merge or self.licence is not None or self.out:
            with changing(Path(self.out or self.pack)):
                pack = self._changed()
        else:
            pack = read_pack(Path(self.pack), self.trust_pack)
        console.print("\n".join(pack.describe()), markup=False, soft_wrap=True)

    def _changed(self) -> "Pack":
        """The changed pack, written."""
        from linkcontext.teach.pack import merge, read_pack, write_pack

        pack = read_pack(Path(self.pack), self.trust_pack)
        others = [read_pack(Path(other), self.trust_pack) for other in self.merge]
        licences = {pack.licence, *(other.licence for other in others)}
        if self.licence is None and len(licences) > 1:
            listed = ", ".join(repr(licence or "none given") for licence in sorted(licences))
            raise InputError(
                f"--merge: the packs have other licences: {listed}. Say with --licence which holds for all."
            )
        model = _local_model(pack, self.model, self.loading)
        learner = pack.learner(model)
        for name in self.remove:
            learner.forget(name)
        for old, new in self.rename:
            learner.rename(old, new)
        for other in others:
            merge(learner, other.learner(model))
        licence = pack.licence if self.licence is None else self.licence
        out = Path(self.out or self.pack)
        return write_pack(learner, out, licence, pack.keeps_state, new=out.resolve() != pack.path.resolve())


@dataclass(frozen=True, slots=True)
class Chat:
    """Teach a model in a dialogue: show a picture by its path and say what it is, ask about others, correct it.

    Lines are typed or piped, /help lists what can be said: `cat.png: this is a cactihog`, `other.png`, `no, that is a
    plimbo`. What was taught holds to the end; when the context is full, the oldest small talk goes.
    """

    pack: str | None = None
    """Begin with what a pack has (`linkcontext teach` writes them)."""
    model: str | None = None
    """Default: mini, or the pack's."""
    context: int = 0
    """Tokens that what was taught and the talk may take together. Default: what the model reads."""
    trust_pack: TrustPack = False
    loading: Annotated[Loading, tyro.conf.arg(name="")] = field(default_factory=Loading)

    def run(self) -> None:
        """Talk."""
        from linkcontext.evaluation.runner import local
        from linkcontext.teach.chat import chat, typed
        from linkcontext.teach.dialogue import Dialogue
        from linkcontext.teach.learner import Learner
        from linkcontext.teach.pack import read_pack

        if self.context < 0:
            raise InputError(f"--context {self.context}: must be above 0.")
        pack = read_pack(Path(self.pack), self.trust_pack) if self.pack else None
        if pack is not None:
            learner = pack.learner(_local_model(pack, self.model, self.loading))
        else:
            learner = Learner(local(self.loading.of(self.model or "mini")))
        chat(Dialogue(learner, self.context, licence=pack.licence if pack else ""), typed(print), print)


@dataclass(frozen=True, slots=True)
class App:
    """Serve a web page on this machine: teach and ask, chat, and look at runs. Needs the extra: linkcontext[app]."""

    model: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)
    runs: str = "runs"
    """The folder below which runs are listed."""
    port: int | None = None
    """Default: the first free one from 7860."""
    share: bool = False
    """Also on a public address, through Gradio's servers: whoever knows it can use the page."""

    def run(self) -> None:
        """Serve it."""
        from linkcontext.app.page import serve
        from linkcontext.evaluation.runner import local

        if self.port is not None:
            _check_port(self.port, 1)
        serve(local(self.model), Path(self.runs), self.port, self.share)


@dataclass(frozen=True, slots=True)
class Serve:
    """Put a model, and what it was taught, behind an endpoint that clients of OpenAI's talk to (docs/serve.md)."""

    model: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)
    pack: tuple[str, ...] = ()
    """NAME=FILE: a pack that `linkcontext teach` wrote. Who asks for the model NAME is answered after its pictures."""
    trust_pack: TrustPack = False
    host: str = "127.0.0.1"
    """The address to listen on. Other machines can reach any but this machine's own, which therefore needs a key."""
    port: int = 8000
    """0: any that is free."""
    api_key: str | None = None
    """The key that clients must send (`Authorization: Bearer KEY`). Others on this machine can see it in the list of
    processes: $LINKCONTEXT_API_KEY is safer."""
    no_auth: bool = False
    """Let whoever reaches the server ask without a key, also from other machines."""
    allow_host: tuple[str, ...] = ()
    """Further names under which clients address the server, as in the Host header."""
    queue: int = 64
    """Requests that wait or are answered at once; others get status 429."""
    body_mb: float = 32
    """Size of one request, with its pictures."""
    pictures: int = 256
    """Pictures in one request, at most."""
    megapixels: float = 100
    """Pixels (in millions) of all pictures of one request together."""
    text_chars: int = 1_000_000
    """Characters of all texts of one request. More than the model's context can hold is refused anyway."""
    hold_gb: float = 1.0
    """Memory for conversations and pictures that were computed, so that a conversation that goes on costs only its new
    tokens. 0: nothing is kept."""

    def run(self) -> None:
        """Answer until stopped."""
        for flag, value in (
            ("queue", self.queue),
            ("body-mb", self.body_mb),
            ("pictures", self.pictures),
            ("megapixels", self.megapixels),
            ("text-chars", self.text_chars),
        ):
            if not 0 < value < math.inf:
                raise InputError(f"--{flag} {value}: must be above 0.")
        if not 0 <= self.hold_gb < math.inf:
            raise InputError(f"--hold-gb {self.hold_gb}: 0 is the least, and keeps nothing.")
        _check_port(self.port, 0)
        if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
            raise InputError("serve needs the fastapi and uvicorn packages: pip install 'linkcontext[serve]'.")
        from linkcontext.evaluation.runner import local
        from linkcontext.serve.access import Hosts, check_exposure, checked_key, checked_names
        from linkcontext.serve.server import Endpoint, address, listening, serve

        packs = [(text.partition("=")[0], Path(text.partition("=")[2])) for text in self.pack]
        if wrong := [text for text, (_, path) in zip(self.pack, packs, strict=True) if not path.name]:
            raise InputError(f"--pack {wrong[0]}: say under which name it is served: NAME=FILE.")
        key = checked_key(self.api_key, os.environ.get("LINKCONTEXT_API_KEY"), self.no_auth)
        with listening(self.host, self.port) as bound:
            check_exposure(bound, self.host, key, self.no_auth)
            hosts = Hosts.of(bound, (self.host, *checked_names(self.allow_host)))
            endpoint = Endpoint(Path(self.model.model).name, local(self.model), self._limits(), packs, self.trust_pack)
            console.print(f"{', '.join(endpoint.lessons)} at {address(bound)}", markup=False, soft_wrap=True)
            serve(endpoint, bound, hosts, key)

    def _limits(self) -> "Limits":
        from linkcontext.serve.openai_protocol import NEW_TOKENS, Limits

        return Limits(
            queue=self.queue,
            body=int(self.body_mb * 1e6),
            new_tokens=self.model.max_new_tokens or NEW_TOKENS,
            hold=int(self.hold_gb * 1e9),
            pictures=self.pictures,
            pixels=int(self.megapixels * 1e6),
            text=self.text_chars,
        )


def _local_model(pack: "Pack", named: str | None, loading: Loading) -> "Model":
    """The model that the command line names, else the pack's own, which is neither a server nor downloaded."""
    from linkcontext.evaluation.runner import local

    if named is not None:
        return local(loading.of(named))
    if loading.trust_remote_code:
        raise InputError("--trust-remote-code: no pack decides whose code is run. Name the model with --model.")
    return local(loading.of(pack.local_model()), download=False)


def _check_port(port: int, least: int) -> None:
    if not least <= port < 65536:
        raise InputError(f"--port {port}: ports are numbers from {least} to 65535. Choose another.")
