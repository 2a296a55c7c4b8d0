"""isekai: the episodes of ISEKAI-10 and ISEKAI-pair, whose files `data.readers.isekai` reads.

The first k pictures of each list are the support of k shots per class. Records with the same lists and names become one
episode with many queries, which share a support.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from linkcontext.config import EpisodeConfig, flags
from linkcontext.data.copies import label_conflicts
from linkcontext.data.manifest import Dataset
from linkcontext.data.readers.isekai import HUB, LAYOUT, OWN, IsekaiRecord, isekai_file, isekai_items, read_isekai
from linkcontext.episodes.scaffold import Scaffold
from linkcontext.errors import InputError, first_few
from linkcontext.evaluation.task import EpisodeSet, Task, TaskOptions
from linkcontext.records import Candidate, Episode, Item, Turn
from linkcontext.seeds import rng


def _configure(options: TaskOptions) -> TaskOptions:
    """The options with only data, shots, seed and strict kept; the benchmark sets the rest.

    Raises `InputError` for options that only drawn episodes have, and without --data.
    """
    e, default = options.episodes, EpisodeConfig()
    kept = EpisodeConfig(data=e.data, shots=e.shots, seed=e.seed, strict=e.strict)
    idle = [flag for flag in flags(e, kept) if (flag, e.names) != ("--names", "real")]
    if idle:
        raise InputError(
            f"{', '.join(idle)}: --benchmark isekai brings its own names, supports and queries. Leave it out."
        )
    if e.data == default.data:
        raise InputError(f"--benchmark isekai needs --data: {LAYOUT}, {HUB}; or draw your own with `{OWN}`.")
    return dataclasses.replace(options, episodes=dataclasses.replace(kept, names="real"))


def _run_name(model: str, options: TaskOptions) -> str:
    """The default name of the folder of a run. It has the benchmark's name, because --data may be class folders too."""
    e = options.episodes
    return "-".join((Path(model).name, "isekai", Path(e.data).stem, options.scoring, f"seed{e.seed}"))


def open_episodes(options: EpisodeConfig, _: Scaffold) -> EpisodeSet:
    """The data set and the episodes for the options of a run. Raises like `open_isekai`."""
    return EpisodeSet(*open_isekai(options.data, options.shots, options.seed))


def open_isekai(data: str, shots_per_class: Iterable[int], seed: int) -> tuple[Dataset, tuple[Episode, ...]]:
    """The data set and the episodes of a folder, of a records file in it, or of `hf:NAME` on the Hub.

    Records whose query is among its supports are left out, and counted in the data set's problems. Raises `InputError`
    for malformed records, missing pictures (naming all of them), and more shots per class than the lists have.
    """
    file = isekai_file(data)
    shots = tuple(sorted(set(shots_per_class)))
    if not shots or shots[0] < 0:
        raise InputError(f"--shots-per-class {shots}: give one or more numbers, none below 0.")
    records = read_isekai(file, shots[-1])
    items = isekai_items(file, records)
    groups: dict[frozenset[tuple[str, tuple[str, ...]]], list[IsekaiRecord]] = {}
    leaks = []
    for record in records:
        shown = {items[path].content for paths in record.lists.values() for path in paths[: shots[-1]]}
        if items[record.image_name].content in shown:
            leaks.append(record.image_name)
        else:
            groups.setdefault(frozenset(record.lists.items()), []).append(record)
    if not groups:
        raise InputError(f"{file}: every query is among its own supports. Is it the benchmark's own file?")
    leaked = f"{file}: queries left out because their picture is among the supports: {len(leaks)} ({first_few(leaks)})."
    dataset = Dataset(file.parent, tuple(sorted(items.values(), key=lambda item: item.id)), (leaked,) if leaks else ())
    if claims := label_conflicts(dataset.items):
        pairs = [" and ".join(item.path for item in same[:2]) for same in claims.values()]
        sentence = f"{file}: pictures that have two names: {len(claims)} ({first_few(pairs, whole=True)})."
        dataset = dataclasses.replace(dataset, problems=(*dataset.problems, sentence))
    episodes = [
        _episode(f"e{i:05d}", _task(file), group, items, shots, seed) for i, group in enumerate(groups.values())
    ]
    return dataset, tuple(episodes)


def _task(file: Path) -> str:
    """The task of the episodes, which separates rows of metrics."""
    return next((f"isekai-{kind}" for kind in ("pair", "10") if kind in file.stem.lower()), "isekai")


def _episode(
    name: str,
    task: str,
    records: Sequence[IsekaiRecord],
    items: Mapping[str, Item],
    shots_per_class: tuple[int, ...],
    seed: int,
) -> Episode:
    """The queries of records that share their lists. The support comes in rounds of both classes, as everywhere."""
    lists = dict(sorted(records[0].lists.items()))
    order = rng("isekai", seed, *(f"{shown}\t{path}" for shown, paths in lists.items() for path in paths))
    rounds = [order.permutation(list(lists)) for _ in range(shots_per_class[-1])]
    support = [Turn(items[lists[str(c)][k]].id, str(c), str(c)) for k, turns in enumerate(rounds) for c in turns]
    return Episode(
        id=name,
        task=task,
        names="real",
        ways=2,
        shots_per_class=shots_per_class,
        candidates=tuple(Candidate(shown, shown, shown) for shown in lists),
        support=tuple(support),
        queries=tuple(Turn(items[r.image_name].id, r.label_name, r.label_name) for r in records),
    )


ISEKAI = Task(open_episodes, _configure, _run_name)
