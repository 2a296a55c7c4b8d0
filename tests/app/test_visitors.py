"""Sessions are found again by the key that a browser keeps."""

import pytest

from linkcontext.app import visitors
from linkcontext.app.visitors import Visitors
from linkcontext.errors import InputError


class Room:
    """What stands for a session: it records that it was closed."""

    closed = False

    def close(self):
        self.closed = True


def test_a_key_opens_its_session_again():
    everyone = Visitors(Room)
    first, second = everyone.open(""), everyone.open(None)
    assert first != second
    assert everyone.open(first) == first
    assert everyone.session(first) is everyone.session(first)
    assert everyone.session(first) is not everyone.session(second)
    stranger = everyone.open("a key that a browser kept from another start")
    assert stranger not in (first, second, "a key that a browser kept from another start")
    for key, sentence in (("", "still loading"), (None, "still loading"), ("unknown", "started again")):
        with pytest.raises(InputError, match=sentence):
            everyone.session(key)


def test_sessions_that_nobody_uses_are_closed(monkeypatch):
    monkeypatch.setattr(visitors, "KEPT", 3)
    everyone = Visitors(Room)
    keys = [everyone.open("") for _ in range(3)]
    rooms = [everyone.session(key) for key in keys]
    everyone.session(keys[0])  # so that the second one was not used for the longest time
    everyone.open("")
    assert [room.closed for room in rooms] == [False, True, False]
    monkeypatch.setattr(visitors, "IDLE_S", -1)
    last = everyone.open("")
    assert all(room.closed for room in rooms)
    with pytest.raises(InputError):
        everyone.session(last)
