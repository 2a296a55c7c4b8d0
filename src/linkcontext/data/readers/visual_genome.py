"""Visual Genome: attributes of things, and relations between two of them.

attributes.json, relationships.json or their folder, with an optional image_data.json beside them:
[{"image_id", "attributes": [{"names", "attributes"}]}], [{"image_id", "relationships": [{"predicate",
"subject": {"name"}, "object": {"name"}}]}]                             homes.cs.washington.edu/~ranjay/visualgenome
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from linkcontext.data.layout import is_blank
from linkcontext.data.problems import Problems
from linkcontext.data.reader import ImportedQuestion, Reader
from linkcontext.data.readers.json_records import read_records, require_text, require_value
from linkcontext.data.readers.question_checks import unique_id
from linkcontext.errors import InputError, excerpt
from linkcontext.records import Question

KINDS = (  # of attributes: concept, question, and the values that are asked about
    (
        "colour",
        "What colour is the {}?",
        ("black", "white", "grey", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"),
    ),
    (
        "material",
        "What is the {} made of?",
        ("wood", "metal", "plastic", "glass", "stone", "brick", "concrete", "paper", "leather", "cloth", "ceramic"),
    ),
    ("size", "Is the {} large or small?", ("large", "small")),
    *(
        ("state", f"Is the {{}} {one} or {other}?", (one, other))
        for one, other in (("open", "closed"), ("wet", "dry"), ("full", "empty"), ("clean", "dirty"))
    ),
    (
        "action",
        "What is the {} doing?",
        ("standing", "sitting", "lying", "walking", "running", "jumping", "flying", "swimming", "eating", "sleeping"),
    ),
)
# Relations that exclude each other. Others may hold together: a cup can be on a table and next to a jug.
OPPOSITES = (
    ("on", "under"),
    ("above", "below"),
    ("in front of", "behind"),
    ("in", "out of"),
    ("next to", "far from"),
    ("to the left of", "to the right of"),
)
ACTIONS = (
    "wearing",
    "holding",
    "carrying",
    "riding",
    "eating",
    "watching",
    "pulling",
    "pushing",
    "hitting",
    "throwing",
)
SYNONYMS = {
    **{"gray": "grey", "wooden": "wood", "metallic": "metal", "fabric": "cloth", "laying": "lying", "shut": "closed"},
    **{"big": "large", "huge": "large", "little": "small", "tiny": "small"},
    **{"on top of": "on", "underneath": "under", "beneath": "under", "over": "above", "in back of": "behind"},
    **{"inside": "in", "inside of": "in", "outside": "out of", "outside of": "out of", "beside": "next to"},
    **{"by": "next to", "near": "next to", "left of": "to the left of", "right of": "to the right of"},
    **{"on the left of": "to the left of", "on the right of": "to the right of"},
    **{"wears": "wearing", "has on": "wearing", "holds": "holding", "rides": "riding", "looking at": "watching"},
}


def read_visual_genome(path: Path, problems: Problems) -> Iterator[ImportedQuestion]:
    """Yield questions about attributes (colour, material, size, state, action) and relations (spatial, actions).

    Annotations outside of the word lists of this module are not asked about. A question names a thing and cannot point
    at it, so it is left out if things of that name in the picture disagree.
    """
    files = [path] if path.is_file() else [path / name for name in ("attributes.json", "relationships.json")]
    files = [file for file in files if file.is_file()]
    if not files:
        raise InputError(f"{path}: neither attributes.json nor relationships.json is there. Unpack them.")
    paths = _paths_by_id(files[0].parent / "image_data.json")
    for file in files:
        ids: set[str] = set()
        for where, record in read_records(file):
            with problems.leaving_out():
                id_key = "id" if isinstance(record, dict) and "id" in record else "image_id"
                number = unique_id(id_key, record, ids, where)
                usual = (f"VG_100K/{number}.jpg", f"VG_100K_2/{number}.jpg", f"{number}.jpg")
                picture = (paths[number],) if number in paths else usual
                place = f"{where} (image_id {excerpt(number)})"
                questions = _relations(record, place) if "relationships" in record else _attributes(record, place)
                for question in _unambiguous(questions):
                    yield ImportedQuestion(place, (picture,), question)


VISUAL_GENOME = Reader(questions=read_visual_genome)


def _paths_by_id(file: Path) -> dict[str, str]:
    """Image id to path, by image_data.json if it is there: a picture is in one of two folders."""
    if not file.is_file():
        return {}
    urls = (
        (require_text(r, "image_id", where), require_value(r, "url", str, where)) for where, r in read_records(file)
    )
    return {number: "/".join(url.split("/")[-2:]) for number, url in urls}


def _attributes(record: dict[str, Any], where: str) -> Iterator[Question]:
    for thing in _list(record, "attributes", where):
        if not isinstance(thing, dict) or not isinstance(thing.get("attributes") or [], list):
            raise InputError(f"{where}: an object in `attributes` has no list of attributes. Correct the record.")
        for attribute in thing.get("attributes") or ():
            name, answer = _name(thing, where), _normal(attribute, where)
            for concept, question, candidates in KINDS:
                if answer in candidates:
                    yield Question("attribute", concept, question.format(name), answer, candidates)


def _relations(record: dict[str, Any], where: str) -> Iterator[Question]:
    for relation in _list(record, "relationships", where):
        answer = _normal(require_value(relation, "predicate", str, where), where)
        one, other = (_name(require_value(relation, key, dict, where), where) for key in ("subject", "object"))
        for pair in OPPOSITES:
            if answer in pair:
                question = f"Is the {one} {pair[0]} or {pair[1]} the {other}?"
                yield Question("relation", "spatial", question, answer, pair)
        if answer in ACTIONS:
            yield Question("relation", "action", f"What is the {one} doing with the {other}?", answer, ACTIONS)


def _unambiguous(questions: Iterable[Question]) -> list[Question]:
    """Each question once, without those that have several answers, because their name fits several things."""
    by_text: dict[str, dict[str, Question]] = {}
    for question in questions:
        by_text.setdefault(question.question, {})[question.answer] = question
    return [next(iter(answers.values())) for answers in by_text.values() if len(answers) == 1]


def _name(thing: Any, where: str) -> str:
    """The name of an annotated thing. The versions of Visual Genome spell the key in three ways."""
    name = thing.get("name") or thing.get("names") or thing.get("object_names")
    name = name[0] if isinstance(name, list) else name
    if not isinstance(name, str) or is_blank(name):
        raise InputError(f"{where}: an object has no `names`. Correct the record.")
    return _lower(name, where)


def _lower(text: Any, where: str) -> str:
    if not isinstance(text, str):
        raise InputError(f"{where}: {excerpt(text)} is not a text. Correct the record.")
    return " ".join(text.lower().split())


def _normal(text: Any, where: str) -> str:
    """An attribute or a relation in lower case, in the word that the lists of this module have for it."""
    lower = _lower(text, where)
    return SYNONYMS.get(lower, lower)


def _list(record: dict[str, Any], key: str, where: str) -> list[Any]:
    """The value of a key that is a list and may be empty."""
    value = record.get(key)
    if not isinstance(value, list):
        raise InputError(f"{where}: `{key}` is missing or not a list. Correct the record.")
    return value
