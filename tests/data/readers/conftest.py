import json

import pytest

from linkcontext.data.problems import Problems


@pytest.fixture
def read(tmp_path):
    """Write a file and read it; gives the questions and the problems."""

    def run(reader, content, name="x.json", of=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        problems = Problems(strict=False)
        return list(reader(of or path, problems)), problems.sentences

    return run


@pytest.fixture
def icl(tmp_path):
    def write(task, query, support):
        (tmp_path / task).mkdir()
        (tmp_path / task / "query.json").write_text(json.dumps(query))
        (tmp_path / task / "support.json").write_text(json.dumps(support))

    return write
