"""Prefix trees on a GPU, at the shapes of Qwen2.5-3B and Qwen2.5-7B, in at most ten minutes. Run: `make bench-gpu`, or

    python benchmarks/gpu_trees.py                 on a machine with an NVIDIA GPU, meant for one of 141 GB
    python benchmarks/gpu_trees.py --toy           tiny, on the CPU: all but the GPU's own kernels runs

Random weights in bf16, made on the device, in the class of LLaVA; random features, 256 tokens a picture. A sweep scores
every query with both names after 0, 1, 2, 4 and 8 shots per class. A training step learns queries after 8 shots per
class: loss, gradients, clipping, and AdamW with states in bf16 (3b) or plain SGD (7b). Ways to run them:

    whole         prompts one by one, in batches of like length at the fastest of several batch sizes, in plain causal
                  attention; the others are measured against it
    joined        a tree on kernels of FlashAttention without a mask, parts joined by their log-sum-exp
    flex          a tree in one pass under a mask for FlexAttention, which skips blocks, as AReaL runs its trees
    gathered      a tree with the keys and values of each path copied, as TRL runs its trees
    sdpa          a tree in one pass under a dense mask
    prefix-cache  the passes that `eval` runs on a GPU: the trunk in a cache, branches under dense masks; sweeps only
    trl           `gathered` by TRL's own function, where `trl` 1.16 and `kernels` are installed
    areal         AReaL's Triton kernel, where it is installed (`pip install --no-deps areal`: it asks for torch < 2.11)

What others offer was read in areal 1.0.4 (`areal/models/tree_attn`) and trl 1.16.0 (`experimental/async_grpo`). Their
trainers take text alone, so only their attention runs here, in our passes. `tree_kernels.py` has the attention of
`joined` and `gathered`. They run on FlashAttention 3 of the package `kernels`, or on PyTorch's own FlashAttention where
that is missing; the output names which.

The clock runs from token sequences to scores or to new weights, merging and masks included. Ways alternate in one
process, and the best round counts. `share` is the ratio of the times of `whole` and the way over the ratio of their
tokens. `prepare` is the part of the clock in which the tree is merged and laid out. The matrix rate counts as in
`bench_share.py`, for whole prompts with their own tokens, and its share is of a square product's in bf16 in the same
run. Memory is the peak that PyTorch allocated above what is held before the run (weights, features, states of the
optimizer); gradients count.

Every way is compared with whole prompts twice. Toy weights in float32 must give the same scores and gradients to 1e-4
of the largest; kernels that take half precision alone are compared with float32 by `tree_kernels.verify`. At full size
in bf16 the tolerance is measured: whole prompts are run again one by one in eager attention, which differs by rounding
alone. A score may differ by 8 times the root mean square of that difference: the largest of a hundred normal numbers is
2.5 times theirs, and a tree sums everything in another order. A gradient may differ by 4 times its relative norm. The
table has the spread of the scores beside the tolerance, the root mean square of what more shots change: a tree with a
wrong mask is off by that. The output weights of attention are drawn four times as wide as usual, because random layers
would hardly look at the support otherwise.

Every event is a line of gpu-trees.jsonl as soon as it is known. After `--minutes` nothing new is begun. What did not
run is named with the reason. Ends with 1 where a way differs or fails, and where no row is complete.
"""

import functools
import gc
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import transformers as hf
import tyro
from bench_share import operations, whole
from machine import RESULTS, Random, Setting, machine, peak, rates, seconds
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from tree_kernels import (
    Kernel,
    Layout,
    LeftOut,
    areal_attention,
    attending,
    attention,
    choose_kernel,
    gathered,
    joined,
    one_line,
    trl_attention,
)

from linkcontext.inference.cascade_attention import attention_named
from linkcontext.inference.engine import GPU_MAX_TOKENS, Engine
from linkcontext.inference.forward import TreeForward, TreeInputs
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.losses import pass_losses
from linkcontext.inference.prefix_tree import PrefixTree, TokenSequence, merge
from linkcontext.inference.schedule import EMPTY, ForwardPass
from linkcontext.inference.target_logprobs import TargetLogprobs

