"""The options of commands, typed. A run saves its resolved options as JSON, so that it can be run again."""

from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, Literal

import tyro

from linkcontext.episodes.names import NameKind
from linkcontext.episodes.plan import Coherence, EpisodePlan, Form, Negatives, Order, Rule, TaskPlan
from linkcontext.episodes.questions import HELD_OUT
from linkcontext.errors import InputError
from linkcontext.metavars import (
    ModelName,
    NameList,
    OptionalCount,
    OptionalFile,
    OptionalFolder,
    OptionalJson,
    OptionalName,
    OptionalNumber,
    ScaffoldName,
    ShotsPerClass,
)
from linkcontext.models.picture_options import PictureOptions
from linkcontext.models.prompting import Prompting
from linkcontext.scoring import engine_names
from linkcontext.scoring.engine_names import EngineName
from linkcontext.source import data_help

Select = Literal["random", "medoid", "rices"]
# What names pictures: the language model after the support or by pairs, a classifier on image features, or several.
HeadName = Literal["auto", "lm", "pairs", "centroid", "knn", "linear", "tabicl", "mix"]
Augmentation = Literal["flip", "crop"]  # changed copies of taught pictures, for classifiers on image features
Scoring = Literal["likelihood", "generate", "both", "lcl-legacy"]
FLAG_NAMES = {"shots": "shots_per_class"}  # of options whose flags have another name
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading(Prompting):
    """How a model is loaded, is prompted and replies."""

    dtype: Dtype = "auto"
    """Data type of the weights. auto: the checkpoint's own on a GPU, float32 on a CPU."""
    device: OptionalName = None
    """cpu, cuda, cuda:1, ... Default: the GPU if there is one."""
    load_in_4bit: bool = False
    """Quantise the language model's weights to 4 bits (nf4) and compute in --dtype; auto is then bfloat16 on a GPU.
    Training needs --lora-rank with it."""
    adapter: OptionalFolder = None
    """The folder of a LoRA adapter to load on top of the model."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Use it only for models whose authors you trust."""
    max_pixels: OptionalCount = None
    """Reduce larger pictures to this many pixels: by the model's own image processor if it has such a
    setting, otherwise before it reads them. `validate` prints how many tokens the pictures take."""
    processor_kwargs: OptionalJson = None
    """Settings of the model's image processor as a JSON object, for example '{"max_patches": 4}' for at most
    4 tiles a picture, if the model cuts pictures into tiles."""

    def __post_init__(self) -> None:
        Prompting.__post_init__(self)  # `super()` does not work in dataclasses with slots
        object.__setattr__(self, "processor_kwargs", self.pictures.processor_kwargs)

    @property
    def pictures(self) -> PictureOptions:
        """How large pictures are when the model reads them."""
        return PictureOptions(max_pixels=self.max_pixels, processor_kwargs=self.processor_kwargs)

    @property
    def prompting(self) -> Prompting:
        """How the model is prompted and replies."""
        return Prompting(**{f.name: getattr(self, f.name) for f in fields(Prompting)})

    def of(self, model: str) -> "ModelConfig":
        """The configuration of `model` with these loading options."""
        return ModelConfig(model, **asdict(self))


@dataclass(frozen=True, slots=True)
class ModelConfig(Loading):
    """The model, and how it is loaded."""

    model: ModelName = "mini"
    """A vision-language model: `mini` or `mini-base` (bundled), a folder, or a Hugging Face id."""


