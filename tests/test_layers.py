"""What import-linter cannot see: importing the light modules and the packages around them loads no torch."""

import json
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

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
    (contract,) = [contract for contract in contracts if set(contract.get("forbidden_modules", ())) == HEAVY]
    return [module for name in contract["source_modules"] for module in with_submodules(name)]


def test_light_modules_load_no_torch():
    modules = torch_free()
    assert {"linkcontext.records", "linkcontext.data.images", "linkcontext.report.page"} <= set(modules)
    loaded = loaded_by(modules)
    assert {"linkcontext", "numpy", "matplotlib"} <= loaded  # the list is of what was loaded
    assert loaded & HEAVY == set()


def test_command_line_loads_no_torch_before_it_knows_the_command():
    assert loaded_by(["linkcontext", "linkcontext.cli"]) & HEAVY == set()
