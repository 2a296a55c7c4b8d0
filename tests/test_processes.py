"""Processes that share the work of one launch: units dealt out once, results in order, failures that end all."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from launching import (
    SECONDS,
    accelerate_launcher,
    finish,
    kill_process,
    run,
    start,
    start_on_two_machines,
    two_machines,
    wait_for_lines,
)
from torch.distributed import TCPStore

from linkcontext import cli, processes
from linkcontext.errors import InputError
from linkcontext.jsonl import read_jsonl, write_jsonl
from linkcontext.processes import Processes, append_results
from linkcontext.records import Item

SHAPE = ("--shots", "1", "2", "--ways", "2", "--episodes", "14", "--explain", "0")


@pytest.fixture
def launched(monkeypatch):
    """Run a function in several processes of one launch, here in threads; the result or error of each."""
    monkeypatch.setattr(processes, "PAUSE", 0.005)
    monkeypatch.setattr(processes, "BEAT", 0.05)

    def launch(count, work):
        server = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)

        def run(number):
            store = TCPStore("127.0.0.1", server.port, None, is_master=False, timeout=timedelta(seconds=20))
            try:
                here = Processes(store, number, count)
            except InputError as error:  # another has failed before this one has met it
                return error
            try:
                value = work(here)
                here.leave()
            except (InputError, ZeroDivisionError) as error:
                here.fail(str(error))
                return error
            return value

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(run, range(count)))

    return launch


def item(number):
    return Item(f"i{number}", f"{number}.png", "0" * 64, "c", "c")


def test_units_are_given_out_once_and_all_are_counted(launched):
    advanced = [[], [], []]

    def work(here):
        mine = []
        for unit in here.share(range(40), lambda: advanced[here.number].append(1)):
            mine.append(unit)
            time.sleep(0.001)
        return mine

    shares = launched(3, work)
    assert sorted(unit for share in shares for unit in share) == list(range(40))
    assert all(share == sorted(share) for share in shares)
    assert max(map(len, shares)) < 40
    assert [len(steps) for steps in advanced] == [40, 40, 40]
    assert list(Processes(None, 0, 1).share("abc", lambda: advanced[0].append(1))) == ["a", "b", "c"]
    assert len(advanced[0]) == 43


@pytest.mark.parametrize("count", [1, 2, 4])
def test_results_come_in_order_to_the_main_process(launched, count):
    made = []

    def work(number):
        time.sleep(0.02 if number == 0 else 0.001)  # the first unit is the last to be done
        made.append(number)
        return [item(number), item(number + 100)]

    answers = launched(count, lambda here: list(here.results(range(20), work, Item)))
    assert answers[0] == [[item(number), item(number + 100)] for number in range(20)]
    assert answers[1:] == [[]] * (count - 1)
    assert sorted(made) == list(range(20))


def test_a_file_gets_what_it_lacks_whichever_process_makes_it(launched, tmp_path):
    path, made = tmp_path / "items.jsonl", []
    write_jsonl([item(0), item(1), item(2)], path)  # the second unit was written in part

    def unit(numbers):
        made.append(numbers)
        return [item(number) for number in numbers]

    def work(here):
        units = [(0, 1), (2, 3), (4, 5), (6, 7)]
        kept = lambda: {i.id for i in read_jsonl(Item, path)}  # noqa: E731
        append_results(here, path, units, unit, Item, kept, lambda u: (f"i{n}" for n in u), lambda i: i.id)

    launched(2, work)
    assert [each.id for each in read_jsonl(Item, path)] == [f"i{number}" for number in range(8)]
    assert sorted(made) == [(2, 3), (4, 5), (6, 7)]


def test_what_the_main_process_computes_reaches_all(launched):
    called = []

    def work(here):
        value = here.from_main(lambda: called.append(here.number) or {"rows": [1, 2.5]})
        totals = here.totals({"engine": "tree", "pictures": here.number + 1})
        return value, totals["pictures"], here.after_main(lambda: here.number)

    assert launched(3, work) == [({"rows": [1, 2.5]}, 6, 0), ({"rows": [1, 2.5]}, 2, 1), ({"rows": [1, 2.5]}, 3, 2)]
    assert called == [0]


def test_a_process_with_other_data_is_refused_and_all_end(launched):
    def work(here):
        here.same("the pictures", lambda: {"digest": "b" if here.number == 1 else "a", "rows": (1,)})
        here.wait()

    main, other, third = map(str, launched(3, work))
    assert "process 1: the pictures differ from those of the main process" in other
    assert main == third == f"process 1 has ended: {other}"


def test_an_error_in_the_main_process_ends_all_with_its_sentence(launched):
    def refuse():
        raise InputError("runs/a: holds another run.")

    main, other = launched(2, lambda here: here.from_main(refuse))
    assert str(main) == "runs/a: holds another run."
    assert str(other) == "process 0 has ended: runs/a: holds another run."


def test_an_error_while_units_are_done_ends_all(launched):
    main, other = launched(2, lambda here: list(here.results(range(9), lambda n: [item(1 // (n - 4))], Item)))
    errors = {type(error) for error in (main, other)}
    assert errors == {ZeroDivisionError, InputError}


def test_a_process_that_gives_no_sign_of_life_ends_the_others(launched, monkeypatch):
    monkeypatch.setattr(processes, "SILENCE", 0.3)
    beat = Processes._beat
    monkeypatch.setattr(Processes, "_beat", lambda self: self._store.set("beat/1", "0") if self.number else beat(self))

    def work(here):
        if here.number == 0:
            return here.wait()
        time.sleep(1.5)  # killed: it does not arrive
        raise InputError("it is gone")

    assert "process 1 has not answered for 0 s: it was killed" in str(launched(2, work)[0])


def test_without_its_store_a_process_ends_with_a_sentence():
    server = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    store = TCPStore("127.0.0.1", server.port, None, is_master=False, timeout=timedelta(seconds=2))
    here = Processes(store, 1, 1)
    here.count = 2
    del server
    with pytest.raises(InputError, match="the main process has ended, or its machine cannot be reached"):
        here.from_main(lambda: None)


@pytest.mark.parametrize(
    ("variables", "command", "sentence"),
    [
        (
            {"WORLD_SIZE": "2", "RANK": "0"},
            ["compare", "a", "b"],
            "compare: this command runs in one process, but 2 were launched",
        ),
        ({"WORLD_SIZE": "two"}, ["compare", "a", "b"], "WORLD_SIZE=two: not a number"),
        ({"RANK": "two"}, ["compare", "a", "b"], "linkcontext: RANK=two: not a number"),
        ({"RANK": "1"}, ["eval"], "RANK=1: has to be below WORLD_SIZE, which is 1"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, ["eval"], "RANK=2: has to be below WORLD_SIZE, which is 2"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, ["eval"], "process 1: RANK=1 and WORLD_SIZE=2, but the other processes"),
    ],
)
def test_bad_launches_are_sentences(monkeypatch, capsys, variables, command, sentence):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    processes._launched.cache_clear()
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
    processes._launched.cache_clear()


def files(run, figures="metrics.json"):
    """The bytes of a run's records, and its figures without counters."""
    values = json.loads((run / figures).read_text())
    values.pop("counters")
    return (run / "episodes.jsonl").read_bytes(), (run / "predictions.jsonl").read_bytes(), values


