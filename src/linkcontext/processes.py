"""Work that the processes of one launch share: `torchrun --nproc_per_node 4 -m linkcontext eval ...`.

All processes run the same command. They agree through the key-value store of the launch (`torch.distributed.TCPStore`):
a counter deals out units of work, so that a fast process does more of them, and results come back to the main process,
which alone writes files. No process group is made, so that neither NCCL nor Gloo is needed, and results need no shared
disk.

A process that fails leaves a sentence in the store, with which the others end. One that is killed leaves none: its beat
stops, or the launcher stops the others first. Every process has to make the same calls in the same order.
"""

import atexit
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from linkcontext.errors import InputError
from linkcontext.jsonl import Record, appending, from_dict, to_json
from linkcontext.launch import process_count, process_number
from linkcontext.progress import progress

Key = TypeVar("Key")
Unit = TypeVar("Unit")
Result = TypeVar("Result")
PAUSE = 0.05  # seconds between two looks into the store
BEAT = 2.0  # seconds between two signs of life
SILENCE = 120.0  # seconds without one after which a process counts as killed
AGAIN = "Run the same command again to resume, with any number of processes."
FAILED = "failed"


@dataclass(frozen=True)
class _Store:
    """The store of the launch. Raises `InputError` if it cannot be reached."""

    store: Any  # of torch.distributed

    def add(self, key: str, amount: int = 1) -> int:
        """The number at a key, which begins with 0, after `amount` is added."""
        with self._reached():
            return int(self.store.add(key, amount))

    def set(self, key: str, value: str) -> None:
        """Put a text."""
        with self._reached():
            self.store.set(key, value)

    def set_first(self, key: str, value: str) -> None:
        """Put a text unless there is one."""
        with self._reached():
            self.store.compare_set(key, "", value)

    def has(self, key: str) -> bool:
        """Whether there is a text or a number."""
        with self._reached():
            return bool(self.store.check([key]))

    def get(self, key: str, keep: bool = True) -> str:
        """The text at a key that is there. It is removed unless it is to be kept."""
        with self._reached():
            value = bytes(self.store.get(key)).decode()
            if not keep:
                self.store.delete_key(key)
            return value

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # torch.distributed.DistError and others
            raise InputError(f"the main process has ended, or its machine cannot be reached. {AGAIN}") from error


