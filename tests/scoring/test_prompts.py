"""A prompt has at most as many tokens as the model's context."""

import pytest

from linkcontext.episodes.render import IGNORE, Tokens
from linkcontext.errors import InputError
from linkcontext.scoring.prompts import fits

SHORT = Tokens((1, 9, 2), (IGNORE,) * 3, ("a",))


def test_the_context_is_the_last_length_that_fits():
    fits(30, SHORT, 30)
    with pytest.raises(InputError, match=r"needs 31 tokens \(29 a picture x 1 picture \+ 2 of text\), .* is 30"):
        fits(31, SHORT, 30)
