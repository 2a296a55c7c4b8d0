"""Scoring on a vLLM server: from generated tokens, from whole prompts, and by the model that is loaded here.

Run: `make bench-vllm`, or `python benchmarks/vllm_scoring.py --url http://127.0.0.1:8000/v1` for a server of `mini`
that runs already. Each repetition has supports and names of its own, so that no way finds anything in the server's
prefix cache that it has not put there itself; the ways take turns. Compares all scores, prints a table and writes
benchmarks/results/vllm.json.
"""

import dataclasses
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from machine import RESULTS, machine, summary
from rich.console import Console
from rich.table import Table

from linkcontext import draw_episodes, open_data
from linkcontext.episodes.scaffold import SCAFFOLDS, query_messages
from linkcontext.models.loading import load_model
from linkcontext.scoring.connection import connect
from linkcontext.scoring.local import LocalModel
from linkcontext.scoring.protocol import ScoringRequest
from linkcontext.scoring.remote import RemoteModel
from linkcontext.scoring.remote_scorer import RemoteScorer
from linkcontext.storage import write_text

VLLM = Path(__file__).parents[1] / "tests" / "vllm"


@dataclass
class VllmBench:
    """Measure scoring on a server."""

    url: str | None = None
    """A server of `mini`; by default one is started with the vLLM of $LINKCONTEXT_VLLM."""
    data: str = "digits"
    shots: tuple[int, ...] = (1, 4, 16)
    episodes: int = 2
    """Supports of a repetition."""
    queries: int = 8
    """Of each support."""
    repeats: int = 3
    batch: int = 16
    """Requests that are sent at once."""
    name: str = "vllm"
    """Of the file in benchmarks/results."""


def main() -> None:
    bench = tyro.cli(VllmBench, description=__doc__)
    if bench.url is not None:
        measure(bench, bench.url)
        return
    sys.path.insert(0, str(VLLM))
    from conftest import PYTHON, Server  # noqa: PLC0415 - the tests' own server

    from linkcontext.models import bundled  # noqa: PLC0415

    if not PYTHON:
        raise SystemExit("Run `make bench-vllm`, which sets up vLLM, or give --url.")
    server = Server(bundled.folder("mini"), "mini", Path(os.devnull))
    server.start()
    try:
        server.wait()
        measure(bench, f"http://127.0.0.1:{server.port}/v1")
    finally:
        server.kill()


def measure(bench: VllmBench, url: str) -> None:
    about, dataset, model = machine("cpu"), open_data(bench.data), load_model("mini")
    sources = {item.id: (item.sha256, dataset.root / item.path) for item in dataset.items}
    served = RemoteModel(connect(f"openai:{url}#mini"), sources, bench.batch)
    able = served._abilities
    whole = dataclasses.replace(able, no_trie="it is the slow way that is measured")
    rows = []
    for shots in bench.shots:
        times: dict[str, list[float]] = {}
        worst = 0.0
        for repeat in range(bench.repeats + 1):
            # Each way has supports of its own, or it would find in the server's cache what another has put there.
            for number, way in enumerate(("generated tokens", "whole prompts")):
                asked = requests(bench, dataset, shots, 10 * repeat + number)
                scorer = RemoteScorer(served._complete, (able, whole)[number], served.connection.replicas, bench.batch)
                local = LocalModel(model).with_pictures(sources, keep_features=False)
                (far, far_seconds), (here, here_seconds) = timed(scorer.score, asked), timed(local.score, asked)
                if repeat:  # the first is for warming up
                    times.setdefault(way, []).append(far_seconds)
                    times.setdefault("loaded here", []).append(here_seconds)
                flat = [[value for row in scores for value, _ in row] for scores in (far, here)]
                worst = max(worst, *(abs(x - y) for x, y in zip(*flat, strict=True)))
        found = {name: summary(values) for name, values in times.items()}
        rows.append({"shots_per_class": shots, "seconds": found, "largest_difference": worst})
        print(json.dumps(rows[-1]), flush=True)
    about |= {"bench": dataclasses.asdict(bench), "prompts": bench.episodes * bench.queries * 2, "rows": rows}
    write_text(json.dumps(about, indent=1) + "\n", RESULTS / f"{bench.name}.json")
    show(rows)


def timed(score, asked: list[ScoringRequest]) -> tuple[list, float]:
    """Scores, and how many seconds they took."""
    start = time.perf_counter()
    scores = score(asked)
    return scores, time.perf_counter() - start


def requests(bench: VllmBench, dataset, shots: int, seed: int) -> list[ScoringRequest]:
    """Every query of some episodes with both candidates."""
    options = {"episodes": bench.episodes, "shots": (shots,), "queries": bench.queries, "seed": seed}
    asked = []
    for episode in draw_episodes(dataset, **options):
        for query in range(len(episode.queries)):
            answers = (None, *(candidate.name for candidate in episode.candidates))
            prompt, *closed = (query_messages(episode, query, shots, SCAFFOLDS["turns"], answer) for answer in answers)
            asked.append(ScoringRequest(prompt, tuple(closed)))
    return asked


def show(rows: list[dict]) -> None:
    table = Table(
        "shots", "generated tokens", "whole prompts", "loaded here", "whole / generated", "generated / here", "apart"
    )
    for row in rows:
        best = {name: value["best"] for name, value in row["seconds"].items()}
        a, b, c = (best[name] for name in ("generated tokens", "whole prompts", "loaded here"))
        cells = (
            f"{a:.2f} s",
            f"{b:.2f} s",
            f"{c:.2f} s",
            f"{b / a:.1f}",
            f"{a / c:.1f}",
            f"{row['largest_difference']:.1g}",
        )
        table.add_row(str(row["shots_per_class"]), *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
