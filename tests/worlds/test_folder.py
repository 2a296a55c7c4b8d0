"""The world as folders: pictures, facts and neighbours, the same for the same seed."""

import pytest
from PIL import Image

from linkcontext.data.class_folders import open_folder
from linkcontext.data.manifest import digest, read_manifest
from linkcontext.errors import InputError
from linkcontext.worlds.folder import TAUGHT_STREAM, contact_sheet, user_stream, write_seed


def test_the_same_seed_writes_the_same_bytes_and_classes_do_not_depend_on_counts(tmp_path):
    a, b = write_seed(tmp_path / "a", 4, 3, 7, 32), write_seed(tmp_path / "b", 4, 3, 7, 32)
    assert digest(a) == digest(b)
    more = write_seed(tmp_path / "c", 4, 5, 7, 32)
    assert {i.id: i.sha256 for i in a.items}.items() <= {i.id: i.sha256 for i in more.items}.items()
    assert digest(write_seed(tmp_path / "d", 4, 3, 8, 32)) != digest(a)


def test_it_is_a_class_folder_with_facts(tmp_path):
    written = write_seed(tmp_path / "w", 5, 2, 1, 32)
    found = open_folder(tmp_path / "w", strict=True)
    assert found.items == tuple(sorted(written.items, key=lambda item: item.id))
    assert read_manifest(tmp_path / "w").items == written.items
    names = list(dict.fromkeys(item.class_id for item in written.items))
    near = {item.class_id: item.facts["neighbours"] for item in written.items}
    assert near == {
        names[0]: [names[1]],
        names[1]: [names[0]],
        names[2]: [names[3]],
        names[3]: [names[2]],
        names[4]: [],
    }
    assert set(written.items[0].facts) == {"family", "count", "parts", "caption", "neighbours"}


def test_training_worlds_have_a_namespace_of_their_own():
    assert all(user_stream(seed)[: len(TAUGHT_STREAM)] != TAUGHT_STREAM for seed in range(100))


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("x")
    with pytest.raises(InputError, match="the folder is not empty"):
        write_seed(tmp_path / "there", 2, 1, 0, 32)


def test_contact_sheet(tmp_path):
    dataset = write_seed(tmp_path / "w", 3, 4, 0, 32)
    contact_sheet(dataset, tmp_path / "sheet.png", across=4, edge=32)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (128, 96)
