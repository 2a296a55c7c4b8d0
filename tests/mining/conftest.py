import pytest

from linkcontext.worlds.folder import write_seed


@pytest.fixture(scope="session")
def things(tmp_path_factory):
    """Six classes of nine pictures."""
    return write_seed(tmp_path_factory.mktemp("mining") / "things", 6, 9, 0, 32)
