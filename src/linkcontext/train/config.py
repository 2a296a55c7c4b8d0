"""The options of a training, typed. They are saved in its folder, and the same options resume it."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from linkcontext.config import ModelConfig
from linkcontext.data.neighbours import RankingRule
from linkcontext.episodes.plan import Coherence, Form
from linkcontext.errors import InputError
from linkcontext.metavars import (
    WITHOUT_DEFAULT,
    Folder,
    NameList,
    OptionalCount,
    OptionalData,
    OptionalFile,
    OptionalName,
    OptionalNumber,
    ScaffoldName,
)
from linkcontext.source import data_help
from linkcontext.train.samplers import Kind, Names, Negatives

Part = Literal["vision", "projector", "language"]
Tracker = Literal["tensorboard", "wandb"]
LANGUAGE = r"(language_model|text_model)\..*\.(q|k|v|o|gate|up|down)_proj$"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Train a model to learn from its context. The same options resume an interrupted training."""

    model: Annotated[ModelConfig, tyro.conf.arg(name="model")] = field(default_factory=ModelConfig)
    data: Annotated[str, tyro.conf.arg(metavar="DATA", help=data_help("Pictures of the link episodes."))] = "world:1"
    split: OptionalName = None
    """Take pictures of this split only."""
    strategy: Kind = "2-way-random"
    """The number of support pictures of an episode, for any --ways. 2-way: always --support; 2-way-random: uniform from
    --ways to --support; 2-way-weight: j pictures with weight e^j; lcl-code-weight: k pictures per class with weight
    e^(k/2)."""
    ways: int = 2
    """Classes in an episode."""
    support: int = 16
    """Maximum number of support pictures of an episode, over ALL classes."""
    queries: int = 1
    """Queries per support, which share its computation."""
    names: Names = "pseudo"
    """The names of classes, as in eval; or lcl: random letters for the first class and real names for the others."""
    negatives: Negatives = "random"
    """The other classes of an episode: any (random), or neighbours of its first class."""
    neighbours: OptionalFile = None
    """The file of `linkcontext mine` to use with --negatives neighbours. Default: the neighbours in the manifest."""
    rule: RankingRule = "linear"
    """How a negative is drawn from the file: topk (uniform), linear (the paper) or intervals (the released code)."""
    questions: OptionalFile = None
    """A file with wordings of the query's question, one per line."""
    supervise: Annotated[Literal["query", "every"] | None, tyro.conf.DisallowNone, WITHOUT_DEFAULT] = None
    """The answers that carry loss: those of queries, or every answer. Default: queries for link episodes (Link-Context
    Learning), every answer for icl conversations (any-shot)."""
    scaffold: ScaffoldName = "turns"
    """The wording around the pictures: turns, single_turn, lcl, or a JSON file."""
    mixture: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK[=SHARE] ...")] = ("link",)
    """The training tasks with their shares, for example link=0.5 taught=0.3 FILE.json=0.2. link: link episodes; icl:
    conversations about tasks; letters: the same as choices in text only; taught: questions about things that the
    bundled models know by name; FILE.json: LLaVA conversations. Without shares, all have the same (the paper's mix)."""
    icl_data: Annotated[str, tyro.conf.arg(metavar="DATA")] = "scenes:1"
    """The annotated pictures of icl and letters."""
    tasks: NameList = ()
    """The tasks of icl and letters. Default: all except the held-out types (relation, same-different, rule)."""
    coherence: Coherence = "concept"
    """What the turns of an icl conversation share: the concept, the task, or nothing."""
    format: Form = "mixed"
    """The form of icl conversations: open questions, choices among letters, captions, or open and choice mixed."""
    options: int = 4
    """Maximum number of different answers in an icl conversation."""
    turns: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = (1, 2, 3, 4, 5, 6, 7, 8, 9)
    """Lengths of icl conversations, equally likely; a number that is given twice is twice as likely."""
    steps: int = 1000
    """Number of optimizer steps."""
    batch: int = 8
    """Examples per step, over all processes."""
    micro_batch: OptionalCount = None
    """Examples per forward pass of a process. Default: all. Losses depend on it by rounding only."""
    train: Annotated[
        tuple[Part, ...] | None, tyro.conf.arg(metavar="{vision,projector,language} ...", help_behavior_hint="")
    ] = None
    """The parts that are trained. Default: projector and language; with --lora-rank the projector."""
    lora_rank: int = 0
    """Above 0: train LoRA adapters of this rank on --lora-targets."""
    lora_targets: Annotated[str, tyro.conf.arg(metavar="REGEX")] = LANGUAGE
    """A regular expression for the names of linear layers that get adapters."""
    lr: float = 2e-5
    """Peak learning rate."""
    projector_lr: OptionalNumber = None
    """Peak learning rate outside of the language model. Default: --lr."""
    weight_decay: float = 0.0
    """Weight decay of AdamW, for parameters with more than one dimension."""
    warmup: float = 0.03
    """Share of the steps in which the learning rate rises linearly. After that it falls as a cosine."""
    precision: Literal["no", "bf16"] = "no"
    """bf16: compute in bfloat16 where that is safe, with weights in float32."""
    gradient_checkpointing: bool = False
    """Recompute the activations of layers in the backward pass instead of storing them."""
    depth_first: bool = False
    """Go through the tree of each example depth first: the memory is that of one prompt, however many --queries there
    are, for a second forward pass of the support. On a CPU, in one process."""
    held_out: OptionalData = None
    """Data for evaluation during training, like --data."""
    held_out_tasks: NameList = ()
    """Evaluate these tasks on the held-out data instead of linking its classes, like --tasks of eval."""
    until: OptionalNumber = None
    """Stop when the held-out accuracy, averaged over tasks and shots, reaches this value."""
    held_out_episodes: int = 64
    """Number of held-out episodes."""
    held_out_shots: Annotated[
        tuple[int, ...],
        tyro.conf.arg(name="held-out-shots-per-class", aliases=("--held-out-shots",), metavar="K ..."),
    ] = (1, 4)
    """Support pictures PER CLASS of a held-out episode."""
    eval_every: int = 500
    """Steps between two evaluations on the held-out data."""
    save_every: int = 500
    """Steps between two checkpoints."""
    keep: int = 2
    """Number of checkpoints to keep; older ones are removed."""
    trackers: tuple[Tracker, ...] = ()
    """Where to log metrics, besides log.jsonl."""
    seed: int = 0
    """The seed of episodes, conversations and adapters."""
    out: Folder = "runs/train"
    """The folder of the training."""

    def __post_init__(self) -> None:
        least = {"steps": 1, "batch": 1, "micro_batch": 1, "eval_every": 1, "save_every": 1, "keep": 1, "lora_rank": 0}
        for name, number in least.items():
            value = getattr(self, name)
            if value is not None and value < number:
                raise InputError(f"--{name.replace('_', '-')} {value}: at least {number} is needed.")
        for name in ("lr", "projector_lr", "weight_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"--{name.replace('_', '-')} {value}: a number of at least 0 is needed.")
        if not self.turns or min(self.turns) < 1:
            raise InputError(f"--turns {' '.join(map(str, self.turns))}: give numbers of at least 1.")
        if self.until is not None and self.held_out is None:
            raise InputError("--until is reached on held-out data. Give --held-out too.")
        if self.model.load_in_4bit and (not self.lora_rank or "language" in self.parts):
            raise InputError(
                "--load-in-4bit: the weights of a language model in 4 bits cannot be trained. Give "
                "--lora-rank, for example 16, and leave "
                "language out of --train."
            )
        if self.model.load_in_4bit and self.model.adapter is not None:
            raise InputError(
                "--load-in-4bit --adapter: adapters on top of an adapter cannot be trained. Leave one of them out."
            )
        if self.neighbours is not None and self.negatives != "neighbours":
            raise InputError("--neighbours is used only with --negatives neighbours. Give both, or neither.")

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is trained whole."""
        if self.train is not None:
            return self.train
        return ("projector",) if self.lora_rank else ("projector", "language")
