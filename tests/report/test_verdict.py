import pytest

from linkcontext.report.verdict import comparison_verdict, main_rows


def row(shots, a, b, p, **change):
    key = {"task": "link", "names": "pseudo", "ways": 2, "scoring": "likelihood_sum", "shots_per_class": shots}
    return key | {"accuracy_a": a, "accuracy_b": b, "difference": b - a, "p_holm": p, "detectable": 0.04} | change


def verdict(*rows):
    return comparison_verdict(rows, "base", "first")


def test_a_better_run_is_named_with_both_accuracies():
    assert verdict(row(4, 0.62, 0.94, 0.001)) == (
        "Verdict: B (first) is better at 4 shots per class (94.0 % right in B, 62.0 % in A)."
    )
    assert verdict(row(1, 0.94, 0.62, 0.001)) == (
        "Verdict: A (base) is better at 1 shot per class (62.0 % right in B, 94.0 % in A)."
    )


def test_shots_without_a_difference_are_named_beside_those_with_one():
    rows = (row(0, 0.5, 0.51, 0.9), row(1, 0.6, 0.8, 0.01), row(4, 0.6, 0.9, 0.001), row(16, 0.95, 0.9, 0.049))
    assert verdict(*rows) == (
        "Verdict: B (first) is better at 1 and 4 shots per class (90.0 % right in B, 60.0 % in A, at 4), and A (base) "
        "is better at 16 shots per class (90.0 % right in B, 95.0 % in A), and no difference shows at 0 shots per "
        "class (51.0 % right in B, 50.0 % in A)."
    )


def test_no_difference_says_how_large_a_one_would_have_shown():
    assert verdict(row(4, 0.62, 0.63, 0.3)) == (
        "Verdict: no difference shows between A (base) and B (first) at 4 shots per class (63.0 % right in B, 62.0 % "
        "in A). One of 4.0 % or more would probably have shown."
    )
    assert verdict(row(4, 0.62, 0.63, 0.05, detectable=None)).endswith("62.0 % in A).")


def test_only_the_main_scoring_is_judged_and_several_settings_are_counted():
    other = row(4, 0.9, 0.1, 0.001, scoring="likelihood_mean")
    rows = (row(4, 0.5, 0.9, 0.001), row(4, 0.5, 0.6, 0.8, names="real"), other)
    assert verdict(*rows) == (
        "Verdict: B (first) is better in 1 of 2 rows (90.0 % right in B, 50.0 % in A, where they differ most), and no "
        "difference shows in 1 of 2 rows (60.0 % right in B, 50.0 % in A, where they differ most)."
    )


@pytest.mark.parametrize("key", ["shots_per_class", "shots"])
def test_a_terminal_shows_few_rows_of_a_long_table(key):
    def some(settings, shots, scorings):
        return [
            {"task": str(task), key: k, "scoring": scoring}
            for task in range(settings)
            for k in shots
            for scoring in scorings
        ]

    scorings = ("likelihood_sum", "likelihood_mean", "likelihood_pmi")
    short = some(1, range(6), scorings)
    assert main_rows(short) == short
    long = some(3, (0, 1, 4), scorings)
    assert main_rows(long) == [r for r in long if r["scoring"] == "likelihood_sum"]
    longer = some(12, (0, 1, 4), scorings)
    assert main_rows(longer) == [r for r in longer if (r["scoring"], r[key]) == ("likelihood_sum", 4)]
    assert len(main_rows(some(50, (1,), scorings))) == 20
    assert main_rows([]) == []


def test_rows_without_shots_are_the_first_of_the_main_scoring():
    curves = [{"tasks": str(n), "scoring": s} for n in range(30) for s in ("likelihood_sum", "generate")]
    assert main_rows(curves) == [r for r in curves if r["scoring"] == "likelihood_sum"][:20]
