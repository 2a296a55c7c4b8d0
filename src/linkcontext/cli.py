"""The command line: each command reads files and writes files."""

import importlib.util
import logging
import os
import shlex
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from linkcontext.config import EpisodeConfig, EvalConfig, ModelConfig
from linkcontext.episodes.talk import HELD_OUT
from linkcontext.errors import InputError
from linkcontext.train.config import TrainConfig

SHOWN = 20  # problems with the records of a file: it may have hundreds of thousands

console = Console()
Size = Literal["nano", "small", "mini"]
Stage = Literal["mini-clip", "mini-base", "mini"]


@dataclass(frozen=True, slots=True)
class World:
    """Draw a world of invented things into class folders, with a manifest that tells what is true of each picture.

    Every second class is the hard neighbour of the one before it: one or two attributes differ.
    """

    out: str
    """The folder to write; it must be new or empty."""
    classes: int = 20
    images: int = 32
    """Pictures of each class."""
    seed: int = 0
    """Another seed is another world. No model was trained on any of them."""
    size: int = 64
    """Edge of a picture in pixels."""
    sheet: str | None = None
    """Also write a contact sheet (PNG) to look at. Keep it outside of --out."""
    isekai: Literal["10", "pair"] | None = None
    """Write the benchmark ISEKAI in its published layout too, for `eval --benchmark isekai`. 10: new things beside
    look-alikes that mini-base was taught, under their taught names; pair: new things beside new things."""

    def run(self) -> None:
        """Draw it."""
        from linkcontext.world.folder import contact_sheet, write_seed

        for flag, value, least in (
            ("classes", self.classes, 2),
            ("images", self.images, 1),
            ("size", self.size, 16),
        ):
            if value < least:
                raise InputError(f"--{flag} {value}: at least {least} is needed.")
        if self.isekai:
            from linkcontext.world.isekai import write_isekai

            if self.classes % 2:
                raise InputError(f"--classes {self.classes}: --isekai is made of pairs. Give an even number.")
            groups = self.classes // 2
            dataset = write_isekai(Path(self.out), self.isekai, self.seed, groups, self.images, self.size)
        else:
            dataset = write_seed(Path(self.out), self.classes, self.images, self.seed, self.size)
        console.print(f"{len(dataset.items)} pictures of {self.classes} things in {self.out}")
        if self.sheet:
            contact_sheet(dataset, Path(self.sheet))
            console.print(f"contact sheet: {self.sheet}")


