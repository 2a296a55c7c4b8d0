from linkcontext.records import Candidate, Episode, Prediction, Score, Turn
from linkcontext.report.confusion import confusion, confusion_grid
from linkcontext.report.page import worst


def asked(gold, candidates, logprobs=None, reply=None):
    """One query and what was made of it; candidates are class ids, `x` of which people call `ex`."""
    known = tuple(Candidate(c, f"name-{c}", "ex" if c == "x" else c) for c in candidates)
    episode = Episode("e", "link", "pseudo", len(known), (0,), known, (), (Turn("i", gold, f"name-{gold}"),))
    scores = tuple(Score(c, f"name-{c}", value, 0.0, 1) for c, value in zip(candidates, logprobs or (), strict=False))
    return episode, Prediction("e", "e/q0", 0, scores, gold, reply, {}, "", ())


def likely(*told):
    return [asked(gold, candidates, values) for gold, candidates, values in told]


def test_a_share_is_of_those_queries_where_both_could_be_answered():
    found = confusion(
        likely(
            ("a", "ab", (-1, -2)),  # right
            ("a", "ab", (-2, -1)),  # b
            ("a", "ab", (-1, -1)),  # a tie
            ("a", "ac", (-1, -2)),  # right, and b could not be said
            ("b", "ab", (-2, -1)),
        ),
        "likelihood_sum",
    )
    assert found.classes == ("a", "b")  # c was never asked for
    (aa, ab), (ba, bb) = found.cells
    assert (aa.answered, aa.met, ab.answered, ab.met) == (2.5, 4, 1.5, 3)
    assert (ba.share, bb.share) == (0.0, 1.0)
    assert worst(found) == "Most often mistaken: a for b (1.5 of 3)."
    assert confusion_grid(found).lines == (("a", ".625", ".500", "4"), ("b", ".000", "1.000", "1"))


def test_classes_that_never_met_have_no_share():
    found = confusion(likely(("a", "ax", (-1, -2)), ("b", "bx", (-1, -2)), ("x", "ax", (-2, -1))), "likelihood_sum")
    assert found.cells[0][1].share is None
    assert found.classes == ("a", "b", "x (ex)")
    assert confusion_grid(found).lines[0] == ("a", "1.000", "–", ".000", "1")
    assert worst(found) == ""


def test_replies_that_name_nothing_have_a_column_of_their_own():
    pairs = [asked("a", "ab", reply=said) for said in ("name-a", "name-b", "something", "name-a or name-b")]
    found = confusion(pairs, "generate")
    assert [cell.answered for cell in found.cells[0]] == [1]
    assert found.nothing[0].share == 0.5
    assert confusion_grid(found).headings == ("right / answered", "a", "none", "n queries")
    assert not confusion(pairs[:2], "generate").silent


def test_of_many_classes_those_with_most_queries_stay_then_those_mistaken_most():
    told = [("a", "ab", (-1, -2)), ("b", "ab", (-1, -2)), ("c", "cb", (-1, -2)), ("c", "cb", (-1, -2))]
    found = confusion(likely(*told), "likelihood_sum", most=2)
    assert (found.classes, found.of) == (("b", "c"), 3)
    assert confusion(likely(*told[::-1]), "likelihood_sum", most=2) == found
