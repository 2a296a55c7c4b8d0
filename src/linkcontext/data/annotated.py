"""Questions about pictures from the files of four data sets, in the layouts that they are published in.

seed            SEED-Bench.json, SEED-Bench-2: {"questions": [{"question_id", "question_type_id", "data_id", "question",
                "choice_a" ... "choice_d", "answer": "A", "data_type"}], "question_type": {name: id}}
                                                                            AILab-CVC/SEED-Bench, DATASET.md
vl-checklist    a file or a folder of them, like Attribute/vg/color.json: [[path, {"POS": [text], "NEG": [text]}], ...]
                                                                            om-ai-lab/VL-CheckList, data_loader.py
visual-genome   attributes.json, relationships.json or their folder, with image_data.json beside them if there:
                [{"image_id", "attributes": [{"names", "attributes"}]}], [{"image_id", "relationships": [{"predicate",
                "subject": {"name"}, "object": {"name"}}]}]                 homes.cs.washington.edu/~ranjay/visualgenome
vl-icl          a task's folder or the folder of several, with query.json and support.json: [{"id", "image": [paths],
                "question", "answer", ...}]                                 ys-zong/VL-ICL, utils/ICL_utils.py

Each is a generator that names in `problems` what it leaves out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from linkcontext.data.jsonfile import get, records, under, word
from linkcontext.data.scan import Problems
from linkcontext.errors import InputError
from linkcontext.records import Question
from linkcontext.seeds import rng

WHICH = "Which description fits the picture?"  # VL-Checklist has descriptions and no question
CALLED = {"color": "colour"}  # one concept has one name, whichever data set it is from
OFFERED = 4  # answers to choose among where the file has none, and few questions have the same
ALIKE = 8  # so many, as a mean: else the answers in play could not be shown as often as a support has turns
OPERATORS = ("+", "-", "x")  # of VL-ICL's operator induction, in the order of a support's answers
TO_IMAGE = ("open_t2i_mi", "cobsat")  # VL-ICL's tasks whose answer is a picture

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
class Asked:
    """A question as a file has it, and where. `split` is empty where the file has none."""

    where: str
    pictures: tuple[Places, ...]
    question: Question
    split: str = ""


def seed(path: Path, problems: Problems) -> Iterator[Asked]:
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
            number = _once("question_id", record, seen, where)
            kind = get(record, "data_type", str, where)
            if kind.lower() in ("image", "single image"):
                yield _seed(record, f"{where} (question_id {number})", names)
            else:
                others[kind] += 1
    for kind, count in others.items():
        problems.note(f"{path}: questions left out because they are about no single picture ({kind}): {count}.")


def _seed(record: dict[str, Any], where: str, tasks: dict[str, str]) -> Asked:
    task = tasks.get(word(record, "question_type_id", where))
    if task is None:
        raise InputError(f"{where}: `question_type_id` is none of {', '.join(tasks)}. Mend the record.")
    choices = {letter: word(record, f"choice_{letter.lower()}", where) for letter in "ABCD"}
    letter, text = (get(record, key, str, where) for key in ("answer", "question"))
    question = Question(task, task, text, choices.get(letter, ""), tuple(choices.values()))
    return Asked(where, ((get(record, "data_id", str, where),),), _checked(question, where, letter))


def vl_checklist(path: Path, problems: Problems) -> Iterator[Asked]:
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
                    question = _checked(Question(task, concept, WHICH, pair[0], shown), where, fits)
                    yield Asked(where, ((record[0], f"{root}/{record[0]}"),), question)


def _checklist_task(file: Path) -> tuple[str, str]:
    """`Attribute/vg/color.json`: attribute, colour. `Object/Size/vg_size/vg_obj_small.json`: object size, small."""
    parts = [
        part for part in file.resolve().parts[:-1] if part in ("Attribute", "Object", "Relation", "Location", "Size")
    ]
    if not parts:
        raise InputError(f"{file}: its path must say what it asks, like Attribute/vg/color.json. Name it so.")
    concept = file.stem.rsplit("_", 1)[-1]
    return " ".join(parts).lower(), CALLED.get(concept, concept)


def visual_genome(path: Path, problems: Problems) -> Iterator[Asked]:
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
                number = _once("id" if isinstance(record, dict) and "id" in record else "image_id", record, seen, where)
                usual = (f"VG_100K/{number}.jpg", f"VG_100K_2/{number}.jpg", f"{number}.jpg")
                picture = (places[number],) if number in places else usual
                told = f"{where} (image_id {number})"
                said = _relations(record, told) if "relationships" in record else _attributes(record, told)
                for question in _agreed(said):
                    yield Asked(told, (picture,), question)


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
    if not isinstance(name, str):
        raise InputError(f"{where}: a thing has no `names`. Mend the record.")
    return _plain(name, where)


def _plain(said: Any, where: str) -> str:
    if not isinstance(said, str):
        raise InputError(f"{where}: {said!r} is no text. Mend the record.")
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


def vl_icl(path: Path, problems: Problems) -> Iterator[Asked]:
    """VL-ICL's image-to-text tasks. The task is the folder's name, the split `support` or `query`.

    The concept is what support and query must share to go together: the operator where it is induced, else the task. A
    query that brings a support and names of its own (open_mi) is a context. Questions keep all their pictures. Where
    few questions have the same answer (words in pictures, results of sums), each has four to choose among.
    """
    folders = [path] if (path / "query.json").is_file() else sorted(file.parent for file in path.glob("*/query.json"))
    if not folders:
        raise InputError(f"{path}: no query.json, nor one in a folder below. Name the folder of a task, or of several.")
    for folder in folders:
        if folder.name in TO_IMAGE or folder.name.endswith("_text"):
            problems.note(f"{folder}: left out, because its answers are pictures or its questions have none.")
            continue
        own = False  # queries that bring their support
        told: list[Asked] = []
        for split in ("query", "support"):
            seen: set[str] = set()
            for where, record in records(folder / f"{split}.json") if split == "query" or not own else ():
                with problems.leaving_out():
                    found = list(_icl(record, where, folder.name, split))
                    if "id" in record:
                        _once("id", record, seen, where)
                    own = own or "support" in record
                    told += found
        yield from _offered(told)


def _offered(told: Sequence[Asked]) -> Iterator[Asked]:
    """The questions of a task, with candidates where few have the same answer."""
    found: dict[str, list[str]] = {}
    for each in told:
        found.setdefault(each.question.concept, []).append(each.question.answer)
    alike = {concept: len(answers) / len(set(answers)) for concept, answers in found.items()}
    offered = {concept: sorted({*answers}) for concept, answers in found.items()}
    for each in told:
        q = each.question
        if q.candidates or alike[q.concept] >= ALIKE or len({_folded(a) for a in offered[q.concept]}) < OFFERED:
            yield each
            continue
        others = [answer for answer in offered[q.concept] if _folded(answer) != _folded(q.answer)]
        chance = rng("vl-icl", q.concept, *each.pictures[0])
        shown: dict[str, str] = {}  # spelt as one of them, where others differ in capitals alone
        for place in chance.permutation(len(others)):
            shown.setdefault(_folded(others[place]), others[place])
        options = [q.answer, *list(shown.values())[: OFFERED - 1]]
        candidates = tuple(options[place] for place in chance.permutation(OFFERED))
        yield replace(each, question=replace(q, candidates=candidates))


def _folded(text: str) -> str:
    return text.strip().casefold()


def _icl(record: Any, where: str, task: str, split: str) -> Iterator[Asked]:
    """The questions of a record: mostly one."""
    if isinstance(record, dict) and {"same", "diff"} <= record.keys():  # matching_mi has its support in pairs
        for each in ("same", "diff"):
            yield from _icl(record[each], where, task, split)
        return
    question = get(record, "question", str, where)
    context = word(record, "id", where) if "support" in record else ""
    classes = tuple(_plain_list(record, "classes", where)) if "classes" in record else ()
    own = get(record, "support", dict, where) if "support" in record else {}
    for label, shown in own.items():
        for picture in _plain_list(shown, "images", where):
            told = _checked(Question(task, task, question, label, classes, context=context), where, label)
            yield Asked(where, (_icl_places(picture, task),), told, "support")
    pictures = tuple(_icl_places(name, task) for name in _plain_list(record, "image", where))
    answers = record.get("answer")
    if not isinstance(answers, list):
        sharing = [word(record, "operator", where) if "operator" in record else task]
        answers = [word(record, "answer", where)]
    else:
        sharing = [*OPERATORS]
        answers = [word({"answer": each}, "answer", where) for each in answers]
    if len(answers) != len(sharing):
        raise InputError(f"{where}: `answer` must be one, or one for each of {', '.join(OPERATORS)}. Mend the record.")
    for shared, answer in zip(sharing, answers, strict=True):
        told = _checked(Question(task, shared, question, answer, classes, context=context), where, answer)
        yield Asked(where, pictures, told, split)


def _icl_places(name: str, task: str) -> Places:
    return (name, f"{task}/{name}")


def _plain_list(record: Any, key: str, where: str) -> list[str]:
    """A text, or a list of texts that is not empty."""
    found = [record[key]] if isinstance(record, dict) and isinstance(record.get(key), str) else None
    found = found or get(record, key, list, where)
    if not all(isinstance(each, str) and each for each in found):
        raise InputError(f"{where}: `{key}` must be texts. Mend the record.")
    return found


def _checked(question: Question, where: str, told: str) -> Question:
    """A question whose answer is one of its candidates, and these differ."""
    c = question.candidates
    if c and question.answer not in c:
        raise InputError(f"{where}: `answer` {told!r} is none of the options {', '.join(c)}. Mend the record.")
    if len({_folded(each) for each in c}) < len(c):
        raise InputError(f"{where}: two options are the same ({', '.join(c)}). Mend the record.")
    return question


def _once(key: str, record: Any, seen: set[str], where: str) -> str:
    """The id of a record, which none before it has."""
    name = word(record, key, where)
    if name in seen:
        raise InputError(f"{where}: `{key}` {name} stood there before. Keep one record of it.")
    seen.add(name)
    return name
