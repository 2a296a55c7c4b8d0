"""What is looked at: worlds, data sets, episodes, neighbours."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from linkcontext.cli.terminal import console, print_problems
from linkcontext.config import EpisodeConfig
from linkcontext.data.neighbours import RankingRule
from linkcontext.data.writers import ConversationLayout
from linkcontext.errors import InputError
from linkcontext.models.prompting import Prompting
from linkcontext.source import FILE_FORMATS, data_help, layout_help


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
        from linkcontext.storage import write_folder

        for flag, value, least in (
            ("classes", self.classes, 2),
            ("images", self.images, 1),
            ("size", self.size, 16),
        ):
            if value < least:
                raise InputError(f"--{flag} {value}: at least {least} is needed.")
        if self.isekai and self.classes % 2:
            raise InputError(f"--classes {self.classes}: --isekai is made of pairs. Give an even number.")
        count = write_folder(Path(self.out), self._write)
        console.print(f"{count} pictures of {self.classes} things in {self.out}", soft_wrap=True)
        if self.sheet:
            console.print(f"contact sheet: {self.sheet}", soft_wrap=True)

    def _write(self, folder: Path) -> int:
        """Draw everything into a folder that takes the place of --out; the number of pictures."""
        from linkcontext.worlds.folder import contact_sheet, write_seed
        from linkcontext.worlds.isekai import write_isekai

        if self.isekai:
            dataset = write_isekai(folder, self.isekai, self.seed, self.classes // 2, self.images, self.size)
        else:
            dataset = write_seed(folder, self.classes, self.images, self.seed, self.size)
        if self.sheet:
            sheet, out = Path(self.sheet).absolute(), Path(self.out).absolute()
            contact_sheet(dataset, folder / sheet.relative_to(out) if sheet.is_relative_to(out) else sheet)
        return len(dataset.items)


@dataclass(frozen=True, slots=True)
class Data:
    """Summarise a data set: its classes and splits, and the pictures that cannot be used. --write adds a manifest.

    With --layout, check the records of another tool's file. With --out too, write them as a folder that is read here:
    pictures with questions, or conversations.json (docs/data.md).
    """

    data: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(help=data_help("With --layout a file or folder, or hf:NAME. Otherwise one of")),
    ]
    strict: bool = False
    """Fail on the first bad picture or record."""
    write: bool = False
    """Write manifest.jsonl into the folder."""
    layout: Annotated[str | None, tyro.conf.arg(help=layout_help(), metavar=f"{{{','.join(FILE_FORMATS)}}}")] = None
    images: str | None = None
    """With --layout: the folder of the pictures. Default: that of the file."""
    out: str | None = None
    """With --layout: the folder to write; it must be new or empty."""

    def run(self) -> None:
        """Summarise the data set, or import the file."""
        if self.layout is not None:
            self._import(self.layout)
            return
        if self.images or self.out:
            raise InputError("--images, --out: these belong to --layout, which reads the files of other tools.")
        from linkcontext.data.copies import repeated
        from linkcontext.data.manifest import digest, write_manifest
        from linkcontext.source import open_data

        dataset = open_data(self.data, self.strict)
        classes = dataset.by_class()
        counts = sorted(len(items) for items in classes.values())
        splits = sorted({split or "(none)" for item in dataset.items for split in item.splits()})
        console.print(
            f"{dataset.root}: {len(dataset.items)} pictures, {len(classes)} classes of {counts[0]} to {counts[-1]}",
            soft_wrap=True,
        )
        console.print(f"splits: {', '.join(splits)}   digest: {digest(dataset)[:16]}")
        print_problems([*repeated(dataset), *dataset.problems])
        if self.write:
            write_manifest(dataset)

    def _import(self, layout: str) -> None:
        from linkcontext.source import import_files

        if self.write:
            raise InputError("--write: with --layout, say --out instead, which writes a folder of its own.")
        report = import_files(layout, self.data, self.images, self.out, self.strict)
        for line in report.contents:
            console.print(line, markup=False, soft_wrap=True)
        print_problems(report.problems)
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
    export: ConversationLayout | None = None
    """Write conversations for other tools into --out instead, a list or, called .jsonl, JSON lines: LLaVA's layout;
    messages + images for LLaMA-Factory and ms-swift; TRL's columns."""
    supervise: Literal["every", "query"] = "every"
    """With --export: which answers are to be learnt. query: the last of each conversation."""
    model: str = "mini"
    """With --show: the model whose chat template and tokenizer are used. Its weights are not loaded."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Only for models whose authors you trust."""
    prompting: Annotated[Prompting, tyro.conf.arg(name="")] = field(default_factory=Prompting)

    def run(self) -> None:
        """Draw them."""
        if self.export and not self.out:
            raise InputError(f"--export {self.export}: say with --out which file to write.")
        from linkcontext.evaluation.draw import draw_configured
        from linkcontext.records import write_jsonl
        from linkcontext.source import open_data

        dataset = open_data(self.episodes.data, self.episodes.strict)
        sampled = draw_configured(self.episodes, dataset)
        left_out = [f"left out: {out.class_id} ({out.shortfall})" for out in sampled.left_out]
        print_problems([*left_out, *dataset.problems])
        if self.out and self.export:
            from linkcontext.data.writers import write_conversations
            from linkcontext.episodes.export import export_conversations
            from linkcontext.episodes.scaffold import load_scaffold, refuse_scaffold
            from linkcontext.episodes.special_tokens import USUAL_MARKS, refuse_marked_episodes

            refuse_scaffold(load_scaffold(self.scaffold), USUAL_MARKS)
            refuse_marked_episodes(sampled.episodes, USUAL_MARKS)
            exported = export_conversations(sampled.episodes, dataset, load_scaffold(self.scaffold), self.supervise)
            write_conversations(exported, Path(self.out), self.export)
            console.print(f"conversations of {len(sampled.episodes)} episodes in {self.out}", soft_wrap=True)
        elif self.out:
            write_jsonl(sampled.episodes, Path(self.out))
            console.print(f"{len(sampled.episodes)} episodes in {self.out}", soft_wrap=True)
        if self.show:
            self._show(sampled.episodes[: self.show])

    def _show(self, episodes: "tuple[object, ...]") -> None:
        from linkcontext.episodes.render import colour_labels, encode
        from linkcontext.episodes.scaffold import load_scaffold, query_messages
        from linkcontext.models.loading import load_chat_template
        from linkcontext.records import Episode
        from linkcontext.report.tree_drawing import draw_episode

        template = load_chat_template(self.model, self.trust_remote_code, self.prompting)
        for episode in episodes:
            assert isinstance(episode, Episode)
            messages = query_messages(
                episode, 0, episode.shots_per_class[-1], load_scaffold(self.scaffold), episode.queries[0].answer
            )
            console.rule(episode.id)
            if self.tree:
                words = template.processor.tokenizer
                mark = words.convert_tokens_to_ids(template.processor.image_token)
                print(draw_episode(episode, load_scaffold(self.scaffold), template, mark, words.decode))
                continue
            shown = colour_labels(encode(messages, template, "every"), template.processor.tokenizer.decode)
            console.print(shown, markup=True)


@dataclass(frozen=True, slots=True)
class Mine:
    """Rank each class's neighbours by a CLIP or SigLIP: which classes are hard to tell apart.

    Killed and started again it goes on where it was; `accelerate launch -m linkcontext mine ...` shares the work.
    """

    data: Annotated[str, tyro.conf.arg(help=data_help())]
    out: str
    """The file to write, neighbours.jsonl say; what it was made from stands beside it."""
    encoder: str = "mini-clip"
    """`mini-clip` (bundled), a folder, or a Hugging Face id of a CLIP or SigLIP."""
    images_per_class: int = 100
    weights: Annotated[tuple[float, ...], tyro.conf.arg(metavar="TT IT II")] = (0.5, 0.8, 0.5)
    """Of text to text, image to text and image to image."""
    rule: RankingRule = "linear"
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
        dataset = open_data(self.data)
        print_problems(dataset.problems)
        if mine(dataset, Path(self.out), *made, picture):
            console.print(f"neighbours: {self.out}", soft_wrap=True)
