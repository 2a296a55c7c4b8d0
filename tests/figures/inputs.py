"""The small folders and files that the recorded commands read; all of them are made from fixed numbers."""

import json
import random
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220), "yellow": (230, 210, 50)}
SIDE = 48


def write_inputs(root: Path) -> None:
    """Write all of them below `root`."""
    for write in (photos, isekai, vl_icl, seed_bench, vl_checklist, visual_genome, conversations, vqa, settings):
        write(root)


def shape(path: Path, chance: random.Random, colour: str = "red", corners: int = 4) -> None:
    """Draw a filled polygon of a colour somewhere in a picture."""
    image = Image.new("RGB", (SIDE, SIDE), tuple(chance.randrange(10, 60) for _ in range(3)))
    centre = (chance.randrange(18, SIDE - 18), chance.randrange(18, SIDE - 18))
    polygon = (*centre, chance.randrange(8, 16))
    ImageDraw.Draw(image).regular_polygon(polygon, corners, chance.randrange(90), COLOURS[colour])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON; as JSON lines where the file is called so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.suffix == ".jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in content) if lines else json.dumps(content))


def photos(root: Path) -> None:
    """Class folders with two splits, and `odd`: a copy, a damaged file and a picture of one colour among good ones."""
    chance = random.Random(1)
    for split, count in (("train", 6), ("test", 3)):
        for colour in COLOURS:
            for number in range(count):
                shape(root / "photos" / split / f"{colour}_thing" / f"{number}.png", chance, colour, 3 + number % 3)
    for colour in ("red", "blue"):
        for number in range(4):
            shape(root / "odd" / colour / f"{number}.png", chance, colour)
    (root / "odd/red/copy.png").write_bytes((root / "odd/red/0.png").read_bytes())
    (root / "odd/red/damaged.png").write_bytes((root / "odd/red/1.png").read_bytes()[:60])
    (root / "odd/red/0002.txt").write_text("no picture")
    Image.new("RGB", (SIDE, SIDE), "white").save(root / "odd/blue/white.png")
    Image.open(root / "odd/blue/3.png").resize((96, 96)).save(root / "odd/blue/large.png")
    for colour, corners in (("green", 3), ("yellow", 6)):  # further names, for packs
        for number in range(6):
            shape(root / "more" / f"{colour} {corners}" / f"{number}.png", chance, colour, corners)


def isekai(root: Path) -> None:
    """ISEKAI-10 as it is published: two things, three queries."""
    chance, folder = random.Random(2), root / "isekai"
    for name, colour in (("icemic", "blue"), ("cream", "yellow")):
        for number in range(1, 6):
            shape(folder / name / f"{number}.png", chance, colour, 5)
    lists = {"positive_list": ["icemic/1.png", "icemic/2.png"], "negative_list": ["cream/1.png", "cream/2.png"]}
    record = {**lists, "positive_promt": "icemic", "negative_promt": "ice cream"}
    queries = [("icemic/3.png", "icemic"), ("cream/3.png", "ice cream"), ("cream/4.png", "ice cream")]
    lines = [{"image_name": image, **record, "label_name": label} for image, label in queries]
    (folder / "ISEKAI-10.json").write_text("".join(json.dumps(line) + "\n" for line in lines))


def vl_icl(root: Path) -> None:
    """Three tasks of VL-ICL: operators to be induced, words bound to pictures, counting."""
    chance, folder = random.Random(3), root / "vl-icl"

    def write(task: str, query: list[dict[str, Any]], support: list[dict[str, Any]]) -> None:
        for name, records in (("query", query), ("support", support)):
            write_json(folder / task / f"{name}.json", [{"id": n, **record} for n, record in enumerate(records)])

    def picture(task: str, number: int) -> str:
        shape(folder / task / f"{number}.png", chance, chance.choice(list(COLOURS)), 3 + number % 5)
        return f"{task}/{number}.png"

    task, work = "operator_induction", {"+": int.__add__, "-": int.__sub__, "x": int.__mul__}
    pairs = [(pair, picture(task, number)) for number, pair in enumerate(product(range(6), repeat=2))]
    chance.shuffle(pairs)
    asked = {"question": "What is the result?"}
    query = [
        {**asked, "image": [image], "operator": sign, "answer": apply(*pair)}
        for pair, image in pairs[:6]
        for sign, apply in work.items()
    ]
    answers = [{**asked, "image": [image], "answer": [f(*pair) for f in work.values()]} for pair, image in pairs[6:]]
    write(task, query, answers)

    task, words = "open_mi", ("dax", "blicket", "perpo", "slation", "shously")
    bound = []
    for first in range(0, 24, 6):
        names = chance.sample(words, 2)
        pictures = [picture(task, first + number) for number in range(6)]
        support = {
            name: {"images": pictures[3 * n : 3 * n + 2], "caption": f"This is a {name}"}
            for n, name in enumerate(names)
        }
        one = {"image": [pictures[2]], "question": "This is a", "answer": names[0]}
        bound.append({**one, "classes": list(words), "support": support})
    write(task, bound, [{"image": "any.png"}])

    task = "clevr"
    counted = [{"image": [picture(task, n)], "question": "shape: cube", "answer": n % 4} for n in range(32)]
    write(task, counted[:8], counted[8:])


