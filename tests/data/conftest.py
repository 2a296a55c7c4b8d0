import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache folder of the test's own: nothing is read from or written to the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LINKCONTEXT_CACHE", str(folder))
    return folder


@pytest.fixture
def picture():
    """Write a small picture that is different for each number; its file format is the suffix's."""

    def write(path, number=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def zoo(tmp_path, picture):
    """Two classes of two pictures each."""
    root = tmp_path / "zoo"
    for number, name in enumerate(("cat/a_1.png", "cat/b.jpg", "ice_bear/a_1.gif", "ice_bear/c.WEBP")):
        picture(root / name, number)
    return root
