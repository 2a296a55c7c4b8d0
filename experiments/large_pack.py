"""Packs of up to 1,000 names with 16 pictures each. Run: `python experiments/large_pack.py`; `--toy` for a dry run.

Things of one procedural world are taught under their own names, ever more of them, and pictures that were not taught
are asked about, by the head that `auto` chooses, by the nearest class mean (`centroid`) and by the language model
(`lm`). Where not four pictures of every name fit its context, the language model sees the 16 taught pictures most
similar to the query and chooses among their names. Writes experiments/large_pack.json and prints the table of
docs/teaching.md.
"""

import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import tyro
from table import RESULTS, listed, machine

from linkcontext.config import HeadName
from linkcontext.data.manifest import Dataset
from linkcontext.evaluation.intervals import clustered_wilson
from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.seeds import rng
from linkcontext.storage import write_text
from linkcontext.teach.learner import Learner
from linkcontext.teach.support import retrieves, shown_pictures, shown_support
from linkcontext.worlds.folder import write_seed

HEADS = ("auto", "centroid", "lm")


@dataclass
class Large:
    """Teach ever more names, and ask."""

    model: str = "mini"
    names: tuple[int, ...] = (10, 30, 100, 300, 1000)
    shown: int = 16
    """Pictures of each name."""
    asked: int = 200
    """Pictures, at most one of each name."""
    seed: int = 9501
    """Of the world."""
    toy: bool = False
    """Tiny, to see that it runs."""


def measured(config: Large, model: LocalModel, world: Dataset, count: int) -> dict:
    """The figures of one number of names. Of every two things that follow each other, one is much like the other."""
    classes = [*world.by_class().values()][:count]
    pictures = {items[0].name: [world.path(item.id) for item in items] for items in classes}
    learner = Learner(model)
    begun = time.perf_counter()
    learner.teach({name: own[: config.shown] for name, own in pictures.items()})
    row: dict = {"names": count, "pictures": len(learner.pictures.ids), "teach_s": time.perf_counter() - begun}
    chosen = rng("large pack", count).permutation(count)[: config.asked]
    queries = [([*pictures][place], [*pictures.values()][place][config.shown]) for place in chosen]
    for head in HEADS:
        learner.head = cast("HeadName", head)
        begun = time.perf_counter()
        choice = learner.choose_head()
        learner.ask(queries[0][1])  # what is kept for later questions is made with the first
        first = time.perf_counter() - begun
        begun = time.perf_counter()
        answers = learner.ask([path for _, path in queries])
        seconds = (time.perf_counter() - begun) / len(queries)
        right = [
            max(each.probabilities, key=each.probabilities.__getitem__) == name
            for each, (name, _) in zip(answers, queries, strict=True)
        ]
        accuracy = {"accuracy": sum(right) / len(right), "ci95": clustered_wilson(right, [name for name, _ in queries])}
        row[head] = {**accuracy, "n": len(right), "first_s": first, "each_s": seconds, "head": choice.head}
        print(f"  {count} names, {head}: {row[head]['accuracy']:.3f}", file=sys.stderr, flush=True)
    row["in_support"] = in_support(learner, queries)
    row["support"] = shown_pictures(learner).retrieved or len(shown_support(learner))
    return row


def in_support(learner: Learner, queries: list[tuple[str, Path]]) -> float:
    """How often the right name is in the support of a query."""
    if not retrieves(learner):
        return 1.0
    turns = [(name, learner.support_for(learner.query(path)).turns) for name, path in queries]
    return sum(any(turn.answer == name for turn in support) for name, support in turns) / len(turns)


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    head = ["names", "pictures", "shown to lm", "right name among them", "auto chose"]
    head += [f"{name}: right [95 %]" for name in HEADS] + [
        "teach, s",
        "first answer of auto, s",
        "then each, s",
        "lm: each, s",
    ]
    lines = []
    for row in rows:
        cells = [f"{row['names']:,}", f"{row['pictures']:,}", str(row["support"]), f"{row['in_support']:.3f}"]
        cells += [row["auto"]["head"]]
        cells += [
            f"{row[name]['accuracy']:.3f} [{row[name]['ci95'][0]:.3f}, {row[name]['ci95'][1]:.3f}]" for name in HEADS
        ]
        cells += [f"{row['teach_s']:.0f}", f"{row['auto']['first_s']:.0f}"]
        cells += [f"{row['auto']['each_s']:.3f}", f"{row['lm']['each_s']:.2f}"]
        lines.append(cells)
    return listed(head, lines)


def main() -> None:
    config = tyro.cli(Large, description=__doc__)
    if config.toy:
        config = replace(config, names=(3, 5), shown=2, asked=3)
    about = machine("cpu")
    model, rows = LocalModel(load_model(config.model)), []
    with tempfile.TemporaryDirectory() as temporary:
        world = write_seed(Path(temporary) / "world", max(config.names), config.shown + 1, config.seed)
        rows = [measured(config, model, world, count) for count in config.names]
    print(table(rows))
    if not config.toy:
        found = {"machine": about, "table": vars(config), "rows": rows}
        write_text(json.dumps(found) + "\n", RESULTS / "large_pack.json")


if __name__ == "__main__":
    main()
