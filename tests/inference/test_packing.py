"""Groups of sequences in trees of like size."""

from test_prefix_tree import line

from linkcontext.inference.packing import pack


def test_groups_are_packed_up_to_a_number_of_tokens():
    groups = [[line("abcd")], [line("efg"), line("efh")], [line("ij")], [line("k")]]  # 4, 4, 2 and 1 tokens
    assert [len(tree) for tree in pack(groups, 6)] == [6, 5]
    assert [len(tree) for tree in pack(groups, 7)] == [7, 4]
    assert [len(tree) for tree in pack(groups, 8)] == [8, 3]
    assert [len(tree) for tree in pack(groups, 0)] == [4, 4, 2, 1]  # none fits: each alone
