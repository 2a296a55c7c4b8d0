"""TrueMICL from its folder to figures: the clock's rule is learned from a support of the task's own support set."""

import json

from PIL import Image

from linkcontext.config import eval_config
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.source import import_files


def test_a_model_is_measured_on_a_folder_of_tasks(nano, tmp_path):
    root = tmp_path / "dataset"
    (root / "clock_math").mkdir(parents=True)
    records = []
    for number in range(24):
        Image.effect_noise((8, 8), number + 1).save(root / "clock_math" / f"{number}.png")
        records.append(
            {"id": number, "image": [f"{number}.png"], "question": "What is the result?", "answer": number % 3}
        )
    (root / "clock_math" / "support.json").write_text(json.dumps(records[:15]))
    (root / "clock_math" / "query.json").write_text(json.dumps(records[15:]))
    out = tmp_path / "made"
    report = import_files("truemicl", str(root), None, str(out), strict=True)
    assert report.contents[-1] == "clock_math: 24 questions, concepts: 1"
    run = eval_config(model=str(nano), data=str(out), shots=(0, 3), episodes=4, explain=0, out=str(tmp_path / "run"))
    metrics = run_evaluation(run, benchmark="truemicl")
    assert {(row["tasks"], row["form"], row["shots"]) for row in metrics["means"]} == {
        (tasks, form, shots)
        for tasks in ("clock_math", "seen tasks")
        for form in ("open", "choice")
        for shots in (0, 3)
    }
    episodes = [json.loads(line) for line in (tmp_path / "run" / "episodes.jsonl").read_text().splitlines()]
    queried = {turn["item"] for episode in episodes for turn in episode["queries"]}
    assert queried <= {f"clock_math/{number}.png" for number in range(15, 24)}
    assert not queried & {turn["item"] for episode in episodes for turn in episode["support"]}
