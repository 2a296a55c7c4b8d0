"""Questions about pictures from the files of three data sets, in the layouts that they are published in.

seed            SEED-Bench.json, SEED-Bench-2: {"questions": [{"question_id", "question_type_id", "data_id", "question",
                "choice_a" ... "choice_d", "answer": "A", "data_type"}], "question_type": {name: id}}
                                                                            AILab-CVC/SEED-Bench, DATASET.md
vl-checklist    a file or a folder of them, like Attribute/vg/color.json: [[path, {"POS": [text], "NEG": [text]}], ...]
                                                                            om-ai-lab/VL-CheckList, data_loader.py
visual-genome   attributes.json, relationships.json or their folder, with image_data.json beside them if there:
                [{"image_id", "attributes": [{"names", "attributes"}]}], [{"image_id", "relationships": [{"predicate",
                "subject": {"name"}, "object": {"name"}}]}]                 homes.cs.washington.edu/~ranjay/visualgenome

Each is a generator that names in `problems` what it leaves out. A fourth has a module of its own (`data.vl_icl`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linkcontext.data.layout import is_blank, normal_name
from linkcontext.data.readers.json_records import get, records, under, word
from linkcontext.data.scan import Problems
from linkcontext.errors import InputError, excerpt
from linkcontext.records import Question
from linkcontext.seeds import rng

WHICH = "Which description fits the picture?"  # VL-Checklist has descriptions and no question
CALLED = {"color": "colour"}  # one concept has one name, whichever data set it is from

KINDS = (  # of attributes: the concept, how it is asked, and what it may be
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
# A relation and what cannot be at the same time: "next to" is no wrong answer where a cup is on a table beside a jug.
OPPOSITES = (
    ("on", "under"),
    ("above", "below"),
    ("in front of", "behind"),
    ("in", "out of"),
    ("next to", "far from"),
    ("to the left of", "to the right of"),
)
DOING = ("wearing", "holding", "carrying", "riding", "eating", "watching", "pulling", "pushing", "hitting", "throwing")
SAME = {  # other words for what is known above
    **{"gray": "grey", "wooden": "wood", "metallic": "metal", "fabric": "cloth", "laying": "lying", "shut": "closed"},
    **{"big": "large", "huge": "large", "little": "small", "tiny": "small"},
    **{"on top of": "on", "underneath": "under", "beneath": "under", "over": "above", "in back of": "behind"},
    **{"inside": "in", "inside of": "in", "outside": "out of", "outside of": "out of", "beside": "next to"},
    **{"by": "next to", "near": "next to", "left of": "to the left of", "right of": "to the right of"},
    **{"on the left of": "to the left of", "on the right of": "to the right of"},
    **{"wears": "wearing", "has on": "wearing", "holds": "holding", "rides": "riding", "looking at": "watching"},
}

Places = tuple[str, ...]  # paths where a picture may lie, the one it is called by first


@dataclass(frozen=True, slots=True)
class ImportedQuestion:
    """A question as a file has it, and where. `split` is empty where the file has none."""

    where: str
    pictures: tuple[Places, ...]
    question: Question
    split: str = ""


def seed(path: Path, problems: Problems) -> Iterator[ImportedQuestion]:
    """SEED-Bench: the task is the question type by its name, candidates are the choices, A first.

    Questions about videos, several pictures or pictures to be made are left out and counted.
    """
    types = under(path, "question_type")
    if not isinstance(types, dict):
        raise InputError(f"{path}: `question_type` is missing, which names the tasks. Is it SEED-Bench's own file?")
    names = {str(number): name for name, number in types.items()}
    seen: set[str] = set()
    others: Counter[str] = Counter()
    for where, record in records(path, "questions"):
        with problems.leaving_out():
            number = unique_id("question_id", record, seen, where)
            kind = get(record, "data_type", str, where)
            if kind.lower() in ("image", "single image"):
                yield _seed(record, f"{where} (question_id {excerpt(number)})", names)
            else:
                others[kind] += 1
    for kind, count in others.items():
        problems.note(
            f"{path}: questions left out because they are about no single picture ({excerpt(kind)}): {count}."
        )


def _seed(record: dict[str, Any], where: str, tasks: dict[str, str]) -> ImportedQuestion:
    task = tasks.get(word(record, "question_type_id", where))
    if task is None:
        raise InputError(f"{where}: `question_type_id` is none of {excerpt(', '.join(tasks))}. Mend the record.")
    choices = {letter: word(record, f"choice_{letter.lower()}", where) for letter in "ABCD"}
    letter, text = (get(record, key, str, where) for key in ("answer", "question"))
    question = Question(task, task, text, choices.get(letter, ""), tuple(choices.values()))
    return ImportedQuestion(where, ((get(record, "data_id", str, where),),), check_question(question, where, letter))


def vl_checklist(path: Path, problems: Problems) -> Iterator[ImportedQuestion]:
    """VL-Checklist: which of two descriptions fits; what they differ in is the concept, as the file's path says.

    They are written in lower case: in relations the right one alone is partly in capitals ("key ON keyboard"). Which
    stands first is drawn.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.json"))
    if not files:
        raise InputError(f"{path}: no JSON file is there or below. Name a file, or a folder that has some.")
    for file in files:
        task, concept = _checklist_task(file)
        root = file.resolve().parent.name.split("_")[0]
        root = "vg" if root == "vaw" else root
        if root not in ("vg", "hake", "swig"):
            root = file.stem.split("_")[0]
        for where, record in records(file):
            with problems.leaving_out():
                if not isinstance(record, list) or len(record) != 2 or not isinstance(record[0], str):
                    raise InputError(f'{where}: not [path, {{"POS": [text], "NEG": [text]}}]. Mend the record.')
                right, wrong = (get(record[1], key, list, where) for key in ("POS", "NEG"))
                if len(right) != len(wrong) or not all(isinstance(text, str) and text for text in right + wrong):
                    raise InputError(f"{where}: `POS` and `NEG` must be lists of as many texts. Mend the record.")
                for fits, not_fits in zip(right, wrong, strict=True):
                    pair = (fits.lower(), not_fits.lower())
                    order = rng("vl-checklist", record[0], *sorted(pair)).permutation(2)
                    shown = tuple(sorted(pair)[place] for place in order)
                    question = check_question(Question(task, concept, WHICH, pair[0], shown), where, fits)
                    yield ImportedQuestion(where, ((record[0], f"{root}/{record[0]}"),), question)


