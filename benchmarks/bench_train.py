"""Training throughput: answers learnt a second, against TRL's SFTTrainer. Run: `make bench`, or

    python benchmarks/bench_train.py                (needs trl: pip install -e '.[bench]')

Episodes of world:0 with 16 shots per class, 2-way, 8 queries to a support; a step learns the answers of two supports.

    trl             SFTTrainer on prompt-completion rows with pictures, an answer a row, at the fastest of several
                    batch sizes and worker counts. Pictures are decoded beforehand and handed over by a transform of
                    the data set. No checkpointing; packing and padding-free it refuses for pictures.
    rows            the same rows as a batch through our engine, features of the frozen tower computed once.
    tree            a support and its queries as one tree, features computed once.
    tree, new       the same where every picture of a step is new: its features are computed in the step.
    train           `linkcontext train` on episodes of the same shape, with all that it does besides: drawing, words and
                    tokens, features from the disk, where an earlier run has left them.

All train projector and language model in float32 with the same AdamW, learning rate, clipping and mean over answer
tokens; the tower is frozen. The losses of `trl` and `tree` on the same answers in the same order are laid over each
other: equal curves are equal gradients. Ends with 1 where they differ by more than 1 % of the first loss.
"""

import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import torch
import transformers as hf
import tyro
from machine import COLOURS, RESULTS, machine, seconds, summary, write
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from trl import SFTConfig, SFTTrainer

from linkcontext.config import ModelConfig
from linkcontext.data.images import open_image
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.render import encode
from linkcontext.episodes.scaffold import SCAFFOLDS, Message, image_ids, query_messages
from linkcontext.inference.forward import TreeInputs
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.losses import tree_losses
from linkcontext.inference.packing import pack
from linkcontext.inference.prefix_tree import TokenSequence, expand_images
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.loading import load_model, load_processor
from linkcontext.models.model import Model
from linkcontext.source import open_data
from linkcontext.train.config import TrainConfig
from linkcontext.train.loop import train

ADAM = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "fused": True}
CLIP = 1.0
SUPPORTS = 2  # episodes to a step


@dataclass
class Bench:
    """Measure training against TRL."""

    model: str = "mini-base"
    """A LLaVA: features are what its projector is given. mini, of the same shape, has learnt these answers already."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    shots: int = 16
    """Per class."""
    queries: int = 8
    """To a support."""
    batches: tuple[int, ...] = (4, 8, 16)
    """TRL's per_device_train_batch_size; the fastest counts. The rest of a step is accumulated."""
    workers: tuple[int, ...] = (0, 1)
    """TRL's dataloader_num_workers."""
    steps: int = 30
    """Of the curves."""
    block: int = 4
    """Steps of a timed block; the first is not counted."""
    repeats: int = 3
    """Timed blocks, of each in turn."""
    learning_rate: float = 2e-5
    """Low enough for the curves to be compared: at 1e-4 the loss rises, and what differs by rounding drifts apart."""
    toy: bool = False
    """Tiny, to see that it runs. Its figures say nothing."""
    out: Path = RESULTS


class Lessons:
    """The answers to learn, in order, as messages, as TRL's rows and as lines of trees."""

    def __init__(self, model: Model, config: Bench) -> None:
        self.model, self.eyes, data = model, VisionEncoder(model, open_image), open_data("world:0")
        self.each = SUPPORTS * config.queries  # answers to a step
        count = SUPPORTS * max(config.steps, config.block)
        plan = EpisodePlan(2, (config.shots,), episodes=count, queries=config.queries)
        self.episodes = sample_episodes(data, plan).episodes
        self.told = [
            query_messages(e, q, config.shots, SCAFFOLDS["turns"], e.queries[q].answer)
            for e in self.episodes
            for q in range(config.queries)
        ]
        paths = {item.id: data.path(item.id) for item in data.items}
        shown = sorted({item for messages in self.told for item in image_ids(messages)})
        self.images = {item: open_image(paths[item]) for item in shown}
        self.inputs: dict[str, Tensor] = {}  # what the projector is given of a picture
        self.took = seconds(lambda: self.inputs.update(self.look(shown)))
        self.spelling = self.eyes.encode_images([self.images[shown[0]]])[0].image_tokens

    def rows(self) -> datasets.Dataset:
        """As TRL wants them: messages with places for pictures, and the pictures."""

        def blank(messages: Sequence[Message]) -> list[Message]:
            parts = [[{k: v for k, v in part.items() if k != "image"} for part in m["content"]] for m in messages]
            return [{"role": m["role"], "content": content} for m, content in zip(messages, parts, strict=True)]

        def made(chunk: dict) -> dict:
            told = [self.told[i] for i in chunk["number"]]
            return {
                "prompt": [blank(messages[:-1]) for messages in told],
                "completion": [blank(messages[-1:]) for messages in told],
                "images": [[self.images[item] for item in image_ids(messages)] for messages in told],
            }

        return datasets.Dataset.from_dict({"number": list(range(len(self.told)))}).with_transform(made)

    @torch.no_grad()
    def look(self, items: Sequence[str]) -> dict[str, Tensor]:
        """What the projector is given of each picture."""
        caught: list[Tensor] = []
        projector = self.model.network.model.multi_modal_projector
        hook = projector.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
        for start in range(0, len(items), 32):
            self.eyes.encode_images([self.images[item] for item in items[start : start + 32]])
        hook.remove()
        return dict(zip(items, torch.cat(caught), strict=True))

    def step(self, number: int) -> list[list[Message]]:
        """The conversations of a step."""
        start = number * self.each % len(self.told)
        return self.told[start : start + self.each]

    def lines(self, told: Sequence[list[Message]]) -> tuple[list[TokenSequence], list[str]]:
        """Lines, and the pictures by the numbers they have there."""
        places: dict[str, int] = {}
        found = []
        for messages in told:
            tokens = encode(messages, self.model.chat_template, "last")
            numbers = [places.setdefault(item, len(places)) for item in tokens.pictures]
            found.append(
                expand_images(
                    tokens.ids,
                    tokens.labels,
                    self.eyes.preprocessor.image_token,
                    numbers,
                    [self.spelling] * len(numbers),
                )
            )
        return found, list(places)


