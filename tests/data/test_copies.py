import time

import numpy as np
from PIL import Image

from linkcontext.data import images
from linkcontext.data.class_folders import open_folder
from linkcontext.data.copies import (
    BITS,
    HASH,
    LEVELS,
    copy_sentences,
    label_conflict_sentence,
    label_conflicts,
    near_copies,
    near_pairs,
)
from linkcontext.data.manifest import Dataset
from linkcontext.episodes.link import sample_episodes
from linkcontext.episodes.plan import EpisodePlan
from linkcontext.records import Item


def photo(number, edge=96):
    """Something with outlines: a few large spots in colours."""
    chance = np.random.default_rng(number)
    small = chance.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((edge, edge), Image.Resampling.BICUBIC)


def zoo(root, classes=("cat", "dog"), pictures=4):
    for at, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(pictures):
            photo(100 * at + number).save(root / name / f"{number}.png")
    return root


def test_a_copy_in_other_bytes_is_never_in_its_own_support(tmp_path):
    root = zoo(tmp_path / "zoo")
    for path in sorted(root.glob("*/*.png")):
        image = Image.open(path)
        image.save(path.with_name(f"{path.stem}_copy.bmp"))
        turned = image.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[images.ORIENTATION] = 6  # turn it back before it is shown
        turned.save(path.with_name(f"{path.stem}_turned.png"), exif=exif, compress_level=1)
    dataset = open_folder(root)
    assert len(dataset.items) == 24
    assert len({item.content for item in dataset.items}) == 8
    assert len({item.sha256 for item in dataset.items}) == 24
    for episode in sample_episodes(dataset, EpisodePlan(2, (2,), episodes=40, queries=2)).episodes:
        for query in episode.queries:
            assert dataset.item(query.item).content not in dataset.contents([turn.item for turn in episode.support])
    assert "equal pixel by pixel: 8" in copy_sentences(dataset)[0]


def test_near_copies_are_found_and_others_are_not(tmp_path):
    root = zoo(tmp_path / "zoo")
    image = Image.open(root / "cat" / "0.png")
    image.resize((48, 48), Image.Resampling.LANCZOS).save(root / "cat" / "small.png")
    image.save(root / "cat" / "lossy.jpg", quality=60)
    image.resize((200, 200)).save(root / "dog" / "large.webp", quality=80)
    dataset = open_folder(root)
    names = {(one.path, other.path) for one, other in near_copies(dataset)}
    four = {"cat/0.png", "cat/small.png", "cat/lossy.jpg", "dog/large.webp"}
    assert len(names) == 6
    assert {path for pair in names for path in pair} == four
    told, apart = copy_sentences(dataset)
    assert "resized or compressed again: 4 pictures" in told
    assert "near-copies in different classes: 3 (" in apart


def test_pairs_are_those_of_comparing_all(monkeypatch):
    monkeypatch.setattr("linkcontext.data.copies.BLOCK", 100)
    chance = np.random.default_rng(3)
    rows = chance.integers(0, 256, (60, HASH + 12), dtype=np.uint8)
    rows[30:] = rows[:30]
    for row in rows[30:]:
        for bit in chance.permutation(64)[: chance.integers(0, 14)]:
            row[bit // 8] ^= 1 << (bit % 8)
        row[HASH:] = np.clip(row[HASH:] + chance.integers(-20, 20), 0, 255)
    expected = [
        [a, b]
        for a in range(60)
        for b in range(a + 1, 60)
        if sum(int(x ^ y).bit_count() for x, y in zip(rows[a, :HASH], rows[b, :HASH], strict=True)) <= BITS
        and np.abs(rows[a, HASH:].astype(int) - rows[b, HASH:]).max() <= LEVELS
    ]
    assert near_pairs([row.tobytes() for row in rows]).tolist() == expected
    assert 5 < len(expected) < 30
    assert near_pairs([]).shape == near_pairs([b"x" * 20]).shape == (0, 2)


def test_many_pictures_are_compared_in_seconds():
    chance = np.random.default_rng(4)
    rows = chance.integers(0, 256, (20_000, 200), dtype=np.uint8)
    rows[-100:, 2:] = rows[:100, 2:]  # at most 16 bits of 64 differ
    begun = time.process_time()
    pairs = near_pairs([row.tobytes() for row in rows])
    assert time.process_time() - begun < 20
    assert len(pairs) > 0
    film = np.repeat(rows[:1], 5_000, axis=0)
    film[:, -1] = np.arange(5_000) % 8
    assert len({*near_pairs([row.tobytes() for row in film]).ravel().tolist()}) == 5_000


def item(path, name, content):
    return Item(path, path, name, name, content)


def test_a_picture_under_two_names_is_disputed_and_one_under_two_spellings_is_not():
    items = [item("a/1", "cat", "x"), item("b/1", "Cat ", "x"), item("c/1", "cat", "y"), item("d/1", "dog", "y")]
    assert {content: len(same) for content, same in label_conflicts(items).items()} == {"y": 2}
    assert "two classes or more: 2, of 1 different ones (c/1 and d/1)" in label_conflict_sentence(
        Dataset("root", tuple(items))
    )
    assert label_conflict_sentence(Dataset("root", tuple(items[:2]))) == ""
    assert "equal pixel by pixel: 1 (a/1)" in copy_sentences(Dataset("root", tuple(items)))[0]
    assert copy_sentences(Dataset("root", tuple(items[2:]))) == []  # those are left out, and used not even once
