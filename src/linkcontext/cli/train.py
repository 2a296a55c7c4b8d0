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
from linkcontext.train.config import TrainConfig

Bundled = Literal["mini-clip", "mini-base", "mini"]


@dataclass(frozen=True, slots=True)
class Train:
    """Train a model to learn from its context.

    Killed and started again with the same flags, it goes on where it was.
    """

    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    preset: str | None = None
    """A known training, like lcl-qwen2.5-vl-3b; flags that are given win over it."""
    curriculum: str | None = None
    """Stages one after the other: icl (alignment, instruction, in-context tuning), or a JSON file. Each says some of
    these flags otherwise, and has a folder of its own below --out."""
    dry_run: bool = False
    """Say what it would take, from the model's configuration alone."""
    gpus: int = 1
    """With --dry-run: how many."""
    tflops: float | Literal["measure"] | None = None
    """With --dry-run: the rate that one of your GPUs sustains; measure: that of a matrix product on this machine's
    device. Without it no hours are told."""

    def run(self) -> None:
        """Train, or say what it would take."""
        config = self.config
        if self.preset is not None:
            from linkcontext.train.estimate import with_preset

            config = with_preset(config, self.preset)
        if self.curriculum is not None and self.dry_run:
            raise InputError("--curriculum --dry-run: a dry run is of one training. Give one stage's flags instead.")
        if self.dry_run:
            from linkcontext.train.estimate import dry_run

            for line in dry_run(config, self.preset, self.gpus, self.tflops):
                console.print(line, markup=False, soft_wrap=True)
            return
        if self.curriculum is not None:
            from linkcontext.train.curriculum import curriculum, read_stages

            console.print(f"checkpoint: {curriculum(config, read_stages(self.curriculum))}", markup=False)
            return
        from linkcontext.train.loop import train

        console.print(f"checkpoint: {train(config)}", markup=False)


@dataclass(frozen=True, slots=True)
class Average:
    """Average the weights of models of one shape: most of what a tuning taught, less of what it made a model forget.

    linkcontext average MODEL runs/tuned/checkpoint-500 --weights 0.25 0.75 --out runs/kept, and measure both with
    eval --benchmark retention.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Bundled models, folders or hub ids; configuration and processor are the last one's."""
    out: str
    """The folder to write; it must not be there."""
    weights: tuple[float, ...] = ()
    """One for each, in order; they sum to 1. Without: all alike."""
    dtype: Dtype = "auto"
    """Of what is written; auto is float32. Sums are float32."""
    trust_remote_code: bool = False

    def run(self) -> None:
        """Average."""
        from linkcontext.models.average import average

        told = average(self.models, self.weights, Path(self.out), self.dtype, self.trust_remote_code)
        console.print(f"model: {told}", markup=False)


@dataclass(frozen=True, slots=True)
class BundledPath:
    """Print the standard Hugging Face folder of a bundled model; it is put together at first use."""

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
    """Show what picture features are kept, for which encoders, and how much room they take."""

    def run(self) -> None:
        """Show it."""
        from linkcontext.models.feature_store import info, root

        found = info(root())
        table = Table("encoder", "pictures", "MB", "last used", box=SIMPLE)
        for row in found.rows:
            used = datetime.fromtimestamp(row.used).astimezone().strftime("%Y-%m-%d %H:%M")
            table.add_row(row.namespace[:12], f"{row.pictures:,}", f"{row.bytes / 1e6:.1f}", used)
        console.print(table if found.rows else "no features are kept")
        limit = f"{found.bytes / 1e6:.1f} of at most {found.limit / 1e6:.0f} MB (LINKCONTEXT_FEATURE_CACHE_GB)"
        console.print(f"{root()}: {limit}", markup=False)


@dataclass(frozen=True, slots=True)
class Clear:
    """Remove all kept picture features. They are computed again when they are needed."""

    def run(self) -> None:
        """Remove them."""
        from linkcontext.models.feature_store import clear, root

        console.print(f"{clear(root()) / 1e6:.1f} MB freed in {root()}", markup=False)


@dataclass(frozen=True, slots=True)
class Cache:
    """The features of pictures, kept on the disk so that every picture goes through a model's tower once."""

    action: Annotated[
        Annotated[Info, tyro.conf.subcommand("info")] | Annotated[Clear, tyro.conf.subcommand("clear")],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> None:
        """Do what was asked."""
        self.action.run()