EXACT = 1e-4  # in float32, of the largest
SCORES, GRADIENTS = 8, 4  # in bf16, times what rounding does
FLOOR = 1e-3  # a tolerance in bf16, at least
SAMPLE = 16  # prompts of which the rounding is measured
ATTENTION_GAIN = 4
Way = Literal["joined", "flex", "gathered", "sdpa", "prefix-cache", "trl", "areal"]  # the most valuable first
Shape = Literal["3b", "7b"]
PEERS = {"trl": trl_attention, "areal": areal_attention}
WATCHED = ("q_proj.weight", "v_proj.weight", "down_proj.weight")  # the gradients that are compared, of two layers


@dataclass
class Bench:
    """Measure trees on a GPU."""

    shapes: tuple[Shape, ...] = get_args(Shape)
    ways: tuple[Way, ...] = get_args(Way)
    minutes: float = 9.0
    """After this nothing new is begun."""
    rounds: int = 3
    toy: bool = False
    """Tiny, to see that it runs. Its figures say nothing."""
    out: Path = Path(os.environ.get("OUT") or RESULTS)


@dataclass(frozen=True)
class Work:
    """What is measured of a shape: shots per class of the sweep and its queries; those of a training step."""

    model: str
    optimizer: Callable[..., torch.optim.Optimizer]
    shots: tuple[int, ...] = (0, 1, 2, 4, 8)
    queries: int = 12
    batches: tuple[int, ...] = (4, 8, 16)
    learnt_at_once: tuple[int, ...] = (1, 2, 4)


def adamw(parameters) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0, fused=True)


def sgd(parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.0)


WORK = {"3b": Work("qwen2.5-3b", adamw), "7b": Work("qwen2.5-7b", sgd)}
TOY = Work("qwen2.5-toy", adamw, (0, 1, 2), 3, (2, 4), (1, 2))


class Subject:
    """A network with random weights, random features, and the prompts of a sweep or of a training step."""

    def __init__(self, work: Work, device: str, dtype: torch.dtype) -> None:
        self.work, self.random = work, Random(work.model, device, dtype)
        self.network, self.device = self.random.network, torch.device(device)
        text, count = self.network.config.get_text_config(), self.random.grid**2
        with torch.no_grad():
            for layer in self.network.get_decoder().layers:
                layer.self_attn.o_proj.weight *= ATTENTION_GAIN
        pictures = 2 * max(work.shots) + work.queries
        features = torch.randn(pictures, count, text.hidden_size, device=device, dtype=dtype) * text.initializer_range
        self.random.hand = {n: ImageFeatures(self.random.spelling, rows) for n, rows in enumerate(features)}
        self.seen: list[ImageFeatures] = []

    def prompts(self, training: bool) -> list[TokenSequence]:
        """A sweep, or the queries of a step, which have the two names in turn."""
        shots = self.work.shots[-1:] if training else self.work.shots
        asks = self.random.asks(Setting(shots=shots, queries=self.work.queries))
        lines, self.seen, _ = self.random.lines(asks)
        return [lines[2 * query + query % 2] for query in range(self.work.queries)] if training else lines

    def spread(self, scores: np.ndarray) -> float:
        """What more shots change in the score of the same query and name, root mean square."""
        by_shots = scores.reshape(len(self.work.shots), -1)
        return float(np.sqrt(np.square(np.diff(by_shots, axis=0)).mean()))


@dataclass
class Result:
    """What a way has computed: scores float64[prompts], or the sum of losses and some gradients."""

    scores: np.ndarray
    gradients: dict[str, Tensor] = field(default_factory=dict)


def learn(network, optimizer: torch.optim.Optimizer, backward: Callable[[], float], keep: bool) -> Result:
    """A step. The learning rate is 0, so that every step is the same."""
    optimizer.zero_grad(set_to_none=True)  # a run that was cut short has left some
    loss = backward()
    names = {name: p for name, p in network.named_parameters() if p.grad is not None} if keep else {}
    layers = network.config.get_text_config().num_hidden_layers
    ends = tuple(f"layers.{layer}.{part}" for layer in (0, layers - 1) for part in ("self_attn.", "mlp."))
    watched = [name for name in names if any(end in name for end in ends) and name.endswith(WATCHED)]
    gradients = {name: names[name].grad.clone() for name in watched}
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return Result(np.array([loss]), gradients)


