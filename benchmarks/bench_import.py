"""What reading other tools' files takes: LLaVA records, generated, checked one by one and written as our own.

Run: `python benchmarks/bench_import.py`; `--toy` for a dry run in seconds. Each row is a process of its own, the
command line as a user calls it: its wall clock, its processor time and the most memory that it held. Prints a table and
writes benchmarks/results/import.json with the command, the date and the machine.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from machine import RESULTS, machine
from PIL import Image
from rich.console import Console
from rich.table import Table

WORDS = 2_000
# What the system tells of a child's memory includes the parent's before it became another program.
RUN = """
import re, sys
from linkcontext.cli import main
main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


@dataclass
class Import:
    """Measure importing."""

    records: int = 665_000
    """As many as LLaVA-1.5's instruction data has."""
    pictures: int = 1_000
    """Small PNGs that the records name, one each."""
    where: str | None = None
    """A folder for the generated file, 1 GB, and what is written from it, as much. Default: the system's own."""
    toy: bool = False
    """A dry run: few records, nothing written to benchmarks/results."""
    out: str = str(RESULTS)


def generate(config: Import, folder: Path) -> Path:
    """A list of records of 1 to 9 questions and answers, every tenth without a picture."""
    stream = np.random.default_rng(0)
    words = ["".join(map(chr, stream.integers(97, 123, size))) for size in stream.integers(2, 9, WORDS)]
    (folder / "images").mkdir()
    for number in range(config.pictures):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(folder / "images" / f"{number:06d}.png")
    path = folder / "llava.json"
    with path.open("w", encoding="utf-8") as file:
        for number in range(config.records):
            turns = []
            for turn in range(int(stream.integers(1, 10))):
                asked, said = (" ".join(words[w] for w in stream.integers(0, WORDS, size)) for size in (12, 25))
                mark = "<image>\n" if turn == 0 and number % 10 else ""
                turns += [{"from": "human", "value": f"{mark}{asked}?"}, {"from": "gpt", "value": f"{said}."}]
            shown = {"image": f"{number % config.pictures:06d}.png"} if number % 10 else {}
            record = {"id": f"{number:012d}", **shown, "conversations": turns}
            file.write((",\n" if number else "[") + json.dumps(record))
        file.write("]\n")
    return path


def measured(config: Import, path: Path, out: Path | None) -> dict:
    """One run of the command."""
    words = [sys.executable, "-c", RUN, "data", str(path), "--layout", "conversations", "--strict"]
    words += ["--images", str(path.parent / "images")]
    words += ["--out", str(out)] if out else []
    load, begun = os.getloadavg()[0], time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    assert status == 0
    assert told.startswith(f"{config.records:,} conversations"), told
    return {
        "written": out is not None,
        "said": told.splitlines()[0],
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": 1024 * int(told.splitlines()[-1]),
        "load_before": load,
    }


def main() -> None:
    config = tyro.cli(Import)
    if config.toy:
        config.records, config.pictures = 2_000, 10
    found: dict = {"machine": machine("cpu"), "records": config.records}
    with tempfile.TemporaryDirectory(dir=config.where) as name:
        folder = Path(name)
        path = generate(config, folder)
        found["file_bytes"] = path.stat().st_size
        found["runs"] = [measured(config, path, out) for out in (None, folder / "out")]
        shutil.rmtree(folder / "out")
    table = Table("records", "file, GB", "", "seconds", "of processor time", "peak memory, GB")
    for row in found["runs"]:
        table.add_row(
            f"{config.records:,}",
            f"{found['file_bytes'] / 1e9:.2f}",
            "checked and written" if row["written"] else "checked",
            f"{row['seconds']:.1f}",
            f"{row['cpu_seconds']:.1f}",
            f"{row['peak_bytes'] / 1e9:.2f}",
        )
    Console().print(table)
    if not config.toy:
        out = Path(config.out)
        out.mkdir(parents=True, exist_ok=True)
        beside = out / f".{os.getpid()}.import.json"
        beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        beside.replace(out / "import.json")


if __name__ == "__main__":
    main()
