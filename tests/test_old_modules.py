import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import linkcontext
from linkcontext._old_modules import MODULES, MOVED, NAMES


@pytest.mark.parametrize("old", sorted(MODULES))
def test_every_old_name_leads_to_its_module_and_warns(old):
    with pytest.warns(DeprecationWarning, match=f"is now linkcontext.{MODULES[old]}"):
        module = importlib.import_module(f"linkcontext.{old}")
    new = importlib.import_module(f"linkcontext.{MODULES[old]}")
    names = [name for name in vars(new) if not name.startswith("__")]
    assert names
    assert all(getattr(module, name) is getattr(new, name) for name in names)


@pytest.mark.filterwarnings("ignore:linkcontext:DeprecationWarning")
@pytest.mark.parametrize("old", sorted(NAMES))
def test_an_old_class_or_function_is_the_new_one(old):
    (old_module, old_name), (module, name) = (path.rsplit(".", 1) for path in (old, NAMES[old]))
    found = getattr(importlib.import_module(f"linkcontext.{old_module}"), old_name)
    assert found is getattr(importlib.import_module(f"linkcontext.{module}"), name)


@pytest.mark.parametrize("old", sorted(MOVED))
def test_a_function_that_left_its_module_is_found_and_warns(old):
    (old_module, old_name), (module, name) = (path.rsplit(".", 1) for path in (old, MOVED[old]))
    with pytest.warns(DeprecationWarning, match=f"linkcontext.{old} is now linkcontext.{MOVED[old]}"):
        moved = getattr(importlib.import_module(f"linkcontext.{old_module}"), old_name)
    assert moved is getattr(importlib.import_module(f"linkcontext.{module}"), name)
    with pytest.raises(AttributeError, match="nothing"):
        importlib.import_module(f"linkcontext.{old_module}").nothing  # noqa: B018 - what is tested


def test_names_that_never_were_are_not_found():
    for name in ("linkcontext.evaluate.nothing", "linkcontext.models.scores", "linkcontext.world.metrics"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)


def test_a_script_with_old_imports_runs_and_is_told():
    script = "from linkcontext.evaluate.intervals import wilson; print(wilson)"
    command = [sys.executable, "-W", "default", "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(Path(linkcontext.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "function wilson" in done.stdout
    assert "linkcontext.evaluate.intervals is now linkcontext.evaluation.intervals" in done.stderr
    assert linkcontext.__all__
