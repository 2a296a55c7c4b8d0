import pytest
from test_jsonl import EPISODE


def test_shown_is_a_prefix_and_queries_have_ids():
    assert EPISODE.shown(0) == ()
    assert EPISODE.shown(1) == EPISODE.support
    assert EPISODE.query_id(1) == "e00000/q1"


def test_records_are_frozen():
    with pytest.raises(AttributeError):
        EPISODE.ways = 3
