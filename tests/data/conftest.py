import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache folder of the test's own: nothing is read from or written to the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LINKCONTEXT_CACHE", str(folder))
    return folder


@pytest.fixture
def zoo(tmp_path, picture):
    """Two classes of two pictures each."""
    root = tmp_path / "zoo"
    for number, name in enumerate(("cat/a_1.png", "cat/b.jpg", "ice_bear/a_1.gif", "ice_bear/c.WEBP")):
        picture(root / name, number)
    return root
