"""vLLM servers on this machine, in an environment of their own: `make test-vllm` sets it up."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from linkcontext.models import bundled

HERE = Path(__file__).parent
PYTHON = os.environ.get("LINKCONTEXT_VLLM", "")
READY = 300  # seconds to load a model
OPTIONS = (
    *("--dtype", "float32", "--max-model-len", "4096", "--enforce-eager"),
    *("--limit-mm-per-prompt", '{"image": 64}'),
)


def pytest_collection_modifyitems(items):
    """Tests of this folder are heavy, and need a vLLM."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.heavy)
            if not PYTHON:
                item.add_marker(pytest.mark.skip(reason="make test-vllm sets up a vLLM"))


class Server:
    """A process of vLLM that serves one model on loopback."""

    def __init__(self, model, name, log, *options):
        self.arguments = [str(model), name, *options]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log, self.process = log, None
        self.name = f"openai:http://127.0.0.1:{self.port}/v1#{name}"

    def start(self):
        """Start it, without waiting for the model."""
        model, name, *options = self.arguments
        command = [PYTHON, str(HERE / "serve.py"), "--model", model, "--served-model-name", name]
        command += ["--host", "127.0.0.1", "--port", str(self.port), *OPTIONS, *options]
        usual = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        quiet = {"VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
        paths = {"PYTHONPATH": str(HERE.parent)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | usual | quiet | paths, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self):
        """Wait until it answers."""
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/models", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.5)
        raise RuntimeError(f"vLLM did not start:\n{self.log.read_text(errors='replace')[-5000:]}")

    def kill(self):
        """Kill it and its engine at once."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="session")
def serve(tmp_path_factory):
    """A context with a server of a model's folder under a name."""

    @contextmanager
    def stand(model, name, *options):
        server = Server(model, name, tmp_path_factory.mktemp("vllm") / "log", *options)
        server.start()
        try:
            server.wait()
            yield server
        finally:
            server.kill()

    return stand


@pytest.fixture(scope="session")
def mini_server(serve):
    """The bundled model behind vLLM."""
    with serve(bundled.folder("mini"), "mini") as server:
        yield server
