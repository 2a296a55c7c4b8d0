import pytest

from linkcontext.data.layout import named, normal_split, place, source_group


@pytest.mark.parametrize(
    ("path", "split", "class_id"),
    [
        ("cats/1.png", "", "cats"),
        ("animals/cats/1.png", "", "animals/cats"),
        ("train/cats/1.png", "train", "cats"),
        ("cats/Test/1.png", "test", "cats"),
        ("animals/VALID/cats/1.png", "val", "animals/cats"),
        ("validation/cats/1.png", "val", "cats"),
        ("val/cats/1.png", "val", "cats"),
        ("trains/1.png", "", "trains"),
        ("train/train/1.png", "train", "train"),  # vehicles: the class is called train
        ("test/train/1.png", "test", "train"),
        ("train/1.png", "train", ""),
        ("1.png", "", ""),
    ],
)
def test_place(path, split, class_id):
    assert place(path) == (split, class_id)


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("a/writer07_12.png", "writer07"),
        ("writer07-12.png", "writer07"),
        ("my cat 3.jpeg", "my cat"),
        ("film_2_03.png", "film_2"),
        ("07.png", "07"),
        ("_07.png", "_07"),
        ("cat_07b.png", "cat_07b"),
        ("cat07.png", "cat07"),
        ("cat_٣.png", "cat_٣"),  # only the digits 0 to 9 number a picture
        ("cat.v2_1.png", "cat.v2"),
    ],
)
def test_source_group(path, group):
    assert source_group(path) == group


def test_names_and_splits():
    assert named("animals/ice_bear") == "ice bear"
    assert [normal_split(name) for name in ("Train", "valid", "dev")] == ["train", "val", "dev"]
