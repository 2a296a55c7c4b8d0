"""Parts of a table, and of installed packages."""

import pytest

from linkcontext.errors import InputError
from linkcontext.plugins import Listed, find_part, part_names

GROUP = "linkcontext.tests"
TABLE = {"one": Listed("linkcontext.errors:NAMED", "a number"), "lost": Listed("linkcontext.nowhere:X", "nothing")}


def test_the_table_is_imported_when_a_part_is_used():
    assert part_names(TABLE, GROUP) == ["one", "lost"]
    assert find_part(TABLE, GROUP, "one", int) == 5
    assert find_part(TABLE, GROUP, "other", int) is None
    with pytest.raises(ModuleNotFoundError):
        find_part(TABLE, GROUP, "lost", int)


def test_packages_add_parts_and_the_table_wins(installed):
    installed("plug_parts", "TWO = 2", f"[{GROUP}]", "two = plug_parts:TWO", "one = plug_parts:TWO", "b = plug_parts:X")
    assert part_names(TABLE, GROUP) == ["one", "lost", "b", "two"]
    assert find_part(TABLE, GROUP, "two", int) == 2
    assert find_part(TABLE, GROUP, "one", int) == 5
    with pytest.raises(
        InputError, match=r"two: the package plug_parts gives plug_parts:TWO, a int, where a builtins\.s"
    ):
        find_part(TABLE, GROUP, "two", str)
    with pytest.raises(InputError, match="b: the package plug_parts is installed, and its plug_parts:X cannot be imp"):
        find_part(TABLE, GROUP, "b", int)
