"""Questions about the world and their answers, by hand."""

from linkcontext.worlds.concepts import Facts, Part
from linkcontext.worlds.questions import attribute_questions, caption, stated

BEAST = Facts("creature", 2, (Part("red", "striped", "circle"), Part("blue", "plain", "star")))
GLYPH = Facts("glyph", 3, (Part("teal", "plain", "glyph"),))
BLOB = Facts("blob", 4, (Part("pink", "dotted", "blob"),))


def test_captions():
    assert caption(BEAST) == "creature of 2 parts: red striped circle, blue star"
    assert caption(GLYPH) == "teal glyph of 3 strokes"
    assert caption(BLOB) == "pink dotted blob of 4 bumps"


def test_what_a_caption_states():
    assert stated(caption(BEAST)) == {"creature", "2 parts", "red striped circle", "blue star"}
    assert stated("Teal glyph of 3 strokes.") == {"teal glyph", "3 strokes"}
    assert stated("") == frozenset()


def test_questions_have_their_answer_among_their_candidates():
    for facts in (BEAST, GLYPH, BLOB):
        for question in attribute_questions(facts):
            assert question.answer in question.candidates
    assert {q.concept: q.answer for q in attribute_questions(BEAST)} == {
        "kind": "creature",
        "colour": "red",
        "parts": "2",
        "texture": "striped",
        "shape": "circle",
    }
    assert {(q.task, q.concept) for q in attribute_questions(GLYPH)} == {
        ("attribute", "kind"),
        ("attribute", "colour"),
        ("count", "strokes"),
    }