class Processes:
    """The processes of one launch, of which this is one. `store` is None if there are no others."""

    def __init__(self, store: Any, number: int, count: int) -> None:
        self.number, self.count = number, count
        self._store, self._calls = _Store(store), 0
        # The last sign of life of each other process, and when it was new; and when they were looked at.
        self._beats: dict[int, tuple[str, float]] = {}
        self._looked = 0.0
        self._over = threading.Event()
        if count > 1:
            thread = threading.Thread(target=self._beat, daemon=True)
            thread.start()
            atexit.register(thread.join, BEAT)  # Python must not end in one of its calls
            atexit.register(self._over.set)  # called before the other
            self.wait()

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.number == 0

    def share(self, units: Sequence[Unit], advance: Callable[[], None]) -> Iterator[Unit]:
        """The units that this process is to do; each unit is given to one process.

        `advance` is called for each unit that any process has begun.
        """
        begun = 0
        for place in self._claims(len(units)):
            for _ in range(place - begun):
                advance()
            begun = place
            yield units[place]
        for _ in range(len(units) - begun):
            advance()

    def results(
        self, units: Sequence[Unit], work: Callable[[Unit], list[Record]], kind: type[Record]
    ) -> Iterator[list[Record]]:
        """The records that `work` makes of each unit, in the order of the units, in the main process.

        Each unit is done by one process. The others yield nothing, and have to exhaust the iterator as well.
        """
        if self.count == 1:
            yield from map(work, units)
            return
        claims = self._claims(len(units))
        call = self._calls
        if not self.is_main:
            for place in claims:
                self._store.set(f"{call}/{place}", json.dumps([to_json(record) for record in work(units[place])]))
            return
        own: dict[int, list[Record]] = {}
        for place in range(len(units)):
            key = f"{call}/{place}"
            while place not in own and not self._store.has(key):
                if (claimed := next(claims, None)) is None:
                    self._pause()
                else:
                    own[claimed] = work(units[claimed])
            yield own.pop(place) if place in own else _records(self._store.get(key, keep=False), kind)

    def from_main(self, compute: Callable[[], Any]) -> Any:
        """What `compute` returns in the main process, a JSON value, in every process. The others wait for it."""
        if self.count == 1:
            return compute()
        key = f"{self._call()}/value"
        if self.is_main:
            value = compute()
            self._store.set(key, json.dumps(value))
            return value
        while not self._store.has(key):
            self._pause()
        return json.loads(self._store.get(key))

    def after_main(self, compute: Callable[[], Result]) -> Result:
        """What `compute` returns here; the main process calls it first, because it may fill a cache for the others."""
        if not self.is_main:
            self.from_main(lambda: None)
            return compute()
        result = compute()
        self.from_main(lambda: None)
        return result

    def same(self, what: str, compute: Callable[[], Any]) -> None:
        """Raise `InputError` in a process whose JSON value differs from that of the main process."""
        if self.count == 1:
            return
        here = compute()
        if json.loads(json.dumps(here)) != json.loads(json.dumps(self.from_main(lambda: here))):
            raise InputError(
                f"process {self.number}: {what} differ from those of the main process. Are model, data and packages "
                "the same on its machine?"
            )

    def totals(self, counters: dict[str, Any]) -> dict[str, Any]:
        """The counters, whole numbers summed over all processes in the main process; others get their own."""
        if self.count == 1:
            return counters
        call = self._call()
        self._store.set(f"{call}/{self.number}", json.dumps(counters))
        summed = dict(counters)
        for other in range(1, self.count if self.is_main else 1):
            while not self._store.has(f"{call}/{other}"):
                self._pause()
            for name, value in json.loads(self._store.get(f"{call}/{other}", keep=False)).items():
                summed[name] = summed.get(name, 0) + value if type(value) is int else summed.get(name, value)
        return summed

    def wait(self) -> None:
        """Wait until all processes are here."""
        key = f"{self._call()}/here"
        if self.count > 1 and self._store.add(key) < self.count:
            while self._store.add(key, 0) < self.count:
                self._pause()

    def leave(self) -> None:
        """End a run. The main process waits for the others, because it may hold the store; they do not wait."""
        key = f"{self._call()}/done"
        if self.count > 1 and not self.is_main:
            self._store.add(key)
        while self.count > 1 and self.is_main and self._store.add(key, 0) < self.count - 1:
            self._pause()

    def fail(self, sentence: str) -> None:
        """Let the other processes end with a sentence."""
        if self.count > 1:
            with suppress(InputError):
                self._store.set_first(FAILED, f"{self.number}\n{sentence}")

    def _call(self) -> int:
        self._calls += 1
        return self._calls

    def _claims(self, count: int) -> Iterator[int]:
        """The numbers of the units that this process takes, one at a time."""
        key = f"{self._call()}/next"
        return iter(range(count)) if self.count == 1 else self._claimed(key, count)

    def _claimed(self, key: str, count: int) -> Iterator[int]:
        while (place := self._store.add(key) - 1) < count:
            self._refuse_failure()
            yield place

    def _pause(self) -> None:
        """Wait a moment. Raises `InputError` if another process has failed or is silent."""
        self._refuse_failure()
        now = time.monotonic()
        if now - self._looked > BEAT:
            self._looked = now
            for other in (n for n in range(self.count) if n != self.number and self._store.has(f"beat/{n}")):
                beat = self._store.get(f"beat/{other}")
                last, since = self._beats.get(other, ("", now))
                self._beats[other] = (beat, now if beat != last else since)
                if now - self._beats[other][1] > SILENCE:
                    raise InputError(
                        f"process {other} has not answered for {SILENCE:.0f} s: it was killed, or its machine "
                        f"cannot be reached. {AGAIN}"
                    )
        time.sleep(PAUSE)

    def _refuse_failure(self) -> None:
        """Raise `InputError` if another process has failed."""
        if self._store.has(FAILED):
            number, _, sentence = self._store.get(FAILED).partition("\n")
            if int(number) != self.number:
                raise InputError(f"process {number} has ended: {sentence}")

    def _beat(self) -> None:
        """Give a sign of life until the program ends or the store is gone."""
        with suppress(InputError):
            for beat in itertools.count():
                self._store.set(f"beat/{self.number}", str(beat))
                if self._over.wait(BEAT):
                    return


def _records(texts: str, kind: type[Record]) -> list[Record]:
    return [from_dict(kind, json.loads(text), "a result of another process") for text in json.loads(texts)]


def append_results(
    processes: Processes,
    path: Path,
    units: Sequence[Unit],
    work: Callable[[Unit], list[Record]],
    kind: type[Record],
    kept: Callable[[], set[Key]],
    keys: Callable[[Unit], Iterable[Key]],
    key: Callable[[Record], Key],
) -> None:
    """Append the records of the units that a file lacks, in the order of the units, whichever process makes them.

    A unit gives the records with its `keys`. `kept` reads the keys of the records in the file, and is called in the
    main process, which locks the file's folder.
    """
    with ExitStack() as stack:
        append = stack.enter_context(appending(path)) if processes.is_main else None
        done: set[Key] = set()

        def unfinished() -> list[int]:
            done.update(kept())
            return [place for place, unit in enumerate(units) if not done.issuperset(keys(unit))]

        left = [units[place] for place in processes.from_main(unfinished)]
        advance = stack.enter_context(progress("Asking", len(units), len(units) - len(left)))
        for records in processes.results(left, work, kind):
            if append is not None:
                append(record for record in records if key(record) not in done)
            advance()


@contextmanager
def together() -> Iterator[Processes]:
    """The processes of this launch, for one run. If the block fails in one of them, the others end too."""
    processes = _launched()
    try:
        yield processes
        processes.leave()
    except BaseException as error:
        processes.fail(str(error) or f"it was stopped. {AGAIN}")
        raise


@cache
def _launched() -> Processes:
    """The processes of this launch, which stay connected as long as this one runs."""
    if process_count() == 1:
        return Processes(None, 0, 1)
    from torch.distributed import rendezvous  # type: ignore[attr-defined]  # noqa: PLC0415 - seconds to import

    try:
        store, number, count = next(rendezvous("env://"))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"RANK={process_number()} and WORLD_SIZE={process_count()}, but the other processes cannot be reached "
            f"({str(error).splitlines()[0]}). Start all of them with torchrun or accelerate launch, or unset both."
        ) from error
    return Processes(store, number, count)
