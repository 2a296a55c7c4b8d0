"""What benchmarks share whose questions bring their own examples: their pictures, and their options."""

from collections.abc import Iterable
from pathlib import Path

from linkcontext.config import EpisodeConfig
from linkcontext.data.images import open_image, sha256
from linkcontext.data.manifest import Dataset
from linkcontext.data.problems import Problems
from linkcontext.episodes.scaffold import image_ids
from linkcontext.errors import InputError
from linkcontext.evaluation.task import TaskOptions
from linkcontext.evaluation.tasks.recall_questions import RecallQuestion
from linkcontext.evaluation.tasks.retention import configure_questions
from linkcontext.records import Item


def configure_own_context(benchmark: str, hub: str, options: TaskOptions) -> TaskOptions:
    """The options of the benchmark. Raises `InputError` for those of drawn episodes, and without --data."""
    if options.episodes.data == EpisodeConfig().data:
        raise InputError(f"--benchmark {benchmark} needs --data: {hub}, a parquet file, or a folder of one.")
    return configure_questions(benchmark, "brings its own examples", options)


def own_context_run_name(benchmark: str, model: str, options: TaskOptions) -> str:
    """The default name of the folder of a run."""
    e = options.episodes
    return "-".join((Path(model).name, benchmark, Path(e.data).stem, f"seed{e.seed}"))


def with_pictures(
    questions: Iterable[RecallQuestion], folder: Path, problems: Problems
) -> tuple[Dataset, tuple[RecallQuestion, ...]]:
    """The pictures of the questions, and the questions without those about a picture that cannot be opened.

    Raises `InputError` if no question is left.
    """
    items: dict[str, Item | None] = {}
    kept = []
    for question in questions:
        for path in image_ids(question.messages):
            if path not in items:
                items[path] = None
                with problems.leaving_out():
                    open_image(folder / path)
                    items[path] = Item(path, path, "", "", sha256(folder / path))
        if all(items[path] is not None for path in image_ids(question.messages)):
            kept.append(question)
    if not kept:
        raise problems.nothing_usable(str(folder), "question")
    used = {path for question in kept for path in image_ids(question.messages)}
    there = tuple(item for path, item in items.items() if item is not None and path in used)
    return Dataset(folder, there, tuple(problems.sentences)), tuple(kept)
