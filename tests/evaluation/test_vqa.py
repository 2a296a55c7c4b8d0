import itertools

import pytest

from linkcontext.evaluation.vqa import accuracy, exact, normalise_answer


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("A red Dog.", "red dog"),
        ("  two\tapples\n", "2 apples"),
        ("None", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("1,000 people", "1000 people"),
        ("2.5", "2.5"),
        ("2.", "2"),
        ("don't", "dont"),
        ("t-shirt", "t shirt"),
        ("yes, it is!", "yes it is"),
        ("the", "the"),  # nothing else would be left
        ("A", "a"),
        ("A cat", "cat"),
        ("", ""),
    ],
)
def test_normalise(answer, normal):
    assert normalise_answer(answer) == normal
    assert normalise_answer(normal) == normal


def test_exact():
    assert exact("The two.", "2") == 1.0
    assert exact("two", "3") == 0.0
    assert exact("", "a") == 0.0


@pytest.mark.parametrize(("matches", "figure"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_accuracy_by_hand(matches, figure):
    assert accuracy("Yes", ["yes"] * matches + ["no"] * (10 - matches)) == pytest.approx(figure)


def test_accuracy_is_the_mean_over_the_subsets_of_nine():
    people = ["red", "red", "Red.", "a red", "blue", "blue", "green", "dark red", "blue", "two"]
    for reply in ("red", "BLUE", "green", "2", "pink"):
        subsets = list(itertools.combinations(people, 9))
        one_by_one = [min(sum(exact(reply, p) for p in subset) / 3, 1) for subset in subsets]
        assert accuracy(reply, people) == pytest.approx(sum(one_by_one) / len(subsets))
        assert accuracy(reply, people[::-1]) == pytest.approx(accuracy(reply, people))
