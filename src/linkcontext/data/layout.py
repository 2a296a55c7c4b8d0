"""Splits, classes and sources of pictures by their paths, and what counts as the same name."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

_WORDS = {
    "train": "train training trn apprentissage entrainement entrenamiento treino treinamento addestramento "
    "обучение тренировка 训练 訓練 学習 훈련 학습 egitim",
    "val": "val valid validate validating validation dev devel development validacion validacao validazione "
    "validierung validatie валидация 验证 驗證 検証 검증 dogrulama",
    "test": "test tst testing tests prueba pruebas teste testes тест 测试 測試 テスト 테스트",
}
_ENDINGS = (
    "set sets data dataset datasets image images img imgs picture pictures photo photos sample samples folder split "
    "daten datensatz 集 集合 数据 データ データセット セット 데이터 세트"
)
_INVISIBLE = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters and symbols without a visible shape

_JOINERS = frozenset("\u200c\u200d\u200e\u200f")  # in Persian names, in emoji, and in file names from right to left


@dataclass(frozen=True, slots=True)
class Layout:
    """Which folders of a data set are splits. `doubts` are sentences about folders that could also be classes."""

    splits: frozenset[str]  # paths below the root
    doubts: tuple[str, ...]

    def place(self, path: str) -> tuple[str, str]:
        """The split and the class id of a path below the root. The class id is "" for a picture in no class folder."""
        folders = path.split("/")[:-1]
        split = ""
        for at in range(len(folders)):
            if "/".join(folders[: at + 1]) in self.splits:
                split = normal_split(folders[at])
                folders = folders[:at] + folders[at + 1 :]
                break
        return split, unicodedata.normalize("NFC", "/".join(folders))


def read_layout(paths: Iterable[str]) -> Layout:
    """The layout of a data set, by the paths of its pictures below the root.

    Folders with the name of a split are splits if all folders beside them are, or if at least two different ones have
    class folders in them (train/cat, test/cat). Otherwise they are classes: COCO has a class `train`. A folder inside a
    split is never a split: CIFAR-100 has train/train.
    """
    tree: dict[str, set[str]] = {}  # folder -> the folders in it
    filled: set[str] = set()  # folders with pictures directly in them
    for path in paths:
        folder = path.rpartition("/")[0]
        if folder in filled:
            continue
        filled.add(folder)
        while folder:
            above = folder.rpartition("/")[0]
            tree.setdefault(above, set()).add(folder)
            folder = above
    splits: set[str] = set()
    doubts: list[str] = []
    waiting = [""]
    while waiting:
        parent = waiting.pop()
        inside = sorted(tree.get(parent, ()))
        called = [folder for folder in inside if _is_called_split(folder)]
        others = [folder for folder in inside if folder not in called]
        different = {normal_split(_last(folder)) for folder in called}
        if called and (not others or (len(different) > 1 and any(folder in tree for folder in called))):
            splits.update(called)
            waiting += reversed(others)
            if others or (parent and len(different) == 1 and not _all_split(parent, tree, filled)):
                doubts.append(
                    _doubt(called, others, "splits", "If they are classes, or the folders beside them are not")
                )
        else:
            waiting += reversed(inside)
            if called:
                doubts.append(_doubt(called, others, "classes", "If they are splits"))
    return Layout(frozenset(splits), tuple(doubts))


def _is_called_split(folder: str) -> bool:
    return normal_split(_last(folder)) in _WORDS


def _all_split(parent: str, tree: dict[str, set[str]], filled: set[str]) -> bool:
    """Whether all folders at the depth of this one have nothing but splits in them."""
    alike = [folder for folder in {*tree, *filled} if folder and folder.count("/") == parent.count("/")]
    return all(folder not in filled and all(map(_is_called_split, tree.get(folder, ()))) for folder in alike)


def _doubt(called: list[str], others: list[str], what: str, otherwise: str) -> str:
    beside = f", beside {', '.join(others[:3])}" if others else ""
    return (
        f"folders that could be splits or classes: {', '.join(called[:3])}. They are read as {what}{beside}. "
        f"{otherwise}, move or rename folders, or write a manifest.jsonl."
    )


def normal_split(name: str) -> str:
    """`train`, `val` or `test` for any usual spelling (Training, dev, test_set, 训练集); other names unchanged."""
    return _SPLITS.get(match[1], name) if (match := _SPELLING.fullmatch(_key(name))) else name


def class_name(class_id: str) -> str:
    """The class name that a class id gives: `animals/ice_bear` is an ice bear."""
    return normal_name(class_id.rsplit("/", 1)[-1].replace("_", " "))


def normal_name(name: str) -> str:
    """A name with single spaces and composed letters (NFC), as it is shown to a model."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def name_key(name: str) -> str:
    """A key that is equal for names that are the same answer.

    Case, compatibility forms (NFKC), spaces and joiners do not count.
    """
    plain = "".join(letter for letter in name if letter not in _JOINERS)
    return " ".join(unicodedata.normalize("NFKC", plain).casefold().split())


def is_printable(text: str) -> bool:
    """Whether a text has no control characters; all kinds of spaces, joiners and direction marks are allowed."""
    return all(letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs" for letter in text)


def is_blank(name: str) -> bool:
    """Whether a name has no visible character."""
    return not any(unicodedata.category(letter)[0] in "LNPS" and letter not in _INVISIBLE for letter in name)


def mixes_scripts(text: str) -> bool:
    """Whether the letters of a name that UTF-8 writes in two bytes are of several scripts.

    This happens if a name in an older encoding is read as UTF-8: 小猫 in GBK becomes Сè, a Cyrillic and a Latin letter.
    """
    names = (unicodedata.name(letter, "") for letter in text if "\x80" <= letter < "\u0800")
    # Signs like º and µ, and apostrophes that count as letters, belong to no script.
    return len({name.split()[0] for name in names if " LETTER " in name and not name.startswith("MODIFIER")}) > 1


def source_group(path: str) -> str:
    """The source of a picture by its file name: `writer07` for `a/writer07_12.png`; without a number, the stem."""
    stem = PurePosixPath(path).stem
    numbered = re.fullmatch(r"(.+)[_\- ][0-9]+", stem)
    return numbered[1] if numbered else stem


def _last(folder: str) -> str:
    return folder.rpartition("/")[2]


def _key(name: str) -> str:
    """A name without upper case, accents and separators."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if letter.isalnum())


_SPLITS = {_key(word): split for split, words in _WORDS.items() for word in words.split()}
_SPELLING = re.compile(
    f"({'|'.join(sorted(_SPLITS, key=len, reverse=True))})(?:{'|'.join(map(_key, _ENDINGS.split()))})?[0-9]*"
)