class Runs:
    """All ways to one sweep, or to one training step."""

    def __init__(self, subject: Subject, kernel: Kernel | LeftOut, training: bool) -> None:
        self.subject, self.kernel, self.training = subject, kernel, training
        self.network, self.lines = subject.network, subject.prompts(training)
        self.optimizer = subject.work.optimizer(self.network.parameters()) if training else None
        self.prepare: dict[str, float] = {}  # the last seconds of each way before the pass

    def whole(self, batch: int, lines: list[TokenSequence] | None = None, keep: bool = False) -> Result:
        """Prompts in batches."""
        lines = self.lines if lines is None else lines
        scores = np.zeros(len(lines))

        def backward() -> float:
            total = torch.zeros((), device=self.subject.device)
            for _, nats in whole(self.network, lines, self.subject.seen, batch):
                nats.sum().backward()
                total += nats.sum().detach()
            return total.item()

        if self.optimizer is not None:
            return learn(self.network, self.optimizer, backward, keep)
        with torch.inference_mode():
            # Read at the end: a GPU computes a batch while the next one is merged.
            for chunk, nats in list(whole(self.network, lines, self.subject.seen, batch)):
                scores[chunk] = -nats.double().cpu().numpy()
        return Result(scores)

    def way(self, name: str, keep: bool = False) -> Result:
        """One of the trees. Raises `LeftOut` where it cannot run."""
        if name == "flex" and self.training and self.subject.device.type == "cpu":
            raise LeftOut("FlexAttention has no gradients on a CPU")
        if name == "prefix-cache" and self.training:
            raise LeftOut("it has no gradients")
        start = time.perf_counter()
        inputs = TreeInputs(merge(self.lines), self.subject.seen)
        if name == "prefix-cache":
            self.prepare[name] = time.perf_counter() - start
            width = GPU_MAX_TOKENS if self.subject.device.type == "cuda" else max(32, len(inputs.tree) // 3)
            return Result(np.array(Engine(self.network, min(width, len(inputs.tree))).scores(inputs)))
        with self._attention(name, inputs.tree) as (forward, order):
            self.prepare[name] = time.perf_counter() - start
            return self._run(forward, inputs, order, keep)

    @contextmanager
    def _attention(self, name: str, tree: PrefixTree) -> Iterator[tuple[TreeForward, np.ndarray]]:
        if name in ("sdpa", "flex"):
            # Each sweep and step compiles FlexAttention anew: after eight shapes PyTorch would no longer compile it.
            if name == "flex" and name not in self.prepare:
                torch.compiler.reset()
            with attention_named(self.network, {"flex": "flex_attention"}.get(name, name)):
                yield TreeForward(self.network), np.arange(len(tree))
            return
        if name in PEERS:
            if self.network.dtype == torch.float32:
                raise LeftOut("its kernel takes half precision alone")
            layout, attend = PEERS[name](tree, self.subject.device)
        else:
            if isinstance(self.kernel, LeftOut):
                raise self.kernel
            layout: Layout = {"joined": joined, "gathered": gathered}[name](tree, self.subject.device)
            attend = attention(layout, self.kernel)
        with attending(self.network, attend):  # without masks
            yield TreeForward(self.network, continues=True), layout.order

    def _run(self, forward: TreeForward, inputs: TreeInputs, order: np.ndarray, keep: bool) -> Result:
        tree, run = inputs.tree, ForwardPass(EMPTY, order)

        def hidden() -> Tensor:
            return forward.hidden([(inputs, run)], None, [tree.predictors])[0]

        def backward() -> float:
            losses = pass_losses(forward, tree, run, hidden())
            loss = (losses.nats * losses.weight).sum()
            loss.backward()
            return loss.item()

        if self.optimizer is not None:
            return learn(self.network, self.optimizer, backward, keep)
        with torch.inference_mode():
            targets = TargetLogprobs(forward, tree)
            targets.add(order, hidden())
            return Result(np.array(tree.sums(targets.complete().numpy())))


@dataclass
class Log:
    """Events as lines of a file and of the terminal, and the time that is left."""

    path: Path
    deadline: float
    bad: list[str] = field(default_factory=list)
    rows: list[dict] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def add(self, event: str, line: str, **values: object) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **values}) + "\n")
        print(line, flush=True)

    def left_out(self, what: str, reason: str) -> None:
        self.missing.append(f"{what}: {reason}")
        self.add("left out", f"  left out: {what}: {reason}", what=what, reason=reason)

    def failed(self, what: str, reason: str) -> None:
        self.bad.append(f"{what}: {reason}")
        self.add("failed", f"  FAILED: {what}: {reason}", what=what, reason=reason)

    def late(self, what: str) -> bool:
        """Whether there is no time to begin this, which is then named."""
        if time.monotonic() < self.deadline:
            return False
        self.left_out(what, "no time")
        return True

    def attempt(self, what: str, run: Callable[[], object]) -> object | None:
        """What a call gives, or None, with the reason in the log."""
        if self.late(what):
            return None
        try:
            return run()
        except LeftOut as reason:
            self.left_out(what, str(reason))
        except torch.OutOfMemoryError as error:
            self.left_out(what, f"out of memory: {one_line(error)}")
        except Exception as error:  # noqa: BLE001 - one way that fails must not end the measurement of the others
            self.failed(what, one_line(error))
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def difference(a: Result, b: Result) -> dict[str, float]:
    """The largest difference of scores or losses, and of gradients the largest relative norm."""
    norms = [
        float((a.gradients[name].float() - g.float()).norm() / g.float().norm()) for name, g in b.gradients.items()
    ]
    return {"scores": float(np.abs(a.scores - b.scores).max()), "gradients": max(norms, default=0.0)}