def optimizer(network: nn.Module, rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=rate, **ADAM)


def learn(network: nn.Module, optim: torch.optim.AdamW, lessons: Lessons, number: int, way: str) -> tuple[float, int]:
    """One step of ours: the mean cross-entropy over the answers' tokens, and how many those are."""
    lines, items = lessons.lines(lessons.step(number))
    inputs = lessons.look(items) if way == "tree, new" else lessons.inputs
    projected = network.model.multi_modal_projector(torch.stack([inputs[item] for item in items]))
    seen = [ImageFeatures(lessons.spelling, rows) for rows in projected]
    queries = len(lines) // SUPPORTS
    groups = (
        [[line] for line in lines] if way == "rows" else [lines[i : i + queries] for i in range(0, len(lines), queries)]
    )
    cascade = way != "rows" and network.device.type == "cpu"
    found = tree_losses(network, [TreeInputs(tree, seen) for tree in pack(groups, 0)], cascade)
    loss = (found.nats * found.weight).sum() / found.weight.sum()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    optim.step()
    optim.zero_grad(set_to_none=True)
    return loss.item(), int(found.weight.sum())


def ours(base: nn.Module, lessons: Lessons, config: Bench, way: str, steps: int) -> tuple[list[float], list[float]]:
    """Losses, and seconds of each step but the first."""
    network = copy.deepcopy(base)
    optim, losses, times = optimizer(network, config.learning_rate), [], []
    for number in range(steps):
        times.append(seconds(lambda: losses.append(learn(network, optim, lessons, number, way)[0])))  # noqa: B023
    return losses, times[1:]


def whole(config: Bench) -> list[float]:
    """Seconds of each step but the first of `linkcontext train`, in a second run: the first leaves the features."""
    plan = TrainConfig(
        model=ModelConfig(config.model, device=config.device),
        data="world:0",
        strategy="2-way",
        support=2 * config.shots,
        queries=config.queries,
        batch=SUPPORTS,
        steps=config.block,
        lr=config.learning_rate,
    )
    with tempfile.TemporaryDirectory() as folder:
        for run in ("first", "second"):
            train(replace(plan, out=f"{folder}/{run}"))
        logged = (Path(folder) / "second" / "log.jsonl").read_text().splitlines()
    return [SUPPORTS * config.queries / json.loads(line)["answers_per_second"] for line in logged[1:]]


