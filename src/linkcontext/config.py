"""What can be asked for, typed. The resolved configuration of a run is saved as JSON and can be run again."""

from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, Literal

import tyro

from linkcontext.episodes.names import NameKind
from linkcontext.episodes.plan import Coherence, EpisodePlan, Form, Negatives, Order, Rule, TaskPlan
from linkcontext.episodes.questions import HELD_OUT
from linkcontext.errors import InputError
from linkcontext.models.prompting import Prompting
from linkcontext.scoring import engine_names
from linkcontext.scoring.engine_names import EngineName
from linkcontext.source import data_help

Select = Literal["random", "medoid", "rices"]
Scoring = Literal["likelihood", "generate", "both", "lcl-legacy"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading(Prompting):
    """How a model is loaded, is prompted and replies."""

    dtype: Dtype = "auto"
    """Of the weights. auto: the checkpoint's own on a GPU, float32 on a CPU."""
    device: str | None = None
    """cpu, cuda, cuda:1, ... The default is the GPU where there is one."""
    load_in_4bit: bool = False
    """Keep the language model's weights in 4 bits (nf4) and compute in --dtype, of which auto is bfloat16 on a GPU.
    Training then needs --lora-rank."""
    adapter: str | None = None
    """A LoRA adapter folder to put on the model."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Only for models whose authors you trust."""

    @property
    def prompting(self) -> Prompting:
        """How the model is prompted and replies."""
        return Prompting(**{f.name: getattr(self, f.name) for f in fields(Prompting)})

    def of(self, model: str) -> "ModelConfig":
        """That model, loaded so."""
        return ModelConfig(model, **asdict(self))


@dataclass(frozen=True, slots=True)
class ModelConfig(Loading):
    """Which model, and how it is loaded."""

    model: str = "mini"
    """`mini` or `mini-base` (bundled), a folder, or a Hugging Face id of a vision-language model."""


@dataclass(frozen=True, slots=True)
class EpisodeConfig:
    """Which pictures, and how episodes are drawn from them."""

    data: Annotated[str, tyro.conf.arg(help=data_help())] = "world:0"
    ways: int = 2
    """Classes in an episode."""
    shots: Annotated[tuple[int, ...], tyro.conf.arg(metavar="K ...")] = (0, 1, 2, 4, 8, 16)
    """Support pictures of EACH class; the support as a whole has ways x K. With --tasks: of the support as a whole."""
    episodes: int = 256
    """How many."""
    queries: int | None = None
    """Queries in an episode, a multiple of ways. Default: one of each class."""
    names: NameKind = "pseudo"
    """What classes are called: pseudo-words, random letters, their real names, or their real names swapped."""
    negatives: Negatives = "random"
    """Which classes meet: any, or neighbours of the first."""
    neighbours: str | None = None
    """A file made by `linkcontext mine`, for --negatives neighbours. Default: what the manifest says."""
    rule: Rule = "nearest"
    """Which of them: the nearest, or drawn anew for each episode as in training: topk (evenly), linear (the paper) or
    intervals (the released code), from a file that was mined with that rule."""
    order: Order = "rounds"
    """rounds: one balanced support and its beginnings; shuffled: a new support for every shot count."""
    support_split: str | None = None
    """Take support pictures from this split only."""
    query_split: str | None = None
    """Take query pictures from this split only."""
    groups_apart: bool = False
    """Never let a support picture share its source (by file name) with a query."""
    false_labels: float = 0.0
    """Each support picture has, with this probability, the name of another class of its episode. A model that links
    believes it; one that knows better does not."""
    choose_from: int | None = None
    """Draw so many support pictures of each class, of which --shots are shown. Default: no more than are shown."""
    select: Select = "random"
    """Which of them: random; medoid, those that stand for their class best; or rices, those most like the query,
    whatever their classes, ways x K of them (then every query has a support of its own)."""
    tasks: tuple[str, ...] = ()
    """Instead of linking classes, ask what annotated pictures answer (scenes:SEED, or imported ones): tasks like
    attribute and count, or one concept of them like attribute/colour; `all` for all there are."""
    coherence: Coherence = "concept"
    """With --tasks, what the turns of a support have in common with the query: the concept, the task, or nothing."""
    format: Form = "open"
    """With --tasks: an open question, a choice among letters, captions, or open and choice mixed."""
    options: int = 4
    """With --tasks: answers in play."""
    balanced: bool = False
    """With --tasks whose questions share their candidates: a support shows every answer in play once before one comes
    again. Default: they come by lot."""
    seed: int = 0
    """Of the episodes. The same seed draws the same episodes on any machine."""
    strict: bool = False
    """Fail on the first bad picture instead of reporting it and going on."""

    def __post_init__(self) -> None:
        for flag, told in (("neighbours", self.neighbours is not None), ("rule", self.rule != "nearest")):
            if told and self.negatives != "neighbours":
                raise InputError(f"--{flag} is read with --negatives neighbours only. Say both, or neither.")
        if self.choose_from is not None and self.choose_from < max(self.shots):
            raise InputError(f"--choose-from {self.choose_from}: fewer than the {max(self.shots)} that --shots shows.")
        if self.select != "random" and self.choose_from is None:
            raise InputError(f"--select {self.select}: say with --choose-from of how many pictures of each class.")
        if self.choose_from is not None and (self.order != "rounds" or self.false_labels):
            raise InputError("--choose-from: not together with --order shuffled or --false-labels. Leave one out.")

    @property
    def sweep(self) -> tuple[int, ...]:
        """Each of `shots` once, the fewest first."""
        return tuple(sorted({*self.shots}))

    def task_plan(self) -> TaskPlan:
        """What --tasks asks for, in the sampler's own terms."""
        return TaskPlan(
            tasks=() if "all" in self.tasks else self.tasks,
            coherence=self.coherence,
            form=self.format,
            options=self.options,
            balanced=self.balanced,
            shots=self.sweep,
            episodes=self.episodes,
            names=self.names,
            seed=self.seed,
            support_split=self.support_split,
            query_split=self.query_split,
        )

    def plan(self) -> EpisodePlan:
        """The sampler's own terms; with `choose_from` all that can be chosen is support."""
        return EpisodePlan(
            ways=self.ways,
            shots_per_class=self.sweep if self.choose_from is None else tuple(sorted({*self.shots, self.choose_from})),
            episodes=self.episodes,
            queries=self.queries,
            names=self.names,
            negatives=self.negatives,
            rule=self.rule,
            order=self.order,
            seed=self.seed,
            support_split=self.support_split,
            query_split=self.query_split,
            groups_apart=self.groups_apart,
            false_labels=self.false_labels,
        )


@dataclass(frozen=True, slots=True)
class EvalConfig:
    """Measure how well a model names new pictures after it was shown a few."""

    model: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)
    episodes: Annotated[EpisodeConfig, tyro.conf.arg(name="")] = field(default_factory=EpisodeConfig)
    scaffold: str = "turns"
    """What is said around the pictures: turns, single_turn, lcl, or a JSON file."""
    scoring: Scoring = "likelihood"
    """likelihood of each candidate name, strict matching of a generated reply, or both. lcl-legacy: replies by the
    metric of Link-Context Learning's released code, with its defects, beside strict matching."""
    calibrate: bool = False
    """Score by likelihood_calibrated too, which subtracts how much each name is preferred over the support's own
    pictures, as `ask` does. Useful for names of unequal length. Every picture of the support is asked about as well,
    which takes time."""
    engine: EngineName = "auto"
    """tree: the prompts of an episode as a prefix tree, in one pass; prefix-cache: what they share is computed once and
    cached, the rest on top of it; reference: every prompt whole. auto is prefix-cache where the model allows it, else
    reference. Figures do not depend on it."""
    memory_gb: float | None = None
    """GB that a pass of the engines tree and prefix-cache may take beside the weights. Default: the free memory.
    Figures do not depend on it."""
    batch: int = 16
    """Prompts that go through the model at once with the reference engine, or that a server gets at once. Figures do
    not depend on it."""
    unseen: tuple[str, ...] = HELD_OUT
    """With --tasks: types of tasks that the model was not trained on. Their means stand apart."""
    explain: int | None = None
    """Episodes of the report in which each support picture is left out once, to see what moved the answers. Default:
    4, and none with the reference engine or with supports of more than 40 pictures, where it takes long."""
    out: str | None = None
    """The run's folder. Default: runs/MODEL-DATA-..., named by what was asked."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "engine", engine_names.accepted(self.engine))
        if self.batch < 1:
            raise InputError(f"--batch {self.batch}: at least one prompt goes through the model at once.")
        if self.calibrate:
            e = self.episodes
            idle = [*(["--tasks"] if e.tasks else []), *(["--false-labels"] if e.false_labels else [])]
            idle += ["--select rices"] if e.select == "rices" else []
            idle += [f"--scoring {self.scoring}"] if self.scoring not in ("likelihood", "both") else []
            if idle:
                raise InputError(
                    f"--calibrate: not together with {', '.join(idle)}. It needs likelihoods, and supports "
                    "that show every class equally often under its name."
                )
        if self.explain is not None and self.explain < 0:
            raise InputError(f"--explain {self.explain}: 0 is the least, and explains none.")
        if self.memory_gb is not None and self.memory_gb <= 0:
            raise InputError(f"--memory-gb {self.memory_gb}: must be above 0.")


def flags(asked: EpisodeConfig | ModelConfig, kept: EpisodeConfig | ModelConfig) -> list[str]:
    """The flags in which one configuration differs from another, as they are written: `--support-split`."""
    differ = (f.name for f in fields(asked) if getattr(asked, f.name) != getattr(kept, f.name))
    return ["--" + name.replace("_", "-") for name in differ]


def eval_config(**options: Any) -> EvalConfig:
    """An `EvalConfig` from the flags' names, whichever part they belong to."""
    parts: dict[str, dict[str, Any]] = {"model": {}, "episodes": {}, "": {}}
    belongs = {f.name: "model" for f in fields(ModelConfig)} | {f.name: "episodes" for f in fields(EpisodeConfig)}
    own = {f.name: "" for f in fields(EvalConfig) if f.name not in parts}
    for name, value in options.items():
        if name not in belongs and name not in own:
            raise InputError(f"{name}: no such option. There are {', '.join(sorted({**belongs, **own}))}.")
        parts[belongs.get(name, "")][name] = tuple(value) if name == "shots" else value
    return EvalConfig(ModelConfig(**parts["model"]), EpisodeConfig(**parts["episodes"]), **parts[""])
