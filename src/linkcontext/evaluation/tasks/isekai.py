"""isekai: ISEKAI-10 and ISEKAI-pair in their published layout, as a data set and episodes.

The layout is a folder with pictures and ISEKAI-10.json or ISEKAI-pair.json: JSON lines with one query each, with paths
relative to the folder and fields spelt as published. The first k pictures of each list are the support of k shots per
class. Records with the same lists and names become one episode with many queries, which share a support.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from linkcontext.config import EpisodeConfig, flags
from linkcontext.data.copies import label_conflicts
from linkcontext.data.manifest import MANIFEST, Dataset
from linkcontext.data.problems import Problems
from linkcontext.data.scan import scan
from linkcontext.episodes.scaffold import Scaffold
from linkcontext.errors import InputError, first_few
from linkcontext.evaluation.task import EpisodeSet, Task, TaskOptions
from linkcontext.jsonl import read_jsonl
from linkcontext.records import Candidate, Episode, Item, Turn
from linkcontext.seeds import rng
from linkcontext.storage import cache_dir

HUB = "hf:ISEKAI-Portal/ISEKAI-10 or hf:ISEKAI-Portal/ISEKAI-pair"
LAYOUT = "a folder with ISEKAI-10.json or ISEKAI-pair.json and the pictures that it names"
OWN = "linkcontext world --isekai 10 --out DIR"


@dataclass(frozen=True, slots=True)
class IsekaiRecord:
    """One query as published. `label_name` is one of the two names; "promt" is the spelling of the data."""

    image_name: str
    positive_list: tuple[str, ...]
    negative_list: tuple[str, ...]
    positive_promt: str
    negative_promt: str
    label_name: str

    @property
    def lists(self) -> dict[str, tuple[str, ...]]:
        """Name -> its support pictures."""
        return {self.positive_promt: self.positive_list, self.negative_promt: self.negative_list}


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
    file = _file(_downloaded(data.removeprefix("hf:")) if data.startswith("hf:") else Path(data))
    shots = tuple(sorted(set(shots_per_class)))
    if not shots or shots[0] < 0:
        raise InputError(f"--shots {shots}: give one or more numbers, none below 0.")
    records = _records(file, shots[-1])
    items = _items(file, records)
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


def _downloaded(name: str) -> Path:
    """The cached folder of a data set on the Hub."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - slow to import, and needed for hf: only

    try:
        return Path(snapshot_download(name, repo_type="dataset", local_dir=cache_dir() / "isekai" / name))
    except (OSError, ValueError) as error:  # the Hub's errors for no network, no such name and no permission
        reason = str(error).strip().split("\n", 1)[0]
        raise InputError(
            f"hf:{name}: cannot be fetched ({reason}). Download it elsewhere and give its folder to --data, or draw "
            f"your own with `{OWN}`."
        ) from error


def _file(data: Path) -> Path:
    """The records file in a folder."""
    if data.is_file():
        return data
    if not data.is_dir():
        raise InputError(f"{data}: no such folder. Give {LAYOUT}, {HUB}; or draw your own with `{OWN}`.")
    files = sorted(p for p in data.glob("*.json*") if p.suffix in (".json", ".jsonl") and p.name != MANIFEST)
    files = [path for path in files if "isekai" in path.stem.lower()] or files
    if len(files) != 1:
        count = f"{len(files)} JSON files ({first_few([path.name for path in files])})" if files else "no JSON file"
        raise InputError(f"{data}: has {count} where one is needed. Give {LAYOUT}, or give the records file to --data.")
    return files[0]


def _records(file: Path, most: int) -> list[IsekaiRecord]:
    """The checked records of a file."""
    try:
        records = list(read_jsonl(IsekaiRecord, file))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error}). Is the download complete?") from error
    if not records:
        raise InputError(f"{file}: no records. Is the download complete?")
    return [_checked(record, f"{file}:{number}", most) for number, record in enumerate(records, 1)]


def _checked(record: IsekaiRecord, where: str, most: int) -> IsekaiRecord:
    texts = [record.image_name, record.label_name, record.positive_promt, record.negative_promt]
    texts += [*record.positive_list, *record.negative_list]
    if not all(isinstance(text, str) and text for text in texts):
        raise InputError(f"{where}: pictures and names must be non-empty texts. Mend the record.")
    spelt = {name.casefold(): name for name in record.lists}
    if len(spelt) < 2 or record.label_name.casefold() not in spelt:
        raise InputError(
            f"{where}: label_name {record.label_name!r} must be one of two different names, positive_promt "
            f"{record.positive_promt!r} and negative_promt {record.negative_promt!r}. Mend the record."
        )
    available = min(len(record.positive_list), len(record.negative_list))
    if available < most:
        raise InputError(
            f"{where}: {most} shots per class need more pictures than the {available} of its lists. Give fewer --shots."
        )
    return dataclasses.replace(record, label_name=spelt[record.label_name.casefold()])


def _items(file: Path, records: Sequence[IsekaiRecord]) -> dict[str, Item]:
    """Path in the records -> item. All pictures may be in a folder that the paths of the records do not mention."""
    problems = Problems(strict=False)
    pictures = scan(file.parent, problems)
    called = [(record.image_name, record.label_name) for record in records]
    called += [(path, name) for record in records for name, listed in record.lists.items() for path in listed]
    paths, first = {path for path, _ in called}, called[0][0]
    deeper = (path.removesuffix(first) for path in pictures if path.endswith(f"/{first}"))
    above = "" if paths & pictures.keys() else min(deeper, key=len, default="")
    missing = sorted(path for path in paths if above + path not in pictures)
    if missing:
        named = first_few(missing) if len(missing) == len(paths) else ", ".join(missing)  # all missing: no full list
        reasons = {path: problems.reasons.get(above + path) for path in missing}
        damaged = [f"{path}: {reason}" for path, reason in reasons.items() if reason]
        because = f" Damaged: {first_few(damaged, whole=True)}" if damaged else ""
        raise InputError(f"{file}: pictures missing: {len(missing)} of {len(paths)} ({named}). Unpack them.{because}")
    items: dict[str, Item] = {}
    for path, name in called:
        seen, place = pictures[above + path], above + path
        item = items.setdefault(path, Item(place, place, name, name, seen.sha256, pixels=seen.pixels))
        if item.name != name:
            raise InputError(f"{file}: {path} is called both {item.name!r} and {name!r}. Mend the records.")
    return items


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