@dataclass(frozen=True, slots=True)
class EpisodeConfig:
    """The pictures, and how episodes are drawn from them."""

    data: Annotated[str, tyro.conf.arg(metavar="DATA", help=data_help())] = "world:0"
    ways: int = 2
    """Classes in an episode."""
    shots: ShotsPerClass = (0, 1, 2, 4, 8, 16)
    """Support pictures PER CLASS: the whole support has ways x K pictures. With --tasks: pictures in the whole
    support."""
    episodes: int = 256
    """Number of episodes."""
    queries: OptionalCount = None
    """Queries in an episode, a multiple of ways. Default: one of each class."""
    names: NameKind = "pseudo"
    """The names of classes: pseudo-words, random letters, their real names, or their real names permuted (swapped)."""
    negatives: Negatives = "random"
    """The other classes of an episode: any (random), or neighbours of its first class."""
    neighbours: OptionalFile = None
    """The file of `linkcontext mine` to use with --negatives neighbours. Default: the neighbours in the manifest."""
    rule: Rule = "nearest"
    """How --negatives neighbours chooses: the nearest, or a new draw for each episode as in training, from a file mined
    with the same rule: topk (uniform), linear (the paper) or intervals (the released code)."""
    order: Order = "rounds"
    """rounds: one balanced support, of which every shot count shows a prefix; shuffled: a new support for every shot
    count."""
    support_split: OptionalName = None
    """Take support pictures from this split only."""
    query_split: OptionalName = None
    """Take query pictures from this split only."""
    groups_apart: bool = False
    """Support and query pictures of an episode never come from one source (such as a writer or a film, by file
    name)."""
    false_labels: float = 0.0
    """The probability with which a support picture has the name of another class of its episode. A model that links
    follows such names; a model that recognises the classes does not."""
    choose_from: OptionalCount = None
    """Draw this many pictures per class, and choose the --shots-per-class that are shown from them by --select.
    Default: draw only the pictures that are shown."""
    select: Select = "random"
    """How to choose them: random; medoid, the most representative ones of each class; or rices, the ways x K most
    similar to the query, whatever their classes (every query then has its own support)."""
    tasks: NameList = ()
    """Instead of linking classes, ask the questions of annotated pictures (scenes:SEED or imported data): tasks such as
    attribute and count, single concepts such as attribute/colour, or `all`."""
    coherence: Coherence = "concept"
    """With --tasks: what support turns share with the query, which is its concept, its task, or nothing."""
    format: Form = "open"
    """With --tasks: open questions, a choice among letters, captions, or open and choice mixed."""
    options: int = 4
    """With --tasks: the maximum number of different answers in an episode."""
    balanced: bool = False
    """With --tasks whose questions share their candidates: a support shows every answer once before one is repeated.
    Default: answers are sampled at random."""
    seed: int = 0
    """The seed of the episodes. The same seed draws the same episodes on any machine."""
    strict: bool = False
    """Fail on the first bad picture instead of reporting it and going on."""

    def __post_init__(self) -> None:
        for flag, is_given in (("neighbours", self.neighbours is not None), ("rule", self.rule != "nearest")):
            if is_given and self.negatives != "neighbours":
                raise InputError(f"--{flag} is used only with --negatives neighbours. Give both, or neither.")
        if self.choose_from is not None and self.choose_from < max(self.shots):
            raise InputError(
                f"--choose-from {self.choose_from}: fewer than the {max(self.shots)} pictures per class "
                "that --shots-per-class shows. Give more."
            )
        if self.select != "random" and self.choose_from is None:
            raise InputError(
                f"--select {self.select}: also give --choose-from, the number of pictures per class to choose from."
            )
        if self.choose_from is not None and (self.order != "rounds" or self.false_labels):
            raise InputError("--choose-from: not together with --order shuffled or --false-labels. Leave one out.")

    @property
    def sweep(self) -> tuple[int, ...]:
        """The different `shots` in ascending order."""
        return tuple(sorted({*self.shots}))

    def task_plan(self) -> TaskPlan:
        """The plan of episodes with --tasks."""
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
        """The plan of episodes that link classes; with `choose_from`, supports have all pictures to choose from."""
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
    """Measure how well a model names new pictures after it has been shown a few."""

    model: Annotated[ModelConfig, tyro.conf.arg(name="model")] = field(default_factory=ModelConfig)
    episodes: Annotated[EpisodeConfig, tyro.conf.arg(name="episode")] = field(default_factory=EpisodeConfig)
    scaffold: ScaffoldName = "turns"
    """The wording around the pictures: turns, single_turn, lcl, or a JSON file."""
    scoring: Scoring = "likelihood"
    """likelihood: log-probability of each candidate name; generate: strict matching of a generated reply; both; or
    lcl-legacy: the metric of Link-Context Learning's released code, with its defects, beside strict matching."""
    calibrate: bool = False
    """Also score by likelihood_calibrated, which subtracts the model's preference for each name over the pictures of
    the support, as `ask` does. It helps with names of unequal length. Every support picture is scored as a query too,
    which takes time."""
    head: HeadName = "lm"
    """Also name the queries by a head, in rows of their own: pairs (the model is asked of each support picture whether
    it shows the same kind of thing), centroid, knn, linear or tabicl (classifiers on image features), mix, or auto (the
    best of lm, centroid, knn, linear and mix on support pictures that are left out in turn), as `ask` does. Heads need
    a support, and rows without one have none."""
    engine: EngineName = "auto"
    """tree: the prompts of an episode as a prefix tree in one forward pass; prefix-cache: the shared prefix is computed
    once and cached; reference: every prompt as a whole. auto: prefix-cache if the model supports it, else reference.
    Results do not depend on it."""
    memory_gb: OptionalNumber = None
    """The memory in GB, besides the weights, for a forward pass of tree or prefix-cache, and for the pictures that are
    encoded at a time. Default: the free memory. Results do not depend on it."""
    batch: int = 16
    """Prompts in a batch of the reference engine, or requests that are sent to a server at a time. Results do not
    depend on it."""
    unseen: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TYPE ...")] = HELD_OUT
    """With --tasks: types of tasks that the model was not trained on. Their means are reported separately."""
    explain: OptionalCount = None
    """Number of episodes in the report for which each support picture is left out once, to show how it changed the
    answers. Default: 4; 0 with the reference engine or with more than 40 support pictures, where it takes long."""
    out: OptionalFolder = None
    """The folder of the run. Default: runs/MODEL-DATA-..., named after the options."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "engine", engine_names.accepted(self.engine))
        if self.batch < 1:
            raise InputError(f"--batch {self.batch}: at least 1 is needed.")
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
        if self.head != "lm":
            e = self.episodes
            idle = [*(["--tasks"] if e.tasks else []), *(["--select rices"] if e.select == "rices" else [])]
            idle += [f"--scoring {self.scoring}"] if self.scoring not in ("likelihood", "both") else []
            if idle:
                raise InputError(
                    f"--head {self.head}: not together with {', '.join(idle)}. It needs likelihoods, and supports that "
                    "show every class equally often."
                )
        if self.explain is not None and self.explain < 0:
            raise InputError(f"--explain {self.explain}: at least 0 is needed.")
        if self.memory_gb is not None and self.memory_gb <= 0:
            raise InputError(f"--memory-gb {self.memory_gb}: must be above 0.")


def flags(config: EpisodeConfig | ModelConfig, other: EpisodeConfig | ModelConfig) -> list[str]:
    """The flags whose values differ between two configurations, as they are typed: `--support-split`."""
    differ = (f.name for f in fields(config) if getattr(config, f.name) != getattr(other, f.name))
    return ["--" + FLAG_NAMES.get(name, name).replace("_", "-") for name in differ]


def eval_config(**options: Any) -> EvalConfig:
    """An `EvalConfig` from the names of options, whichever part of it they belong to.

    Raises `InputError` for an unknown option, and for values that the options refuse.
    """
    parts: dict[str, dict[str, Any]] = {"model": {}, "episodes": {}, "": {}}
    belongs = {f.name: "model" for f in fields(ModelConfig)} | {f.name: "episodes" for f in fields(EpisodeConfig)}
    own = {f.name: "" for f in fields(EvalConfig) if f.name not in parts}
    for name, value in options.items():
        if name not in belongs and name not in own:
            raise InputError(f"{name}: no such option. The options are {', '.join(sorted({**belongs, **own}))}.")
        parts[belongs.get(name, "")][name] = tuple(value) if name == "shots" else value
    return EvalConfig(ModelConfig(**parts["model"]), EpisodeConfig(**parts["episodes"]), **parts[""])
