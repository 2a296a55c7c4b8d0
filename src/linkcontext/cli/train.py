"""Models: training and averaging them, the folders of the bundled ones, the features that are kept."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.box import SIMPLE
from rich.table import Table

from linkcontext.cli.terminal import console
from linkcontext.config import Dtype
from linkcontext.errors import InputError
from linkcontext.launch import is_main_process
from linkcontext.metavars import Folder, OptionalName
from linkcontext.train.config import TrainConfig

Bundled = Literal["mini-clip", "mini-base", "mini"]


@dataclass(frozen=True, slots=True)
class Train:
    """Train a model to learn from its context. To resume an interrupted training, run the same command again."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    preset: OptionalName = None
    """A set of options by name, for example lcl-qwen2.5-vl-3b. Flags on the command line override it."""
    curriculum: OptionalName = None
    """Train in stages: icl (alignment, instruction, in-context tuning), or a JSON file. Each stage overrides some flags
    and has its own folder below --out."""
    dry_run: bool = False
    """Estimate parameters, memory and time from the model's configuration, without loading or training it."""
    gpus: int = 1
    """With --dry-run: the number of GPUs."""
    tflops: Annotated[
        float | Literal["measure"] | None, tyro.conf.arg(metavar="{NUMBER,measure}", help_behavior_hint="")
    ] = None
    """With --dry-run: the TFLOP/s that one GPU sustains; measure: those of a matrix product on this machine's device.
    Without it no hours are estimated."""

    def run(self) -> None:
        """Train, or print the estimate of a dry run."""
        config = self.config
        if self.preset is not None:
            from linkcontext.train.estimate import with_preset

            config = with_preset(config, self.preset)
        if self.curriculum is not None and self.dry_run:
            raise InputError(
                "--curriculum --dry-run: a dry run estimates one training. Give one stage's flags instead."
            )
        if self.dry_run:
            from linkcontext.train.estimate import dry_run

            for line in dry_run(config, self.preset, self.gpus, self.tflops):
                console.print(line, markup=False, soft_wrap=True)
            return
        if self.curriculum is not None:
            from linkcontext.train.curriculum import curriculum, read_stages

            last = curriculum(config, read_stages(self.curriculum))
        else:
            from linkcontext.train.loop import train

            last = train(config)
        if is_main_process():
            console.print(f"checkpoint: {last}", markup=False)


@dataclass(frozen=True, slots=True)
class Average:
    """Average the weights of models of one architecture (WiSE-FT), so that a fine-tuned model forgets less.

    Compare the models by `linkcontext eval --benchmark retention`.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL ...", help_behavior_hint="")]
    """Bundled models, folders or Hugging Face ids. The last one gives the configuration and the processor."""
    out: Folder
    """The folder to write; it must not exist."""
    weights: Annotated[tuple[float, ...], tyro.conf.arg(metavar="NUMBER ...", help_behavior_hint="")] = ()
    """One weight per model, in the same order; they sum to 1. Default: equal weights."""
    dtype: Dtype = "auto"
    """Data type of the written weights; auto: float32. The average is computed in float32."""
    trust_remote_code: bool = False
    """Run code that comes with the models. Use it only for models whose authors you trust."""

    def run(self) -> None:
        """Average the models, and print the folder."""
        from linkcontext.models.average import average

        folder = average(self.models, self.weights, Path(self.out), self.dtype, self.trust_remote_code)
        console.print(f"model: {folder}", markup=False)


@dataclass(frozen=True, slots=True)
class BundledPath:
    """Print the Hugging Face folder of a bundled model, which is written at its first use."""

    name: Annotated[Bundled, tyro.conf.Positional] = "mini"

    def run(self) -> None:
        """Print the folder."""
        from linkcontext.models.bundled import folder

        print(folder(self.name))


@dataclass(frozen=True, slots=True)
class Build:
    """Removed in 0.2: the programs in recipes/mini of the repository make the bundled models."""

    ignored: tyro.conf.Positional[tuple[str, ...]] = ()

    def run(self) -> None:
        """Say where the programs are."""
        raise InputError(
            "mini build: the bundled models are no longer made by this command. Clone the repository, and follow "
            "recipes/mini/README.md."
        )


@dataclass(frozen=True, slots=True)
class Mini:
    """The bundled models: print the folder of one. recipes/mini in the repository has the programs that made them."""

    action: Annotated[
        Annotated[BundledPath, tyro.conf.subcommand("path")] | Annotated[Build, tyro.conf.subcommand("build")],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> None:
        """Run the chosen action."""
        self.action.run()


@dataclass(frozen=True, slots=True)
class Info:
    """Show how many picture features are cached, for which encoders, and how much disk space they take."""

    def run(self) -> None:
        """Print a table with a row for each encoder."""
        from linkcontext.models.feature_store import info, root

        usage = info(root())
        table = Table("encoder", "pictures", "MB", "last used", box=SIMPLE)
        for row in usage.rows:
            used = datetime.fromtimestamp(row.used).astimezone().strftime("%Y-%m-%d %H:%M")
            table.add_row(row.namespace[:12], f"{row.pictures:,}", f"{row.bytes / 1e6:.1f}", used)
        console.print(table if usage.rows else "no features are cached")
        limit = f"{usage.bytes / 1e6:.1f} of at most {usage.limit / 1e6:.0f} MB (LINKCONTEXT_FEATURE_CACHE_GB)"
        console.print(f"{root()}: {limit}", markup=False)


@dataclass(frozen=True, slots=True)
class Clear:
    """Delete all cached picture features. They are computed again when they are needed."""

    def run(self) -> None:
        """Delete the features, and print how much space that frees."""
        from linkcontext.models.feature_store import clear, root

        console.print(f"{clear(root()) / 1e6:.1f} MB freed in {root()}", markup=False)


@dataclass(frozen=True, slots=True)
class Cache:
    """Show or clear the cached picture features, which save running a model's vision tower again."""

    action: Annotated[
        Annotated[Info, tyro.conf.subcommand("info")] | Annotated[Clear, tyro.conf.subcommand("clear")],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> None:
        """Run the chosen subcommand."""
        self.action.run()
