"""VL-ICL in the shape that it is published in, with pictures of noise: every image-to-text task must be asked."""

import json
import random
from collections import Counter
from itertools import product

import pytest
from PIL import Image

from linkcontext.config import eval_config
from linkcontext.episodes.scaffold import SCAFFOLDS
from linkcontext.evaluation.runner import configured
from linkcontext.evaluation.task import find_task
from linkcontext.evaluation.validate import check_blind_policies, check_leaks
from linkcontext.source import import_files

TASKS = ("clevr", "matching_mi", "open_mi", "operator_induction", "operator_induction_interleaved", "textocr")
SIGNS = {"+": int.__add__, "-": int.__sub__, "x": int.__mul__}
WORDS = ("dax", "blicket", "perpo", "slation", "shously")


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """All six tasks: 100 pairs of digits, 80 of them to learn from; five words with five pictures each for a query."""
    root, chance, made = tmp_path_factory.mktemp("VL-ICL"), random.Random(0), Counter()

    def picture(task):
        made[task] += 1
        name = f"{task}/{made[task]}.png"
        (root / name).parent.mkdir(exist_ok=True)
        Image.effect_noise((8, 8), made.total()).save(root / name)
        return name

    def write(task, query, support):
        for name, records in (("query", query), ("support", support)):
            numbered = [{"id": number, **record} for number, record in enumerate(records)]
            (root / task / f"{name}.json").write_text(json.dumps(numbered))

    pairs = list(product(range(10), repeat=2))
    for task in TASKS[3:5]:
        digits = [picture(task) for _ in range(10)]
        shown = {pair: [digits[n] for n in pair] if task.endswith("d") else [picture(task)] for pair in pairs}
        chance.shuffle(pairs)
        asked = {"question": "What is the result?"}
        query = [
            {**asked, "image": shown[pair], "operator": sign, "answer": work(*pair)}
            for pair in pairs[:20]
            for sign, work in SIGNS.items()
        ]
        support = [{**asked, "image": shown[p], "answer": [work(*p) for work in SIGNS.values()]} for p in pairs[20:]]
        write(task, query, support)

    def bound():
        words = chance.sample(WORDS, 5)
        told = {w: {"images": [picture("open_mi") for _ in range(5)], "caption": f"This is a {w}"} for w in words}
        shown = {"image": [picture("open_mi")], "question": "This is a", "answer": words[0]}
        return {**shown, "classes": list(WORDS), "support": told}

    write("open_mi", [bound() for _ in range(12)], [{"image": "any.png"}])

    def match(answer):
        return {"image": [picture("matching_mi"), picture("matching_mi")], "question": "Result:", "answer": answer}

    support = [{"same": match("yes"), "diff": match("no")} for _ in range(20)]
    write("matching_mi", [match(answer) for answer in ("yes", "no") * 6], support)

    def one(task, question, answer):
        return {"image": [picture(task)], "question": question, "answer": answer}

    counted = [one("clevr", f"shape: {kind}", n % 6) for n in range(60) for kind in ("cube",)]
    write("clevr", counted[:20], counted[20:])
    texts = ["".join(chance.choices("abcdefgh", k=5)) for _ in range(60)]
    read = [one("textocr", "What text is shown in the red box?", text) for text in texts]
    write("textocr", read[:20], read[20:])
    return root


def test_every_task_is_asked_openly_and_as_a_choice(benchmark, tmp_path):
    out = tmp_path / "vl-icl"
    assert not import_files("vl-icl", str(benchmark), None, str(out), strict=True).problems
    task = find_task("vl-icl")
    asked = configured(eval_config(data=str(out), episodes=60), task)
    found = task.open(asked.episodes, SCAFFOLDS["turns"])
    dataset, episodes = found.dataset, found.episodes
    assert found.left_out == []
    tasks = Counter((e.task.partition("/")[0], e.task.split(" ")[1]) for e in episodes)
    assert set(tasks) == set(product(TASKS, ("open", "choice")))
    assert {e.task.split(" ")[0] for e in episodes if "operator" in e.task} == set(
        map("/".join, product(TASKS[3:5], SIGNS))
    )
    check_leaks(episodes, dataset, asked.episodes)
    check_blind_policies(episodes)
    two = {e.task.partition("/")[0] for e in episodes if all(len(turn.pictures) == 2 for turn in e.queries)}
    assert two == {"matching_mi", "operator_induction_interleaved"}
    for episode in episodes:
        if episode.task.startswith("open_mi"):
            (context,) = {q.context for turn in episode.queries for q in dataset.item(turn.item).questions}
            of = [{q.context for q in dataset.item(turn.item).questions} for turn in episode.support]
            assert of == [{context}] * 8
        if episode.task.startswith(("open_mi", "matching_mi")) and " open" in episode.task:
            shown = Counter(turn.answer for turn in episode.support)
            assert set(shown.values()) == {8 // len(episode.candidates)}