@pytest.mark.heavy
@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_one_two_and_four_processes_write_the_same_bytes(nano, pictures, tmp_path, engine):
    flags = ("eval", "--model", nano, "--data", pictures, *SHAPE, "--engine", engine, "--scoring", "both")
    for count in (1, 2, 4):
        run(*flags, "--out", tmp_path / str(count), count=count, log=tmp_path / f"{count}.log")
    assert files(tmp_path / "1") == files(tmp_path / "2") == files(tmp_path / "4")
    assert (tmp_path / "4.log").read_text().count("engine: ") == 1  # the main process alone prints


@pytest.mark.heavy
def test_a_probe_and_a_retention_run_are_shared_too(nano, pictures, tmp_path):
    probe = ("probe", "--model", nano, "--data", pictures, "--shots", "2", "--episodes", "4")
    recall = ("eval", "--model", nano, "--benchmark", "retention", "--episodes", "40")
    for count in (1, 2):
        run(*probe, "--out", tmp_path / f"p{count}", count=count, log=tmp_path / "log")
        run(*recall, "--out", tmp_path / f"r{count}", count=count, log=tmp_path / "log")
    assert files(tmp_path / "p1", "probe.json") == files(tmp_path / "p2", "probe.json")
    for name in ("questions.jsonl", "answers.jsonl"):
        assert (tmp_path / "r1" / name).read_bytes() == (tmp_path / "r2" / name).read_bytes()


@pytest.mark.heavy
def test_a_killed_process_ends_the_run_and_any_number_resumes_it(nano, pictures, tmp_path):
    flags = ("eval", "--model", nano, "--data", pictures, *SHAPE[:-3], "200", "--explain", "0")
    run(*flags, "--out", tmp_path / "whole", log=tmp_path / "log")
    out, log, counts = tmp_path / "run", tmp_path / "killed.log", [0]
    for count, victim in ((2, 1), (4, 2), (3, 0)):
        launcher = start(*flags, "--out", out, count=count, log=log)
        wait_for_lines(out / "predictions.jsonl", counts[-1] + 40, launcher, log)
        kill_process(launcher, victim)
        assert launcher.wait(SECONDS) != 0
        assert "the same command again" in log.read_text()
        assert "linkcontext/processes.py" not in log.read_text()  # no traceback
        counts.append((out / "predictions.jsonl").read_bytes().count(b"\n"))
    assert counts == sorted(set(counts))
    assert counts[-1] < 800  # 200 episodes of 2 queries at 2 numbers of shots
    run(*flags, "--out", out, count=2, log=log)
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.heavy
def test_two_machines_write_what_one_process_does(nano, pictures, tmp_path):
    """The second machine's process is killed on the way, and the run goes on."""
    flags = ("eval", "--model", nano, "--data", pictures, *SHAPE[:-3], "100", "--explain", "0")
    run(*flags, "--out", tmp_path / "one", log=tmp_path / "log")
    out, logs = tmp_path / "two", [tmp_path / "a.log", tmp_path / "b.log"]
    with two_machines() as machines:
        first, second = start_on_two_machines(machines, *flags, "--out", out, logs=logs)
        wait_for_lines(out / "predictions.jsonl", 40, first, logs[0])
        kill_process(second, 1)
        assert second.wait(SECONDS) != 0
        assert first.wait(SECONDS) != 0
        assert "the same command again" in logs[0].read_text()
        for launcher, log in zip(start_on_two_machines(machines, *flags, "--out", out, logs=logs), logs, strict=True):
            finish(launcher, log)
    assert files(out) == files(tmp_path / "one")


@pytest.mark.heavy
def test_accelerate_launches_an_evaluation_too(nano, pictures, tmp_path):
    flags = ("eval", "--model", nano, "--data", pictures, *SHAPE)
    launcher, program = accelerate_launcher(tmp_path, 2, "--module"), ("linkcontext",)
    run(*flags, "--out", tmp_path / "one", log=tmp_path / "log")
    run(*flags, "--out", tmp_path / "two", log=tmp_path / "log", launcher=launcher, program=program)
    assert files(tmp_path / "one") == files(tmp_path / "two")
