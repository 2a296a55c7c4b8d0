"""Parts that other installed packages add, found by their entry points (importlib.metadata).

The group `linkcontext.tasks` holds benchmarks (`evaluation.task.Task`). docs/adding.md shows how a package adds one.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from linkcontext.errors import InputError

Part = TypeVar("Part")


def plugin_names(group: str) -> list[str]:
    """The names in a group of entry points, sorted, each once. Nothing is imported."""
    return sorted({entry.name for entry in entry_points(group=group)})


def load_plugin(group: str, name: str, kind: type[Part]) -> Part | None:
    """Import the part of that name; None if no installed package has one.

    Raises:
        InputError: two packages have a part of that name, or it cannot be imported, or it is no `kind`. The message
            names the package.
    """
    entries = list(entry_points(group=group, name=name))
    if not entries:
        return None
    if len(entries) > 1:
        packages = " and ".join(sorted(map(_package, entries)))
        raise InputError(f"{name}: {packages} both have an entry point {group} of this name. Uninstall one of them.")
    (entry,) = entries
    try:
        part = entry.load()
    except Exception as error:  # the import runs another package's code, which can raise anything
        raise InputError(
            f"{name}: the package {_package(entry)} is installed, and its {entry.value} cannot be imported "
            f"({type(error).__name__}: {error}). Mend or uninstall the package."
        ) from error
    if not isinstance(part, kind):
        raise InputError(
            f"{name}: the package {_package(entry)} gives {entry.value}, a {type(part).__name__}, where a "
            f"{kind.__module__}.{kind.__name__} is expected. Mend or uninstall the package."
        )
    return part


def _package(entry: EntryPoint) -> str:
    """The name of the package that an entry point belongs to."""
    return entry.dist.name if entry.dist is not None else entry.value.partition(":")[0]
