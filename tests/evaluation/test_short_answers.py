from linkcontext.evaluation.short_answers import same_words, token_f1


def test_case_punctuation_and_spaces_do_not_count():
    assert same_words(" Ulcerative  colitis. ", "ulcerative colitis") == 1
    assert same_words("T2-weighted", "t2weighted") == 1
    assert same_words("the heart", "heart") == 0  # unlike in VQA, articles count
    assert same_words("", "heart") == 0


def test_words_are_compared_as_sets():
    assert token_f1("In the park near Busan", "the Park") == 2 * 2 / (5 + 2)
    assert token_f1("I think of it. //boxed{wrong} then //boxed{the park}", "the park") == 1
    assert token_f1(r"\boxed{}", "the park") == 0
    assert token_f1("elsewhere", "the park") == 0
