"""What a training can be asked for, typed. Saved whole in the run's folder, where the same flags find it again."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from linkcontext.config import ModelConfig
from linkcontext.data.neighbours import RankingRule
from linkcontext.episodes.plan import Coherence, Form
from linkcontext.errors import InputError
from linkcontext.source import data_help
from linkcontext.train.samplers import Kind, Names, Negatives

Part = Literal["vision", "projector", "language"]
Tracker = Literal["tensorboard", "wandb"]
LANGUAGE = r"(language_model|text_model)\..*\.(q|k|v|o|gate|up|down)_proj$"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Train a model to learn from its context. Killed and started again with the same flags, it goes on."""

    model: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)
    data: Annotated[str, tyro.conf.arg(help=data_help("Pictures of the link episodes."))] = "world:1"
    split: str | None = None
    """Take pictures of this split only."""
    strategy: Kind = "2-way-random"
    """How many support pictures an episode has, for any --ways: 2-way always --support, 2-way-random evenly from --ways
    to --support, 2-way-weight j of them with weight e^j, lcl-code-weight k of each class with weight e^(k/2)."""
    ways: int = 2
    """Classes in an episode."""
    support: int = 16
    """The most support pictures of an episode, of ALL classes together."""
    queries: int = 1
    """Queries to a support. They share its computation."""
    names: Names = "pseudo"
    """pseudo, random, real, swapped; or lcl: random letters for the first class and real names for the others."""
    negatives: Negatives = "random"
    """Which classes meet: any, or neighbours of the first."""
    neighbours: str | None = None
    """A file made by `linkcontext mine`, for --negatives neighbours. Default: what the manifest says."""
    rule: RankingRule = "linear"
    """How a negative is drawn from the file: topk (evenly), linear (the paper) or intervals (the released code)."""
    questions: str | None = None
    """A file with ways to ask the query's question, one a line."""
    supervise: Literal["query", "every"] | None = None
    """Which answers are learnt: the last ones, or every answer. Default: the query's of link episodes (Link-Context
    Learning), every one of icl conversations (any-shot)."""
    scaffold: str = "turns"
    """What is said around the pictures: turns, single_turn, lcl, or a JSON file."""
    mixture: tuple[str, ...] = ("link",)
    """What is learnt and its shares, as link=0.5 taught=0.3 FILE.json=0.2: link episodes, icl conversations, letters
    (the same in words alone, always as choices), questions about what the bundled models know by name (taught), LLaVA
    conversations. Without numbers all come equally often (the paper's mix)."""
    icl_data: str = "scenes:1"
    """Annotated pictures of the conversations of icl and letters."""
    tasks: tuple[str, ...] = ()
    """Tasks of these conversations. Default: all but the held-out types: relation, same-different, rule."""
    coherence: Coherence = "concept"
    """What the turns of an icl conversation have in common: the concept, the task, or nothing."""
    format: Form = "mixed"
    """Of icl conversations: open questions, choices among letters, captions, or open and choice mixed."""
    options: int = 4
    """Answers in play in an icl conversation."""
    turns: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = (1, 2, 3, 4, 5, 6, 7, 8, 9)
    """Lengths of icl conversations, each as likely; one that is said twice comes twice as often."""
    steps: int = 1000
    batch: int = 8
    """Examples of a step, over all processes."""
    micro_batch: int | None = None
    """Examples that go through the model at once in one process. Default: all. The losses do not depend on it."""
    train: tuple[Part, ...] | None = None
    """What is trained. Default: projector and language; with --lora-rank the projector."""
    lora_rank: int = 0
    """Above 0: LoRA adapters of this rank on --lora-targets."""
    lora_targets: str = LANGUAGE
    """A pattern that is looked for in the names of linear layers."""
    lr: float = 2e-5
    projector_lr: float | None = None
    """Of what is trained outside of the language model. Default: the same."""
    weight_decay: float = 0.0
    warmup: float = 0.03
    """Share of the steps in which the rate rises. It falls as a cosine after that."""
    precision: Literal["no", "bf16"] = "no"
    """bf16: numbers are computed in bfloat16 where that is safe, and kept in float32."""
    gradient_checkpointing: bool = False
    """Compute layers again in the backward pass instead of keeping their states."""
    held_out: str | None = None
    """Data for evaluation during training, like --data."""
    held_out_tasks: tuple[str, ...] = ()
    """Ask the held-out data these tasks instead of linking its classes, like --tasks of eval."""
    until: float | None = None
    """Stop where the held-out accuracy, averaged over tasks and shots, has reached this."""
    held_out_episodes: int = 64
    held_out_shots: Annotated[tuple[int, ...], tyro.conf.arg(metavar="K ...")] = (1, 4)
    """Support pictures of EACH class of a held-out episode."""
    eval_every: int = 500
    """Steps."""
    save_every: int = 500
    """Steps."""
    keep: int = 2
    """So many checkpoints; older ones are removed."""
    trackers: tuple[Tracker, ...] = ()
    """Where figures go besides log.jsonl."""
    seed: int = 0
    out: str = "runs/train"

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
                "--load-in-4bit: a language model in 4 bits does not learn itself. Give --lora-rank, 16 say, and leave "
                "language out of --train."
            )
        if self.model.load_in_4bit and self.model.adapter is not None:
            raise InputError("--load-in-4bit --adapter: adapters on adapters are not trained. Leave one of them out.")
        if self.neighbours is not None and self.negatives != "neighbours":
            raise InputError("--neighbours is read with --negatives neighbours only. Say both, or neither.")

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is trained whole."""
        if self.train is not None:
            return self.train
        return ("projector",) if self.lora_rank else ("projector", "language")
