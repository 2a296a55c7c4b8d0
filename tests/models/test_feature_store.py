import errno
import multiprocessing
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from linkcontext.errors import InputError
from linkcontext.models import feature_store
from linkcontext.models.feature_store import FeatureStore, Usage, clear, fingerprint, info

ONE, TWO = "1" * 64, "2" * 64


def key(number):
    return f"{number:064x}"


def row(number, size=3):
    return {
        "ids": torch.arange(number, number + size),
        "tokens": torch.full((size, 2), number / 3, dtype=torch.bfloat16),
        "pooled": torch.tensor([number, 0.5]),
    }


def rows(*numbers, size=3):
    return {key(number): row(number, size) for number in numbers}


def same(a, b):
    if a.keys() != b.keys():
        return False
    return all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


def check(found, *numbers, size=3):
    assert sorted(found) == [key(n) for n in numbers]
    for n in numbers:
        assert same(dict(sorted(found[key(n)].items())), dict(sorted(row(n, size).items())))


def shards(store):
    return sorted(store.folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)


def aged(store, seconds):
    """The store, its only young shard made so many seconds older."""
    path = shards(store)[-1]
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))
    return path


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "linkcontext"]


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / ONE)


def fresh(store):
    return FeatureStore(store.folder, store.limit)


def test_what_is_read_is_what_was_written(store):
    whole = torch.arange(24.0).reshape(2, 3, 4)
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
    value = {str(kind).removeprefix("torch."): torch.tensor([[0, 1], [1, 0]]).to(kind) for kind in kinds}
    value |= {"empty": torch.zeros(0, 3), "scalar": torch.tensor(7), "strided": whole[0].T, "expanded": whole[0, :1]}
    value |= {"a": whole[1], "again": whole[1], "part/of": whole[1, 0]}
    store.put({key(1): value})
    for reader in (store, fresh(store)):
        found = reader.get([key(1), key(2)])
        assert list(found) == [key(1)]
        assert same(dict(sorted(found[key(1)].items())), dict(sorted(value.items())))


def test_values_outlive_their_file_and_are_nobody_elses(store):
    store.put(rows(1))
    found = store.get([key(1)])
    found[key(1)]["pooled"].zero_()
    check(fresh(store).get([key(1)]), 1)
    clear(store.folder.parent)
    assert torch.equal(found[key(1)]["ids"], row(1)["ids"])


def test_nothing_is_there_before_anything_is_written(store, tmp_path):
    assert store.get([key(1)]) == {}
    store.put({})
    assert not store.folder.exists()
    assert (info(tmp_path / "none").rows, clear(tmp_path / "none")) == ((), 0)


def test_a_reader_sees_what_another_wrote_later(store):
    reader = fresh(store)
    store.put(rows(1))
    check(reader.get([key(1), key(2)]), 1)
    store.put(rows(2))
    check(reader.get([key(1), key(2)]), 1, 2)


def test_headers_are_read_once(store, monkeypatch):
    opened = []
    monkeypatch.setattr(
        feature_store, "safe_open", lambda path, framework: opened.append(path) or safe_open(path, framework)
    )
    store.put(rows(1))
    store.put(rows(2))
    for _ in range(3):
        store.get([key(1), key(2), key(3)])
    assert sorted(opened) == sorted(shards(store))


def write(folder, first, count):
    store = FeatureStore(folder)
    for number in range(first, first + count):
        store.put(rows(number))
        assert len(store.get([key(number)])) == 1


def test_two_processes_lose_nothing(store, monkeypatch):
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=write, args=(store.folder, first, 35)) for first in (0, 100)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
        assert process.exitcode == 0
    check(store.get(map(key, range(200))), *range(35), *range(100, 135))
    assert len(shards(store)) <= feature_store.SHARDS + 1  # and they merged while both were writing
    assert {path.suffix for path in store.folder.iterdir()} == {".safetensors"}


def test_merging_keeps_every_value_and_the_age(store):
    for number in range(feature_store.SHARDS):
        store.put(rows(number))
        aged(store, 1000)
    reader = fresh(store)
    check(reader.get(map(key, range(5))), *range(5))
    for path in shards(store):
        os.utime(path, (5000, 5000))
    store.put(rows(feature_store.SHARDS))
    merged, own = shards(store)
    assert (merged.stat().st_mtime, own.stat().st_mtime > 5000) == (5000, True)
    for one in (store, reader, fresh(store)):
        check(one.get(map(key, range(100))), *range(feature_store.SHARDS + 1))


