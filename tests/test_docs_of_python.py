"""All code of docs/python.md and of the notebooks runs as it is printed."""

import ast
import json
import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from linkcontext.source import open_data

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with photos of two things, and some to ask about."""
    monkeypatch.chdir(tmp_path)
    data = open_data("world:3")
    classes = [[data.path(item.id) for item in items] for items in data.by_class().values()]
    for name, paths in (("lime", classes[0]), ("red pepper", classes[7])):
        Path("photos", name).mkdir(parents=True)
        for path in paths[:4]:
            shutil.copy(path, Path("photos", name))
    for folder, paths in (("new", [classes[0][5], classes[7][5]]), ("more", classes[14][:2])):
        Path(folder).mkdir()
        for name, path in zip(("ab", "12")[folder == "more"], paths, strict=True):
            shutil.copy(path, Path(folder, f"{name}.png"))
    yield tmp_path
    plt.close("all")


def run(source, names, name):
    """Run a piece of code as a notebook does: the value of its last expression is returned."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    return eval(compile(ast.Expression(last.value), name, "eval"), names) if last is not None else None


def test_the_page_about_python_runs(here, capsys):
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?<!<!-- needs an account -->\n\n)```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 7
    names = {}
    for number, block in enumerate(blocks):
        run(block, names, f"python.md, block {number}")
    assert "new/a.jpg: no such picture. Did you mean new/a.png?" in capsys.readouterr().out
    assert names["learner"].pictures.names == ["key lime", "red pepper"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_first_cell_to_its_last(here, path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], len({cell["id"] for cell in notebook["cells"]})) == (4, len(notebook["cells"]))
    names, shown = {}, []
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []  # figures in it would grow old
            shown.append(run("".join(cell["source"]), names, f"{path.name}, cell {number}"))
    pages = [value._repr_html_() for value in shown if hasattr(value, "_repr_html_")]
    assert any("<img" in page or "<svg" in page for page in pages)


def test_there_is_a_notebook_for_each_reader():
    assert [path.stem for path in NOTEBOOKS] == ["my_folder", "my_vlm"]
