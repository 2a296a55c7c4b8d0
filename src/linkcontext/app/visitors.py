"""Who visits the web page: a browser keeps a key, under which its session is found again.

So what was taught outlives a reload, the back button, a second tab and a laptop that was closed; it does not outlive
the server.
"""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from linkcontext.app.session import Session
from linkcontext.errors import InputError

KEPT = 64  # sessions; of more, those that were not used for the longest time are removed
IDLE_S = 24 * 3600  # after which an unused session is removed


@dataclass
class Visitors:
    """Sessions by the keys of their browsers."""

    new_session: Callable[[], Session]
    _sessions: OrderedDict[str, tuple[Session, float]] = field(default_factory=OrderedDict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def open(self, key: str | None) -> str:
        """The key itself if it has a session; else a new key, with a new session."""
        with self._lock:
            if key and key in self._sessions:
                return key
            key = secrets.token_urlsafe(16)
            self._sessions[key] = self.new_session(), time.monotonic()
            self._remove_unused()
            return key

    def session(self, key: str | None) -> Session:
        """The session of a key. Raises `InputError` if there is none."""
        if not key:
            raise InputError("the page is still loading. Try again in a moment.")
        with self._lock:
            if key not in self._sessions:
                raise InputError(
                    "what you had taught is gone: the page was stopped and started again, or it was not "
                    "used for a day. "
                    "Reload it, and teach again or open a pack."
                )
            session, _ = self._sessions.pop(key)
            self._sessions[key] = session, time.monotonic()
            return session

    def _remove_unused(self) -> None:
        oldest = time.monotonic() - IDLE_S
        unused = [key for key, (_, used) in self._sessions.items() if used < oldest]
        unused += [*self._sessions][: max(0, len(self._sessions) - KEPT)]
        for key in dict.fromkeys(unused):
            session, _ = self._sessions.pop(key)
            session.close()