def test_a_merged_file_is_a_small_part_of_the_cache(store):
    store.put(rows(0, size=1000))
    big = shards(store)[0].stat().st_size
    store.limit = 200 * big
    for number in range(1, feature_store.SHARDS + 1):
        store.put(rows(number, size=1000))
    sizes = [path.stat().st_size for path in shards(store)]
    assert len(sizes) == feature_store.SHARDS + 1 - 11  # 200 / 16 has room for twelve
    assert max(sizes) <= store.limit / 16
    check(fresh(store).get(map(key, range(100))), *range(feature_store.SHARDS + 1), size=1000)


def test_the_longest_unused_leave_first(store, tmp_path):
    other = FeatureStore(tmp_path / TWO)
    other.put(rows(1))
    aged(other, 4000)
    for number in (2, 3):
        store.put(rows(number))
        aged(store, 4000 - 1000 * number)  # 2: 2000 seconds ago; 3: 1000
    size = shards(store)[0].stat().st_size
    store.limit = 3 * size + size // 2
    check(store.get([key(2)]), 2)  # now 3 is older than 2
    store.put(rows(4))
    assert shards(other) == []
    store.put(rows(5))
    check(fresh(store).get(map(key, range(9))), 2, 4, 5)


def test_a_read_counts_as_use_once_for_each_shard(store):
    store.put(rows(1))
    path = aged(store, 1000)
    then = path.stat().st_mtime
    store.get([key(2)])
    assert path.stat().st_mtime == then
    store.get([key(1)])
    assert path.stat().st_mtime > then + 900
    os.utime(path, (then, then))
    store.get([key(1)])
    assert path.stat().st_mtime == then


def test_the_newest_leaves_only_if_it_alone_is_too_much(store):
    store.put(rows(1))
    size = shards(store)[0].stat().st_size
    future = shards(store)[0].stat().st_mtime + 1000
    os.utime(shards(store)[0], (future, future))
    store.limit = size
    store.put(rows(2))
    check(fresh(store).get([key(1), key(2)]), 2)
    store.limit = size - 1
    store.put(rows(3))
    assert shards(store) == []


def test_what_is_not_the_caches_is_left_alone(store, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "weights.safetensors").write_bytes(b"x" * 100_000)
    store.limit = 5000
    store.put(rows(1))
    check(fresh(store).get([key(1)]), 1)
    assert clear(tmp_path) > 0
    assert (tmp_path / "mine" / "weights.safetensors").exists()


def damage(path, kind):
    data = bytearray(path.read_bytes())
    if kind == "truncated":
        data = data[:-3]
    elif kind == "half a header":
        data = data[:20]
    elif kind == "empty":
        data = b""
    elif kind == "one bit":
        data[-1] ^= 1
    elif kind == "another type":  # of as many bytes: the header still fits
        data = data.replace(b'"BF16"', b'"F16" ', 1)
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["truncated", "half a header", "empty", "one bit", "another type"])
def test_a_damaged_shard_is_a_miss_and_is_removed(store, caplog, kind):
    store.put(rows(1))
    (path,) = shards(store)
    store.put(rows(2))
    damage(path, kind)
    reader = fresh(store)
    for _ in range(2):
        check(reader.get([key(1), key(2)]), 2)
    (said,) = warnings(caplog)
    assert str(path) in said and "encoded again" in said
    assert not path.exists()
    reader.put(rows(1))
    check(fresh(store).get([key(1), key(2)]), 1, 2)


def test_a_damaged_shard_that_stays_is_told_once(store, caplog, monkeypatch):
    store.put(rows(1))
    damage(shards(store)[0], "truncated")
    monkeypatch.setattr(
        "pathlib.Path.unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError(errno.EACCES, ""))
    )
    for _ in range(3):
        assert store.get([key(1)]) == {}
    assert len(warnings(caplog)) == 1


def test_merging_leaves_out_what_is_damaged(store, caplog):
    for number in range(feature_store.SHARDS):
        store.put(rows(number))
    damage(next(path for path in shards(store) if key(7) in path.read_bytes().decode("latin1")), "one bit")
    store.put(rows(feature_store.SHARDS))
    check(fresh(store).get(map(key, range(99))), *(n for n in range(feature_store.SHARDS + 1) if n != 7))
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("told", [None, {"namespace": TWO}])
def test_the_shard_of_another_encoder_is_not_used(store, caplog, told):
    store.put(rows(1))
    foreign = store.folder / "foreign.safetensors"
    save_file({f"{key(2)}/{name}": tensor for name, tensor in row(2).items()}, foreign, told)
    check(store.get([key(1), key(2)]), 1)
    (said,) = warnings(caplog)
    assert str(foreign) in said and not foreign.exists()


