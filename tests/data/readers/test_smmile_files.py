"""SMMILE as rows of the Hub, in a parquet file with pictures of noise."""

import pytest
from PIL import Image

from linkcontext.data.problems import Problems
from linkcontext.data.readers.smmile import read_smmile
from linkcontext.errors import InputError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def rows(*given):
    """(problem, order, answer, whether there is a picture) of each row."""
    return {
        "question": ["What is it?"] * len(given),
        "answer": [answer for _, _, answer, _ in given],
        "image": [Image.effect_noise((6, 6), n + 1) if there else None for n, (*_, there) in enumerate(given)],
        "problem_id": [problem for problem, *_ in given],
        "order": [order for _, order, *_ in given],
    }


def parquet(path, columns):
    texts = {name: datasets.Value("string") for name in columns if name not in ("image", "order")}
    features = datasets.Features({**texts, "image": datasets.Image(), "order": datasets.Value("int64")})
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(path))
    return str(path)


def test_examples_are_in_order_and_the_last_is_the_query(tmp_path):
    given = rows(
        ("p1", 1, "no", True), ("p2", 0, "a", True), ("p1", 0, "yes", True), ("p2", 1, "b", False), ("p3", 0, "x", True)
    )
    problems = Problems(strict=False)
    folder, read = read_smmile(parquet(tmp_path / "a.parquet", given), problems)
    assert [(p.id, p.original, [e.answer for e in p.examples]) for p in read] == [("p1", "p1", ["yes", "no"])]
    assert all((folder / example.picture).is_file() for example in read[0].examples)
    missing, alone = problems.sentences
    assert "because a picture of them is missing: 1 (p2)" in missing
    assert "because they have no example: 1 (p3)" in alone


def test_reordered_problems_share_their_original(tmp_path):
    given = rows(("p1-a", 0, "yes", True), ("p1-a", 1, "no", True), ("p1-b", 0, "no", True), ("p1-b", 1, "yes", True))
    given["original_problem_id"] = ["p1"] * 4
    source = parquet(tmp_path / "plusplus.parquet", given)
    _, read = read_smmile(source, Problems(strict=True))
    assert [(p.id, p.original) for p in read] == [("p1-a", "p1"), ("p1-b", "p1")]
    saved = str(tmp_path / "saved")
    datasets.load_dataset("parquet", data_files=source)["train"].save_to_disk(saved)
    _, again = read_smmile(saved, Problems(strict=True))
    assert [p.id for p in again] == [p.id for p in read]


def test_other_columns_get_a_sentence(tmp_path):
    given = rows(("p1", 0, "yes", True), ("p1", 1, "no", True))
    given["problem"] = given.pop("problem_id")
    with pytest.raises(InputError, match=r"row 0: `problem_id` is missing"):
        read_smmile(parquet(tmp_path / "a.parquet", given), Problems(strict=False))
    with pytest.raises(InputError, match="cannot be loaded"):
        read_smmile(str(tmp_path / "gone.parquet"), Problems(strict=False))