@dataclass(frozen=True, slots=True)
class Data:
    """Look through a data set: what is there, and what is wrong with it. Writes manifest.jsonl if asked.

    With --layout, read the files of other tools, record by record, and say what is wrong in them; with --out too, write
    a folder that is read here: pictures with questions, or conversations.json (docs/data.md).
    """

    data: Annotated[str, tyro.conf.Positional]
    """A folder of class folders, `digits`, `world:SEED`, `world:taught`, or hf:NAME. With --layout the file or folder
    to read, or hf:NAME."""
    strict: bool = False
    """Fail on the first bad picture or record."""
    write: bool = False
    """Write manifest.jsonl into the folder."""
    layout: Literal["conversations", "seed", "vl-checklist", "visual-genome", "vl-icl"] | None = None
    """conversations: of LLaVA, messages + images (LLaMA-Factory, ms-swift), or TRL's columns. The others: SEED-Bench,
    VL-Checklist, Visual Genome's attributes and relations, VL-ICL, as published."""
    images: str | None = None
    """With --layout: where the pictures lie. Default: beside the file."""
    out: str | None = None
    """With --layout: the folder to write; it must be new or empty."""

    def run(self) -> None:
        """Look."""
        if self.layout is not None:
            self._imported(self.layout)
            return
        if self.images or self.out:
            raise InputError("--images, --out: these belong to --layout, which reads the files of other tools.")
        from linkcontext.data.manifest import write_manifest
        from linkcontext.data.sources import digest
        from linkcontext.source import open_data

        dataset = open_data(self.data, self.strict)
        classes = dataset.by_class()
        counts = sorted(len(items) for items in classes.values())
        splits = sorted({item.split or "(none)" for item in dataset.items})
        console.print(
            f"{dataset.root}: {len(dataset.items)} pictures, {len(classes)} classes of {counts[0]} to {counts[-1]}",
            soft_wrap=True,
        )
        console.print(f"splits: {', '.join(splits)}   digest: {digest(dataset)[:16]}")
        for problem in dataset.problems:
            console.print(problem, style="yellow", markup=False, soft_wrap=True)
        if self.write:
            write_manifest(dataset)

    def _imported(self, layout: Any) -> None:
        from linkcontext.data.imports import imported

        if self.write:
            raise InputError("--write: with --layout, say --out instead, which writes a folder of its own.")
        result = imported(layout, self.data, self.images, self.out, self.strict)
        for line in result.found:
            console.print(line, markup=False, soft_wrap=True)
        for problem in result.problems[:SHOWN]:
            console.print(problem, style="yellow", markup=False, soft_wrap=True)
        if len(result.problems) > SHOWN:
            console.print(f"and {len(result.problems) - SHOWN:,} problems more", style="yellow")
        if self.out:
            console.print(f"written: {self.out}", markup=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Episodes:
    """Draw episodes: which pictures are shown, under which names, and which are asked about. Ids only."""

    episodes: Annotated[EpisodeConfig, tyro.conf.arg(name="")] = field(default_factory=EpisodeConfig)
    out: str | None = None
    """Write episodes.jsonl here."""
    show: int = 0
    """Print so many of them as the model reads them; what carries loss in training is green."""
    tree: bool = False
    """With --show: print the tree of all shot counts, queries and candidates instead, a picture as one token."""
    scaffold: str = "turns"
    """turns, single_turn, lcl, or a JSON file."""
    export: Literal["llava", "messages", "trl"] | None = None
    """Write conversations for other tools into --out instead, a list or, called .jsonl, JSON lines: LLaVA's layout;
    messages + images for LLaMA-Factory and ms-swift; TRL's columns."""
    supervise: Literal["every", "query"] = "every"
    """With --export: which answers are to be learnt. query: the last of each conversation."""

    def run(self) -> None:
        """Draw them."""
        if self.export and not self.out:
            raise InputError(f"--export {self.export}: say with --out which file to write.")
        from linkcontext.evaluate.draw import drawn
        from linkcontext.records import write_jsonl
        from linkcontext.source import open_data

        dataset = open_data(self.episodes.data, self.episodes.strict)
        sampled = drawn(self.episodes, dataset)
        for left_out in sampled.left_out:
            console.print(f"left out: {left_out.class_id} ({left_out.lacks})", style="yellow", markup=False)
        if self.out and self.export:
            from linkcontext.data.conversations import write_conversations
            from linkcontext.episodes.export import exported
            from linkcontext.episodes.prompt import scaffold

            told = exported(sampled.episodes, dataset, scaffold(self.scaffold), self.supervise)
            write_conversations(told, Path(self.out), self.export)
            console.print(f"conversations of {len(sampled.episodes)} episodes in {self.out}", markup=False)
        elif self.out:
            write_jsonl(sampled.episodes, Path(self.out))
            console.print(f"{len(sampled.episodes)} episodes in {self.out}")
        if self.show:
            self._show(sampled.episodes[: self.show])

    def _show(self, episodes: "tuple[object, ...]") -> None:
        from linkcontext.episodes.prompt import coloured, encode, prompt, scaffold
        from linkcontext.models.load import Template, processor
        from linkcontext.models.tree import sketch
        from linkcontext.records import Episode

        template = Template(processor("mini"))
        for episode in episodes:
            assert isinstance(episode, Episode)
            messages = prompt(
                episode, 0, episode.shots_per_class[-1], scaffold(self.scaffold), episode.queries[0].answer
            )
            console.rule(episode.id)
            if self.tree:
                words = template.processor.tokenizer
                mark = words.convert_tokens_to_ids(template.processor.image_token)
                print(sketch(episode, scaffold(self.scaffold), template, mark, words.decode))
                continue
            console.print(coloured(encode(messages, template, "every"), template.processor.tokenizer.decode))


@dataclass(frozen=True, slots=True)
class Validate:
    """Before anything runs for long: gold answers score 1, no support leaks its query, every prompt fits."""

    config: Annotated[EvalConfig, tyro.conf.arg(name="")] = field(default_factory=EvalConfig)

    def run(self) -> None:
        """Check."""
        from linkcontext.evaluate.validate import validate

        for line in validate(self.config):
            console.print(line, markup=False)


@dataclass(frozen=True, slots=True)
class Eval:
    """Measure how well a model names new pictures after it was shown a few. --shots is per class.

    The run's folder gets config.json, episodes.jsonl, predictions.jsonl, metrics.json, explain.json, report.md and
    report.html.
    Killed and started again with the same flags, it goes on where it was.
    """

    config: Annotated[EvalConfig, tyro.conf.arg(name="")] = field(default_factory=EvalConfig)
    benchmark: Literal["retention", "isekai", "world-icl", "fewshot", "seed", "vl-checklist", "vl-icl"] | None = None
    """retention: instead of episodes, naming, counting and describing what the model was taught (--data is
    then world:taught if not said), or the questions of a LLaVA or VQA file (--data FILE.json).
    isekai: the episodes of ISEKAI-10 or ISEKAI-pair in a folder or on the hub (--data hf:ISEKAI-Portal/ISEKAI-10).
    world-icl: all tasks of scenes nobody was trained on (--data scenes:SEED), openly and as a choice among letters,
    with means over tasks; seed, vl-checklist, vl-icl: the same of a folder made by `linkcontext data FILE --layout NAME
    --out DIR`; fewshot: few-shot recognition of any folder's classes, both ways."""
    unseen: tuple[str, ...] = HELD_OUT
    """Types of tasks that the model was not trained on. Their means stand apart."""
    probe: bool = False
    """Ask also whether the answers come from the pictures (see `linkcontext probe`), in the folder `probe` of the run;
    the report gets a section. A run that is there already gets it when its command is given again with this flag."""

    def run(self) -> None:
        """Measure."""
        if self.probe and self.benchmark:
            raise InputError("--probe: probes draw episodes of their own. Leave --benchmark out.")
        if self.benchmark == "retention":
            from linkcontext.evaluate.retention import retention, retention_folder, settled
            from linkcontext.report.retention import retention_table

            metrics = retention(self.config)
            config = settled(self.config)
            console.print(f"{config.model.model} on {config.episodes.data}", markup=False)
            console.print(retention_table(metrics["rows"]))
            console.print(f"answers: {retention_folder(config) / 'answers.jsonl'}", markup=False)
            return
        from linkcontext.evaluate import icl
        from linkcontext.evaluate.isekai import open_isekai, settled
        from linkcontext.evaluate.run import evaluate, measure, run_folder
        from linkcontext.report.page import write_report
        from linkcontext.report.tables import curves_table, metrics_table, summary_table

        config = settled(self.config) if self.benchmark == "isekai" else self.config
        if self.benchmark is not None and self.benchmark != "isekai":
            config = icl.settled(config, self.benchmark)
            metrics = measure(config, *icl.open_benchmark(config))
        elif self.benchmark == "isekai":
            e = config.episodes
            metrics = measure(config, *open_isekai(e.data, e.shots, e.seed))
        elif self.probe:
            from linkcontext.evaluate.evidence import evidence, of_run
            from linkcontext.evaluate.run import local
            from linkcontext.report.probe import write_probe

            asked = of_run(config, run_folder(config))
            model = local(config.model)
            metrics = evaluate(config, model)
            console.print(evidence(asked, model)["sentence"], markup=False)
            write_probe(run_folder(asked))
        else:
            metrics = evaluate(config)
        page = write_report(run_folder(config))
        if config.episodes.tasks:
            lines = icl.summary(metrics["rows"], self.unseen)
            console.print(summary_table(lines))
            console.print(curves_table(icl.curves(lines)))
        else:
            console.print(metrics_table(metrics["rows"]))
        counters = metrics["counters"]
        console.print(f"engine: {counters['engine']} ({counters['engine_reason']})", markup=False)
        console.print(f"report: {page}", markup=False)


@dataclass(frozen=True, slots=True)
class Probe:
    """Does the answer come from the pictures? Ten probes, each with what a model that links would show, and a verdict.

    Names swapped and false, pictures shuffled, blank and left out, other orders, places, wordings and numbers of ways
    (docs/evidence.md). --episodes is of each probe. The folder gets config.json, episodes.jsonl, predictions.jsonl,
    probe.json and probe.md; killed and started again, it goes on where it was.
    """

    config: Annotated[EvalConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: EvalConfig(episodes=EpisodeConfig(shots=(4,), episodes=200))
    )

    def run(self) -> None:
        """Probe."""
        from linkcontext.evaluate.evidence import evidence, probe_folder
        from linkcontext.report.probe import probe_table, write_probe

        probe = evidence(self.config)
        console.print(probe_table(probe["findings"]))
        for finding in probe["findings"]:
            console.print(f"{finding['probe']}: {finding['verdict']}", markup=False)
        for left_out in probe["left_out"]:
            console.print(f"left out: {left_out}", style="yellow", markup=False)
        console.print(f"\n{probe['sentence']}", markup=False)
        console.print(f"written: {write_probe(probe_folder(self.config))}", markup=False)


@dataclass(frozen=True, slots=True)
class Report:
    """Write report.md and report.html of a run again, from its files alone."""

    run_folder: Annotated[str, tyro.conf.Positional]

    def run(self) -> None:
        """Write them."""
        from linkcontext.report.page import write_report

        console.print(f"report: {write_report(Path(self.run_folder))}", markup=False)


@dataclass(frozen=True, slots=True)
class Compare:
    """Two runs on the same queries: the paired difference, its interval and p."""

    run_a: Annotated[str, tyro.conf.Positional]
    run_b: Annotated[str, tyro.conf.Positional]

    def run(self) -> None:
        """Compare."""
        from linkcontext.evaluate.compare import compare
        from linkcontext.report.tables import comparison_table

        console.print(comparison_table(compare(Path(self.run_a), Path(self.run_b))))


@dataclass(frozen=True, slots=True)
class Build:
    """Build the bundled models from nothing: mini-clip, then mini-base, then mini. Resumable."""

    size: Size = "small"
    """nano: for tests; small: what two processor cores can train; mini: what a large GPU trains in minutes."""
    out: str = "runs/mini"
    until: Stage = "mini"
    """The last stage to run."""
    begin_from: str | None = None
    """A folder with the stages before, for example that of an earlier build."""
    device: str | None = None
    threads: int | None = None
    pack: str | None = None
    """Write the finished models in the package's own form into this folder."""

    def run(self) -> None:
        """Build."""
        import torch

        from linkcontext.mini import build
        from linkcontext.mini.recipe import recipe

        if self.threads:
            torch.set_num_threads(self.threads)
        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        begin = Path(self.begin_from) if self.begin_from else None
        chosen = recipe(self.size)
        folders = build.build(chosen, Path(self.out), device, self.until, begin)
        for name, folder in folders.items():
            console.print(f"{name}: {folder} ({build.parameters(folder) / 1e6:.1f} M numbers)", markup=False)
        if self.pack:
            build.pack(folders, Path(self.pack), chosen)


@dataclass(frozen=True, slots=True)
class Where:
    """Print the standard Hugging Face folder of a bundled model; it is put together at first use."""

    name: Annotated[Stage, tyro.conf.Positional] = "mini"

    def run(self) -> None:
        """Print it."""
        from linkcontext.models.bundle import folder

        print(folder(self.name))


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

    def run(self) -> None:
        """Show it."""
        from linkcontext.demo import demo

        demo(self.data, self.model, Path(self.out), self.seed, console)


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

    def run(self) -> None:
        """Talk."""
        from linkcontext.models.load import load
        from linkcontext.teach.chat import chat, typed
        from linkcontext.teach.dialogue import Dialogue
        from linkcontext.teach.learner import Learner
        from linkcontext.teach.pack import read_pack

        if self.context < 0:
            raise InputError(f"--context {self.context}: must be above 0.")
        pack = read_pack(Path(self.pack)) if self.pack else None
        model = load(self.model or (pack.model if pack else "mini"))
        chat(Dialogue(pack.learner(model) if pack else Learner(model), self.context), typed(print), print)


@dataclass(frozen=True, slots=True)
class App:
    """Serve a web page on this machine: teach and ask, chat, and look at runs. Needs the extra: linkcontext[app]."""

    model: str = "mini"
    """`mini`, or any other model."""
    runs: str = "runs"
    """The folder below which runs are listed."""
    port: int | None = None
    """Default: the first free one from 7860."""
    share: bool = False
    """Also on a public address, through Gradio's servers: whoever knows it can use the page."""

    def run(self) -> None:
        """Serve it."""
        from linkcontext.models.load import load
        from linkcontext.teach.app import serve

        serve(load(self.model), Path(self.runs), self.port, self.share)


@dataclass(frozen=True, slots=True)
class Mini:
    """The bundled models: build them from nothing, or find their folders."""

    action: Annotated[
        Annotated[Build, tyro.conf.subcommand("build")] | Annotated[Where, tyro.conf.subcommand("path")],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> None:
        """Do what was asked."""
        self.action.run()


@dataclass(frozen=True, slots=True)
class Mine:
    """Rank each class's neighbours by a CLIP or SigLIP: which classes are hard to tell apart.

    Killed and started again it goes on where it was; `accelerate launch -m linkcontext mine ...` shares the work.
    """

    data: str
    """A folder of class folders, `digits`, `world:SEED`, hf:NAME, imagenet-900:DIR, ..."""
    out: str
    """The file to write, neighbours.jsonl say; what it was made from stands beside it."""
    encoder: str = "mini-clip"
    """`mini-clip` (bundled), a folder, or a Hugging Face id of a CLIP or SigLIP."""
    images_per_class: int = 100
    weights: Annotated[tuple[float, ...], tyro.conf.arg(metavar="TT IT II")] = (0.5, 0.8, 0.5)
    """Of text to text, image to text and image to image."""
    rule: Literal["topk", "linear", "intervals"] = "linear"
    """topk or linear: the 100 nearest; intervals: one class of each of 36 parts of the ranking."""
    split: str | None = None
    """Take pictures of this split only."""
    seed: int = 0
    """Which pictures and, with intervals, which classes are drawn."""
    sheet: str | None = None
    """Also draw classes beside their nearest, middle and farthest neighbours (PNG)."""

    def run(self) -> None:
        """Rank them."""
        from linkcontext.mining.embed import mine
        from linkcontext.source import open_data

        picture = Path(self.sheet) if self.sheet else None
        made = (self.encoder, self.images_per_class, self.weights, self.rule, self.split, self.seed)
        if mine(open_data(self.data), Path(self.out), *made, picture):
            console.print(f"neighbours: {self.out}", markup=False)


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
    tflops: float | None = None
    """With --dry-run: the rate that one of your GPUs sustains. Without it no hours are told."""

    def run(self) -> None:
        """Train, or say what it would take."""
        config = self.config
        if self.preset is not None:
            from linkcontext.train.preset import with_preset

            config = with_preset(config, self.preset)
        if self.curriculum is not None and self.dry_run:
            raise InputError("--curriculum --dry-run: a dry run is of one training. Give one stage's flags instead.")
        if self.dry_run:
            from linkcontext.train.preset import dry_run

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

    def run(self) -> None:
        """Teach."""
        from linkcontext.episodes.prompt import scaffold
        from linkcontext.models.load import load
        from linkcontext.source import open_data
        from linkcontext.teach.learner import Learner
        from linkcontext.teach.pack import named_pictures, read_pack, write_pack

        out = Path(self.out)
        earlier = read_pack(out) if out.exists() else None
        dataset = open_data(self.data, self.strict)
        named = named_pictures(dataset, self.classes)
        for problem in dataset.problems:
            console.print(problem, style="yellow", markup=False, soft_wrap=True)
        if earlier is not None:
            learner = earlier.learner(load(self.model or earlier.model))
        else:
            model = load(self.model or "mini")
            learner = Learner(model, scaffold(self.scaffold), {}, self.shots_per_class, self.select)
        learner.teach(named)
        licence = self.licence if self.licence is not None else earlier.licence if earlier else ""
        pack = write_pack(learner, out, licence, self.state)
        console.print("\n".join(pack.describe()), markup=False, soft_wrap=True)


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
    """Another model than the pack's; it is taught from the pictures again."""
    json: bool = False
    """Print a JSON object for each picture."""

    def run(self) -> None:
        """Ask."""
        import dataclasses
        import json

        from linkcontext.models.load import load
        from linkcontext.teach.pack import operating, read_pack

        pack = read_pack(Path(self.pack))
        if missing := [picture for picture in self.pictures if not Path(picture).is_file()]:
            raise InputError(f"{missing[0]}: no such picture.")
        if not self.pictures:
            raise InputError("name a picture to ask about.")
        learner = pack.learner(load(self.model or pack.model))
        if not self.json and self.question is None:
            console.print(operating(learner.point), markup=False, soft_wrap=True)
        for picture in self.pictures:
            if self.question is not None:
                said: dict[str, Any] = {"picture": picture, "reply": learner.say(picture, self.question)}
                line = f"{picture}: {said['reply']}"
            else:
                answer = learner.ask(picture)
                said = {"picture": picture, **dataclasses.asdict(answer)}
                said["nearest"] = [{**near, "path": str(learner.path(near["picture"]))} for near in said["nearest"]]
                line = f"{picture}: {learner.told(answer)}"
            print(json.dumps(said, ensure_ascii=False)) if self.json else console.print(
                line, markup=False, soft_wrap=True
            )


@dataclass(frozen=True, slots=True)
class ChangePack:
    """Look into a pack, take names away, rename them, or put another pack's into it. It is changed in place."""

    pack: Annotated[str, tyro.conf.Positional]
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

    def run(self) -> None:
        """Look, or change."""
        from linkcontext.models.load import load
        from linkcontext.teach.pack import merge, read_pack, write_pack

        pack = read_pack(Path(self.pack))
        others = [read_pack(Path(other)) for other in self.merge]
        if self.remove or self.rename or others or self.licence is not None or self.out:
            model = load(pack.model)
            learner = pack.learner(model)
            for name in self.remove:
                learner.forget(name)
            for old, new in self.rename:
                learner.rename(old, new)
            for other in others:
                merge(learner, other.learner(model))
            licence = pack.licence if self.licence is None else self.licence
            pack = write_pack(learner, Path(self.out or self.pack), licence)
        console.print("\n".join(pack.describe()), markup=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Serve:
    """Put a model, and what it was taught, behind an endpoint that clients of OpenAI's talk to (docs/serve.md)."""

    model: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)
    pack: tuple[str, ...] = ()
    """NAME=FILE: a pack that `linkcontext teach` wrote. Who asks for the model NAME is answered after its pictures."""
    host: str = "127.0.0.1"
    """Where to listen. At any but this machine's own address, whoever reaches it can ask: there is no password."""
    port: int = 8000
    queue: int = 64
    """Requests in the house at once; others are sent away with 429."""
    body_mb: float = 32
    """Of one request, with its pictures."""
    new_tokens: int = 512
    """Of one answer, at most."""
    hold_gb: float = 1.0
    """What may be kept of conversations, so that one that goes on costs its new tokens alone. 0: nothing."""

    def run(self) -> None:
        """Answer until stopped."""
        for flag, value in (("queue", self.queue), ("body-mb", self.body_mb), ("new-tokens", self.new_tokens)):
            if value <= 0:
                raise InputError(f"--{flag} {value}: must be above 0.")
        if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
            raise InputError("serve needs the fastapi and uvicorn packages: pip install 'linkcontext[serve]'.")
        from linkcontext.models.load import load
        from linkcontext.teach.serve import Limits, serve

        c = self.model
        model = load(c.model, c.dtype, c.device, c.adapter, c.trust_remote_code, c.load_in_4bit)
        packs = [(text.partition("=")[0], Path(text.partition("=")[2])) for text in self.pack]
        if wrong := [text for text, (_, path) in zip(self.pack, packs, strict=True) if not path.name]:
            raise InputError(f"--pack {wrong[0]}: say under which name it is served: NAME=FILE.")
        limits = Limits(self.queue, int(self.body_mb * 1e6), self.new_tokens, int(self.hold_gb * 1e9))
        console.print(
            f"{', '.join([c.model, *(name for name, _ in packs)])} at http://{self.host}:{self.port}/v1", markup=False
        )
        serve(Path(c.model).name, model, self.host, self.port, limits, packs)


@dataclass(frozen=True, slots=True)
class Info:
    """Show what picture features are kept, for which encoders, and how much room they take."""

    def run(self) -> None:
        """Show it."""
        from linkcontext.models.features import info, root

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
        from linkcontext.models.features import clear, root

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


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Bad input is a sentence on stderr and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    commands: dict[str, Any] = {
        "world": World,
        "data": Data,
        "episodes": Episodes,
        "validate": Validate,
        "eval": Eval,
        "probe": Probe,
        "report": Report,
        "compare": Compare,
        "mine": Mine,
        "train": Train,
        "serve": Serve,
        "mini": Mini,
        "cache": Cache,
        "demo": Demo,
        "teach": Teach,
        "ask": AskPack,
        "pack": ChangePack,
        "chat": Chat,
        "app": App,
    }
    try:
        command = tyro.extras.subcommand_cli_from_dict(
            commands, args=arguments, prog="linkcontext", description=__doc__
        )
        command.run()
    except InputError as error:
        print(f"linkcontext: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        print(
            f"\nlinkcontext: stopped. Start the same command again to go on: linkcontext {shlex.join(sys.argv[1:])}",
            file=sys.stderr,
        )
        raise SystemExit(130) from error
