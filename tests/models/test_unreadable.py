"""Pictures that an image processor does not take: named, and left out before anything runs."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image

from linkcontext.config import eval_config
from linkcontext.errors import InputError
from linkcontext.evaluation.runner import run_evaluation
from linkcontext.models.loading import load_model
from linkcontext.models.unreadable import naming, refused
from linkcontext.scoring.local import LocalModel
from linkcontext.worlds.folder import write_seed


def processor(tried):
    def taken(images, return_tensors):
        (image,) = images
        tried.append(image.size)
        if max(image.size) > 100 * min(image.size):
            raise ValueError("absolute aspect ratio must be smaller than 100")
        return {}

    return taken


def test_shapes_are_tried_once_and_usual_ones_never(tmp_path):
    paths = {}
    for name, size in {"a": (200, 100), "b": (300, 2), "c": (300, 2), "d": (9, 9)}.items():
        paths[name] = tmp_path / f"{name}.png"
        Image.new("RGB", size).save(paths[name])
    tried = []
    model = SimpleNamespace(
        processor=SimpleNamespace(image_processor=processor(tried)),
        reduced_size=lambda size: size,
        unusable=lambda _inputs: "",
    )
    reasons = refused(model, paths)
    assert tried == [(300, 2), (9, 9)]
    assert set(reasons) == {"b", "c"}
    assert "refuses a picture of 300 x 2 pixels (absolute aspect ratio" in reasons["b"]


def test_a_refusal_names_the_picture():
    sentence = r"a.png: the model's image processor refuses a picture of 3 x 2"
    with pytest.raises(InputError, match=sentence), naming("a.png", Image.new("RGB", (3, 2))):
        raise ZeroDivisionError("division by zero")


@pytest.mark.heavy
def test_a_run_leaves_a_refused_picture_out_and_says_so(nano, tmp_path, monkeypatch):
    root = tmp_path / "w"
    write_seed(root, 3, 4, 3, 32)
    bad = next(iter(sorted(root.glob("*/*.png"))))
    Image.new("RGB", (3000, 2), "red").save(bad)
    model = load_model(str(nano), device="cpu")
    kind = type(model.processor.image_processor)
    real = kind.preprocess

    def preprocess(self, images, *args, **options):
        if any(image.width > 100 * image.height for image in images if isinstance(image, Image.Image)):
            raise ValueError("absolute aspect ratio must be smaller than 100")
        return real(self, images, *args, **options)

    monkeypatch.setattr(kind, "preprocess", preprocess)
    options = {"model": str(nano), "data": str(root), "shots": (1,), "episodes": 12, "out": str(tmp_path / "run")}
    run_evaluation(eval_config(**options), LocalModel(model))
    problems = json.loads((tmp_path / "run" / "config.json").read_text())["data"]["problems"]
    name = bad.relative_to(root).as_posix()
    assert any(name in problem and "absolute aspect ratio" in problem for problem in problems)
    assert name not in (tmp_path / "run" / "episodes.jsonl").read_text()
    with pytest.raises(InputError, match="absolute aspect ratio"):
        run_evaluation(eval_config(**options, strict=True), LocalModel(model))