def test_a_shard_that_goes_between_listing_and_opening_is_a_miss(store, caplog, monkeypatch):
    store.put(rows(1))

    def late(path, framework):
        path.unlink()
        return safe_open(path, framework)

    monkeypatch.setattr(feature_store, "safe_open", late)
    assert store.get([key(1)]) == {}
    assert warnings(caplog) == []


def test_a_full_disk_is_told_once_and_reading_goes_on(store, caplog, monkeypatch):
    store.put(rows(1))

    def full(_tensors, path, _told):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_store, "save_file", full)
    store.put(rows(2))
    store.put(rows(3))
    (said,) = warnings(caplog)
    assert str(store.folder) in said and "No space left" in said and "LINKCONTEXT_CACHE" in said
    check(store.get(map(key, range(4))), 1)
    assert len(list(store.folder.iterdir())) == 1


def test_a_folder_that_takes_no_files_is_told_once(store, caplog):
    store.folder.parent.joinpath(ONE).write_text("a file where the folder should be")
    store.put(rows(1))
    store.put(rows(2))
    assert len(warnings(caplog)) == 1
    assert store.get([key(1)]) == {}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_read_only_folder_can_be_read(store, caplog):
    store.put(rows(1))
    store.folder.chmod(0o500)
    try:
        store.put(rows(2))
        check(fresh(store).get([key(1), key(2)]), 1)
    finally:
        store.folder.chmod(0o700)
    assert len(warnings(caplog)) == 1


def test_info_and_clear(store, tmp_path, monkeypatch):
    monkeypatch.setenv("LINKCONTEXT_FEATURE_CACHE_GB", "0.5")
    store.put(rows(1, 2))
    store.put(rows(2, 3))
    for path in shards(store):
        os.utime(path, (5000, 5000))
    other = FeatureStore(tmp_path / TWO)
    other.put(rows(1))
    size = sum(path.stat().st_size for path in shards(store))
    found = info(tmp_path)
    assert found.rows[0] == Usage(ONE, 3, size, 5000)
    assert (found.rows[1].namespace, found.rows[1].pictures) == (TWO, 1)
    assert (found.pictures, found.bytes, found.limit) == (4, size + found.rows[1].bytes, 2**29)
    assert clear(tmp_path) == found.bytes
    assert (info(tmp_path).rows, fresh(store).get([key(1)]), clear(tmp_path)) == ((), {}, 0)
    store.put(rows(4))
    check(fresh(store).get([key(4)]), 4)


def test_the_environment_says_where_and_how_much(tmp_path, monkeypatch):
    monkeypatch.setenv("LINKCONTEXT_CACHE", str(tmp_path))
    monkeypatch.delenv("LINKCONTEXT_FEATURE_CACHE_GB", raising=False)
    assert FeatureStore.of(ONE) == FeatureStore(tmp_path / "features" / ONE, 2 * 2**30)
    monkeypatch.setenv("LINKCONTEXT_FEATURE_CACHE_GB", "0")
    off = FeatureStore.of(ONE)
    off.put(rows(1))
    assert not off.folder.exists()
    for nonsense in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv("LINKCONTEXT_FEATURE_CACHE_GB", nonsense)
        with pytest.raises(InputError, match=f"LINKCONTEXT_FEATURE_CACHE_GB={nonsense}: not a size"):
            FeatureStore.of(ONE)


def test_a_fingerprint_depends_on_every_bit_and_not_on_the_order():
    weights = {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.ones(4, dtype=torch.bfloat16),
        "c": torch.tensor(1),
        "d": torch.zeros(0, 2),
    }
    first = fingerprint(weights, "told")
    assert len(first) == 64 and first == fingerprint(dict(reversed(weights.items())), "told")
    assert first == fingerprint(weights | {"a": weights["a"].T.contiguous().T}, "told")
    bit = weights["b"].clone()
    bit.view(torch.uint8)[3] ^= 1
    others = [
        fingerprint(weights, "told otherwise"),
        fingerprint(weights | {"b": bit}, "told"),
        fingerprint(weights | {"a": weights["a"].view(torch.int32)}, "told"),
        fingerprint(weights | {"a": weights["a"].reshape(3, 2)}, "told"),
        fingerprint(weights | {"d": torch.zeros(0, 3)}, "told"),
        fingerprint({("e" if name == "a" else name): tensor for name, tensor in weights.items()}, "told"),
        fingerprint({name: tensor for name, tensor in weights.items() if name != "d"}, "told"),
    ]
    assert len({first, *others}) == 1 + len(others)