def words(values: dict[str, float]) -> str:
    """The values that are not 0, with their names."""
    return ", ".join(f"{value:.1e} ({name})" for name, value in values.items() if value) or "0"


def exact(config: Bench, device: str, log: Log) -> None:
    """All ways in float32 with toy weights, against whole prompts."""
    subject = Subject(TOY, device, torch.float32)
    kernel, _ = choose_kernel(subject.device, torch.float32)
    for training in (False, True):
        what = f"float32, {'training' if training else 'sweep'}"
        runs = Runs(subject, kernel, training)
        oracle = runs.whole(1, keep=True)
        for name in config.ways:
            result = log.attempt(f"{what}, {name}", lambda runs=runs, name=name: runs.way(name, keep=True))
            if not isinstance(result, Result):
                continue
            found = difference(result, oracle)
            found["scores"] /= float(np.abs(oracle.scores).max())
            log.add("exact", f"  {what}, {name}: {max(found.values()):.1e}", what=what, way=name, difference=found)
            if not max(found.values()) < EXACT:
                log.failed(f"{what}, {name}", f"differs from whole prompts by {words(found)}")


@contextmanager
def recomputing(network, enabled: bool) -> Iterator[None]:
    """Inside the block layers are computed again in the backward pass: eager attention keeps all its weights."""
    if enabled:
        network.train()  # nothing is dropped out, but evaluation keeps everything
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # transformers 5.17 has no other name for it
            network.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        if enabled:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                network.gradient_checkpointing_disable()
            network.eval()


