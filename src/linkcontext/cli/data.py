"""The commands about data: world, data, episodes and mine."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from linkcontext.cli.terminal import console, print_problems
from linkcontext.config import EpisodeConfig
from linkcontext.data.neighbours import RankingRule
from linkcontext.data.writers import ConversationLayout
from linkcontext.errors import InputError, counted
from linkcontext.launch import is_main_process
from linkcontext.metavars import (
    WITHOUT_DEFAULT,
    File,
    Folder,
    ModelName,
    OptionalFile,
    OptionalFolder,
    OptionalName,
    ScaffoldName,
)
from linkcontext.models.prompting import Prompting
from linkcontext.source import FILE_FORMATS, data_help, layout_help

if TYPE_CHECKING:
    from linkcontext.data.manifest import Dataset
    from linkcontext.records import Episode


@dataclass(frozen=True, slots=True)
class World:
    """Draw a world of invented things into class folders, with a manifest of the facts about each picture.

    Every second class is a hard negative of the class before it: one or two attributes differ.
    """

    out: Folder
    """The folder to write; it must be new or empty."""
    classes: int = 20
    """Number of things, each of which is a class."""
    images: int = 32
    """Pictures per class."""
    seed: int = 0
    """Each seed draws another world. No bundled model was trained on any of them."""
    size: int = 64
    """Width and height of a picture in pixels."""
    sheet: OptionalFile = None
    """Also write a contact sheet (PNG). Place it outside of --out, or it will be read as one of the pictures."""
    isekai: Annotated[Literal["10", "pair"] | None, tyro.conf.DisallowNone, WITHOUT_DEFAULT] = None
    """Also write the records of the ISEKAI benchmark in its published layout, for `eval --benchmark isekai`. 10: pairs
    of a new thing and a similar one that mini-base was taught by name; pair: pairs of new things."""

    def run(self) -> None:
        """Draw the world, and print what was written."""
        from linkcontext.storage import write_folder

        for flag, value, least in (
            ("classes", self.classes, 2),
            ("images", self.images, 1),
            ("size", self.size, 16),
        ):
            if value < least:
                raise InputError(f"--{flag} {value}: at least {least} is needed.")
        if self.isekai and self.classes % 2:
            raise InputError(f"--classes {self.classes}: --isekai needs pairs of classes. Give an even number.")
        count = write_folder(Path(self.out), self._write)
        console.print(f"{counted(count, 'picture')} of {self.classes} things in {self.out}", soft_wrap=True)
        if self.sheet:
            console.print(f"contact sheet: {self.sheet}", soft_wrap=True)

    def _write(self, folder: Path) -> int:
        """Draw the world into a folder that is renamed to --out; return the number of pictures."""
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
        tyro.conf.arg(metavar="DATA", help=data_help("With --layout a file or folder, or hf:NAME. Otherwise one of")),
    ]
    strict: bool = False
    """Fail on the first bad picture or record."""
    write: bool = False
    """Write manifest.jsonl into the folder."""
    layout: Annotated[
        str | None,
        tyro.conf.arg(help=layout_help(), metavar=f"{{{','.join(FILE_FORMATS)}}}", help_behavior_hint=""),
    ] = None
    images: OptionalFolder = None
    """With --layout: the folder of the pictures. Default: that of the file."""
    out: OptionalFolder = None
    """With --layout: the folder to write; it must be new or empty."""

    def run(self) -> None:
        """Summarise the data set, or import the file."""
        if self.layout is not None:
            self._import(self.layout)
            return
        if self.images or self.out:
            raise InputError("--images, --out: these flags need --layout, which reads the files of other tools.")
        from linkcontext.data.copies import copy_sentences
        from linkcontext.data.manifest import digest, write_manifest
        from linkcontext.source import open_data

        dataset = open_data(self.data, self.strict)
        classes = dataset.by_class()
        counts = sorted(len(items) for items in classes.values())
        splits = sorted({split or "(none)" for item in dataset.items for split in item.splits()})
        pictures, of_classes = counted(len(dataset.items), "picture"), counted(len(classes), "class")
        console.print(f"{dataset.root}: {pictures}, {of_classes} of {counts[0]} to {counts[-1]}", soft_wrap=True)
        console.print(f"splits: {', '.join(splits)}   digest: {digest(dataset)[:16]}")
        print_problems([*copy_sentences(dataset), *dataset.problems])
        if self.write:
            write_manifest(dataset)

    def _import(self, layout: str) -> None:
        from linkcontext.source import import_files

        if self.write:
            raise InputError("--write: with --layout, give --out instead, which writes a folder of its own.")
        report = import_files(layout, self.data, self.images, self.out, self.strict)
        for line in report.contents:
            console.print(line, markup=False, soft_wrap=True)
        print_problems(report.problems)
        if self.out:
            console.print(f"written: {self.out}", markup=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Episodes:
    """Draw episodes: supports, their names, and queries. They hold the ids of pictures, not the pictures."""

    episodes: Annotated[EpisodeConfig, tyro.conf.arg(name="episode")] = field(default_factory=EpisodeConfig)
    out: OptionalFile = None
    """The file to write, for example episodes.jsonl."""
    show: int = 0
    """Print this many prompts as the model reads them. Tokens that carry loss in training are green."""
    tree: bool = False
    """With --show: print the prefix tree of all shot counts, queries and candidates instead, each picture as one
    token."""
    scaffold: ScaffoldName = "turns"
    """The wording around the pictures: turns, single_turn, lcl, or a JSON file."""
    export: Annotated[ConversationLayout | Literal["lmms-eval"] | None, tyro.conf.DisallowNone, WITHOUT_DEFAULT] = None
    """Write for other tools to --out instead. Conversations in LLaVA's layout, as messages + images (LLaMA-Factory and
    ms-swift) or with TRL's columns; a file named .jsonl gets JSON lines, another one a list. lmms-eval: a folder with
    tasks and pictures, which lmms-eval loads with --include_path."""
    supervise: Literal["every", "query"] = "every"
    """With --export of conversations: which answers carry loss: every answer, or only that of the query, which is the
    last."""
    model: ModelName = "mini"
    """With --show: the model whose chat template and tokenizer are used. Its weights are not loaded."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Use it only for models whose authors you trust."""
    prompting: Annotated[Prompting, tyro.conf.arg(name="reply")] = field(default_factory=Prompting)

    def run(self) -> None:
        """Draw the episodes, and write or print them."""
        if self.export and not self.out:
            what = "folder" if self.export == "lmms-eval" else "file"
            raise InputError(f"--export {self.export}: also give --out, the {what} to write.")
        if not (self.out or self.show):
            raise InputError("episodes: give --out FILE to write them, --show 1 to look at one, or both.")
        from linkcontext.evaluation.draw import draw_configured, with_fitting_shots
        from linkcontext.jsonl import write_jsonl
        from linkcontext.source import open_data

        dataset = open_data(self.episodes.data, self.episodes.strict)
        fitting, sentences = with_fitting_shots(self.episodes, dataset)
        sampled = draw_configured(fitting, dataset)
        left_out = [f"left out: {out.class_id} ({out.shortfall})" for out in sampled.left_out]
        print_problems([*sentences, *left_out, *dataset.problems])
        if self.out and self.export:
            self._export(sampled.episodes, dataset)
        elif self.out:
            write_jsonl(sampled.episodes, Path(self.out))
            console.print(f"{counted(len(sampled.episodes), 'episode')} in {self.out}", soft_wrap=True)
        if self.show:
            self._show(sampled.episodes[: self.show])

    def _export(self, episodes: "tuple[Episode, ...]", dataset: "Dataset") -> None:
        """Write the episodes for another tool."""
        from linkcontext.data.writers import write_conversations
        from linkcontext.episodes.export import export_conversations
        from linkcontext.episodes.scaffold import load_scaffold, refuse_scaffold
        from linkcontext.episodes.special_tokens import USUAL_MARKS, refuse_marked_episodes
        from linkcontext.integrations.lmms_eval_export import export_lmms_eval

        assert self.out is not None
        assert self.export is not None
        scaffold, out = load_scaffold(self.scaffold), Path(self.out)
        refuse_scaffold(scaffold, USUAL_MARKS)
        refuse_marked_episodes(episodes, USUAL_MARKS)
        if self.export == "lmms-eval":
            task = export_lmms_eval(episodes, dataset, scaffold, out, self.prompting.reply_tokens)
            console.print(
                f"tasks {task} and {task}_likelihood of {counted(len(episodes), 'episode')} in {self.out}",
                soft_wrap=True,
            )
            return
        write_conversations(export_conversations(episodes, dataset, scaffold, self.supervise), out, self.export)
        console.print(f"conversations of {counted(len(episodes), 'episode')} in {self.out}", soft_wrap=True)

    def _show(self, episodes: "tuple[object, ...]") -> None:
        from linkcontext.episodes.render import colour_labels, encode
        from linkcontext.episodes.scaffold import load_scaffold, query_messages
        from linkcontext.models.loading import load_chat_template
        from linkcontext.records import Episode
        from linkcontext.report.tree_drawing import draw_episode_tree

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
                print(draw_episode_tree(episode, load_scaffold(self.scaffold), template, mark, words.decode))
                continue
            shown = colour_labels(encode(messages, template, "every"), template.processor.tokenizer.decode)
            console.print(shown, markup=True)


