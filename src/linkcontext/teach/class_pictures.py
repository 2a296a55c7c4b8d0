"""The pictures of a data set by the names under which they are taught."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from linkcontext.data.copies import label_conflicts
from linkcontext.data.layout import class_name, normal_name
from linkcontext.data.manifest import Dataset
from linkcontext.errors import InputError, excerpt, first_few
from linkcontext.models.unreadable import refused
from linkcontext.records import Item
from linkcontext.scoring.protocol import ScoringModel
from linkcontext.source import open_data
from linkcontext.teach.given_pictures import Picture

log = logging.getLogger("linkcontext")


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


def nested_classes(dataset: Dataset) -> list[str]:
    """A sentence about class folders that lie in other folders, if there are any: the outer one may have been meant."""
    nested = sorted({item.class_id for item in dataset.items if "/" in item.class_id and _is_folder(item)})
    if not nested:
        return []
    return [f"{dataset.root}: a folder in a folder is a class of its own, called by its own name: {first_few(nested)}."]


def _is_folder(item: Item) -> bool:
    """Whether the class of a picture is the folder in which it lies, and has its name; a manifest may say otherwise."""
    folder = item.path.rpartition("/")[0]
    return f"/{folder}".endswith(f"/{item.class_id}") and item.name == class_name(item.class_id)


def accepted_pictures(
    model: ScoringModel, named: Mapping[str, Sequence[Path]]
) -> tuple[dict[str, list[Path]], list[str]]:
    """The pictures that the model's image processor accepts, by name, and a sentence about each of the others.

    A model behind a server accepts all, as far as is known here. Raises `InputError` if none is accepted.
    """
    if model.lacks("token ids"):
        return {name: list(paths) for name, paths in named.items()}, []
    reasons = refused(model.loaded, {str(path): path for paths in named.values() for path in paths})
    accepted = {name: [path for path in paths if str(path) not in reasons] for name, paths in named.items()}
    problems = [f"{path}: left out: {reason}." for path, reason in reasons.items()]
    if named and not any(accepted.values()):
        raise InputError(f"The model's image processor accepts none of the pictures. The first: {problems[0]}")
    return {name: paths for name, paths in accepted.items() if paths}, problems


def pictures_of_data(data: "str | os.PathLike[str] | Dataset", model: ScoringModel) -> dict[str, list[Path]]:
    """The pictures of a data set by class name, as `Learner.teach` takes them; what is left out is logged.

    Raises `InputError` as `open_data` and `pictures_by_class_name`.
    """
    dataset = data if isinstance(data, Dataset) else open_data(os.fspath(data), fewest=1)
    named, problems = accepted_pictures(model, pictures_by_class_name(dataset))
    for sentence in (*dataset.problems, *nested_classes(dataset), *problems):
        log.warning("%s", sentence)
    return named


def lesson(
    named: Mapping[str, Picture | Iterable[Picture]] | str | os.PathLike[str] | Dataset,
    pictures: Picture | Iterable[Picture] | None,
    model: ScoringModel,
) -> Mapping[str, Picture | Iterable[Picture]]:
    """What `Learner.teach` was given, as names with their pictures. Raises `InputError` for anything else."""
    if pictures is not None:
        if not isinstance(named, str):
            raise InputError("teach takes pictures after a single name: teach('cactihog', ['a.png', 'b.png']).")
        return {named: pictures}
    if isinstance(named, str | os.PathLike | Dataset):
        return pictures_of_data(named, model)
    if not isinstance(named, Mapping) or not named:
        raise InputError(
            "teach takes names with their pictures, {'cactihog': ['a.png', 'b.png']}, or a folder of class folders, "
            f"but was given {'an empty dictionary' if named == {} else excerpt(named)}."
        )
    return named
