"""What import-linter cannot see: that importing the light modules, packages around them included, loads no torch."""

import json
import pkgutil
import subprocess
import sys
import tomllib
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
HEAVY = {"torch", "transformers"}
LOADED = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(name)
print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""


def loaded_by(modules: list[str]) -> set[str]:
    """The top-level modules that a new process holds after importing these."""
    command = [sys.executable, "-c", LOADED, str(SRC), *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def with_submodules(name: str) -> list[str]:
    folder = SRC.joinpath(*name.split("."))
    return [name, *(module.name for module in pkgutil.walk_packages([str(folder)], prefix=f"{name}."))]


def torch_free() -> list[str]:
    """The modules that the contract in pyproject.toml forbids torch, with everything inside them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = [contract for contract in contracts if contract["type"] == "forbidden"]
    assert set(contract["forbidden_modules"]) == HEAVY
    return [module for name in contract["source_modules"] for module in with_submodules(name)]


def test_light_modules_load_no_torch():
    modules = torch_free()
    assert {"linkcontext.records", "linkcontext.data.images", "linkcontext.report.page"} <= set(modules)
    assert loaded_by(modules) & HEAVY == set()


def test_command_line_loads_no_torch_before_it_knows_the_command():
    assert loaded_by(["linkcontext", "linkcontext.cli"]) & HEAVY == set()


def test_a_module_that_needs_torch_is_noticed():
    assert "torch" in loaded_by(["linkcontext.world.concepts"])


@pytest.mark.parametrize("name", ["linkcontext", *with_submodules("linkcontext")[1:]])
def test_every_module_is_a_file_of_this_tree(name):
    package = SRC.joinpath(*name.split(".")[:-1])
    spec = PathFinder.find_spec(name.rsplit(".", 1)[-1], [str(package)])
    assert spec is not None
    assert spec.origin is not None