@dataclass(frozen=True, slots=True)
class Mine:
    """Rank the neighbours of each class by a CLIP or SigLIP model, to find classes that are hard to tell apart.

    To resume after an interruption, run the same command again. `accelerate launch -m linkcontext mine ...` divides the
    work among processes.
    """

    data: Annotated[str, tyro.conf.arg(metavar="DATA", help=data_help())]
    out: File
    """The file to write, for example neighbours.jsonl. A JSON file beside it records what it was made from."""
    encoder: ModelName = "mini-clip"
    """A CLIP or SigLIP model: `mini-clip` (bundled), a folder, or a Hugging Face id."""
    images_per_class: int = 100
    """Maximum number of pictures per class, drawn at random."""
    weights: Annotated[tuple[float, ...], tyro.conf.arg(metavar="TT IT II")] = (0.5, 0.8, 0.5)
    """Weights of the similarities of name to name (TT), pictures to name (IT) and pictures to pictures (II)."""
    rule: RankingRule = "linear"
    """topk or linear: the 100 nearest classes; intervals: one class from each of 36 sections of the ranking."""
    split: OptionalName = None
    """Take pictures of this split only."""
    seed: int = 0
    """The seed by which pictures and, with intervals, classes are drawn."""
    sheet: OptionalFile = None
    """Also write a picture (PNG) of classes beside their nearest, middle and farthest neighbours."""

    def run(self) -> None:
        """Rank the neighbours, and write the file."""
        from linkcontext.mining.embed import mine
        from linkcontext.source import open_data

        picture = Path(self.sheet) if self.sheet else None
        made = (self.encoder, self.images_per_class, self.weights, self.rule, self.split, self.seed)
        dataset = open_data(self.data)
        if is_main_process():
            print_problems(dataset.problems)
        if mine(dataset, Path(self.out), *made, picture):
            console.print(f"neighbours: {self.out}", soft_wrap=True)
