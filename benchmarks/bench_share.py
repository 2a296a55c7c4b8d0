"""The share of the ideal: how much of what a prefix tree saves in tokens it saves in time. Run: `make bench`, or

    python benchmarks/bench_share.py
    python benchmarks/bench_share.py --toy      tiny, to see that it runs; its figures say nothing

A sweep (every query, with every candidate answer, at every number of shots) and a training step (a support with its
queries, loss, gradients, clipping and AdamW) run as whole prompts and as a tree, with the features of all pictures at
hand. The ideal ratio is that of the tokens: those of the prompts one by one to those of the tree. The share of the
ideal is the ratio of the times to it. Whole prompts run in batches of like length at the fastest of several batch
sizes, through the same decoder in plain causal attention, with logits of the answers alone.

Three shapes: one of width 192 with 4 layers, 6 heads and 10 tokens a picture, random weights; the bundled model; and
one ten times wider than the first. Memory is measured at one three times wider. The clock runs from messages (bundled)
or token ids (random) to scores, or to new weights. Ways alternate in one process, and the best of some rounds counts.
The matrix rate is the floating-point operations of the tree (weights on every token, attention on the pairs that
attend, logits once for each state that predicts), three times as many in training, in the time of the tree; its share
is of a square matrix product's rate in the same run. Operations that are saved, as in the last layer, count as if they
were done. "By operations" is the ratio of the operations of whole prompts to those of the tree, as a share of the
ideal: what the ratio of the times would be if every operation took the same time.

`--clock cpu` measures processor time on one thread, for machines that have other work.

Memory: scores in portions of `--portion` branches (`inference.portions`), and gradients depth first
(`inference.depth_first`), for a support of 32 per class and up to 10,000 branches. Each runs in a process of its own.
Its peak above what was loaded (weights, features, and in training the gradients) is compared with that of the longest
single prompt: in scoring with the cache that transformers keeps by default, and without one. Whole prompts are timed on
a sample.

Ends with 1 where scores or losses differ by more than rounding.
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers as hf
import tyro
from machine import COLOURS, RESULTS, machine, peak, write
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import nn

from linkcontext.data.images import open_image
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.scaffold import SCAFFOLDS, query_messages
from linkcontext.inference.depth_first import add_gradients
from linkcontext.inference.engine import CASCADE_MAX_TOKENS, MAX_BRANCH, Engine
from linkcontext.inference.forward import TreeInputs
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.kv_cache import new_cache
from linkcontext.inference.losses import tree_losses
from linkcontext.inference.portions import scores_in_portions
from linkcontext.inference.prefix_tree import ImageTokens, PrefixTree, TokenSequence, expand_images, merge
from linkcontext.inference.schedule import EMPTY, ForwardPass
from linkcontext.inference.vision import VisionEncoder, chunks
from linkcontext.models.families import setting
from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data

SAME = 1e-4  # what scores and losses may differ by, of the largest
VOCABULARY, MARK = 2048, 2044
REPEATS = 8  # runs of a turn, at most
SAMPLE = 16  # prompts that are timed whole where memory is measured
SWEEP = (0, 1, 2, 4, 8, 16)  # shots per class


@dataclass
class Bench:
    """Measure the share of the ideal."""

    shapes: tuple[str, ...] = ("narrow", "bundled", "wide")
    rounds: int = 3
    clock: str = "wall"
    """wall, or cpu: processor time on one thread."""
    branches: tuple[int, ...] = (100, 300, 1000, 3000, 10000)
    """Of the runs that measure memory; none leaves them out."""
    portion: int = 256
    """Branches that are taken at a time where memory is measured."""
    pass_tokens: int = 512
    """Tokens of a pass where memory is measured."""
    toy: bool = False
    """Tiny, to see that it runs. Its figures say nothing."""
    out: Path = RESULTS
    memory_of: str | None = None
    """Internal: print the memory and the time of one run, in a process of its own."""


@dataclass(frozen=True)
class Work:
    """What is measured of a shape: shots per class of the sweep and its queries; those of a training step."""

    shots: tuple[int, ...]
    queries: int
    support: int
    learnt: int
    batches: tuple[int, ...]
    rounds: int = 5  # at most


WORK = {
    "narrow": Work(SWEEP, 32, 16, 16, (4, 8, 16)),
    "bundled": Work(SWEEP, 16, 16, 16, (4, 8, 16)),
    "wide": Work((0, 1, 2, 4), 4, 4, 6, (3, 6), 2),  # a token takes a hundred times as long
}
TOY = Work((0, 1, 2), 4, 2, 4, (2, 4))
WIDTHS = {"narrow": (192, 512, 6), "middle": (576, 1536, 9), "wide": (1920, 5120, 30)}


class Drawn:
    """Random weights and random words; features of pictures are random numbers of ten tokens each."""

    def __init__(self, width: int, wide: int, heads: int) -> None:
        text = hf.LlamaConfig(
            hidden_size=width, intermediate_size=wide, num_hidden_layers=4, num_attention_heads=heads,
            vocab_size=VOCABULARY, max_position_embeddings=4096,
        )  # fmt: skip
        tower = hf.CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=16,
            patch_size=8,
        )  # fmt: skip
        torch.manual_seed(0)
        config = hf.LlavaConfig(text_config=text, vision_config=tower, image_token_index=MARK)
        self.network = hf.LlavaForConditionalGeneration(config).eval()
        self.picture = ImageTokens(np.full(10, MARK), np.arange(10), np.arange(10)[None])
        stream = np.random.default_rng(0)
        self.words = lambda count: stream.integers(5, MARK - 4, count).tolist()
        self.names, self.system, self.frame = [self.words(3) for _ in range(2)], self.words(4), self.words(8)
        self.seen = [
            ImageFeatures(self.picture, torch.from_numpy(stream.standard_normal((10, width)).astype(np.float32)))
            for _ in range(160)
        ]

    def prompt(self, shots: int, query: int, name: int) -> TokenSequence:
        """A prompt of `shots` pictures per class, and an answer."""
        frame = [*self.frame[:2], MARK, *self.frame[2:]]
        support = [token for i in range(2 * shots) for token in (*frame, *self.names[i % 2], 2)]
        ids = [*self.system, *support, *frame, *self.names[name], 2]
        labels = [-100] * (len(ids) - 4) + ids[-4:]
        numbers = [*range(2 * shots), 64 + query % 96]
        return expand_images(ids, labels, MARK, numbers, [self.picture] * len(numbers))

    def sweep(self, work: Work) -> list[TokenSequence]:
        """All prompts of a sweep."""
        return [self.prompt(k, query, name) for k in work.shots for query in range(work.queries) for name in (0, 1)]

    def lessons(self, work: Work) -> list[TokenSequence]:
        """The prompts of a training step."""
        return [self.prompt(work.support, query, query % 2) for query in range(work.learnt)]

    def branches(self, count: int, shots: int) -> Iterator[TokenSequence]:
        """So many branches on one support, in the order of their tree, one at a time. No two questions are alike."""
        questions, pictures = (count + 1) // 2, min(96, (count + 1) // 2)
        picture, kept = -1, []
        for number in range(count):
            query = number // 2
            if picture != query * pictures // questions:
                picture = query * pictures // questions
                kept = [self.prompt(shots, picture, name) for name in (0, 1)]
            one = kept[number % 2]
            ids = one.ids.copy()
            ids[-5] = 5 + query % 128  # the last token before the answer
            yield dataclasses.replace(one, ids=ids)


class Bundled:
    """The bundled model and episodes of world:0."""

    def __init__(self) -> None:
        self.model, data = load_model("mini", device="cpu", dtype="float32"), open_data("world:0")
        self.network, self.data, self.hand = self.model.network, data, {}
        self.sources = {item.id: (item.content, data.path(item.id)) for item in data.items}
        self.seen: Sequence[ImageFeatures] = []

    def sweep(self, work: Work) -> list[TokenSequence]:
        """All prompts of a sweep, from their messages."""
        episode = self._episode(work.shots, work.queries)
        names = [candidate.name for candidate in episode.candidates]
        at = [(q, k) for k in work.shots for q in range(work.queries)]
        return self._tokens([query_messages(episode, *each, SCAFFOLDS["turns"], n) for each in at for n in names])

    def lessons(self, work: Work) -> list[TokenSequence]:
        """The prompts of a training step, from their messages."""
        episode = self._episode((work.support,), work.learnt)
        answers = [query.answer for query in episode.queries]
        return self._tokens(
            [query_messages(episode, q, work.support, SCAFFOLDS["turns"], n) for q, n in enumerate(answers)]
        )

    def _episode(self, shots: tuple[int, ...], queries: int):
        (episode,) = sample_episodes(self.data, EpisodePlan(2, shots, episodes=1, queries=queries)).episodes
        return episode

    def _tokens(self, conversations: list) -> list[TokenSequence]:
        # With nothing kept but the features, which the tower makes before the clock, in the run that compares scores.
        scorer = LocalModel(self.model, VisionEncoder(self.model, open_image, dict(self.hand)), self.sources)
        scorer.pictures.begin(conversations)
        self.hand |= scorer.eyes.features
        lines = list(scorer._trees.sequences(conversations, "last"))
        self.seen = scorer.pictures.seen
        return lines


def open_subject(shape: str) -> Drawn | Bundled:
    return Bundled() if shape == "bundled" else Drawn(*WIDTHS[shape])


def whole(
    network, lines: Sequence[TokenSequence], seen: Sequence[ImageFeatures], batch: int, cached: bool = False
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Prompts in batches of like length, each a row: which they are, and the nats float[prompts] of their answers.

    With `cached` keys and values are kept, as transformers does unless it is told otherwise.
    """
    forward = Engine(network, 0).forward
    for chunk in chunks(sorted(range(len(lines)), key=lambda i: len(lines[i].ids)), batch):
        trees = [merge([lines[i]]) for i in chunk]
        runs = [(TreeInputs(tree, seen), ForwardPass(EMPTY, np.arange(len(tree)))) for tree in trees]
        hidden = forward.hidden(runs, new_cache(network, len(trees[0])) if cached else None)
        answers = [tree.answers[0] for tree in trees]
        states = torch.cat([hidden[row, torch.from_numpy(tokens - 1)] for row, tokens in enumerate(answers)])
        ids = np.concatenate([tree.ids[tokens] for tree, tokens in zip(trees, answers, strict=True)])
        targets = torch.from_numpy(ids).to(network.device)
        nats = F.cross_entropy(forward.logits(states).float(), targets, reduction="none")
        yield list(chunk), torch.stack([each.sum() for each in nats.split([len(tokens) for tokens in answers])])


@torch.inference_mode()
def score_whole(subject, work: Work, batch: int) -> list[float]:
    lines = subject.sweep(work)
    scores = [0.0] * len(lines)
    for chunk, nats in whole(subject.network, lines, subject.seen, batch):
        for i, value in zip(chunk, nats.tolist(), strict=True):
            scores[i] = -value
    return scores


def score_tree(subject, work: Work) -> list[float]:
    tree = merge(subject.sweep(work))
    engine = Engine(subject.network, min(CASCADE_MAX_TOKENS, len(tree)), MAX_BRANCH)
    return engine.scores(TreeInputs(tree, subject.seen))


def learn(subject, optimizer: torch.optim.Optimizer, backward: Callable[[], float]) -> float:
    """A step: gradients, clipping, AdamW. The learning rate is 0, so that every step is the same."""
    loss = backward()
    nn.utils.clip_grad_norm_(subject.network.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def learn_whole(subject, work: Work, batch: int) -> float:
    total = 0.0
    for _, nats in whole(subject.network, subject.lessons(work), subject.seen, batch):
        nats.sum().backward()
        total += nats.sum().item()
    return total


def learn_tree(subject, work: Work) -> float:
    losses = tree_losses(subject.network, [TreeInputs(merge(subject.lessons(work)), subject.seen)], cascade=True)
    loss = (losses.nats * losses.weight).sum()
    loss.backward()
    return loss.item()


def operations(network, tree: PrefixTree) -> dict[str, int]:
    """Floating-point operations of a tree in one direction."""
    text = network.config.get_text_config()
    weights = sum(m.weight.numel() for m in network.get_decoder().modules() if isinstance(m, nn.Linear))
    head = setting(text, "head_dim") or text.hidden_size // text.num_attention_heads
    return {
        "weights": 2 * weights * len(tree),
        "attention": 4 * text.num_attention_heads * head * text.num_hidden_layers * int((tree.depth + 1).sum()),
        "logits": 2 * text.vocab_size * text.hidden_size * int(tree.predictors.sum()),
    }


def attainable(network, lines: Sequence[TokenSequence], tree: PrefixTree) -> float:
    """The ratio of the operations of prompts one by one to those of their tree: queries stand at the end of a support
    and attend to all of it, the tokens of a whole prompt to half of it on average."""
    return sum(sum(operations(network, merge([line])).values()) for line in lines) / sum(
        operations(network, tree).values()
    )


class Clock:
    """Seconds of calls, and the rate of matrix products."""

    def __init__(self, kind: str) -> None:
        self.now = time.process_time if kind == "cpu" else time.perf_counter
        if kind == "cpu":
            torch.set_num_threads(1)

    def seconds(self, run: Callable[[], object]) -> float:
        start = self.now()
        run()
        return self.now() - start

    def matrix_rate(self, size: int = 1536) -> float:
        """Operations a second in a product of square matrices, the best of some."""
        a, b = torch.randn(size, size), torch.randn(size, size)
        return 2 * size**3 / min(self.seconds(lambda: torch.mm(a, b)) for _ in range(8))

    def alternate(self, runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
        """The best of some rounds, in each of which all take their turn.

        A turn of the quicker one lasts as long as that of the slower one: the first run after the other has the memory
        to get anew, and the runs of an evaluation or a training follow their own kind.
        """
        times = {name: [self.seconds(run)] for name, run in runs.items()}
        longest = max(value for (value,) in times.values())
        for _ in range(rounds):
            for name, run in runs.items():
                repeats = min(REPEATS, max(1, round(longest / times[name][0])))
                times[name] += [self.seconds(run) for _ in range(repeats)]
        return {name: min(values) for name, values in times.items()}


def measured(shape: str, subject, config: Bench, clock: Clock, training: bool) -> dict:
    """One row of the table."""
    work = TOY if config.toy else WORK[shape]
    lines = (subject.lessons if training else subject.sweep)(work)
    tree = merge(lines)
    optimizer = torch.optim.AdamW(subject.network.parameters(), lr=0.0, weight_decay=0.0, fused=True)

    def naive(batch: int) -> Callable[[], object]:
        if training:
            return lambda: learn(subject, optimizer, lambda: learn_whole(subject, work, batch))
        return lambda: score_whole(subject, work, batch)

    def ours() -> object:
        return learn(subject, optimizer, lambda: learn_tree(subject, work)) if training else score_tree(subject, work)

    oracle = np.array(naive(work.batches[0])())
    # A good model's losses add up to less than a nat; what is rounded are its scores, answer by answer.
    difference = float(np.abs(oracle - ours()).max() / max(np.abs(oracle).max(), len(lines) if training else 1))
    tried = {batch: clock.seconds(naive(batch)) for batch in work.batches}
    batch = min(tried, key=tried.__getitem__)
    rate = clock.matrix_rate()
    times = clock.alternate({"whole": naive(batch), "tree": ours}, min(config.rounds, work.rounds))
    rate = max(rate, clock.matrix_rate())
    needed = operations(subject.network, tree)
    reached = (3 if training else 1) * sum(needed.values()) / times["tree"]
    tokens = {"whole": sum(len(line.ids) for line in lines), "tree": len(tree)}
    ideal, ratio = tokens["whole"] / tokens["tree"], times["whole"] / times["tree"]
    row = {
        "shape": shape,
        "what": "training" if training else "sweep",
        "prompts": len(lines),
        "tokens": tokens,
        "ideal": ideal,
        "seconds": times,
        "batch": batch,
        "tried": tried,
        "ratio": ratio,
        "share": ratio / ideal,
        "operations": needed,
        "attainable": attainable(subject.network, lines, tree) / ideal,
        "rate": reached,
        "machine_rate": rate,
        "rate_share": reached / rate,
        "difference": difference,
    }
    print(f"  {shape}, {row['what']}: {ratio:.2f} of {ideal:.2f}, {row['share']:.0%}", flush=True)
    return row


def memory_run(config: Bench, order: dict) -> dict:
    """Peak and time of one way in this process."""
    clock = Clock(config.clock)
    subject = Drawn(*WIDTHS["narrow" if config.toy else "middle"])
    network, count, shots = subject.network, order["branches"], order["shots"]
    if order["training"]:
        for p in network.parameters():
            p.grad = torch.zeros_like(p)
    else:
        network.requires_grad_(False)

    def tree_run(count: int, shots: int) -> None:
        lines = subject.branches(count, shots)
        if order["training"]:
            add_gradients(network, TreeInputs(merge(lines), subject.seen), config.pass_tokens, MAX_BRANCH)
        else:
            engine = Engine(network, config.pass_tokens, MAX_BRANCH)
            assert sum(1 for _ in scores_in_portions(engine, lines, subject.seen, config.portion)) == count

    def whole_run(count: int, batch: int, shots: int, cached: bool = False) -> None:
        with torch.set_grad_enabled(order["training"]):
            for _, nats in whole(network, list(subject.branches(count, shots)), subject.seen, batch, cached):
                if order["training"]:
                    nats.sum().backward()

    if order["longest"]:
        whole_run(1, 1, 0)  # threads and kernels
        return peak(lambda: whole_run(1, 1, shots, order["cached"]), "cpu")
    tree_run(2, 0)
    taken: list[float] = []
    above = peak(lambda: taken.append(clock.seconds(lambda: tree_run(count, shots))), "cpu")
    times = [clock.seconds(lambda batch=batch: whole_run(SAMPLE, batch, shots)) for batch in (4, 8)]
    longest = len(next(subject.branches(1, shots)).ids)
    whole_seconds = min(times) / SAMPLE * count
    ideal = count * longest / len(merge(subject.branches(count, shots)))
    share = whole_seconds / taken[0] / ideal
    return above | {"seconds": taken[0], "whole_seconds": whole_seconds, "ideal": ideal, "share": share}


def memory(config: Bench) -> list[dict]:
    """Peaks and times by number of branches, scoring and training."""
    rows, shots = [], 2 if config.toy else 32
    for training in (False, True):
        order = {"training": training, "shots": shots, "branches": 1, "longest": True}
        longest, bare = (in_process(config, order | {"cached": cached})["above"] for cached in (not training, False))
        for count in (20, 40) if config.toy else config.branches:
            found = in_process(config, order | {"branches": count, "longest": False})
            row = {"what": "training" if training else "sweep", "branches": count, **found}
            row |= {"longest_above": longest, "times_longest": found["above"] / longest}
            row |= {"without_cache_above": bare, "times_without_cache": found["above"] / bare}
            rows.append(row)
            print(f"  {row['what']}, {count} branches: {row['times_longest']:.2f} of the longest", flush=True)
    return rows


def in_process(config: Bench, order: dict) -> dict:
    command = [sys.executable, __file__, "--memory-of", json.dumps(order), "--clock", config.clock]
    command += ["--portion", str(config.portion), "--pass-tokens", str(config.pass_tokens)]
    # Memory that is freed goes back at once, so that the peak is what was used and not what the allocator kept.
    allocator = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "1000000"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | allocator)
    return json.loads(done.stdout.splitlines()[-1])


def show(found: dict) -> None:
    console = Console(width=160)
    columns = "tokens, whole", "tree", "ideal", "whole s", "tree s", "ratio", "share", "by operations", "GFLOP/s"
    columns += ("of a product's",)
    table = Table("", "", *columns, title=f"share of the ideal, {found['machine']['processor']}, {found['clock']} time")
    for row in found["rows"]:
        cells = [f"{row['tokens'][way]}" for way in ("whole", "tree")] + [f"{row['ideal']:.2f}"]
        cells += [f"{row['seconds'][way]:.2f}" for way in ("whole", "tree")] + [f"{row['ratio']:.2f}"]
        cells += [f"{row['share']:.0%}", f"{row['attainable']:.0%}"]
        cells += [f"{row['rate'] / 1e9:.0f}", f"{row['rate_share']:.0%}"]
        table.add_row(row["shape"], row["what"], *cells)
    console.print(table)
    if found["memory"]:
        columns = (
            "branches",
            "peak MB",
            "longest MB",
            "times",
            "without cache",
            "seconds",
            "whole s (sample)",
            "ideal",
            "share",
        )
        table = Table("", *columns, title="memory")
        for row in found["memory"]:
            sizes = [f"{row[name] / 1e6:.1f}" for name in ("above", "longest_above")]
            names = "times_longest", "times_without_cache", "seconds", "whole_seconds", "ideal"
            times = [f"{row[name]:.2f}" for name in names]
            table.add_row(row["what"], str(row["branches"]), *sizes, *times, f"{row['share']:.0%}")
        console.print(table)


def plot(found: dict) -> Figure:
    """Shares, and memory over branches."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    shares, peaks = figure.subplots(1, 2)
    names = [f"{row['shape']}, {row['what']}" for row in found["rows"]]
    values = [100 * row["share"] for row in found["rows"]]
    drawn = shares.barh(names, values, color=[COLOURS[i // 2 % 6] for i in range(len(names))])
    shares.bar_label(drawn, fmt="%.0f", padding=2)
    shares.axvline(90, color="black", linewidth=0.8, linestyle=":")
    shares.invert_yaxis()
    shares.set_xlabel("% of the ideal")
    for i, what in enumerate(dict.fromkeys(row["what"] for row in found["memory"])):
        rows = [row for row in found["memory"] if row["what"] == what]
        times = [row["times_longest"] for row in rows]
        peaks.plot([row["branches"] for row in rows], times, "o-", color=COLOURS[i], label=what)
    peaks.axhline(1.3, color="black", linewidth=0.8, linestyle=":")
    peaks.set_xscale("log")
    peaks.set_ylim(bottom=0)
    peaks.set_xlabel("branches")
    peaks.set_ylabel("peak, times the longest prompt's")
    if found["memory"]:
        peaks.legend()
    return figure


def main() -> None:
    hf.utils.logging.disable_progress_bar()
    config = tyro.cli(Bench)
    if config.memory_of is not None:
        print(json.dumps(memory_run(config, json.loads(config.memory_of))))
        return
    clock, rows = Clock(config.clock), []
    found: dict = {"machine": machine("cpu"), "clock": config.clock, "rows": rows}
    for shape in config.shapes:
        subject = open_subject(shape)
        rows += [measured(shape, subject, config, clock, training) for training in (False, True)]
        del subject
    found["memory"] = memory(config) if config.branches else []
    found["load_after"] = machine("cpu")["load_before"]
    show(found)
    write(config.out, "share-toy" if config.toy else "share", found, plot(found))
    worst = max((row["difference"] for row in rows), default=0.0)
    if not worst < SAME or not math.isfinite(worst):
        sys.exit(f"scores or losses differ by {worst:.1e}")


if __name__ == "__main__":
    main()
