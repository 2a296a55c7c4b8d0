"""Class names: the one form in which they are kept, and the rules they must follow."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping

from linkcontext.data.formats import SUFFIXES
from linkcontext.data.layout import is_blank, is_printable, name_key, normal_name
from linkcontext.episodes.special_tokens import refuse_marks
from linkcontext.errors import UNDECODED, InputError
from linkcontext.teach.given_pictures import Picture, Source, picture_sources

MAX_LETTERS = 100  # a longer text is not a name
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\S)")
_LEAST_LETTERS = 3  # of a word whose plural is recognised


def canonical_name(given: str) -> str:
    """Return a class name with single spaces and composed letters (NFC).

    Raises `InputError` if the name is blank, longer than 100 letters, not printable or not UTF-8.
    """
    if not isinstance(given, str):
        raise InputError(f"{given!r}: a name must be a string. Write {str(given)!r}.")
    if UNDECODED.search(given):
        raise InputError(f"{given[:40]!r}: the name is not UTF-8. Write it in UTF-8.")
    name = normal_name(given)
    if is_blank(name):
        raise InputError(f"{given!r}: the name is blank. Give a name.")
    if len(name) > MAX_LETTERS or not is_printable(name):
        raise InputError(f"{name[:40]!r}: a name has at most {MAX_LETTERS} letters, all of them printable.")
    return name


def is_same_thing(name: str, other: str) -> bool:
    """Whether two English names differ only in case, article or number: "a lime", "Lime" and "limes"."""
    return next(similar_names((name, other)), None) is not None


def similar_names(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each name that is the same thing as one before it (`is_same_thing`): the earlier one, and itself."""
    singular: dict[str, str] = {}
    plural: dict[str, str] = {}
    for name in names:
        key = _ARTICLE.sub("", name_key(name))
        earlier = [names_of[one] for names_of, one in ((singular, key), (plural, key)) if one in names_of]
        earlier += [singular[one] for one in _plurals(key) if one in singular]
        if earlier:
            yield earlier[0], name
        singular.setdefault(key, name)
        plural |= {one: name for one in _plurals(key) if one not in plural}


def _plurals(key: str) -> tuple[str, ...]:
    if len(key) < _LEAST_LETTERS:
        return ()
    return (f"{key}s", f"{key}es", *([f"{key[:-1]}ies"] if key.endswith("y") else []))


def checked_name(given: str, existing: Iterable[str], special_tokens: re.Pattern[str]) -> str:
    """Return the canonical form of a name that is about to be taught.

    Raises `InputError` as `canonical_name` does, for a name that holds one of the model's special tokens, and for one
    that differs from an existing name only in case or in invisible characters.
    """
    name = canonical_name(given)
    refuse_marks(name, special_tokens, repr(name))
    same = next((other for other in existing if name_key(other) == name_key(name) and other != name), None)
    if same is not None:
        raise InputError(f"{name!r} and {same!r} differ only in case or in invisible characters. Rename one of them.")
    return name


def _is_file(given: object) -> bool:
    """Whether a picture's file is given. A name can be too long to be a path, which `Path` takes for an error."""
    return isinstance(given, str) and given.lower().endswith(SUFFIXES) and os.path.isfile(given)  # noqa: PTH113


def checked_names(
    named: Mapping[str, Picture | Iterable[Picture]], existing: Iterable[str], special_tokens: re.Pattern[str]
) -> Iterator[tuple[str, list[Source]]]:
    """Yield each name of a lesson in its canonical form, with its pictures; errors as in `checked_name` and in
    `picture_sources`."""
    known = list(existing)
    for given, pictures in named.items():
        if _is_file(given) and isinstance(pictures, str) and not os.path.exists(pictures):  # noqa: PTH110
            raise InputError(f"{given}: a picture in the place of a name. Write {{{pictures!r}: [{given!r}]}}.")
        known.append(checked_name(given, known, special_tokens))
        yield known[-1], picture_sources(pictures, f" of {known[-1]!r}")
