"""Replies without their reasoning, by hand."""

from linkcontext.scoring.replies import ReplyCleaner


def test_an_answer_is_what_follows_the_reasoning():
    cleaner = ReplyCleaner()
    assert cleaner.clean([" a lum\n", "<think>is it a dax?</think>\n\na dax"]) == ["a lum", "a dax"]
    assert cleaner.counters() == {}


def test_reasoning_that_the_prompt_begins_is_removed_too():
    """A template that reasons may write the opening mark itself, and one that does not may close it again."""
    cleaner = ReplyCleaner()
    replies = ["is it a dax?</think> a lum", "a dax"]
    assert cleaner.clean(replies, ["<|assistant|><think>\n", "<think>\n\n</think>\n\n"]) == ["a lum", "a dax"]
    assert cleaner.counters() == {}


def test_replies_cut_in_their_reasoning_are_empty_and_counted_and_one_warning_is_given(caplog):
    cleaner = ReplyCleaner()
    assert cleaner.clean(["<think>is it", "a lum", "or a"], ["", "", "<think>"]) == ["", "a lum", ""]
    assert cleaner.clean(["<think>"]) == [""]
    assert cleaner.counters() == {"replies_cut_in_reasoning": 3}
    (warning,) = caplog.messages
    assert "--max-new-tokens" in warning
    assert "--chat-template-kwargs" in warning
