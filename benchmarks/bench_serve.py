"""What a served model takes on: requests from many clients at once, each answer compared with the offline one.

Run: `python benchmarks/bench_serve.py`; `--toy` for a dry run in seconds. `linkcontext serve` runs as a process of its
own, as a user starts it, and is asked through OpenAI's client: lessons of a few pictures with a question each, every
second one streamed. Prints a table, writes benchmarks/results/serve.json and .png with the command, the
date and the machine, and fails where an answer is lost or another's.
"""

import base64
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import openai
import tyro
from machine import COLOURS, RESULTS, machine, write
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from linkcontext.data.images import open_image
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.episodes.scaffold import SCAFFOLDS, query_messages
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.loading import load_model
from linkcontext.scoring.local import LocalModel
from linkcontext.source import open_data


@dataclass
class Bench:
    """Measure serving."""

    model: str = "mini"
    requests: int = 200
    clients: tuple[int, ...] = (1, 4, 16)
    shots_per_class: int = 4
    queries: int = 10
    """Of each lesson: they begin alike."""
    data: str = "world:9001"
    toy: bool = False
    """A dry run: few requests, written as serve-toy."""
    out: Path = RESULTS


def sent(messages: list[dict], root: dict[str, Path]) -> list[dict]:
    """A prompt as OpenAI's client sends it."""
    found = []
    for message in messages:
        parts = []
        for part in message["content"]:
            if part["type"] == "text":
                parts.append(part)
                continue
            uri = "data:image/png;base64," + base64.b64encode(root[part["image"]].read_bytes()).decode()
            parts.append({"type": "image_url", "image_url": {"url": uri}})
        found.append({"role": message["role"], "content": parts})
    return found


def served(config: Bench) -> tuple[subprocess.Popen, str]:
    """A server in a process of its own, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "linkcontext", "serve", "--model", config.model, "--port", str(port)]
    process = subprocess.Popen(words)
    for _ in range(600):
        assert process.poll() is None, "the server did not start"
        try:
            httpx.get(f"http://127.0.0.1:{port}/health").raise_for_status()
            return process, f"http://127.0.0.1:{port}/v1"
        except httpx.TransportError:
            time.sleep(0.1)
    process.kill()
    raise TimeoutError("the server did not answer")


def asked(url: str, model: str, messages: list[list[dict]], clients: int) -> dict:
    """All requests from so many clients; every second is streamed."""
    found: list[tuple] = []

    def one(number: int) -> tuple:
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            ask, begun = client.chat.completions.create, time.perf_counter()
            if number % 2 == 0:
                whole = ask(model=model, messages=messages[number], temperature=0)
                text, usage, first = whole.choices[0].message.content, whole.usage, None
            else:
                text, first = "", None
                options = {"include_usage": True}
                for piece in ask(
                    model=model, messages=messages[number], temperature=0, stream=True, stream_options=options
                ):
                    if piece.choices and piece.choices[0].delta.content:
                        first = first or time.perf_counter() - begun
                        text += piece.choices[0].delta.content
                    usage = piece.usage or None
            taken = time.perf_counter() - begun
        return text, taken, first, usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens

    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(one, range(len(messages))))
    seconds = time.perf_counter() - begun
    texts, latency, firsts, lengths, cached = map(list, zip(*found, strict=True))
    return {
        "clients": clients,
        "texts": texts,
        "seconds": seconds,
        "latency": [round(second, 4) for second in sorted(latency)],
        "p50": float(np.percentile(latency, 50)),
        "p95": float(np.percentile(latency, 95)),
        "first_token_p50": float(np.percentile([f for f in firsts if f is not None], 50)),
        "prompt_tokens": sum(lengths),
        "cached_tokens": sum(cached),
    }


def plot(rows: list[dict]) -> Figure:
    """Latencies, sorted."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for i, row in enumerate(rows):
        share = np.arange(1, len(row["latency"]) + 1) / len(row["latency"])
        axes.plot(row["latency"], share, color=COLOURS[i], label=f"{row['clients']} clients")
    axes.set_xlabel("seconds until an answer is whole")
    axes.set_ylabel("share of the requests")
    axes.legend()
    return figure


def main() -> None:
    config = tyro.cli(Bench)
    if config.toy:
        config.requests, config.clients, config.queries = 12, (4,), 4
    dataset = open_data(config.data)
    paths = {item.id: dataset.root / item.path for item in dataset.items}
    k = config.shots_per_class
    plan = EpisodePlan(shots_per_class=(k,), episodes=-(-config.requests // config.queries), queries=config.queries)
    scaffold = SCAFFOLDS["turns"]
    prompts = [
        query_messages(e, q, k, scaffold)
        for e in sample_episodes(dataset, plan).episodes
        for q in range(config.queries)
    ]
    prompts = prompts[: config.requests]
    # Offline, one by one: what is asked together there must not change what is said.
    scorer = LocalModel(
        model := load_model(config.model),
        VisionEncoder(model, open_image),
        {i.id: (i.sha256, paths[i.id]) for i in dataset.items},
    )
    expected = [scorer.generate([messages], 512)[0] for messages in prompts]
    found: dict = {"model": config.model, "machine": machine("cpu"), "requests": len(prompts)}
    found |= {"different_answers": len(set(expected)), "prompt_tokens": len(scorer.prompt(prompts[0]).ids)}
    messages = [sent(one, paths) for one in prompts]
    rows = []
    for clients in config.clients:  # a server of its own each, which holds nothing yet
        process, url = served(config)
        try:
            rows.append(asked(url, Path(config.model).name, messages, clients))
        finally:
            process.terminate()
            process.wait()
    table = Table("clients", "requests", "wrong", "seconds", "p50 s", "p95 s", "first token p50 s", "tokens reused")
    wrong = 0
    for row in rows:
        row["wrong"] = sum(a != b for a, b in zip(row.pop("texts"), expected, strict=True))
        wrong += row["wrong"]
        figures = [f"{row[name]:.2f}" for name in ("seconds", "p50", "p95", "first_token_p50")]
        reused = f"{row['cached_tokens'] / row['prompt_tokens']:.0%}"
        table.add_row(str(row["clients"]), str(len(prompts)), str(row["wrong"]), *figures, reused)
    Console().print(table)
    write(config.out, "serve-toy" if config.toy else "serve", {**found, "rows": rows}, plot(rows))
    if wrong:
        sys.exit(f"{wrong} answers are not the offline ones")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
