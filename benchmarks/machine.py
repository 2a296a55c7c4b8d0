"""What the benchmarks share: the machine, clocks, peaks of memory, networks with random weights, results."""

import ctypes
import datetime
import gc
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.nn.functional as F
import transformers as hf
from matplotlib.figure import Figure

from linkcontext.episodes.render import IGNORE, Tokens
from linkcontext.inference.engine import CPU_MAX_TOKENS, GPU_MAX_TOKENS, Engine
from linkcontext.inference.forward import TreeInputs
from linkcontext.inference.image_features import ImageFeatures
from linkcontext.inference.memory import free_memory, max_tokens_per_pass
from linkcontext.inference.prefix_tree import ImageTokens, TokenSequence, expand_images, merge
from linkcontext.inference.vision import chunks

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("linkcontext", "torch", "transformers", "trl", "accelerate", "numpy")
Found = tuple[list[float], int]  # scores, and how many pictures went through the tower
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito


def machine(device: str) -> dict:
    """Where, when and with what the figures were made."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.*)", info.read_text()) if info.exists() else []
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "uncommitted": bool(_git("status", "--porcelain", "src")),
        "processor": f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {platform.machine()}",
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": found,
    }


def _git(*words: str) -> str:
    here = Path(__file__).parent.parent
    if shutil.which("git") is None:
        return ""
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False, cwd=here).stdout.strip()


def seconds(run: Callable[[], object]) -> float:
    """How long a call takes, all that it started on a GPU included."""
    _wait()
    start = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def alternate(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict]:
    """Each of the runs in turn, so many times; they are warm already. Best and median seconds, and all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run))
            print(f"  {repeat + 1}/{repeats} {name}: {times[name][-1]:.2f} s", flush=True)
    return {name: summary(found) for name, found in times.items()}


def summary(times: list[float]) -> dict:
    return {"best": min(times), "median": statistics.median(times), "all": times}


def peak(run: Callable[[], object], device: str) -> dict:
    """How far memory rises above what was taken before, in bytes, while a call runs.

    On a GPU what PyTorch allocated. Otherwise the resident set of this process, whose peak Linux keeps: the process
    should not have done the same before, because not all that was freed goes back.
    """
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        _wait()
        return {"before": before, "above": torch.cuda.max_memory_allocated() - before}
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or it would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _resident("VmHWM")
    run()
    return {"before": before, "above": _resident("VmHWM") - before}


def _resident(what: str) -> int:
    (kilobytes,) = re.findall(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kilobytes)


