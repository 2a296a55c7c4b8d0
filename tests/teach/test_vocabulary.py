"""Which words a model with few tokens knows."""

import linkcontext
from linkcontext.teach import vocabulary
from linkcontext.teach.vocabulary import unknown_words


def test_words_in_pieces_are_unknown(monkeypatch):
    model = linkcontext.load("mini").model
    for text in (
        "What colour is it?",
        "How many bumps does it have?",
        "Describe this.",
        "4 parts: red ring",
    ):
        assert unknown_words(model, text) == []
    assert unknown_words(model, "What is the capital of France?") == ["capital", "France"]
    assert unknown_words(model, "Is it a zanpolit, Y?", ()) == ["zanpolit", "Y"]
    assert unknown_words(model, "what colour is the red zanpolits?", ["zanpolit"]) == []
    assert unknown_words(model, "小猫") == ["小猫"]
    assert unknown_words(model, "") == []
    monkeypatch.setattr(vocabulary, "SMALL", 100)  # a large model writes any word
    assert unknown_words(model, "What is the capital of France?") == []
