"""Parts that can be added: those of a table, and those that other installed packages declare as entry points.

The group `linkcontext.tasks` holds benchmarks (`evaluation.task.Task`), `linkcontext.readers` holds sources of data
sets and file formats (`data.reader.Reader`). docs/adding.md shows how a package adds one.
"""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple, TypeVar

from linkcontext.errors import InputError

Part = TypeVar("Part")


class Listed(NamedTuple):
    """A line of a table: where the part is, which is imported when it is used, and its sentence in `--help`."""

    place: str  # "package.module:NAME"
    help: str


def part_names(table: Mapping[str, Listed], group: str) -> list[str]:
    """The names that `find_part` knows: the table's, then those of other packages, sorted. Nothing is imported."""
    return [*table, *sorted({entry.name for entry in entry_points(group=group)} - table.keys())]


def find_part(table: Mapping[str, Listed], group: str, name: str, kind: type[Part]) -> Part | None:
    """Import the part of that name; None if neither the table nor an installed package has one. The table wins.

    Raises:
        InputError: two packages have a part of that name, or it cannot be imported, or it is no `kind`. The message
            names the package.
    """
    if name in table:
        part = EntryPoint(name, table[name].place, group).load()
        assert isinstance(part, kind)
        return part
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
            f"({type(error).__name__}: {error}). Repair or uninstall the package."
        ) from error
    if not isinstance(part, kind):
        raise InputError(
            f"{name}: the package {_package(entry)} gives {entry.value}, a {type(part).__name__}, where a "
            f"{kind.__module__}.{kind.__name__} is expected. Repair or uninstall the package."
        )
    return part


def _package(entry: EntryPoint) -> str:
    """The name of the package that an entry point belongs to."""
    return entry.dist.name if entry.dist is not None else entry.value.partition(":")[0]
