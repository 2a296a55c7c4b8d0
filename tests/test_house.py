"""The rules of CONTRIBUTING.md that can be counted: sizes, names that clash, the README's reading."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "linkcontext"
MODULES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_a_function_and_a_class_can_be_overlooked(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350
    for function in functions(TREES[path]):
        assert function.end_lineno - function.lineno < 50, function.name
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ClassDef):
            # The signatures of an overloaded method are one method.
            assert len({part.name for part in node.body if isinstance(part, FUNCTIONS)}) <= 20, node.name


def test_no_two_public_functions_or_classes_have_one_name():
    places = defaultdict(list)
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(SOURCE)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_locals_are_nouns():
    """What a variable holds, and not that it was found, told, said or asked."""
    named = {
        f"{path.relative_to(SOURCE)}:{name.lineno} {name.id}"
        for path, tree in TREES.items()
        for function in functions(tree)
        for name in ast.walk(function)
        if isinstance(name, ast.Name)
        and isinstance(name.ctx, ast.Store)
        and name.id in ("found", "told", "said", "asked")
    }
    assert named == set()


def test_attributes_are_seldom_looked_up_by_name():
    """`hasattr` and `getattr`: at most one in a thousand lines."""
    text = "".join(path.read_text(encoding="utf-8") for path in MODULES)
    assert len(re.findall(r"\b[gh][ea][ts]attr\(", text)) <= text.count("\n") / 1000


def test_the_reading_of_the_readme_takes_half_an_hour():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    reading = readme.split("## The half-hour reading")[1].split("After that:")[0]
    files = re.findall(r"\]\((src/[^)]+)\)", reading)
    assert len(files) <= 8
    assert sum(len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in files) <= 1500


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("[dre]*/**/*.md")), ids=lambda page: page.name
)
def test_links_between_files_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []
