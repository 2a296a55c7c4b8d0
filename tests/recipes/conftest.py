"""The recipe is a folder of scripts, not a package: its files import each other by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "mini"))
