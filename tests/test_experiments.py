"""The quicker experiments run at toy size, and leave the published results alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["mini", "teaching", "chunked_pack"])
def test_an_experiment_runs_at_toy_size(name, tmp_path):
    published = (ROOT / "experiments" / f"{name}.json").read_bytes()
    process = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / f"{name}.py"), "--toy"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert (ROOT / "experiments" / f"{name}.json").read_bytes() == published