def rounding(runs: Runs, batch: int, oracle: Result) -> dict[str, float]:
    """What other orders of summation change in bf16: prompts one by one in eager attention."""
    step = max(1, len(runs.lines) // SAMPLE)
    lines = runs.lines if runs.training else runs.lines[::step]
    with attention_named(runs.network, "eager"), recomputing(runs.network, runs.training):
        other = runs.whole(1, lines, keep=True)
    if runs.training:
        return difference(other, oracle)
    return {"scores": float(np.sqrt(np.square(other.scores - oracle.scores[::step]).mean())), "gradients": 0.0}


def fastest(runs: Runs, what: str, log: Log) -> int:
    """The fastest batch size for the longest prompts."""
    work, tried = runs.subject.work, {}
    lines = runs.lines[-2 * work.queries :]
    runs.whole(1, lines[-1:])  # libraries are loaded
    for batch in work.learnt_at_once if runs.training else work.batches:
        name = f"{what}, whole prompts in batches of {batch}"
        taken = log.attempt(name, lambda batch=batch: seconds(lambda: runs.whole(batch, lines)))
        if isinstance(taken, float):
            tried[batch] = taken
            log.add("batch", f"  {name}: {tried[batch]:.2f} s", what=what, batch=batch, seconds=tried[batch])
    if not tried:
        raise LeftOut("whole prompts did not run")
    return min(tried, key=tried.__getitem__)


def measure(subject: Subject, shape: str, kernel: Kernel | LeftOut, training: bool, config: Bench, log: Log) -> None:
    """One sweep or one training step in all ways."""
    device, what = subject.device.type, f"{shape}, {'training' if training else 'sweep'}"
    runs = Runs(subject, kernel, training)
    batch = fastest(runs, what, log)
    kept: dict[str, Result] = {}
    peaks = {"whole": peak(lambda: kept.update(whole=runs.whole(batch, keep=True)), device)}
    oracle = kept["whole"]
    noise = rounding(runs, batch, oracle)
    size = float(np.abs(oracle.scores).max())
    limits = {"scores": max(SCORES * noise["scores"], FLOOR * (size if training else 1.0))}
    limits["gradients"] = max(GRADIENTS * noise["gradients"], FLOOR)
    spread = None if training else subject.spread(oracle.scores)
    log.add("tolerance", f"  {what}: {words(limits)} allowed", what=what, limits=limits, spread=spread)
    differences: dict[str, dict[str, float]] = {}
    for name in config.ways:
        memory = log.attempt(
            f"{what}, {name}",
            lambda name=name: peak(lambda: kept.update({name: runs.way(name, keep=True)}), device),
        )
        if not isinstance(memory, dict):
            continue
        peaks[name], differences[name] = memory, difference(kept.pop(name), oracle)
        log.add(
            "checked",
            f"  {what}, {name}: differs by {words(differences[name])}, peak {memory['above'] / 1e9:.2f} GB",
            **{"what": what, "way": name, "difference": differences[name], "memory": memory},
        )
        if not all(differences[name][part] <= limits[part] for part in limits):
            log.failed(f"{what}, {name}", f"differs by {words(differences[name])}, more than {words(limits)}")
    times: dict[str, list[float]] = {name: [] for name in peaks}
    for turn in range(config.rounds):
        for name, values in times.items():
            run = functools.partial(runs.whole, batch) if name == "whole" else functools.partial(runs.way, name)
            taken = log.attempt(f"{what}, {name}, round {turn + 1}", functools.partial(seconds, run))
            if isinstance(taken, float):
                values.append(taken)
                log.add("turn", f"  {what}, {name}: {taken:.3f} s", what=what, way=name, seconds=taken)
    report(runs, what, batch, {n: min(t) for n, t in times.items() if t}, peaks, differences, limits, spread, log)


def measure_shape(shape: str, device: str, kernel: Kernel | LeftOut, config: Bench, log: Log) -> None:
    """The sweep and the training step of a shape."""
    subject = Subject(WORK.get(shape, TOY), device, torch.bfloat16)
    for training in (False, True):
        what = f"{shape}, {'training' if training else 'sweep'}"
        log.attempt(what, functools.partial(measure, subject, shape, kernel, training, config, log))


def report(
    runs: Runs,
    what: str,
    batch: int,
    best: dict[str, float],
    peaks: dict[str, dict[str, int]],
    differences: dict[str, dict[str, float]],
    limits: dict[str, float],
    spread: float | None,
    log: Log,
) -> None:
    """A row of the table for each way that was timed."""
    tree, device = merge(runs.lines), runs.subject.device.type
    rate = rates(runs.network.dtype, device, 256 if device == "cpu" else 8192)["operations"]
    tokens = {"whole": sum(len(line.ids) for line in runs.lines), "tree": len(tree)}
    passes = 3 if runs.training else 1  # a backward pass has twice the products of a forward pass
    needed = {
        "tree": passes * sum(operations(runs.network, tree).values()),
        "whole": passes * sum(sum(operations(runs.network, merge([line])).values()) for line in runs.lines),
    }
    ideal = tokens["whole"] / tokens["tree"]
    for name, taken in best.items():
        row = {"what": what, "way": name, "seconds": taken, "memory": peaks[name], "tokens": tokens, "ideal": ideal}
        row |= {"prompts": len(runs.lines), "batch": batch if name == "whole" else None}
        reached = needed["whole" if name == "whole" else "tree"] / taken
        row |= {"rate": reached, "rate_share": reached / rate}
        if name != "whole":
            row |= {"difference": differences[name], "limits": limits, "spread": spread, "prepare": runs.prepare[name]}
            if "whole" in best:
                row |= {"ratio": best["whole"] / taken, "share": best["whole"] / taken / ideal}
        if runs.optimizer is not None:
            row["optimizer"] = type(runs.optimizer).__name__
        log.rows.append(row)
        share = f", {row['share']:.0%} of the ideal {ideal:.2f}" if "share" in row else ""
        log.add("row", f"  {what}, {name}: {taken:.3f} s{share}", **row)


def show(log: Log, title: str) -> None:
    columns = "s", "prepare s", "ideal", "ratio", "share", "TFLOP/s", "of a product's", "peak GB", "differs", "allowed"
    table = Table("", "", *columns, "spread", title=title)
    for row in log.rows:
        cells = [f"{row['seconds']:.3f}", *[""] * 10]
        cells[5:8] = f"{row['rate'] / 1e12:.3g}", f"{row['rate_share']:.0%}", f"{row['memory']['above'] / 1e9:.2f}"
        if "difference" in row:
            part = "gradients" if row["difference"]["gradients"] else "scores"
            cells[1], cells[8] = f"{row['prepare']:.3f}", f"{row['difference'][part]:.1e}"
            cells[9] = f"{row['limits'][part]:.1e}"
            cells[10] = "" if row["spread"] is None else f"{row['spread']:.1e}"
        if "share" in row:
            cells[2:5] = f"{row['ideal']:.2f}", f"{row['ratio']:.2f}", f"{row['share']:.0%}"
        label = f"{row['way']} (batches of {row['batch']})" if row["batch"] else row["way"]
        table.add_row(row["what"], label, *cells)
    console = Console(width=180)
    console.print(table)
    for line in log.missing:
        console.print(f"left out: {line}", highlight=False)
    for line in log.bad:
        console.print(f"FAILED: {line}", highlight=False)


def main() -> None:
    hf.utils.logging.disable_progress_bar()
    config = tyro.cli(Bench)
    device = "cuda" if torch.cuda.is_available() and not config.toy else "cpu"
    if device == "cpu":
        if not config.toy:
            print("There is no CUDA device here: toy sizes on the CPU, whose figures say nothing.")
        torch.compiler.set_stance("force_eager")  # compiling FlexAttention takes longer than all the rest
        warnings.filterwarnings("ignore", "flex_attention called without")
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / ("gpu-trees.jsonl" if device == "cuda" else "gpu-trees-toy.jsonl")
    path.unlink(missing_ok=True)
    log = Log(path, time.monotonic() + 60 * config.minutes)
    where = machine(device)
    log.add("machine", f"{where['device']}, torch {torch.__version__}", **where)
    kernel: Kernel | LeftOut
    try:
        kernel, refused = choose_kernel(torch.device(device), torch.bfloat16)
        log.add("kernel", f"joined and gathered run on {kernel.name}", name=kernel.name, refused=refused)
    except LeftOut as reason:
        kernel, refused = reason, []
        log.failed("kernel", str(reason))
    for line in refused:
        log.left_out("kernel", line)
    exact(config, device, log)
    for shape in config.shapes if device == "cuda" else ("toy",):
        log.attempt(shape, functools.partial(measure_shape, shape, device, kernel, config, log))
    show(log, f"trees in bf16, random weights, {where['device']}, {where['date']}")
    print(f"{path}: {len(log.rows)} rows")
    if log.bad or not log.rows:
        sys.exit(1)


if __name__ == "__main__":
    main()
