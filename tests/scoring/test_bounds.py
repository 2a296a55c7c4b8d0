"""What a model's caches keep: no more bytes than they may, and nothing of what was refused."""

import gc
import io
import weakref

import pytest
from PIL import Image

from linkcontext.data.images import Upload, open_image
from linkcontext.errors import InputError
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.loading import load_model
from linkcontext.scoring import prompts, trees
from linkcontext.scoring.local import LocalModel


@pytest.fixture(scope="module")
def model(nano):
    return load_model(str(nano), device="cpu")


def upload(number, edge=32):
    file = io.BytesIO()
    Image.new("RGB", (edge, edge), (number, 0, 0)).save(file, "PNG")
    return Upload(str(number), file.getvalue())


def user(text, *pictures):
    shown = [{"type": "image", "image": picture} for picture in pictures]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]


def test_a_text_that_is_refused_leaves_nothing(model):
    evaluator = LocalModel(model, VisionEncoder(model, open_image), {"a": ("a", upload(1))})
    for text in ("word " * 6000, "other " * 6000):
        with pytest.raises(InputError, match="the model's context is"):
            evaluator.prompt(user(text, "a"))
    assert len(evaluator._encoder._kept) == len(evaluator._trees._kept) == 0
    assert evaluator.eyes.features == {}  # the text alone was too long: the picture was not looked at


def test_texts_and_prompts_are_kept_up_to_a_number_of_bytes(model, monkeypatch):
    monkeypatch.setattr(prompts, "TEXTS", 30_000)
    monkeypatch.setattr(trees, "LINES", 30_000)
    evaluator = LocalModel(model, VisionEncoder(model, open_image), {})
    for number in range(60):
        evaluator.prompt(user(f"{number} " * 40))
    assert 2 <= len(evaluator._encoder._kept) < 60
    assert 2 <= len(evaluator._trees._kept) < 60
    assert evaluator._encoder._kept.currsize <= 30_000
    assert evaluator._trees._kept.currsize <= 30_000
    ids = evaluator.prompt(user("0 " * 40)).ids
    assert ids == LocalModel(model, VisionEncoder(model, open_image), {}).prompt(user("0 " * 40)).ids


def test_features_are_kept_up_to_a_number_of_bytes_but_for_those_wanted_now(model):
    eyes = VisionEncoder(model, open_image, max_bytes=0, count_images=False)
    for number in range(3):
        eyes.encode([(str(number), upload(number))])
    eyes.evict({"1"})
    assert list(eyes.features) == ["1"]
    assert eyes.features["1"].nbytes >= eyes.features["1"].embeddings.nbytes
    assert eyes.counters()["pictures"] == 0
    eyes.evict()
    assert eyes.features == {}


def test_pictures_are_opened_one_at_a_time(model, monkeypatch):
    """Of many large pictures no two are in memory as pixels at once."""
    alive = []

    def counted(path):
        gc.collect()
        assert sum(image() is not None for image in alive) == 0
        image = open_image(path)
        alive.append(weakref.ref(image))
        return image

    eyes = VisionEncoder(model, counted)
    eyes.encode([(str(number), upload(number, 300)) for number in range(4)])
    assert len(alive) == len(eyes.features) == 4


def test_a_picture_preprocessed_elsewhere_gives_the_same_features(model):
    eyes, other = VisionEncoder(model, open_image), VisionEncoder(model, open_image)
    eyes.encode([("a", upload(7))])
    made = other.preprocessor.preprocess(open_image(upload(7)))
    other.encode([("a", made)])
    assert made.nbytes > 0
    assert other.features["a"].embeddings.equal(eyes.features["a"].embeddings)
