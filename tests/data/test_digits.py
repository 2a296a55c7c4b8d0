import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from linkcontext.data import digits
from linkcontext.data.digits import NAMES, open_digits
from linkcontext.data.images import open_image


def test_digits(cache, monkeypatch):
    dataset = open_digits()
    assert len(dataset.items) == 1_797
    assert dataset.names() == {name: name for name in NAMES}
    assert len({item.group for item in dataset.items}) == 1_797
    pixels = load_digits()
    for number in (0, 7, 1_796):
        item = dataset.item(f"{NAMES[pixels.target[number]]}/{number:04d}.png")
        grey = np.asarray(open_image(dataset.path(item.id)))[..., 0]
        assert grey.shape == (64, 64)
        again = np.asarray(Image.fromarray(grey).resize((8, 8), Image.Resampling.BOX)).astype(float)
        ink = np.corrcoef(again.ravel(), pixels.images[number].ravel())[0, 1]
        assert ink > 0.98  # the ink is white: black on white would be below 0
    monkeypatch.setattr(digits, "_write_digits", None)  # they are cached, so nothing is written again
    assert open_digits() == dataset
    assert [path for path in cache.iterdir() if path.name.startswith(".")] == []
