"""Where commands print."""

import os

from rich.console import Console

WIDE = 200  # columns in a file or a pipe, which has no edge to cut a table at

console = Console()
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = WIDE
