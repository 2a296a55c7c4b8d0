"""How many images the vision encoder takes at once, by the memory that there is."""

import pytest
import torch
from PIL import Image

from linkcontext.inference import vision
from linkcontext.inference.memory import image_bytes
from linkcontext.inference.vision import VisionEncoder
from linkcontext.models.loading import load_model

IMAGES = [(f"{number}", number) for number in range(40)]


@pytest.fixture(scope="module")
def model(nano):
    return load_model(str(nano), device="cpu")


def opened(number):
    return Image.linear_gradient("L").rotate(9 * number).convert("RGB")


def encoder(model, images=None):
    """An encoder with the memory for so many images."""
    one = VisionEncoder(model, opened).preprocessor.preprocess(opened(0))
    memory = None if images is None else images * image_bytes(model.network, one.inputs) / 1e9
    return VisionEncoder(model, opened, memory_gb=memory)


@pytest.mark.parametrize(("room", "sizes"), [(None, [32, 8]), (1000, [32, 8]), (12.5, [12, 12, 12, 4]), (1, [1] * 40)])
def test_a_batch_has_as_many_images_as_fit(model, room, sizes):
    batches = list(encoder(model, room).batches(IMAGES))
    assert [len(batch) for batch in batches] == sizes
    assert [key for batch in batches for key in batch] == [key for key, _ in IMAGES]


def test_the_free_memory_is_looked_at_before_every_batch(model, monkeypatch):
    one = encoder(model, 1).memory_gb * 1e9
    free = iter([5.5 * one, 2.5 * one, 100 * one, 100 * one])
    monkeypatch.setattr(vision, "free_memory", lambda device: next(free))
    assert [len(batch) for batch in encoder(model).batches(IMAGES)] == [5, 2, 32, 1]


def test_an_image_that_does_not_fit_is_encoded_alone_with_a_warning(model, caplog):
    small = encoder(model, 0.5)
    small.encode(IMAGES)
    whole = encoder(model)
    whole.encode(IMAGES)
    assert [message.split(":")[0] for message in caplog.messages] == ["0"]
    assert "encoding this picture alone takes about" in caplog.text
    assert "--max-pixels" in caplog.text
    assert small.counters() == whole.counters() == {"pictures": 40, "encoder_calls": 40, "pictures_from_disk": 0}
    for key, _ in IMAGES:  # at another address a matrix product may differ in its last bits
        torch.testing.assert_close(small.get(key).embeddings, whole.get(key).embeddings, rtol=1e-4, atol=1e-5)
