"""Packs that do not fit the context, asked in chunks. Run: `python experiments/chunked_pack.py`; `--toy` for a dry run.

The other way to ask about many names than retrieval (experiments/large_pack.py): names are taken ten at a time with as
many of their 16 pictures as fit the context, the language model chooses one of each ten, and the chosen ones meet in
the next round, four pictures each, until one is left. The same questions are asked as `ask` does it: in one support of
as many pictures as fit, or, where not four of each name fit, by retrieval. Writes experiments/chunked_pack.json and
prints a table.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from table import RESULTS, listed, machine

from linkcontext.data.manifest import Dataset
from linkcontext.evaluation.intervals import clustered_wilson
from linkcontext.inference.vision import chunks
from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.seeds import rng
from linkcontext.storage import write_text
from linkcontext.teach.learner import Learner
from linkcontext.worlds.folder import write_seed


@dataclass
class Chunked:
    """Ask about ever more names in chunks."""

    model: str = "mini"
    names: tuple[int, ...] = (30, 100)
    shown: int = 16
    """Pictures of each name in the first round."""
    later: int = 4
    """Pictures of each name in later rounds."""
    chunk: int = 10
    """Names of a chunk."""
    asked: int = 200
    """Pictures, at most one of each name."""
    seed: int = 9501
    """Of the world."""
    toy: bool = False
    """Tiny, to see that it runs."""


def part(whole: Learner, names: Sequence[str], shots: int | None) -> Learner:
    """A learner of some of the taught names."""
    found = Learner(whole.model, head="lm", shots_per_class=shots)
    found.pictures = whole.pictures.copy()
    found.pictures.by_name = {name: found.pictures.by_name[name] for name in names}
    return found


def winners(whole: Learner, names: Sequence[str], paths: Sequence[Path], shots: int | None) -> list[str]:
    """For each picture the name that the language model chooses among some."""
    if len(names) == 1:
        return [names[0]] * len(paths)
    answers = part(whole, names, shots).ask(paths)
    return [max(answer.probabilities, key=answer.probabilities.__getitem__) for answer in answers]


def measured(config: Chunked, model: LocalModel, world: Dataset, count: int) -> dict:
    """The figures of one number of names."""
    classes = [*world.by_class().values()][:count]
    pictures = {items[0].name: [world.path(item.id) for item in items] for items in classes}
    learner = Learner(model, head="lm")
    learner.teach({name: own[: config.shown] for name, own in pictures.items()})
    chosen = rng("large pack", count).permutation(count)[: config.asked]
    queries = [([*pictures][place], [*pictures.values()][place][config.shown]) for place in chosen]
    paths = [path for _, path in queries]
    begun = time.perf_counter()
    rounds = [winners(learner, names, paths, None) for names in chunks(learner.pictures.names, config.chunk)]
    left = [list(names) for names in zip(*rounds, strict=True)]  # the names that are left for each picture
    kept = sum(name in names for (name, _), names in zip(queries, left, strict=True)) / len(queries)
    for place, path in enumerate(paths):
        while len(left[place]) > 1:
            groups = chunks(left[place], config.chunk)
            left[place] = [winners(learner, names, [path], config.later)[0] for names in groups]
    answers = [names[0] for names in left]
    right = [answer == name for answer, (name, _) in zip(answers, queries, strict=True)]
    seconds = (time.perf_counter() - begun) / len(queries)
    begun = time.perf_counter()
    as_asked = winners(learner, learner.pictures.names, paths, None)
    by_ask = [answer == name for answer, (name, _) in zip(as_asked, queries, strict=True)]
    accuracy = sum(right) / len(right)
    print(
        f"  {count} names: {accuracy:.3f}, as ask does it {sum(by_ask) / len(right):.3f}", file=sys.stderr, flush=True
    )
    return {
        "names": count,
        "n": len(right),
        "accuracy": accuracy,
        "ci95": clustered_wilson(right, [name for name, _ in queries]),
        "right_after_first_round": kept,
        "each_s": seconds,
        "ask": sum(by_ask) / len(by_ask),
        "ask_ci95": clustered_wilson(by_ask, [name for name, _ in queries]),
        "ask_each_s": (time.perf_counter() - begun) / len(queries),
    }


def main() -> None:
    config = tyro.cli(Chunked, description=__doc__)
    if config.toy:
        config = replace(config, names=(5,), shown=2, later=1, chunk=2, asked=2)
    about = machine("cpu")
    model = LocalModel(load_model(config.model))
    with tempfile.TemporaryDirectory() as temporary:
        world = write_seed(Path(temporary) / "world", max(config.names), config.shown + 1, config.seed)
        rows = [measured(config, model, world, count) for count in config.names]
    head = ["names", "right name chosen in its chunk", "in chunks: right [95 %]", "each, s"]
    head += ["as `ask` does it: right [95 %]", "each, s"]
    lines = [
        [
            str(row["names"]),
            f"{row['right_after_first_round']:.3f}",
            f"{row['accuracy']:.3f} [{row['ci95'][0]:.3f}, {row['ci95'][1]:.3f}]",
            f"{row['each_s']:.2f}",
            f"{row['ask']:.3f} [{row['ask_ci95'][0]:.3f}, {row['ask_ci95'][1]:.3f}]",
            f"{row['ask_each_s']:.2f}",
        ]
        for row in rows
    ]
    print(listed(head, lines))
    if not config.toy:
        found = {"machine": about, "table": vars(config), "rows": rows}
        write_text(json.dumps(found) + "\n", RESULTS / "chunked_pack.json")


if __name__ == "__main__":
    main()