class Clock(hf.TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def trl(
    base: nn.Module, lessons: Lessons, config: Bench, batch: int, workers: int, steps: int
) -> tuple[list[float], list[float]]:
    """The same by TRL: losses, and seconds of each step but the first."""
    clock, network = Clock(), copy.deepcopy(base)
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=lessons.each // batch,
            dataloader_num_workers=workers,
            dataloader_pin_memory=config.device == "cuda",
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            max_steps=steps,
            max_length=None,
            learning_rate=config.learning_rate,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            adam_beta1=ADAM["betas"][0],
            adam_beta2=ADAM["betas"][1],
            adam_epsilon=ADAM["eps"],
            weight_decay=ADAM["weight_decay"],
            max_grad_norm=CLIP,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=config.device == "cpu",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = SFTTrainer(
            network,
            settings,
            train_dataset=lessons.rows(),
            processing_class=load_processor(config.model),
            callbacks=[clock],
        )
        trainer.remove_callback(hf.PrinterCallback)
        trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return losses, np.diff(clock.ends).tolist()


def fastest(base: nn.Module, lessons: Lessons, config: Bench) -> tuple[dict[str, float], int, int]:
    """TRL's best batch size and worker count: mean seconds a step for each."""
    tried = {}
    for batch in (b for b in config.batches if lessons.each % b == 0):
        for workers in config.workers:
            taken = float(np.mean(trl(base, lessons, config, batch, workers, 3)[1]))
            tried[batch, workers] = taken
            print(f"  trl, batch {batch}, {workers} workers: {taken:.2f} s a step", flush=True)
    batch, workers = min(tried, key=tried.__getitem__)
    return {f"batch {b}, {w} workers": taken for (b, w), taken in tried.items()}, batch, workers


def show(found: dict) -> None:
    table = Table(
        "", "answers a second, best", "median", "x trl", title=f"{found['model']}, {found['answers']} answers a step"
    )
    for name, row in found["rows"].items():
        table.add_row(name, *(f"{row[column]:.2f}" for column in ("answers_best", "answers_median", "times_trl")))
    console = Console(width=120)
    console.print(table)
    console.print(f"features of all {found['pictures']} pictures, once: {found['features_seconds']:.1f} s")
    first, last = found["losses"]["trl"][0], found["losses"]["trl"][-1]
    console.print(f"loss {first:.4f} to {last:.4f}; largest difference of the two curves {found['difference']:.1e}")


def plot(found: dict) -> Figure:
    """Answers a second, and the two curves."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    bars, curves = figure.subplots(1, 2)
    values = {name: row["answers_best"] for name, row in found["rows"].items()}
    drawn = bars.barh(list(values), list(values.values()), color=COLOURS[: len(values)])
    bars.bar_label(drawn, fmt="%.3g", padding=2)
    bars.invert_yaxis()
    bars.margins(x=0.2)
    bars.set_xlabel("answers learnt a second")
    curves.plot(found["losses"]["trl"], color=COLOURS[0], linewidth=4, alpha=0.4, label="trl")
    curves.plot(found["losses"]["tree"], color=COLOURS[1], linewidth=1.2, label="tree")
    curves.set_xlabel(f"step; largest difference {found['difference']:.1e}")
    curves.set_ylabel("loss")
    curves.legend()
    return figure


def main() -> None:
    hf.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()  # a transform of bound pictures has no stable hash, and needs none
    config = tyro.cli(Bench)
    if config.toy:
        config.shots, config.queries, config.batches, config.workers = 1, 2, (2, 4), (0,)
        config.steps, config.block = 3, 3
    found = {"model": config.model, "machine": machine(config.device)}
    model = load_model(config.model, dtype="float32", device=config.device)
    base = model.network
    base.requires_grad_(True)
    base.model.vision_tower.requires_grad_(False)
    lessons = Lessons(model, config)
    found["tried"], batch, workers = fastest(base, lessons, config)
    print("curves", flush=True)
    losses = {
        "trl": trl(base, lessons, config, batch, workers, config.steps)[0],
        "tree": ours(base, lessons, config, "tree", config.steps)[0],
    }
    ways: dict[str, Callable[[], list[float]]] = {
        "trl": lambda: trl(base, lessons, config, batch, workers, config.block)[1]
    }
    for way in ("rows", "tree", "tree, new"):
        ways[way] = lambda way=way: ours(base, lessons, config, way, config.block)[1]
    ways["train"] = lambda: whole(config)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(config.repeats):
        for way, run in ways.items():
            times[way].append(float(np.mean(run())))
            print(f"  {repeat + 1}/{config.repeats} {way}: {times[way][-1]:.2f} s a step", flush=True)
    rows = {}
    for way, taken in times.items():
        row = {"seconds": summary(taken), "times_trl": min(times["trl"]) / min(taken)}
        rows[way] = row | {f"answers_{which}": lessons.each / row["seconds"][which] for which in ("best", "median")}
    found |= {
        "setting": {"ways": 2, "shots": config.shots, "queries": config.queries, "supports": SUPPORTS},
        "answers": lessons.each,
        "trl_setting": {"batch": batch, "workers": workers},
        "pictures": len(lessons.images),
        "features_seconds": lessons.took,
        "rows": rows,
        "losses": losses,
        "difference": max(abs(a - b) for a, b in zip(*losses.values(), strict=True)),
    }
    show(found)
    write(config.out, "train-toy" if config.toy else "train", found, plot(found))
    if found["difference"] > 0.01 * losses["trl"][0]:
        sys.exit(f"the curves differ by {found['difference']:.1e}")


if __name__ == "__main__":
    main()