def _checklist_task(file: Path) -> tuple[str, str]:
    """`Attribute/vg/color.json`: attribute, colour. `Object/Size/vg_size/vg_obj_small.json`: object size, small."""
    parts = [
        part for part in file.resolve().parts[:-1] if part in ("Attribute", "Object", "Relation", "Location", "Size")
    ]
    if not parts:
        raise InputError(f"{file}: its path must say what it asks, like Attribute/vg/color.json. Name it so.")
    concept = file.stem.rsplit("_", 1)[-1]
    return " ".join(parts).lower(), CALLED.get(concept, concept)


def visual_genome(path: Path, problems: Problems) -> Iterator[ImportedQuestion]:
    """Visual Genome: colour, material, size, state and action of things, and relations between two, spatial or actions.

    Only what the word lists of this module know is asked; and only where all things of that name in the picture agree,
    because a question can name a thing and not point at it.
    """
    files = [path] if path.is_file() else [path / name for name in ("attributes.json", "relationships.json")]
    files = [file for file in files if file.is_file()]
    if not files:
        raise InputError(f"{path}: neither attributes.json nor relationships.json is there. Unpack them.")
    places = _genome_places(files[0].parent / "image_data.json")
    for file in files:
        seen: set[str] = set()
        for where, record in records(file):
            with problems.leaving_out():
                number = unique_id(
                    "id" if isinstance(record, dict) and "id" in record else "image_id", record, seen, where
                )
                usual = (f"VG_100K/{number}.jpg", f"VG_100K_2/{number}.jpg", f"{number}.jpg")
                picture = (places[number],) if number in places else usual
                place = f"{where} (image_id {excerpt(number)})"
                said = _relations(record, place) if "relationships" in record else _attributes(record, place)
                for question in _agreed(said):
                    yield ImportedQuestion(place, (picture,), question)


