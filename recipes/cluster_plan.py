"""A plan on paper: a billion pictures mined and a million episodes evaluated on 64 GPUs, with this library as it is.

Run: `python recipes/cluster_plan.py`; every input below is a flag, `--help` lists them. Only the plan is computed.
Figures of `Measured` come from benchmarks on one core (the fields' comments say which). Figures of `Inputs` are
assumptions, which every reader replaces by their own. docs/cluster.md discusses the result.
"""

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import tyro

OPENING = "each process reads the manifest and asks for each file"
MEASURED, ESTIMATED, BOTH = "measured", "estimated", "measured and estimated"


@dataclass(frozen=True)
class Measured:
    """Constants of this library: `python benchmarks/bench_scale.py` and `bench_mining.py`, 2 cores of an AMD EPYC."""

    item_memory: float = 705  # bytes of a picture's record in memory                 scale.json manifest
    item_disk: float = 290  # bytes of its line in manifest.jsonl
    item_read_s: float = 24.8e-6  # seconds to read the line
    scan_s: float = 2.6e-3  # seconds to look through a picture: decoding, hashes
    digest_s: float = 4.9e-6  # seconds to digest a picture's line and to choose it
    read_picture_s: float = 7.1e-3  # seconds to read and preprocess a JPEG of 500 x 375   mining.json encoding
    picture_disk: float = 67.6e3  # bytes of such a JPEG
    feature_disk: float = 2049  # bytes of a picture's feature of 512 numbers            scale.json features
    feature_read_s: float = 1.76e-6  # seconds to read it and add it to its class
    list_s: float = 0.505e-6  # seconds to list an entry of a folder; each write lists its folder
    rank_class_s: float = 2.67e-4  # seconds to rank a class, beside
    rank_pair_s: float = 5.30e-8  # seconds for each pair of classes                     scale.json search
    neighbours_memory: float = 8104  # bytes of a class's 100 neighbours in memory
    neighbours_disk: float = 4445  # bytes of its line
    episode_memory: float = 10_180  # bytes of an episode of 2 ways and 0 to 16 shots  scale.json evaluation
    episode_draw_s: float = 576e-6  # seconds to draw it
    prediction_memory: float = 3447  # bytes of a prediction in memory
    prediction_disk: float = 1153  # bytes of its line
    prediction_read_s: float = 163e-6  # seconds to read it and to compute metrics
    store_round_trip_s: float = 0.347e-3  # seconds of a result's way to the main process
    host_s: float = 0.098  # seconds of an episode outside of the network, on one core


@dataclass(frozen=True)
class Inputs:
    """What is asked for, and the machines. All of it is assumed, and a flag."""

    pictures: float = 1e9
    classes: float = 1e6
    """The pictures are shared out over so many classes; all are encoded (--images-per-class)."""
    episodes: float = 1e6
    evaluated_pictures: float = 1.3e6
    """Of the data set that episodes are drawn from."""
    shots: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    ways: int = 2
    gpus: int = 64
    gpus_per_node: int = 8
    cores_per_node: int = 96
    node_memory: float = 2e12
    """Bytes."""
    disk_rate: float = 5e9
    """Bytes a second that a node reads from shared storage."""
    stat_s: float = 0.3e-3
    """Seconds of asking shared storage whether a file exists."""
    encoder_flops: float = 35e9
    """Operations of CLIP ViT-B/16 on a picture of 224 x 224."""
    encoder_rate: float = 33e12
    """Operations a second that a GPU reaches in float32, in which `mine` runs: half of an H100's 67e12."""
    parameters: float = 3e9
    """Of the language model that is evaluated."""
    layers: int = 36
    hidden: int = 2048
    tower_flops: float = 1.4e12
    """Operations of the vision tower on a picture of 448 x 448."""
    picture_tokens: int = 256
    text_tokens: int = 15
    """Tokens around a picture: question, template, name."""
    answer_tokens: int = 4
    model_rate: float = 250e12
    """Operations a second that a GPU reaches in bfloat16: a quarter of an H100's 989e12."""
    spread: float = 0.2
    """Standard deviation of a unit's time, as a share of it."""
    failures_per_gpu_year: float = 0.3
    """A failure ends the launch, which is started again."""
    seed: int = 0


