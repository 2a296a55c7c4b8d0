"""The pictures of a data set by the names under which they are taught."""

from collections.abc import Sequence
from pathlib import Path

from linkcontext.data.copies import label_conflicts
from linkcontext.data.layout import class_name, normal_name
from linkcontext.data.manifest import Dataset
from linkcontext.errors import InputError, first_few


def pictures_by_class_name(dataset: Dataset, classes: Sequence[str] = ()) -> dict[str, list[Path]]:
    """The paths of a data set's pictures by class name, without pictures that are filed under two classes.

    `classes` chooses some of the classes, each by its name or its folder's name. Raises `InputError` for a class that
    does not exist, and for two classes with the same name.
    """
    class_ids: dict[str, str] = {}
    paths: dict[str, list[Path]] = {}
    contradicted = label_conflicts(dataset.items)
    for item in dataset.items:
        if item.content in contradicted:
            continue
        first = class_ids.setdefault(item.name, item.class_id)
        if first != item.class_id:
            raise InputError(f"{dataset.root}: {first} and {item.class_id} are both called {item.name!r}. Rename one.")
        paths.setdefault(item.name, []).append(dataset.root / item.path)
    wanted = {
        given: next((name for name in (normal_name(given), class_name(given)) if name in paths), "")
        for given in classes
    }
    if unknown := [given for given, name in wanted.items() if not name]:
        raise InputError(
            f"--classes {unknown[0]}: there is no such class in {dataset.root}. The classes are: "
            f"{first_few(sorted(paths))}."
        )
    return {name: paths[name] for name in (wanted.values() or paths)}
