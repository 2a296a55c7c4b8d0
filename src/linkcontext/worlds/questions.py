"""Questions about pictures of the world and their answers: naming, describing, counting, attributes."""

from linkcontext.records import Question
from linkcontext.worlds.concepts import COLOURS, FAMILIES, SHAPES, TEXTURES, Facts, Part

NAMING = ("What is this?", "What do you see?", "Name this.", "What is it called?", "Which thing is this?")
DESCRIBING = ("Describe this.", "What does it look like?", "Describe the picture.")
COUNTED = {"creature": "parts", "glyph": "strokes", "blob": "bumps"}


def phrase(part: Part) -> str:
    """A part in words, without the texture "plain"."""
    return " ".join(word for word in (part.colour, part.texture, part.shape) if word != "plain")


def caption(facts: Facts) -> str:
    """A description with every attribute of a concept."""
    counted = f"{facts.count} {COUNTED[facts.family]}"
    if facts.family == "creature":
        return f"creature of {counted}: " + ", ".join(phrase(part) for part in facts.parts)
    return f"{phrase(facts.parts[0])} of {counted}"


def styles(facts: Facts) -> dict[str, str]:
    """Descriptions of one thing in several styles. Only examples show which style is expected."""
    body, kind = phrase(facts.parts[0]), facts.family
    return {
        "full": caption(facts),
        "brief": body,
        "sentence": f"I see a {kind} here and it is {facts.parts[0].colour}.",
        "counting": f"{kind} : {facts.count} {COUNTED[kind]}",
    }


def stated(text: str) -> frozenset[str]:
    """The attributes that a description states, as phrases: the count and each part. Used for precision and recall."""
    head, _, parts = text.lower().strip().rstrip(".").partition(":")
    body, _, counted = head.partition(" of ")
    return frozenset(p.strip() for p in (body, counted, *parts.split(",")) if p.strip())


def attribute_questions(facts: Facts) -> list[Question]:
    """The questions about attributes and counts that a thing's pictures answer."""
    body = facts.parts[0]
    counted = COUNTED[facts.family]
    questions = [
        Question("attribute", "kind", "What kind of thing is it?", facts.family, FAMILIES),
        Question("attribute", "colour", "What colour is it?", body.colour, tuple(COLOURS)),
        Question("count", counted, f"How many {counted} does it have?", str(facts.count), tuple("23456")),
    ]
    if facts.family != "glyph":
        questions.append(Question("attribute", "texture", "What texture is it?", body.texture, TEXTURES))
    if facts.family == "creature":
        questions.append(Question("attribute", "shape", "What shape is the body?", body.shape, SHAPES))
    return questions