class Figure(NamedTuple):
    """A line of the plan. `source` says whether all constants behind it are measured, all are inputs, or both."""

    stage: str
    what: str
    value: float
    unit: str
    source: str


class Limit(NamedTuple):
    """Something that ends a run, and at what size: `at` pictures, classes or episodes."""

    what: str
    at: float
    asked: float
    unit: str

    @property
    def share(self) -> float:
        """What is asked for, by what is possible."""
        return self.asked / self.at


@dataclass(frozen=True)
class Plan:
    """Figures and limits of one work."""

    figures: list[Figure] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)


def mining(i: Inputs, m: Measured) -> Plan:
    """Encode all pictures, then rank all classes in the main process."""
    per_process = i.pictures * m.item_memory
    scan = i.pictures * m.scan_s / i.cores_per_node
    loaders = min(16, i.cores_per_node // i.gpus_per_node)
    gpu_rate, loader_rate = i.encoder_rate / i.encoder_flops, loaders / m.read_picture_s
    rate = min(gpu_rate, loader_rate, i.disk_rate / m.picture_disk / i.gpus_per_node)
    encoding = i.pictures / rate / i.gpus
    listing = i.classes * m.list_s * i.classes / 2 / i.gpus  # a file a class, and the folder fills up
    opening = i.pictures * (m.item_read_s + m.digest_s + i.stat_s)
    features = i.pictures * (m.feature_read_s + m.feature_disk / i.disk_rate)
    ranking = i.classes * m.rank_class_s + i.classes**2 * m.rank_pair_s
    memory = i.classes * (512 * 8 * 2 + 4 * 1024 * 8 + m.neighbours_memory) + 256 * i.classes * 8
    fed = "the GPUs" if rate == gpu_rate else "reading on CPUs" if rate == loader_rate else "storage"
    process = i.node_memory / i.gpus_per_node
    figures = [
        Figure("before", "scan for the manifest, on all cores of one node", scan / 3600, "h", BOTH),
        Figure("before", "manifest.jsonl", i.pictures * m.item_disk / 1e9, "GB", MEASURED),
        Figure("open", OPENING, opening / 3600, "h", BOTH),
        Figure("open", "memory of the list of pictures, in each process", per_process / 1e9, "GB", MEASURED),
        Figure("encode", f"pictures a second and GPU, limited by {fed}", rate, "", BOTH),
        Figure("encode", "time on all GPUs", encoding / 3600, "h", BOTH),
        Figure("encode", "GPU hours", encoding * i.gpus / 3600, "h", BOTH),
        Figure("encode", "read from storage", i.pictures * m.picture_disk / 1e12, "TB", MEASURED),
        Figure("encode", "network of a node", rate * i.gpus_per_node * m.picture_disk / 1e9, "GB/s", BOTH),
        Figure("encode", "features on the disk", i.pictures * m.feature_disk / 1e12, "TB", MEASURED),
        Figure("encode", "files of features in one folder", i.classes, "", "code"),
        Figure("encode", "listing that folder at each write", listing / 3600, "h", MEASURED),
        Figure("rank", "the main process reads all features", features / 3600, "h", BOTH),
        Figure("rank", "ranking on one core, the GPUs wait", ranking / 3600, "h", MEASURED),
        Figure("rank", "memory of the main process", memory / 1e9, "GB", MEASURED),
        Figure("rank", "neighbours.jsonl", i.classes * m.neighbours_disk / 1e9, "GB", MEASURED),
    ]  # fmt: skip
    limits = [
        Limit("list of pictures in memory, in each process of a node", process / m.item_memory, i.pictures, "pictures"),
        Limit("opening the data set within an hour", 3600 / (opening / i.pictures), i.pictures, "pictures"),
        Limit("classes' vectors in the main process", i.node_memory / (memory / i.classes), i.classes, "classes"),
        Limit("ranking within a day on one core", (86400 / m.rank_pair_s) ** 0.5, i.classes, "classes"),
        Limit("main process reads features within an hour", 3600 / (features / i.pictures), i.pictures, "pictures"),
        Limit("listing a folder costs no more than encoding", 2 * encoding * i.gpus / m.list_s / i.classes, i.classes,
              "files in a folder"),
    ]  # fmt: skip
    return Plan(figures, limits)


def tokens(i: Inputs) -> tuple[float, float, int]:
    """Tokens of an episode's tree, tokens of its prompts one by one, and its predictions. Two candidates and more are
    scored, and each once more with a grey picture for PMI."""
    turn, query = i.picture_tokens + i.text_tokens, i.picture_tokens + i.text_tokens
    answers = i.ways * i.answer_tokens
    tree, whole = float(i.ways * max(i.shots) * turn), 0.0
    for shots in i.shots:
        branches = i.ways + 1  # a query of each class, and the grey one
        tree += branches * (query + answers)
        whole += branches * i.ways * (i.ways * shots * turn + query + i.answer_tokens)
    return tree, whole, i.ways * len(i.shots)


def evaluating(i: Inputs, m: Measured) -> Plan:
    """Draw episodes, ask about them, compute metrics in the main process."""
    tree, whole, per_episode = tokens(i)
    pictures = i.ways * max(i.shots) + i.ways
    predictions = i.episodes * per_episode
    attention = 4 * i.layers * i.hidden * tree * i.ways * max(i.shots) * (i.picture_tokens + i.text_tokens) / 2
    flops = 2 * i.parameters * tree + attention + pictures * i.tower_flops
    on_gpu = flops / i.model_rate
    each = on_gpu + m.host_s  # our engine waits for the GPU, and the GPU for it
    total = i.episodes * each / i.gpus
    drawing, after = i.episodes * m.episode_draw_s, predictions * m.prediction_read_s
    features = i.picture_tokens * i.hidden * 2
    without_trees = i.episodes * 2 * i.parameters * whole / i.model_rate
    results, kept = i.episodes * m.store_round_trip_s, predictions * m.prediction_memory
    opening = i.evaluated_pictures * (m.item_read_s + m.digest_s + i.stat_s)
    figures = [
        Figure("begin", OPENING, opening / 60, "min", BOTH),
        Figure("begin", "each process draws all episodes", drawing / 60, "min", MEASURED),
        Figure("begin", "memory of episodes, in each process", i.episodes * m.episode_memory / 1e9, "GB", MEASURED),
        Figure("ask", "tokens of an episode as a tree", tree, "", ESTIMATED),
        Figure("ask", "tokens of its prompts one by one", whole, "", ESTIMATED),
        Figure("ask", "operations of an episode", flops / 1e12, "T", ESTIMATED),
        Figure("ask", "seconds of an episode on a GPU", on_gpu, "s", ESTIMATED),
        Figure("ask", "seconds of an episode on a core, meanwhile the GPU waits", m.host_s, "s", MEASURED),
        Figure("ask", "time on all GPUs", total / 3600, "h", BOTH),
        Figure("ask", "GPU hours", total * i.gpus / 3600, "h", BOTH),
        Figure("ask", "of these, GPUs that wait", i.episodes * m.host_s / 3600, "h", MEASURED),
        Figure("ask", "GPU hours without trees, at least", without_trees / 3600, "h", ESTIMATED),
        Figure("ask", "results through the store of the launch", results / 60, "min", MEASURED),
        Figure("ask", "features of a picture, if kept", features / 1e6, "MB", ESTIMATED),
        Figure("after", "predictions.jsonl", predictions * m.prediction_disk / 1e9, "GB", MEASURED),
        Figure("after", "memory of predictions, in the main process", kept / 1e9, "GB", MEASURED),
        Figure("after", "reading them and computing metrics", after / 60, "min", MEASURED),
    ]  # fmt: skip
    limits = [
        Limit("episodes in the memory of each process of a node", i.node_memory / i.gpus_per_node / m.episode_memory,
              i.episodes, "episodes"),
        Limit("predictions in the memory of the main process", i.node_memory / m.prediction_memory / per_episode,
              i.episodes, "episodes"),
        Limit("drawing within an hour", 3600 / m.episode_draw_s, i.episodes, "episodes"),
        Limit("metrics within an hour", 3600 / m.prediction_read_s / per_episode, i.episodes, "episodes"),
        Limit("results through one store in the time of asking", total / m.store_round_trip_s,
              i.episodes, "episodes"),
    ]  # fmt: skip
    return Plan(figures, limits)


PATIENCE = 1000  # failures


class Run(NamedTuple):
    """A simulated run: hours until the last unit, the share of worker time that was useful, restarts, units lost."""

    hours: float
    used: float
    restarts: int
    lost: int


def simulate(i: Inputs, units: int, unit_s: float, begin_s: float) -> Run:
    """A launch whose workers claim one unit after another, as `linkcontext.processes` deals them out.

    Each unit takes `unit_s` seconds, more or less. Failures come at random; each ends all workers, so that the units in
    work are lost, and the launch begins again, which takes `begin_s`. After `PATIENCE` failures it is given up, and the
    hours are infinite.
    """
    stream, now, done, restarts, lost, useful = random.Random(i.seed), 0.0, 0, 0, 0, 0.0
    rate = i.gpus * i.failures_per_gpu_year / (365.25 * 86400)
    while restarts < PATIENCE:
        failure = now + stream.expovariate(rate) if rate else float("inf")
        now += begin_s
        if failure < now:
            restarts, now = restarts + 1, failure
            continue
        ends: list[tuple[float, float]] = []  # when each worker's unit ends, and how long it takes
        claimed = done
        last = now
        for _ in range(min(i.gpus, units - done)):
            took = _duration(stream, unit_s, i.spread)
            heapq.heappush(ends, (now + took, took))
            claimed += 1
        while ends and ends[0][0] <= failure:
            last, took = heapq.heappop(ends)
            done, useful = done + 1, useful + took
            if claimed < units:
                took = _duration(stream, unit_s, i.spread)
                heapq.heappush(ends, (last + took, took))
                claimed += 1
        if not ends:
            return Run(last / 3600, useful / (last * i.gpus), restarts, lost)
        restarts, lost, now = restarts + 1, lost + len(ends), failure
    return Run(float("inf"), 0.0, restarts, lost)


def _duration(stream: random.Random, seconds: float, spread: float) -> float:
    return max(0.1 * seconds, stream.gauss(seconds, spread * seconds))


def lines(title: str, plan: Plan) -> Iterator[str]:
    """The plan as text."""
    yield f"\n{title}"
    for figure in plan.figures:
        yield f"  {figure.stage:7}{figure.what:66}{figure.value:>14,.4g} {figure.unit:5}{figure.source}"
    yield "  What breaks first (asked for / possible):"
    for limit in sorted(plan.limits, key=lambda limit: -limit.share):
        mark = "BREAKS" if limit.share > 1 else "holds"
        yield f"    {limit.share:>9.3g}  {mark:7}{limit.what}: at {limit.at:,.3g} {limit.unit}"


def main() -> None:
    """Print the plan of the inputs."""
    inputs, measured = tyro.cli(Inputs, description=__doc__), Measured()
    plans = {"Mining": mining(inputs, measured), "Evaluating": evaluating(inputs, measured)}
    for title, plan in plans.items():
        for line in lines(title, plan):
            print(line)
    value = {(title, f.what): f.value for title, plan in plans.items() for f in plan.figures}
    print("\nSimulated launches (failures end all workers, which begin again):")
    works = {
        "mining, a unit is 1,024 pictures": (
            int(inputs.pictures / 1024),
            3600 * value["Mining", "GPU hours"] / (inputs.pictures / 1024),
            3600 * value["Mining", OPENING],
        ),
        "evaluating, a unit is an episode": (
            int(inputs.episodes),
            3600 * value["Evaluating", "GPU hours"] / inputs.episodes,
            60 * (value["Evaluating", OPENING] + value["Evaluating", "each process draws all episodes"]),
        ),
    }
    for name, work in works.items():
        run = simulate(inputs, *work)
        print(f"  {name}: {run.hours:.2f} h, GPUs used {run.used:.1%}, {run.restarts} restarts, {run.lost} units lost")


if __name__ == "__main__":
    main()
