"""What several tests need: a model, and a cache folder that is nobody's."""

import logging
import os
import re
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from linkcontext.worlds.folder import write_seed

# Models of tests are tiny: a second thread only waits for the first, and badly where the machine has other work.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache_of_all_tests(tmp_path_factory):
    """Nothing is read from or written to the user's cache; what tests draw there is drawn once for all processes."""
    kept = os.environ.get("LINKCONTEXT_CACHE")
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    os.environ["LINKCONTEXT_CACHE"] = str(folder / "cache")
    yield
    if kept is None:
        del os.environ["LINKCONTEXT_CACHE"]
    else:
        os.environ["LINKCONTEXT_CACHE"] = kept


@pytest.fixture(scope="session")
def things(tmp_path_factory):
    """Six classes of nine invented things."""
    return write_seed(tmp_path_factory.mktemp("mining") / "things", 6, 9, 0, 32)


@pytest.fixture(scope="session")
def nano(tmp_path_factory):
    """The folder of a standard Llava of the smallest size, with random weights: it knows nothing."""
    from tiny_models import save_nano  # noqa: PLC0415 - seconds to import

    folder = tmp_path_factory.mktemp("models") / "nano"
    save_nano(folder)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A small world as class folders: six classes of eight pictures."""
    from linkcontext.worlds.folder import write_seed  # noqa: PLC0415 - seconds to import

    root = tmp_path_factory.mktemp("pictures") / "w"
    write_seed(root, 6, 8, 3, 32)
    return root


@pytest.fixture(scope="session")
def serving():
    """A context in which an app is served on a free port of this machine; gives the address of its routes."""
    import uvicorn  # noqa: PLC0415

    @contextmanager
    def served(app):
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()

    return served


@pytest.fixture(scope="session")
def mini():
    """The bundled model."""
    from linkcontext.models.loading import load_model  # noqa: PLC0415

    return load_model("mini", device="cpu")


@pytest.fixture(scope="session")
def mini_url(mini, serving):
    """The bundled model behind the endpoint."""
    from linkcontext.serve.endpoint import Endpoint, Limits  # noqa: PLC0415

    with serving(Endpoint("mini", mini, Limits()).app()) as url:
        yield url


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """A package beside the library: its modules, and its entry points."""

    def install(name, text, *lines):
        (tmp_path / f"{name}.py").write_text(text)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    for name in [name for name in sys.modules if name.startswith("plug_")]:
        del sys.modules[name]


@pytest.fixture
def picture():
    """Write a small picture that is different for each number; its file format is the suffix's."""

    def write(path, number=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def documented():
    """The examples below a heading of docs/adding.md: its Python blocks."""
    page = (Path(__file__).parents[1] / "docs" / "adding.md").read_text(encoding="utf-8")

    def examples(heading):
        section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        assert blocks
        assert all(len(block.splitlines()) <= 25 for block in blocks)
        return blocks

    return examples


@pytest.fixture(autouse=True)
def _levels():
    """The levels of loggers, which the command line sets, are those from before after every test."""
    loggers = logging.getLogger(), logging.getLogger("linkcontext")
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)
