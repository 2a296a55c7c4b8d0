"""Servers of one model share the requests, and a server that fails or restarts loses none.

A request goes to the server that got the conversations with the same beginning, whose prefix cache has it, unless
others have much less to do. Requests are greedy and change nothing, so that one can be sent again, to any server.
"""

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from linkcontext.errors import CONTROL, InputError

log = logging.getLogger("linkcontext")
Result = TypeVar("Result")

PATIENCE = 600.0  # seconds that a request waits for a server to come back
FAILURES = 8  # times that a server may fail on one request (500 and above) before it is given up
PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds before the first and before later repetitions
BUSY = (408, 409, 425, 429)  # refusals that pass
LONGEST_MESSAGE = 500  # letters of a server's message
UNEVEN = 1.25  # how much more than its share a server is given for the sake of its prefix cache


class Refused(InputError):
    """A server refused a request."""


@dataclass
class Replica:
    """A server: its address, its client, and how it does."""

    url: str
    client: Any
    outstanding: int = 0  # requests that were sent and not answered
    failures: int = 0  # since it last answered
    was_busy: bool = False  # whether it ever refused for now
    rests_until: float = 0.0  # by `time.monotonic`: after a failure it is left alone for a while


@dataclass
class Replicas:
    """The servers of one model.

    `rechecks` are called for a server that answers again after it failed. They raise `InputError` if it has come back
    with another model.
    """

    all: Sequence[Replica]
    rechecks: list[Callable[[Replica], None]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def call(self, ask: Callable[[Replica], Result], beginning: str = "", patience: float = PATIENCE) -> Result:
        """The result of `ask` on one of the servers, after repetitions where servers are busy, fail or go away.

        `beginning` is what a prefix cache would know the request by.

        Raises:
            Refused: A server refuses the request itself (400 and its kind, but for those that pass).
            InputError: A server failed `FAILURES` times on this request, or none could be reached for `patience`
                seconds. With 0, the first failure counts.
        """
        deadline, busy_until, failures, busy = 0.0, 0.0, 0, 0  # times are set at the first failure of a kind
        while True:
            replica = self._chosen(beginning)
            try:
                result = self._asked(replica, ask)
            except _Unreachable as error:
                self._rest(replica, error, patience)
                deadline = deadline or time.monotonic() + patience  # a server that hangs has used it up before
                if time.monotonic() >= deadline:
                    raise InputError(f"{replica.url}: no answer ({error}). Is a server running there?") from error
            except _Failed as error:
                failures += 1
                self._rest(replica, error, patience)
                if failures >= FAILURES or not patience:
                    times = f" {failures} times" * (failures > 1)
                    raise InputError(f"{replica.url}: the server failed on a request{times} ({error}).") from error
            except _Busy as error:
                busy += 1
                self._leave_alone(replica, error, error.seconds or _pause(busy))
                busy_until = busy_until or time.monotonic() + PATIENCE
                if time.monotonic() >= busy_until:
                    raise InputError(f"{replica.url}: the server is too busy ({error}).") from error
            else:
                return result

    def _asked(self, replica: Replica, ask: Callable[[Replica], Result]) -> Result:
        """The result of one try."""
        self._wait(replica.rests_until - time.monotonic())
        for recheck in self.rechecks if replica.failures else ():
            _answer(partial(recheck, replica), replica.url)
        with self._lock:
            replica.outstanding += 1
        try:
            result = _answer(lambda: ask(replica), replica.url)
        finally:
            with self._lock:
                replica.outstanding -= 1
        if replica.failures:
            log.warning("%s: answers again.", replica.url)
            replica.failures = 0
        return result

    def _chosen(self, beginning: str) -> Replica:
        """The server for a request: of those that work, the first in an order that depends on its beginning and that
        has no more than its share of what is outstanding. If none works: the one whose rest ends first."""
        now = time.monotonic()
        working = [replica for replica in self.all if replica.rests_until <= now]
        if not working:
            return min(self.all, key=lambda replica: replica.rests_until)
        with self._lock:
            most = UNEVEN * (1 + sum(replica.outstanding for replica in working)) / len(working) + 1
            order = sorted(working, key=lambda replica: hashlib.sha256(f"{beginning} {replica.url}".encode()).digest())
            return next(replica for replica in order if replica.outstanding < most)

    def _rest(self, replica: Replica, why: Exception, patience: float) -> None:
        """Leave a server alone for a while; say so the first time."""
        with self._lock:
            if replica.failures and replica.rests_until > time.monotonic():
                return  # other requests that were on their way failed with it
            replica.failures += 1
            replica.rests_until = time.monotonic() + _pause(replica.failures)
            first = replica.failures == 1
        if first and patience:
            log.warning("%s: %s. Trying again for up to %.0f minutes.", replica.url, why, patience / 60)

    def _leave_alone(self, replica: Replica, why: Exception, seconds: float) -> None:
        """Send a busy server nothing for a while; others get its requests. Say so the first time."""
        with self._lock:
            replica.rests_until = max(replica.rests_until, time.monotonic() + seconds)
            first, replica.was_busy = not replica.was_busy, True
        if first:
            log.warning("%s: is busy (%s). Requests wait, or go to another server.", replica.url, why)

    def _wait(self, seconds: float) -> None:
        """Wait, unless the work was given up."""
        if self.stopped.wait(max(0.0, seconds)):
            raise InputError("stopped while waiting for a server.")


class _Unreachable(Exception):
    """No connection, or one that broke before the answer was whole."""


class _Failed(Exception):
    """The server answered with an error of its own, or with something that is no answer."""


class _Busy(Exception):
    """The server refuses for now. `seconds` is how long it asks to wait, 0 if it does not say."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


def _pause(times: int) -> float:
    """Seconds before a repetition; not the same for all who wait."""
    longest: float = min(LONGEST_PAUSE, PAUSE * 2 ** (times - 1))
    return longest * (0.5 + random.random() / 2)


def _answer(ask: Callable[[], Result], url: str) -> Result:
    """What a client's call returns; its errors by what can be done about them."""
    import openai  # noqa: PLC0415 - an extra

    try:
        return ask()
    except openai.APIStatusError as error:
        why = _one_line((error.body.get("message") if isinstance(error.body, dict) else None) or error.message)
        if error.status_code in BUSY:
            raise _Busy(f"{error.status_code}: {why}", _retry_after(error)) from error
        if error.status_code >= 500:
            raise _Failed(f"{error.status_code}: {why}") from error
        raise Refused(f"{url}: the server refuses ({error.status_code}): {why}") from error
    except openai.APIConnectionError as error:
        raise _Unreachable(str(error.__cause__ or error)) from error
    except (openai.APIResponseValidationError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise _Failed(f"its answer cannot be read ({_one_line(error)})") from error


def _one_line(message: object) -> str:
    """A server's message, or the beginning of a page, without what a terminal would obey."""
    text = " ".join(CONTROL.sub(" ", str(message)).split())
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}..."


def _retry_after(error: Any) -> float:
    """The seconds of a Retry-After header; 0 if there is none, or a date."""
    try:
        return min(60.0, max(0.0, float(error.response.headers.get("retry-after", 0))))
    except ValueError:
        return 0.0
