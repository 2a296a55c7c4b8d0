"""The cache of conversations that begin alike."""

import pytest

from linkcontext.data.images import open_image, sha256
from linkcontext.episodes.scaffold import SCAFFOLDS, build_messages
from linkcontext.inference.vision import VisionEncoder
from linkcontext.records import Turn
from linkcontext.scoring.local import LocalModel
from linkcontext.serve.prefix_cache import PrefixCacheLRU
from linkcontext.source import open_data


@pytest.fixture(scope="module")
def paths():
    dataset = open_data("world:3")
    return [[dataset.root / item.path for item in items] for items in dataset.by_class().values()]


@pytest.fixture(scope="module")
def offline(mini):
    return LocalModel(mini, VisionEncoder(mini, open_image), {})


def lesson(pictures, query, sources):
    """A prompt with two pictures and a query."""
    sources |= {sha256(path): (sha256(path), path) for path in (*pictures, query)}
    turns = [Turn(sha256(path), name, name) for path, name in zip(pictures, ("cactihog", "plimbo"), strict=True)]
    return build_messages(turns, SCAFFOLDS["turns"], Turn(sha256(query), "", ""))


def test_the_least_recently_used_prefix_is_evicted(offline, paths):
    prompts = [lesson((paths[number][0], paths[8][0]), paths[8][3], offline.sources) for number in (1, 2, 3)]
    first, second, third = (offline.prefill([prompt]) for prompt in prompts)
    cache = PrefixCacheLRU(offline, 10**9)
    cache.add(first)
    cache.max_bytes = 2 * cache.nbytes + 1000
    for prefix in (second, first, third):
        cache.add(prefix)
    assert cache.entries == [first, third]
    assert cache.match(prompts[2]) is third


def test_a_part_of_a_prefix_is_a_copy_that_answers_the_same(offline, paths):
    prompt = lesson((paths[1][0], paths[8][0]), paths[8][3], offline.sources)
    whole = offline.prefill([prompt])
    cache = PrefixCacheLRU(offline, 10**9)
    part = cache.fork(whole, [prompt[:3], prompt])
    assert part is not whole
    assert 16 < len(part) < len(whole)
    assert offline.generate([prompt], on=part) == offline.generate([prompt])
    assert cache.fork(whole, [prompt]) is whole
    assert whole.shared_with(whole.key, ("another", *whole.images[1:])) == 1  # the picture does not count in part
