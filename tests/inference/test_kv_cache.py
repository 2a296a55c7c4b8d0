"""The cache grows and shrinks in place, and a prefix is known by its content."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_prefix_tree import line

from linkcontext.inference.kv_cache import PrefixCache, new_cache, prefix_key, truncate
from linkcontext.inference.prefix_tree import merge

TEXT = SimpleNamespace(num_hidden_layers=2)
NETWORK = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: TEXT), device=torch.device("cpu"))


def states(*tokens):
    """[1, 2 heads, n, 3]: a token's number everywhere."""
    return torch.tensor(tokens, dtype=torch.float32)[None, None, :, None].expand(1, 2, -1, 3)


def filled(length, capacity=None):
    cache = new_cache(NETWORK, capacity or length)
    for layer in cache.layers:
        layer.update(states(*range(length)), -states(*range(length)))
    return cache


def tree_of(*images, text="abPPcPPdx"):
    """Two images of two tokens each in a prompt of nine."""
    first, second = images
    image = [-1, -1, first, first, -1, second, second, -1, -1]
    return merge([line(text, 1, image, [-1, -1, 0, 1, -1, 0, 1, -1, -1])])


def prefix(tree, length, images):
    return PrefixCache(*prefix_key(tree, length, images), filled(length))


def test_a_layer_appends_in_place_and_is_enlarged_if_it_must():
    layer = new_cache(NETWORK, 4).layers[0]
    layer.update(states(0, 1), states(0, 1))
    memory = layer.keys.data_ptr()
    keys, _ = layer.update(states(2, 3), states(2, 3))
    assert layer.keys.data_ptr() == memory
    assert keys[0, 0, :, 0].tolist() == [0, 1, 2, 3]
    keys, values = layer.update(states(4), -states(4))
    assert keys[0, 1, :, 2].tolist() == [0, 1, 2, 3, 4]
    assert values[0, 1, :, 2].tolist() == [0, 1, 2, 3, -4]
    assert layer.get_seq_length() == 5


def test_what_was_cut_off_is_overwritten():
    cache = filled(5)
    truncate(cache, 2)
    assert [layer.get_seq_length() for layer in cache.layers] == [2, 2]
    keys, _ = cache.layers[1].update(states(9), states(9))
    assert keys[0, 0, :, 0].tolist() == [0, 1, 9]
    truncate(cache, 7)
    assert cache.layers[1].get_seq_length() == 3


def test_a_prefix_is_read_again_as_it_was_written():
    tree = tree_of(0, 1)
    kept = prefix(tree, 7, ["lum", "dax"])
    again = PrefixCache.from_tensors(kept.key, kept.images, kept.to_tensors(), NETWORK)
    assert len(again) == len(kept) == 7
    assert kept.to_tensors().keys() == {"0/keys", "0/values", "1/keys", "1/values"}
    assert all(torch.equal(row, again.to_tensors()[name]) for name, row in kept.to_tensors().items())
    with pytest.raises(RuntimeError, match="7 keys for 6 tokens"):
        PrefixCache.from_tensors(kept.key[:, :6], kept.images, kept.to_tensors(), NETWORK)
    with pytest.raises(KeyError):
        PrefixCache.from_tensors(kept.key, kept.images, {}, NETWORK)


def test_a_prefix_is_known_by_its_images_and_not_by_their_numbers():
    key, images = prefix_key(tree_of(0, 1), 7, ["lum", "dax"])
    other, same = prefix_key(tree_of(5, 2), 7, ["", "", "dax", "", "", "lum"])
    assert images == same == ("lum", "dax")
    assert np.array_equal(key, other)
    assert prefix_key(tree_of(0, 0), 7, ["lum"])[1] == ("lum",)
    assert not np.array_equal(prefix_key(tree_of(0, 0), 7, ["lum"])[0], key)


def test_a_prefix_serves_no_prompt_with_other_images_or_other_words():
    tree = tree_of(0, 1)
    kept = prefix(tree, 7, ["lum", "dax"])
    assert kept.begins(tree, ["lum", "dax"])
    assert kept.begins(tree_of(1, 0), ["dax", "lum"])
    assert not kept.begins(tree, ["lum", "another"])
    assert not kept.begins(tree, ["dax", "lum"])
    assert not kept.begins(tree_of(0, 1, text="abPPePPdx"), ["lum", "dax"])
    assert not kept.begins(merge([line("ab")]), ["lum", "dax"])
    two = merge([line("abcx"), line("xbcx")])
    assert not PrefixCache(*prefix_key(merge([line("abcx")]), 2, []), filled(2)).begins(two, [])


def test_prefixes_share_an_image_whole_or_not_at_all():
    kept = prefix(tree_of(0, 1), 7, ["lum", "dax"])
    assert kept.shared_with(kept.key, kept.images) == 7
    assert kept.shared_with(kept.key[:, :4], ("lum",)) == 4
    assert kept.shared_with(kept.key, ("lum", "another")) == 5
    assert kept.shared_with(kept.key, ("another", "dax")) == 2
    longer = kept.key.copy()
    longer[1, 3] = 7  # the same image to its second token, which is in another place
    assert kept.shared_with(longer, kept.images) == 2
    assert kept.shared_with(np.concatenate([kept.key, kept.key[-1:]]), kept.images) == 0  # positions on more axes


def test_a_prefix_of_running_states_is_shared_whole_or_not_at_all():
    kept = replace(prefix(tree_of(0, 1), 7, ["lum", "dax"]), divisible=False)
    assert kept.shared_with(kept.key, kept.images) == 7
    assert kept.shared_with(kept.key[:, :4], ("lum",)) == 0
    assert kept.shared_with(kept.key, ("lum", "another")) == 0


def test_the_first_tokens_of_a_prefix_are_a_copy():
    kept = prefix(tree_of(0, 1), 7, ["lum", "dax"])
    part = kept.first(5, NETWORK)
    assert (len(part), part.images) == (5, ("lum",))
    with torch.inference_mode():
        part.cache.layers[0].keys.zero_()
    assert kept.cache.layers[0].keys[0, 0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
