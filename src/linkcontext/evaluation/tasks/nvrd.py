"""nvrd: how far a thing may change until a model no longer gives it its word, after NVRD (arXiv 2606.05409).

The support shows the unchanged pictures of `ways` objects with their nonce words; the queries are changed pictures of
the same objects. There are episodes for each category and range of severity, which make the severity curve, and for
each kind of change at all severities.
"""

import dataclasses
import re
from collections.abc import Iterator
from functools import partial

from linkcontext.config import EpisodeConfig, flags
from linkcontext.data.manifest import Dataset
from linkcontext.data.readers.nvrd import LAYOUT, ORIGINAL
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.scaffold import Scaffold
from linkcontext.errors import InputError
from linkcontext.evaluation.task import EpisodeSet, Task, TaskOptions, episode_run_name
from linkcontext.records import Episode
from linkcontext.source import open_data

BAND = 5  # levels of severity in a row
READ = ("data", "ways", "episodes", "queries", "names", "seed", "strict")
CHANGED = "changed"  # the split of the queries of a row


def _configure(options: TaskOptions) -> TaskOptions:
    """The options with one shot per class, because each object has one unchanged picture, and the file's own words.

    Raises `InputError` for options that the benchmark sets itself, and without --data nvrd:DIR.
    """
    e, default = options.episodes, EpisodeConfig()
    kept = dataclasses.replace(default, **{name: getattr(e, name) for name in READ}, shots=(1,))
    shots = e.shots if e.shots == default.shots else kept.shots
    if idle := flags(e, dataclasses.replace(kept, shots=shots)):
        raise InputError(
            f"{', '.join(idle)}: --benchmark nvrd sets this itself, with one unchanged picture of each object. "
            "Leave it out."
        )
    if not e.data.startswith("nvrd:"):
        raise InputError(f"--benchmark nvrd needs --data nvrd:DIR, where DIR is {LAYOUT}.")
    names = "real" if e.names == default.names else e.names
    return dataclasses.replace(options, episodes=dataclasses.replace(kept, names=names))


def _run_name(model: str, options: TaskOptions) -> str:
    """The default name of the folder of a run."""
    return f"{episode_run_name(model, options)}-severity"


def _open(options: EpisodeConfig, _: Scaffold) -> EpisodeSet:
    """Draw --episodes episodes for each row. Raises `InputError` if no row has enough objects."""
    return _draw_rows(options, open_data(options.data, options.strict))


def _draw_rows(options: EpisodeConfig, dataset: Dataset) -> EpisodeSet:
    episodes: list[Episode] = []
    left_out: list[str] = []
    plan = dataclasses.replace(options.plan(), support_split=ORIGINAL, query_split=CHANGED)
    for row, part in _rows(dataset):
        try:
            sampled = sample_episodes(part, plan)
        except InputError as error:
            left_out.append(f"{row}: left out, {error}")
            continue
        left_out += [f"{row}, {left.class_id}: left out, {left.shortfall}" for left in sampled.left_out]
        prefix = re.sub(r"\W+", "-", row)
        episodes += [dataclasses.replace(e, id=f"{prefix}-{e.id}", task=row) for e in sampled.episodes]
    if not episodes:
        raise InputError(f"{options.data}: no episode can be drawn. {' '.join(left_out[:1])}")
    return EpisodeSet(dataset, tuple(episodes), left_out, partial(_draw_rows, options))


def _rows(dataset: Dataset) -> Iterator[tuple[str, Dataset]]:
    """The name of each row, and its pictures: the originals, and changed pictures in the split `CHANGED`."""
    changed = [item for item in dataset.items if item.split != ORIGINAL]
    for category in dict.fromkeys(item.facts["category"] for item in dataset.items):
        of_category = [item for item in dataset.items if item.facts["category"] == category]
        bands = sorted({(item.facts["severity"] - 1) // BAND for item in of_category if item.split != ORIGINAL})
        for band in bands:
            name = f"nvrd {category}, severity {band * BAND + 1:02d}-{(band + 1) * BAND:02d}"
            yield name, _part(dataset, {i.id for i in of_category if (i.facts["severity"] - 1) // BAND == band})
    for change in sorted({item.facts["change"] for item in changed}):
        yield f"nvrd change: {change}", _part(dataset, {i.id for i in changed if i.facts["change"] == change})


def _part(dataset: Dataset, queried: set[str]) -> Dataset:
    """The originals of the objects that the queried pictures show, and these pictures in the split `CHANGED`."""
    objects = {item.class_id for item in dataset.items if item.id in queried}
    originals = [i for i in dataset.items if i.split == ORIGINAL and i.class_id in objects]
    queries = [dataclasses.replace(i, split=CHANGED) for i in dataset.items if i.id in queried]
    return dataclasses.replace(dataset, items=(*originals, *queries))


NVRD = Task(_open, _configure, _run_name)