def seed_bench(root: Path) -> None:
    """SEED-Bench: two types of questions, and one question about a video."""
    chance, folder, questions = random.Random(4), root / "seed", []
    kinds = {"Instance Identity": 1, "Instances Counting": 5}
    for number in range(32):
        colour = list(COLOURS)[number % 4]
        shape(folder / "images" / f"p{number}.png", chance, colour, 3 + number % 4)
        kind = list(kinds)[number // 16]
        options = list(COLOURS) if number < 16 else ["three", "four", "five", "six"]
        chance.shuffle(options)
        gold = colour if number < 16 else ["three", "four", "five", "six"][number % 4]
        choices = {f"choice_{letter}": word for letter, word in zip("abcd", options, strict=True)}
        row = {"question_id": number, "question_type_id": kinds[kind], "data_id": f"p{number}.png"}
        row |= {"question": "What colour is it?" if number < 16 else "How many corners does it have?"}
        questions.append({**row, "data_type": "image", **choices, "answer": "ABCD"[options.index(gold)]})
    questions[31]["data_type"] = "video"
    write_json(folder / "SEED-Bench.json", {"questions": questions, "question_type": kinds})


def vl_checklist(root: Path) -> None:
    """VL-Checklist: colours, of which one description is true and one false."""
    chance, rows = random.Random(5), []
    for number in range(24):
        colour, other = chance.sample(list(COLOURS), 2)
        shape(root / "checklist" / "vg" / f"{number}.png", chance, colour)
        rows.append([f"{number}.png", {"POS": [f"{colour} shape"], "NEG": [f"{other} shape"]}])
    write_json(root / "checklist" / "data" / "Attribute" / "vg" / "color.json", rows)


def visual_genome(root: Path) -> None:
    """Visual Genome: attributes and relations of things in eight pictures."""
    chance, attributes, relations = random.Random(6), [], []
    for number in range(8):
        colour = list(COLOURS)[number % 4]
        shape(root / "genome" / "VG_100K" / f"{number}.jpg", chance, colour)
        things = [{"names": ["cup"], "attributes": [colour]}, {"names": ["door"], "attributes": ["open", "wooden"]}]
        attributes.append({"image_id": number, "attributes": things})
        ends = {"subject": {"name": "cup"}, "object": {"name": "table"}}
        relations.append({"image_id": number, "relationships": [{"predicate": ("on", "under")[number % 2], **ends}]})
    write_json(root / "genome" / "attributes.json", attributes)
    write_json(root / "genome" / "relationships.json", relations)


def conversations(root: Path) -> None:
    """LLaVA's layout, whole and with a record that is refused, messages with pictures, and TRL's columns."""
    chance, folder = random.Random(7), root / "talk"
    llava, messages, trl = [], [], []
    for number in range(6):
        colour = list(COLOURS)[number % 4]
        shape(folder / "images" / f"{number}.png", chance, colour)
        asked, image = "<image>\nWhat colour is it?", f"{number}.png"
        turns = [asked, colour, "How many shapes are there?", "one"]
        said = [{"from": ("human", "gpt")[n % 2], "value": turn} for n, turn in enumerate(turns)]
        llava.append({"id": f"r{number}", "image": image, "conversations": said})
        roles = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
        messages.append({"messages": [{"role": "system", "content": "Be brief."}, *roles], "images": [image]})
        trl.append({"prompt": roles[:3], "completion": roles[3:], "images": [image]})
    write_json(folder / "good.json", llava)
    del llava[4]["conversations"]
    messages[5]["images"] = []
    write_json(folder / "llava.json", llava)
    write_json(folder / "messages.jsonl", messages)
    write_json(folder / "trl.jsonl", trl)


def vqa(root: Path) -> None:
    """Questions and ten people's answers in the layout of VQA v2."""
    chance, folder = random.Random(8), root / "vqa"
    questions, answers = [], []
    for number in range(6):
        colour = list(COLOURS)[number % 4]
        shape(folder / "val2014" / f"COCO_val2014_{number:012}.jpg", chance, colour)
        questions.append({"question_id": number, "image_id": number, "question": "What colour is it?"})
        people = [{"answer": colour if n < 7 else "grey", "answer_id": n} for n in range(10)]
        answers.append({"question_id": number, "answers": people})
    top = {"data_type": "mscoco", "data_subtype": "val2014"}
    write_json(folder / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": questions, **top})
    write_json(folder / "v2_mscoco_val2014_annotations.json", {"annotations": answers, **top})


def settings(root: Path) -> None:
    """A scaffold, a list of questions and a curriculum."""
    scaffold = {"name": "own", "support": "{image}Name it.", "support_answer": "{answer}", "query": "{image}Name it."}
    write_json(root / "scaffold.json", {**scaffold, "query_answer": "{answer}", "system": "", "turns": True})
    (root / "questions.txt").write_text("What do you see?\nWhich thing is this?\n")
    stages = [{"name": "first", "mixture": ["link"], "steps": 2}, {"name": "second", "mixture": ["icl"], "steps": 2}]
    write_json(root / "curriculum.json", stages)