def rates(dtype: torch.dtype, device: str, size: int) -> dict:
    """What the device reaches: operations a second in a square matrix product, bytes a second in a copy."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    best = min(seconds(lambda: [torch.matmul(a, b, out=out) for _ in range(10)]) for _ in range(4)) / 10
    source = torch.ones(16 * size * size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = min(seconds(lambda: [target.copy_(source) for _ in range(10)]) for _ in range(4)) / 10
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "size": size,
        "operations": 2 * size**3 / best,
        "bytes": 2 * source.numel() / copied,  # read and written
    }


def write(out: Path, name: str, found: dict, figure: Figure) -> None:
    """`name`.json and `name`.png, each written beside its place and renamed."""
    out.mkdir(parents=True, exist_ok=True)
    for path in (out / f"{name}.json", out / f"{name}.png"):
        beside = path.with_name(f".{os.getpid()}.{path.name}")
        if path.suffix == ".json":
            beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        else:
            figure.savefig(beside, dpi=110)
        beside.replace(path)
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


@dataclass(frozen=True)
class Setting:
    """One episode."""

    ways: int = 2
    shots: tuple[int, ...] = (4,)  # per class
    queries: int = 32
    candidates: int = 2


@torch.inference_mode()
def whole_prompts(network, told: list[Tokens], inputs: Callable[[list[int]], dict], batch: int) -> Found:
    """The log-probability of each prompt's answer, so many prompts at a time; `inputs` makes what the network gets.

    Prompts of like length stand together, and logits are made for the answers alone. What is filled up stands on the
    right, where nobody sees it, so that attention is plain causal.
    """
    scores = [0.0] * len(told)
    for chunk in chunks(sorted(range(len(told)), key=lambda i: (len(told[i].pictures), len(told[i].ids))), batch):
        given = {name: value.to(network.device) for name, value in inputs(list(chunk)).items()}
        given["pixel_values"] = given["pixel_values"].to(network.dtype)
        spans = [answered(told[i], n) for i, n in zip(chunk, given.pop("attention_mask").sum(1).tolist(), strict=True)]
        before = min(start for start, _ in spans) - 1
        kept = given["input_ids"].shape[1] - before
        logits = network(**given, use_cache=False, logits_to_keep=kept).logits
        for row, (i, (start, end)) in enumerate(zip(chunk, spans, strict=True)):
            at = logits[row, start - 1 - before : end - 1 - before].float().log_softmax(-1)
            scores[i] = float(at.gather(1, given["input_ids"][row, start:end, None]).double().sum())
    return scores, sum(len(tokens.pictures) for tokens in told)


@torch.inference_mode()
def as_harness(network, told: list[Tokens], made: list[dict], batch: int) -> Found:
    """The same as lm-evaluation-harness does it, from what its processor made of each prompt: batches of falling
    length filled up on the right, and log-probabilities of the whole vocabulary at every position."""
    scores, lengths = [0.0] * len(told), [given["input_ids"].shape[1] for given in made]
    for chunk in chunks(sorted(range(len(told)), key=lambda i: -lengths[i]), batch):
        given = {}
        for name in made[chunk[0]].keys() - {"attention_mask"}:
            values = [made[i][name].to(network.device) for i in chunk]
            if name in ("input_ids", "mm_token_type_ids"):
                values = [F.pad(v, (0, lengths[chunk[0]] - v.shape[1])) for v in values]
            given[name] = torch.cat(values)
        given["pixel_values"] = given["pixel_values"].to(network.dtype)
        every = network(**given).logits.log_softmax(-1)
        for row, i in enumerate(chunk):
            start, end = answered(told[i], lengths[i])
            at = every[row, start - 1 : end - 1].gather(1, given["input_ids"][row, start:end, None])
            scores[i] = float(at.double().sum())
    return scores, sum(len(tokens.pictures) for tokens in told)


def answered(tokens: Tokens, length: int) -> tuple[int, int]:
    """Where the answer stands in a prompt of so many tokens, counted from behind: pictures take room in front."""
    places = [j for j, label in enumerate(tokens.labels) if label != IGNORE]
    end = length - (len(tokens.ids) - 1 - places[-1])  # less what a template adds behind the answer
    return end - len(places), end


class Random:
    """Random weights in the shape of a known model, and episodes of random words and pixels. A prompt's parts are as
    long as those of the usual templates: 20 tokens in front, 12 around a question and its picture, 3 to a name."""

    def __init__(self, name: str, device: str, dtype: torch.dtype | None = None) -> None:
        dtype = dtype or (torch.bfloat16 if device == "cuda" else torch.float32)
        kind, config, self.grid = SHAPES[name]()
        torch.manual_seed(0)
        torch.set_default_dtype(dtype)
        with torch.device(device):
            self.network = kind(config).eval()
        torch.set_default_dtype(torch.float32)
        self.hand: dict = {}
        self.device, self.dtype, self.mark = device, dtype, config.image_token_id
        self.qwen = config.model_type == "qwen2_5_vl"
        count, row = self.grid**2, np.arange(self.grid)
        rows = [np.zeros(count, np.int64), np.repeat(row, self.grid), np.tile(row, self.grid)]
        shift = np.stack(rows) if self.qwen else np.arange(count)[None]
        self.spelling = ImageTokens(np.full(count, self.mark), np.arange(count), shift)
        self.drawn: list[torch.Tensor] = []

    def asks(self, setting: Setting) -> list[Tokens]:
        """The tokens of each branch, each picture one mark. Pictures are numbers."""
        stream, most = np.random.default_rng(0), max(setting.shots) * setting.ways
        high = min(self.network.config.get_text_config().vocab_size, self.mark) - 8

        def words(count: int) -> list[int]:
            return stream.integers(4, high, count).tolist()

        names, system, before, after = [words(3) for _ in range(setting.candidates)], words(20), words(5), words(7)
        self._draw(most + setting.queries)
        frame = [*before, *([high + 1, self.mark, high + 2] if self.qwen else [self.mark]), *after]
        found = []
        for k in setting.shots:
            support = [t for i in range(k * setting.ways) for t in (*frame, *names[i % setting.ways], 2)]
            for query in range(setting.queries):
                told = [*system, *support, *frame]
                shown = (*map(str, range(k * setting.ways)), str(most + query))
                for name in names:
                    labels = [*[IGNORE] * len(told), *name, 2]
                    found.append(Tokens((*told, *name, 2), tuple(labels), shown))
        return found

    def longest(self, asks: list[Tokens]) -> list[Tokens]:
        return [max(asks, key=lambda tokens: len(tokens.pictures))]

    def _draw(self, count: int) -> None:
        """Pixels of so many pictures, as the processor gives them."""
        vision = self.network.config.vision_config
        edge = vision.patch_size * self.grid * (2 if self.qwen else 1)
        shape = ((2 * self.grid) ** 2, 3 * 2 * vision.patch_size**2) if self.qwen else (1, 3, edge, edge)
        while len(self.drawn) < count:
            self.drawn.append(torch.randn(shape, device=self.device, dtype=self.dtype))

    def _pixels(self, numbers: list[int]) -> dict:
        found = {"pixel_values": torch.cat([self.drawn[number] for number in numbers])}
        grid = torch.tensor([[1, 2 * self.grid, 2 * self.grid]] * len(numbers), device=self.device)
        return found | ({"image_grid_thw": grid} if self.qwen else {})

    def lines(self, asks: list[Tokens]) -> tuple[list[TokenSequence], list[ImageFeatures], int]:
        lines, seen, calls = self.stream(asks)
        return list(lines), seen, calls

    @torch.inference_mode()
    def stream(self, asks: list[Tokens]) -> tuple[Iterator[TokenSequence], list[ImageFeatures], int]:
        """Prompts one by one, as an engine merges them; the features of their pictures; how many were computed."""
        numbers = sorted({int(picture) for tokens in asks for picture in tokens.pictures})
        place, seen = {number: i for i, number in enumerate(numbers)}, []
        for chunk in chunks([] if self.hand else numbers, 32):
            features = self.network.model.get_image_features(**self._pixels(list(chunk))).pooler_output
            seen += [ImageFeatures(self.spelling, rows) for rows in features]
        seen = [self.hand[number] for number in numbers] if self.hand else seen
        lines = (
            expand_images(
                t.ids, t.labels, self.mark, [place[int(p)] for p in t.pictures], [self.spelling] * len(t.pictures)
            )
            for t in asks
        )
        return lines, seen, 0 if self.hand else len(numbers)

    def features(self, asks: list[Tokens]) -> dict:
        numbers = sorted({int(picture) for tokens in asks for picture in tokens.pictures})
        return dict(zip(numbers, self.stream(asks)[1], strict=True))

    def tree(self, asks: list[Tokens], engine: str) -> Found:
        lines, seen, calls = self.stream(asks)
        tree = merge(lines)
        usual = (
            len(tree)
            if engine == "tree"
            else min(GPU_MAX_TOKENS if self.device == "cuda" else CPU_MAX_TOKENS, len(tree))
        )
        width = max_tokens_per_pass(self.network, int(tree.depth.max()) + 1, free_memory(self.network.device), usual)
        return Engine(self.network, width).scores(TreeInputs(tree, seen)), calls

    def naive(self, asks: list[Tokens], batch: int) -> Found:
        return whole_prompts(self.network, asks, self._inputs(asks), batch)

    def harness(self, asks: list[Tokens], batch: int) -> Found:
        inputs = self._inputs(asks)
        return as_harness(self.network, asks, [inputs([i]) for i in range(len(asks))], batch)

    def _inputs(self, asks: list[Tokens]) -> Callable[[list[int]], dict]:
        def inputs(chunk: list[int]) -> dict:
            spelled = [self._spelled(asks[i].ids) for i in chunk]
            length = max(map(len, spelled))
            ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in spelled], device=self.device)
            mask = torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in spelled], device=self.device)
            kinds = {"mm_token_type_ids": (ids == self.mark).int()} if self.qwen else {}
            shown = [int(picture) for i in chunk for picture in asks[i].pictures]
            return {"input_ids": ids, "attention_mask": mask, **kinds, **self._pixels(shown)}

        return inputs

    def _spelled(self, ids: tuple[int, ...]) -> list[int]:
        return [token for i in ids for token in ([i] * self.grid**2 if i == self.mark else [i])]

    @torch.inference_mode()
    def one_picture(self) -> None:
        self.network.model.get_image_features(**self._pixels([0]))


def llava(text: dict, vision: dict, image: int, kind: type = hf.LlamaConfig, tied: bool = False, **more) -> tuple:
    shape = kind(**text, **more), hf.CLIPVisionConfig(**vision, **more)
    config = hf.LlavaConfig(
        text_config=shape[0], vision_config=shape[1], image_token_index=image, tie_word_embeddings=tied
    )
    return hf.LlavaForConditionalGeneration, config, vision["image_size"] // vision["patch_size"]


def qwen(text: dict, vision: dict, section: list[int], grid: int, **more) -> tuple:
    rope = {"rope_type": "default", "mrope_section": section, "rope_theta": 1e6}
    config = hf.Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": rope, **more},
        vision_config={**vision, **more},
        tie_word_embeddings=True,
    )
    config.image_token_id, config.video_token_id = text["vocab_size"] - 3, text["vocab_size"] - 2
    return hf.Qwen2_5_VLForConditionalGeneration, config, grid


def sizes(width: int, wide: int, layers: int, heads: int, **more) -> dict:
    shape = {"hidden_size": width, "intermediate_size": wide, "num_hidden_layers": layers, "num_attention_heads": heads}
    return shape | more


def qwen_in_llava(text: dict, grid: int, **more) -> tuple:
    """A Qwen2.5 as the language model of a Llava with a tower of next to no size and grid x grid tokens a picture."""
    tower = sizes(32, 64, 1, 2, image_size=2 * grid, patch_size=2)
    text |= {"max_position_embeddings": 32768, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    return llava(text, tower, text["vocab_size"] - 3, kind=hf.Qwen2Config, **more)


SHAPES = {
    # The config.json of Qwen/Qwen2.5-3B and Qwen/Qwen2.5-7B; 256 tokens a picture.
    "qwen2.5-3b": lambda: qwen_in_llava(
        sizes(2048, 11008, 36, 16, num_key_value_heads=2, vocab_size=151936), 16, tied=True
    ),
    "qwen2.5-7b": lambda: qwen_in_llava(sizes(3584, 18944, 28, 28, num_key_value_heads=4, vocab_size=152064), 16),
    "qwen2.5-toy": lambda: qwen_in_llava(
        sizes(64, 128, 2, 4, num_key_value_heads=2, vocab_size=320), 3, initializer_range=0.15
    ),
    # llava-hf/llava-1.5-7b-hf; 33 pictures are more than its 4096 positions, which random weights do not mind.
    "llava-7b": lambda: llava(
        sizes(4096, 11008, 32, 32, vocab_size=32064),
        sizes(1024, 4096, 24, 16, image_size=336, patch_size=14),
        32000,
    ),
    # Qwen/Qwen2.5-VL-3B-Instruct, pictures of 448 x 448.
    "qwen2.5-vl-3b": lambda: qwen(
        sizes(2048, 11008, 36, 16, num_key_value_heads=2, vocab_size=151936, max_position_embeddings=128000),
        {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 2048, "num_heads": 16},
        [16, 24, 24],
        16,
    ),
    # Of the width of a small bundled model, so that overheads show; nine tokens a picture.
    "llava-192": lambda: llava(
        sizes(192, 768, 4, 6, vocab_size=2048, max_position_embeddings=65536),
        sizes(64, 128, 2, 4, image_size=21, patch_size=7),
        2000,
    ),
    # Weights so large that every token changes what follows it.
    "llava-toy": lambda: llava(
        sizes(64, 128, 2, 4, vocab_size=320),
        sizes(64, 128, 2, 4, image_size=28, patch_size=7),
        300,
        initializer_range=0.15,
    ),
    "qwen-toy": lambda: qwen(
        sizes(64, 128, 2, 4, num_key_value_heads=2, vocab_size=320, bos_token_id=None, eos_token_id=2),
        {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "out_hidden_size": 64, "num_heads": 4},
        [4, 2, 2],
        4,
        initializer_range=0.15,
    ),
}
