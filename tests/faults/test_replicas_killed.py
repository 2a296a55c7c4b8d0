"""Servers that share an evaluation are killed and started again: no answer is lost, twice there, or another one."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from linkcontext.config import eval_config
from linkcontext.evaluation.runner import run_evaluation

pytestmark = pytest.mark.heavy
SCRIPT = Path(__file__).with_name("replica.py")
QUERIES = 100_000  # at full count


class Process:
    """A server that can be killed and started again at its port."""

    def __init__(self):
        self.port = 0
        self.start()

    def start(self):
        """Start it, at the same port if it had one."""
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(self.port)], stdout=subprocess.PIPE, text=True
        )
        self.port = int(self.process.stdout.readline())

    def kill(self):
        """Kill it at once."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def replicas():
    processes = [Process() for _ in range(3)]
    yield processes
    for process in processes:
        process.kill()


def test_two_of_three_servers_are_killed_and_one_comes_back(replicas, pictures, tmp_path, count):
    queries = QUERIES if count(10) == 10 else QUERIES // 100
    options = {"data": str(pictures), "shots": (1,), "queries": 2, "episodes": queries // 2, "scoring": "generate"}
    addresses = [f"http://127.0.0.1:{process.port}/v1" for process in replicas]
    path = tmp_path / "far" / "predictions.jsonl"

    def lines():
        return path.read_text().count("\n") if path.exists() else 0

    def fault():
        for share, act in ((0.2, replicas[0].kill), (0.4, replicas[1].kill), (0.6, replicas[0].start)):
            while lines() < share * queries:
                time.sleep(0.02)
            act()

    thread = threading.Thread(target=fault, daemon=True)
    thread.start()
    run_evaluation(eval_config(model=f"openai:{','.join(addresses)}#one", out=str(path.parent), **options))
    thread.join(60)
    assert not thread.is_alive()
    run_evaluation(eval_config(model=f"openai:{addresses[2]}#one", out=str(tmp_path / "alone"), **options))
    assert path.read_bytes() == (tmp_path / "alone" / "predictions.jsonl").read_bytes()
    keys = [json.loads(line)["query_id"] for line in path.read_text().splitlines()]
    assert len(keys) == len({*keys}) == queries
