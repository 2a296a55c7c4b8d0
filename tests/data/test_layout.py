import pytest

from linkcontext.data.layout import class_name, is_blank, name_key, normal_split, read_layout, source_group


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
        ("Training/cats/1.png", "train", "cats"),
        ("test_set/cats/1.png", "test", "cats"),
        ("train/1.png", "train", ""),
        ("1.png", "", ""),
    ],
)
def test_place(path, split, class_id):
    layout = read_layout([path])
    assert layout.place(path) == (split, class_id)
    assert layout.doubts == ()


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
    assert class_name("animals/ice_bear") == "ice bear"
    assert [normal_split(name) for name in ("Train", "valid", "extra")] == ["train", "val", "extra"]


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "Training trainset train2017 TRAIN-IMAGES 训练集 訓練 学習データ Entraînement entraînement 훈련"),
        ("val", "Val valid dev Validierung validation_set 验证集 検証"),
        ("test", "Testing test_set Test-Images test1 测试集 テスト prueba"),
    ],
)
def test_splits_in_any_case_and_language(split, names):
    assert {normal_split(name) for name in names.split()} == {split}


@pytest.mark.parametrize("name", ["trains", "trainer", "testify", "car", "Val d'Isère", "contest"])
def test_names_that_only_look_like_splits(name):
    assert normal_split(name) == name


@pytest.mark.parametrize(
    ("paths", "places", "doubtful"),
    [
        # COCO has a class called train
        (["train/1.png", "car/1.png"], [("", "train"), ("", "car")], "classes"),
        (["dev/1.png", "car/1.png", "plane/1.png"], [("", "dev"), ("", "car"), ("", "plane")], "classes"),
        (
            ["vehicles/train/1.png", "vehicles/car/1.png", "food/pizza/1.png"],
            [("", "vehicles/train"), ("", "vehicles/car"), ("", "food/pizza")],
            "classes",
        ),
        (["vehicles/train/1.png", "food/pizza/1.png"], [("train", "vehicles"), ("", "food/pizza")], "splits"),
        (
            ["train/cat/1.png", "test/cat/1.png", "extra/1.png"],
            [("train", "cat"), ("test", "cat"), ("", "extra")],
            "splits",
        ),
        (["cat/train/1.png", "cat/test/1.png", "dog/1.png"], [("train", "cat"), ("test", "cat"), ("", "dog")], ""),
        (["Training/cat/1.png", "Testing/cat/1.png"], [("train", "cat"), ("test", "cat")], ""),
        (["cat/train/1.png", "dog/train/1.png"], [("train", "cat"), ("train", "dog")], ""),
    ],
)
def test_a_folder_that_could_be_a_split_or_a_class(paths, places, doubtful):
    layout = read_layout(paths)
    assert [layout.place(path) for path in paths] == places
    assert len(layout.doubts) == bool(doubtful)
    assert all(f"read as {doubtful}" in doubt for doubt in layout.doubts)


def test_composed_and_decomposed_letters_are_one_class():
    composed, decomposed = "caf\u00e9/1.png", "cafe\u0301/2.png"
    layout = read_layout([composed, decomposed])
    assert layout.place(composed) == layout.place(decomposed) == ("", "caf\u00e9")


def test_names_are_spelt_in_one_way():
    assert [class_name(each) for each in ("two_ _words", "trail ", "a\u3000b", "cafe\u0301")] == [
        *("two words", "trail", "a b", "caf\u00e9"),
    ]
    assert name_key("\uff23at") == name_key("cat ") == name_key("c\u200dat")


@pytest.mark.parametrize(
    ("name", "blank"), [("", True), (" ", True), ("\u200b", True), ("\u3164", True), ("猫", False)]
)
def test_blank_names(name, blank):
    assert is_blank(name) is blank
