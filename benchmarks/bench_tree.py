"""What the episode tree saves: one support's prompts run one by one, and run as a tree. Run: `make bench`, or

    python benchmarks/bench_tree.py                                                  the bundled model
    python benchmarks/bench_tree.py --device cuda --model random:llava-7b            random weights of a real shape
    python benchmarks/bench_tree.py --device cuda --model random:qwen2.5-vl-3b

Nine ways to the same log-probabilities of all candidate answers to all queries after every number of shots:

    as lm-eval               every branch a prompt of its own, as lm-evaluation-harness runs a picture's loglikelihood
                             (`HFMultimodalLM._loglikelihood_tokens`; what leads there is switched off in its releases):
                             the processor twice for every prompt, with the answer and without, pictures included;
                             batches by falling length; logits and log-softmax of every position. lmms-eval's
                             `loglikelihood` (`llava_hf`) makes all logits too, but one prompt at a time, and decodes
                             the pictures again for each. Here they are decoded before the clock starts.
    as lm-eval, cached       the same batches and logits, but every picture goes through the tower once, and nothing
    features                 through the processor twice. No harness has this.
    naive                    prompts in batches, with as little as they can do with: the processor once, and logits of
                             the answers alone.
    naive, cached features   the same, but every picture goes through the tower once. Nothing of the support is shared.
    tree                     the prompts merged into a tree, in one pass.
    prefix-cache             the same tree, its trunk in a cache and its branches on it: what the library does.
    ..., features at hand    lm-eval's batches, naive and prefix-cache where the tower has seen every picture before
                             and none is opened: the tree's own share.

The clock runs from the messages to the scores: template, tokens, tower and language model, and where features are
shared reading and decoding each picture. Random models have no processor: their prompts are token ids, their pictures
pixels on the device. Ends with 1 where a score differs from the naive one by more than rounding.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import transformers as hf
import tyro
from machine import (
    COLOURS,
    RESULTS,
    Found,
    Random,
    Setting,
    alternate,
    as_harness,
    machine,
    peak,
    rates,
    seconds,
    summary,
    whole_prompts,
    write,
)
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.optimize import least_squares
from torch.utils.flop_counter import FlopCounterMode

from linkcontext.data.images import open_image
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.render import Tokens
from linkcontext.episodes.scaffold import SCAFFOLDS, image_ids, query_messages
from linkcontext.inference.engine import Engine
from linkcontext.inference.forward import TreeInputs
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.prefix_tree import TokenSequence, merge
from linkcontext.inference.schedule import EMPTY, ForwardPass
from linkcontext.inference.vision import VisionEncoder, chunks
from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.source import open_data
from linkcontext.worlds.pseudo_words import pseudo_words

AT_HAND = ", features at hand"
TREES = ("tree", "prefix-cache", "prefix-cache" + AT_HAND)
CACHED = ("as lm-eval, cached features", "naive, cached features")
PLAIN = ("as lm-eval", CACHED[0], "naive", CACHED[1], "as lm-eval" + AT_HAND, "naive" + AT_HAND)
LONGEST = ("longest prompt, processor", "longest prompt, features")  # alone, to compare memory with
SAME = {torch.float32: 1e-4, torch.bfloat16: 0.3}  # what scores may differ by


@dataclass
class Bench:
    """Measure the tree engines against prompts one by one."""

    model: str = "mini"
    """mini, or random:llava-7b, random:qwen2.5-vl-3b, random:llava-toy, random:qwen-toy."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    shots: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    """Per class."""
    queries: int | None = None
    """32; 8 for random weights."""
    batches: tuple[int, ...] | None = None
    """Of prompts one by one; the fastest counts. 4 8 16; 1 2 4 for random weights."""
    repeats: int = 3
    growth: bool = True
    """Also how time and memory grow."""
    toy: bool = False
    """Tiny, to see that it runs. Its figures say nothing."""
    out: Path = RESULTS
    peak_of: str | None = None
    """Internal: print the peak of memory of one way, in a process of its own."""


class Bundled:
    """A model with a processor, and episodes of world:0."""

    def __init__(self, name: str, device: str) -> None:
        self.model, self.data = load_model(name, device=device), open_data("world:0")
        self.network = self.model.network
        self.sources = {item.id: (item.content, self.data.path(item.id)) for item in self.data.items}
        self.decoded: dict = {}
        self.checked: dict = {}
        self.hand: dict = {}
        for engine in TREES[:2]:
            scorer = self._scorer(engine)
            self.checked[engine] = {
                "name_and_reason": scorer.choice.name_and_reason,
                "max_branch": scorer.choice.max_branch,
            }

    def asks(self, setting: Setting) -> list[ScoringRequest]:
        plan = EpisodePlan(setting.ways, setting.shots, episodes=1, queries=setting.queries)
        (episode,) = sample_episodes(self.data, plan).episodes
        shown = [candidate.name for candidate in episode.candidates]
        names = [*shown, *pseudo_words(setting.candidates - setting.ways, "bench_tree", avoid=shown)]
        told, turns = [(q, k) for k in setting.shots for q in range(setting.queries)], SCAFFOLDS["turns"]
        found = [
            ScoringRequest(
                query_messages(episode, *at, turns), tuple(query_messages(episode, *at, turns, n) for n in names)
            )
            for at in told
        ]
        for item in {item for ask in found for item in image_ids(ask.messages)} - set(self.decoded):
            self.decoded[item] = open_image(self.sources[item][1])
        return found

    def _scorer(self, engine: str) -> LocalModel:
        scorer = LocalModel(
            self.model, VisionEncoder(self.model, open_image, dict(self.hand)), self.sources, requested=engine
        )
        scorer.choice.__dict__.update(self.checked.get(engine, {}))  # checks are made once a run, not once an episode
        return scorer

    def tree(self, asks: list[ScoringRequest], engine: str) -> Found:
        scorer = self._scorer(engine)
        return [value for row in scorer.score(asks) for value, _ in row], scorer.eyes.calls

    def features(self, asks: list[ScoringRequest]) -> dict:
        scorer = self._scorer("prefix-cache")
        scorer.pictures.begin([answer for ask in asks for answer in ask.answers])
        return scorer.eyes.features

    def lines(self, asks: list[ScoringRequest]) -> tuple[list[TokenSequence], list[ImageFeatures], int]:
        scorer, told = self._scorer("prefix-cache"), [answer for ask in asks for answer in ask.answers]
        scorer.pictures.begin(told)
        return list(scorer._trees.sequences(told, "last")), scorer.pictures.seen, scorer.eyes.calls

    def naive(self, asks: list[ScoringRequest], batch: int) -> Found:
        said = self._said(asks)

        def inputs(chunk: list[int]) -> dict:
            return self._processed([said[i][0] for i in chunk], [said[i][1] for i in chunk])

        return whole_prompts(self.network, [tokens for _, tokens in said], inputs, batch)

    def harness(self, asks: list[ScoringRequest], batch: int) -> Found:
        said, scorer, made = iter(self._said(asks)), self._scorer("prefix-cache"), []
        told = []
        for ask in asks:
            context, _ = scorer._encoder.encode(ask.messages, "none")
            for text, tokens in (next(said) for _ in ask.answers):
                made.append(self._processed([text], [tokens]))
                self._processed([context], [tokens])  # to know how many tokens stand before the answer
                told.append(tokens)
        return as_harness(self.network, told, made, batch)

    def _said(self, asks: list[ScoringRequest]) -> list[tuple[str, Tokens]]:
        scorer = self._scorer("prefix-cache")
        return [scorer._encoder.encode(answer, "last") for ask in asks for answer in ask.answers]

    def _processed(self, texts: list[str], told: list[Tokens]) -> dict:
        return dict(
            self.model.processor(
                text=texts,
                images=[[self.decoded[item] for item in tokens.pictures] for tokens in told],
                padding=True,
                padding_side="right",
                add_special_tokens=self.model.chat_template.adds_special_tokens(texts[0]),
                return_tensors="pt",
            )
        )

    def longest(self, asks: list[ScoringRequest]) -> list[ScoringRequest]:
        ask = max(asks, key=lambda ask: len(image_ids(ask.messages)))
        return [ScoringRequest(ask.messages, ask.answers[:1])]

    def one_picture(self) -> None:
        self._scorer("prefix-cache").eyes.encode_images([next(iter(self.decoded.values()))])


@torch.inference_mode()
def rows(subject, asks: list, batch: int, every: bool) -> Found:
    """Prompts one by one as rows of a batch, with features computed once and nothing of the support shared; with
    logits of `every` position, or of the answers alone."""
    lines, seen, calls = subject.lines(asks)
    engine, scores = Engine(subject.network, 0), [0.0] * len(lines)
    forward = engine.forward
    for chunk in chunks(sorted(range(len(lines)), key=lambda i: len(lines[i].ids)), batch):
        trees = [merge([lines[i]]) for i in chunk]
        hidden = forward.hidden(
            [(TreeInputs(tree, seen), ForwardPass(EMPTY, np.arange(len(tree)))) for tree in trees], None
        )
        values = forward.logits(hidden).log_softmax(-1) if every else None
        for row, (i, tree) in enumerate(zip(chunk, trees, strict=True)):
            asked = torch.from_numpy(tree.answers[0]).to(hidden.device)
            ids = torch.from_numpy(tree.ids).to(hidden.device)[asked]
            if values is None:
                found = forward.logits(hidden[row, asked - 1]).log_softmax(-1).gather(1, ids[:, None])[:, 0]
            else:
                found = values[row, asked - 1, ids]
            scores[i] = float(found.double().sum())
    return scores, calls


def ways_to_score(subject, asks: list, batch: dict[str, int]) -> dict[str, Callable[[], Found]]:
    """What is measured, by name."""
    longest = subject.longest(asks)
    return {
        PLAIN[0]: lambda: subject.harness(asks, batch[PLAIN[0]]),
        PLAIN[1]: lambda: rows(subject, asks, batch[PLAIN[1]], every=True),
        PLAIN[2]: lambda: subject.naive(asks, batch[PLAIN[2]]),
        PLAIN[3]: lambda: rows(subject, asks, batch[PLAIN[3]], every=False),
        PLAIN[4]: at_hand(subject, asks, lambda: rows(subject, asks, batch[PLAIN[4]], every=True)),
        PLAIN[5]: at_hand(subject, asks, lambda: rows(subject, asks, batch[PLAIN[5]], every=False)),
        "tree": lambda: subject.tree(asks, "tree"),
        "prefix-cache": lambda: subject.tree(asks, "prefix-cache"),
        TREES[2]: at_hand(subject, asks, lambda: subject.tree(asks, "prefix-cache")),
        "longest prompt, processor": lambda: subject.naive(longest, 1),
        "longest prompt, features": lambda: rows(subject, longest, 1, every=False),
    }


def at_hand(subject, asks: list, run: Callable[[], Found]) -> Callable[[], Found]:
    """The same where all pictures have been seen before: the tower does not run, and none is opened."""
    kept: dict = {}

    def again() -> Found:
        kept.update(kept or subject.features(asks))  # before the clock: every way is run once before it is timed
        subject.hand = kept
        try:
            return run()
        finally:
            subject.hand = {}

    return again


def open_subject(config: Bench) -> Bundled | Random:
    name = config.model
    return Random(name.removeprefix("random:"), config.device) if ":" in name else Bundled(name, config.device)


def warm_up(subject) -> None:
    """Something small in every way, so that libraries are loaded and threads started."""
    small = subject.asks(Setting(shots=(0,), queries=2))
    for name in (*PLAIN, *TREES):
        ways_to_score(subject, small, dict.fromkeys(PLAIN, 2))[name]()


def sweep(subject, config: Bench, setting: Setting) -> dict:
    """All ways on one episode: seconds, scores, encoder calls."""
    asks = subject.asks(setting)
    batches, batch, tried = config.batches, {}, {}
    warm_up(subject)
    for name in PLAIN:  # each batch is tried once, and the fastest is measured
        run = ways_to_score(subject, asks, batch)[name]
        tried[name] = {}
        for size in batches:
            batch[name] = size
            tried[name][size] = seconds(run)
            print(f"  {name}, batch {size}: {tried[name][size]:.2f} s", flush=True)
        batch[name] = min(tried[name], key=tried[name].__getitem__)
    runs = {name: run for name, run in ways_to_score(subject, asks, batch).items() if name in (*PLAIN, *TREES)}
    found = {name: run() for name, run in runs.items()}
    times = alternate(runs, config.repeats)
    oracle = np.array(found["naive"][0])
    least = floor(subject, asks, config)
    table = {}
    for name, (scores, calls) in found.items():
        time = times[name]["best"]
        table[name] = {
            "seconds": times[name],
            "batch": batch.get(name),
            "times": {plain: times[plain]["best"] / time for plain in PLAIN},
            "difference": float(np.abs(np.array(scores) - oracle).max()),
            "encoder_calls": calls,
            "share_of_floor": least["seconds"] / time,
        }
    return {"setting": asdict(setting), "branches": len(oracle), "tried": tried, "floor": least, "rows": table}


def floor(subject, asks: list, config: Bench) -> dict:
    """The least time a tree could take here: its operations at the measured rate, or its bytes at that of a copy.

    Operations: every weight of the language model on every token, attention on the pairs that see each other, logits
    of the answers, and what PyTorch counts for the tower on each picture. Bytes: the weights read once, the keys and
    values written once.
    """
    lines, _, calls = subject.lines(asks)
    tree, network = merge(lines), subject.network
    text, decoder = network.config.get_text_config(), network.get_decoder()
    weights = sum(m.weight.numel() for m in decoder.modules() if isinstance(m, torch.nn.Linear))
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    with FlopCounterMode(display=False) as tower:
        subject.one_picture()
    operations = {
        "language model": 2 * weights * len(tree),
        "attention": 4 * text.num_attention_heads * head * text.num_hidden_layers * int((tree.depth + 1).sum()),
        "logits": 2 * text.vocab_size * text.hidden_size * int((tree.weight > 0).sum()),
        "tower": calls * tower.get_total_flops(),
    }
    kept = 2 * text.num_hidden_layers * (text.num_key_value_heads or text.num_attention_heads) * head * len(tree)
    moved = network.dtype.itemsize * (sum(p.numel() for p in network.parameters()) + kept)
    rate = rates(network.dtype, config.device, 256 if config.toy else 8192 if config.device == "cuda" else 2048)
    parts = sum(operations.values()) / rate["operations"], moved / rate["bytes"]
    tokens = {"tree": len(tree), "one by one": sum(len(line.ids) for line in lines)}
    found = {"tokens": tokens, "operations": operations, "moved": moved, "rates": rate}
    return found | {"seconds": max(parts), "bound": "operations" if parts[0] > parts[1] else "bytes"}


def peak_of(config: Bench, subject, setting: Setting, name: str, batch: int) -> dict:
    """The memory one way takes. On a CPU in a fresh process, which has opened everything and run something small."""
    if config.device == "cuda":
        asks = subject.asks(setting)
        return peak(ways_to_score(subject, asks, dict.fromkeys(PLAIN, batch))[name], config.device)
    told = json.dumps({"setting": asdict(setting), "name": name, "batch": batch})
    command = [sys.executable, __file__, "--model", config.model, "--device", config.device, "--peak-of", told]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def print_peak(config: Bench) -> None:
    """What the fresh process does."""
    told, subject = json.loads(config.peak_of), open_subject(config)
    asks = subject.asks(Setting(**told["setting"]))
    warm_up(subject)
    run = ways_to_score(subject, asks, dict.fromkeys(PLAIN, told["batch"]))[told["name"]]
    print(json.dumps(peak(run, config.device)))


def memory(subject, config: Bench, setting: Setting, swept: dict) -> dict:
    """Peaks above what the loaded model takes, and what the sweep's is to the longest prompt's."""
    names = ("prefix-cache", LONGEST[1]) if config.toy else ("prefix-cache", "tree", *LONGEST, *PLAIN)
    found = {}
    for name in names:
        batch = swept["rows"].get(name, {}).get("batch") or 1
        found[name] = peak_of(config, subject, setting, name, batch)
        print(
            f"  peak of {name}: {found[name]['above'] / 1e6:.1f} MB above {found[name]['before'] / 1e6:.0f}", flush=True
        )
    weights = sum(p.numel() * p.element_size() for p in subject.network.parameters())
    ratios = {
        name: {
            "alone": found["prefix-cache"]["above"] / found[name]["above"],
            "with_weights": (found["prefix-cache"]["above"] + weights) / (found[name]["above"] + weights),
        }
        for name in LONGEST
        if name in found
    }
    return {"weights": weights, "peaks": found, "cached_to_longest": ratios}


def growth(subject, config: Bench) -> dict:
    """How time and memory of `prefix-cache` grow with each of four things, the others fixed."""
    axes = {
        "shots per class": [(k, Setting(shots=(k,))) for k in (1, 2, 4, 8, 16)],
        "queries": [(q, Setting(queries=q)) for q in (4, 8, 16, 32, 64)],
        "ways": [(w, Setting(ways=w, queries=60, candidates=w)) for w in (2, 3, 4, 5, 6)],
        "candidates": [(c, Setting(candidates=c)) for c in (2, 4, 8, 16, 32)],
    }
    if config.toy:
        axes = {
            axis: [(x, replace(s, queries=min(s.queries, 12))) for x, s in points[:2]] for axis, points in axes.items()
        }
    found = {}
    for axis, points in axes.items():
        rows = []
        for x, setting in points:
            asks = subject.asks(setting)
            lines = subject.lines(asks)[0]
            run = ways_to_score(subject, asks, {})["prefix-cache"]
            run()
            times = summary([seconds(run) for _ in range(config.repeats)])
            row = {"x": x, "branches": len(lines), "tokens": len(merge(lines)), "seconds": times}
            row |= {} if config.toy else {"peak": peak_of(config, subject, setting, "prefix-cache", 1)}
            rows.append(row)
            print(f"  {axis} {x}: {len(lines)} branches, {row['tokens']} tokens, {times['best']:.2f} s", flush=True)
        # Shots make the support longer; the others make branches.
        over = [row["x"] if axis == "shots per class" else row["branches"] for row in rows]
        found[axis] = {"points": rows, "over": over, "time": fit(over, [row["seconds"]["best"] for row in rows])}
        found[axis] |= {} if config.toy else {"memory": fit(over, [row["peak"]["above"] for row in rows])}
    return found


def fit(x: list[float], y: list[float]) -> dict:
    """y = constant + factor x^slope, constant >= 0, fitted to relative errors; R² of a straight line; and the slope of
    log y between the two largest points, with nothing subtracted."""
    a, b = np.array(x) / x[-1], np.array(y) / y[-1]
    line = b - np.polyval(np.polyfit(a, b, 1), a)
    tries = [
        least_squares(lambda v: np.log((v[0] + v[1] * a ** v[2]) / b), [c, 1 - c, p], bounds=([0, 1e-6, 0], [1, 10, 4]))
        for c in (0.01, 0.5 * b.min())
        for p in (0.5, 1, 2)
    ]
    best = min(tries, key=lambda found: found.cost).x
    return {
        "slope": float(best[2]),
        "constant": float(best[0] * y[-1]),
        "linear_r2": float(1 - (line**2).sum() / ((b - b.mean()) ** 2).sum()),
        "last_slope": float(np.log(y[-1] / y[-2]) / np.log(x[-1] / x[-2])),
    }


def show(found: dict) -> None:
    console, swept = Console(width=190), found["sweep"]
    columns = (
        "",
        "best s",
        "median s",
        *(f"x {plain}" for plain in PLAIN),
        "difference",
        "pictures encoded",
        "floor / best",
    )
    table = Table(
        *columns, "peak MB", title=f"{found['model']} on {found['machine']['device']}, {swept['branches']} branches"
    )
    peaks = found["memory"]["peaks"]
    for name, row in swept["rows"].items():
        label = f"{name} (batch {row['batch']})" if row["batch"] else name
        cells = [row["seconds"]["best"], row["seconds"]["median"], *row["times"].values()]
        taken = f"{peaks[name]['above'] / 1e6:.1f}" if name in peaks else ""
        calls, share = str(row["encoder_calls"]), f"{row['share_of_floor']:.1%}"
        table.add_row(label, *(f"{c:.2f}" for c in cells), f"{row['difference']:.1e}", calls, share, taken)
    for name in LONGEST:
        if name in peaks:
            table.add_row(name, *[""] * (len(columns) - 1), f"{peaks[name]['above'] / 1e6:.1f}")
    console.print(table)
    for name, ratio in found["memory"]["cached_to_longest"].items():
        console.print(f"prefix-cache / {name}: {ratio['alone']:.2f}, with the weights {ratio['with_weights']:.2f}")
    if "growth" in found:
        table = Table("prefix-cache over", "points", "best s", "slope", "R² of a line", "last slope", "memory slope")
        for axis, row in found["growth"].items():
            taken = " ".join(f"{p['seconds']['best']:.2f}" for p in row["points"])
            fitted = [f"{row['time'][name]:.2f}" for name in ("slope", "linear_r2", "last_slope")]
            over = " ".join(map(str, row["over"]))
            table.add_row(axis, over, taken, *fitted, f"{row['memory']['slope']:.2f}" if "memory" in row else "")
        console.print(table)


def plot(found: dict) -> Figure:
    """Seconds, memory, and growth."""
    panels = 3 if "growth" in found else 2
    figure = Figure(figsize=(4 * panels, 3.4), layout="constrained")
    axes = figure.subplots(1, panels)
    bars = {name: row["seconds"]["best"] for name, row in found["sweep"]["rows"].items()}
    taken = {name: row["above"] / 1e6 for name, row in found["memory"]["peaks"].items()}
    for at, values, label in ((axes[0], bars, "seconds a sweep"), (axes[1], taken, "peak MB above the loaded model")):
        drawn = at.barh(list(values), list(values.values()), color=[COLOURS[i % 6] for i in range(len(values))])
        at.bar_label(drawn, fmt="%.3g", padding=2)
        at.invert_yaxis()
        at.margins(x=0.2)
        at.set_xlabel(label)
    if panels == 3:
        for i, (axis, row) in enumerate(found["growth"].items()):
            best = [point["seconds"]["best"] for point in row["points"]]
            label = f"{axis}: slope {row['time']['slope']:.2f}"
            axes[2].loglog(np.array(row["over"]) / row["over"][0], best, "os^D"[i] + "-", color=COLOURS[i], label=label)
        axes[2].set_xlabel("times the smallest")
        axes[2].set_ylabel("seconds, prefix-cache")
        axes[2].legend(fontsize=8)
    return figure


def main() -> None:
    hf.utils.logging.disable_progress_bar()
    config = tyro.cli(Bench)
    if config.peak_of:
        print_peak(config)
        return
    weights = "random:" in config.model
    config.batches = config.batches or ((1, 2, 4) if weights else (4, 8, 16))
    setting = Setting(shots=config.shots, queries=config.queries or (8 if weights else 32))
    if config.toy:
        config.batches, setting = (4, 8), Setting(shots=(0, 1, 2), queries=4)
    found = {"model": config.model, "machine": machine(config.device)}
    subject = open_subject(config)
    found["sweep"] = sweep(subject, config, setting)
    found["memory"] = memory(subject, config, setting, found["sweep"])
    if config.growth:
        found["growth"] = growth(subject, config)
    show(found)
    name = (
        "tree"
        if config.model == "mini" and config.device == "cpu"
        else f"tree-{config.model.split(':')[-1]}-{config.device}"
    )
    write(config.out, f"{name}-toy" if config.toy else name, found, plot(found))
    worst = max(row["difference"] for row in found["sweep"]["rows"].values())
    if not worst < SAME[subject.network.dtype]:
        sys.exit(f"scores differ from the naive ones by {worst:.1e}")


if __name__ == "__main__":
    main()