def _genome_places(file: Path) -> dict[str, str]:
    """Image id to path, where image_data.json tells it: its folder is one of two."""
    if not file.is_file():
        return {}
    told = {word(r, "image_id", where): get(r, "url", str, where).split("/") for where, r in records(file)}
    return {number: "/".join(url[-2:]) for number, url in told.items()}


def _attributes(record: dict[str, Any], where: str) -> Iterator[Question]:
    for thing in _list(record, "attributes", where):
        if not isinstance(thing, dict) or not isinstance(thing.get("attributes") or [], list):
            raise InputError(f"{where}: a thing in `attributes` has no list of them. Mend the record.")
        for said in thing.get("attributes") or ():
            name, answer = _name(thing, where), _known(said, where)
            for concept, asked, candidates in KINDS:
                if answer in candidates:
                    yield Question("attribute", concept, asked.format(name), answer, candidates)


def _relations(record: dict[str, Any], where: str) -> Iterator[Question]:
    for relation in _list(record, "relationships", where):
        answer = _known(get(relation, "predicate", str, where), where)
        one, other = (_name(get(relation, key, dict, where), where) for key in ("subject", "object"))
        for pair in OPPOSITES:
            if answer in pair:
                asked = f"Is the {one} {pair[0]} or {pair[1]} the {other}?"
                yield Question("relation", "spatial", asked, answer, pair)
        if answer in DOING:
            yield Question("relation", "action", f"What is the {one} doing with the {other}?", answer, DOING)


def _agreed(questions: Iterable[Question]) -> list[Question]:
    """Each question once, and none that has several answers: a name can mean several things in a picture."""
    found: dict[str, dict[str, Question]] = {}
    for question in questions:
        found.setdefault(question.question, {})[question.answer] = question
    return [next(iter(answers.values())) for answers in found.values() if len(answers) == 1]


def _name(thing: Any, where: str) -> str:
    """What an annotated thing is called; the versions of Visual Genome spell the key in three ways."""
    name = thing.get("name") or thing.get("names") or thing.get("object_names")
    name = name[0] if isinstance(name, list) else name
    if not isinstance(name, str) or is_blank(name):
        raise InputError(f"{where}: a thing has no `names`. Mend the record.")
    return _plain(name, where)


def _plain(said: Any, where: str) -> str:
    if not isinstance(said, str):
        raise InputError(f"{where}: {excerpt(said)} is no text. Mend the record.")
    return " ".join(said.lower().split())


def _known(said: Any, where: str) -> str:
    text = _plain(said, where)
    return SAME.get(text, text)


def _list(record: dict[str, Any], key: str, where: str) -> list[Any]:
    """A list that may be empty."""
    if not isinstance(record.get(key), list):
        raise InputError(f"{where}: `{key}` is missing or no list. Mend the record.")
    found: list[Any] = record[key]
    return found


def folded(text: str) -> str:
    """A text as it is compared: case, spaces and the composition of accents do not count."""
    return normal_name(text).casefold()


def check_question(question: Question, where: str, told: str) -> Question:
    """The question. Raises `InputError` if its answer is none of its candidates, two of these are alike, or a text is
    blank."""
    c = question.candidates
    if c and question.answer not in c:
        raise InputError(
            f"{where}: `answer` {excerpt(told)!r} is none of the options {excerpt(', '.join(c))}. Mend the record."
        )
    if any(map(is_blank, (question.question, question.answer, *c))):
        raise InputError(f"{where}: the question, its answer or an option is blank. Mend the record.")
    if len({folded(each) for each in c}) < len(c):
        raise InputError(f"{where}: two options are the same ({excerpt(', '.join(c))}). Mend the record.")
    return question


def unique_id(key: str, record: Any, seen: set[str], where: str) -> str:
    """The id of a record, which none before it has."""
    name = word(record, key, where)
    if name in seen:
        raise InputError(f"{where}: `{key}` {excerpt(name)} stood there before. Keep one record of it.")
    seen.add(name)
    return name
