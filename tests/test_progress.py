import logging
import re
import threading

import pytest

from linkcontext import progress
from linkcontext.progress import Work, format_seconds


@pytest.fixture
def often(monkeypatch):
    """Lines and bars come at once."""
    monkeypatch.setattr(progress, "PATIENCE_S", 0.0)
    monkeypatch.setattr(progress, "EVERY_S", 0.02)
    return threading.Event().wait


def test_short_work_prints_nothing(capfd):
    with progress.progress("Reading", 3) as advance:
        for _ in range(3):
            advance()
    with progress.progress("Loading", None):
        pass
    assert capfd.readouterr() == ("", "")


def test_where_stderr_is_no_terminal_a_line_comes_now_and_then(capfd, often):
    with progress.progress("Reading pictures", 1200, done=200) as advance:
        for _ in range(100):
            advance("loss 0.100")
        often(0.2)
    with progress.progress("Loading somebody/model", None):
        often(0.2)
    out, err = capfd.readouterr()
    assert out == ""
    assert re.search(
        r"^Reading pictures: 300 of 1,200 in 0\.\d s, about \d\.\d s left  loss 0\.100$", err, re.MULTILINE
    )
    assert re.search(r"^Loading somebody/model: 0\.\d s$", err, re.MULTILINE)
    assert err.endswith("s\n")


def test_a_single_long_step_is_shown_too(capfd, often):
    with progress.progress("Encoding", 1):
        often(0.2)
    assert "Encoding: 0 of 1 in 0." in capfd.readouterr().err


def test_progress_shows_on_a_terminal_after_a_while(capfd, monkeypatch, often):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "PATIENCE_S", 9.0)
    with progress.progress("Reading", 1) as advance:
        advance()
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(progress, "PATIENCE_S", 0.0)
    with progress.progress("Reading [red]", 2) as advance:
        advance()
        often(0.3)
    out, err = capfd.readouterr()
    assert out == ""
    assert "Reading [red]" in err
    assert "1/2" in err


def test_a_last_line_stays_if_that_is_wanted(capfd):
    with progress.progress("training", 2, stays=True) as advance:
        advance("loss 0.5")
        advance("loss 0.4")
    assert re.fullmatch(r"training: 2 of 2 in \S+ s  loss 0\.4\n", capfd.readouterr().err)


def test_of_work_inside_other_work_the_outer_one_is_shown(capfd, often):
    with progress.progress("Outer", 1), progress.progress("Inner", 1):
        often(0.2)
    err = capfd.readouterr().err
    assert "Outer" in err
    assert "Inner" not in err
    with progress.progress("Later", 1):
        often(0.2)
    assert "Later" in capfd.readouterr().err


def test_a_quiet_logger_shows_no_progress_and_a_verbose_one_says_how_long_it_took(capfd, caplog, often):
    logger = logging.getLogger("linkcontext")
    before = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with progress.progress("Reading", 1):
            often(0.1)
        assert capfd.readouterr().err == ""
        logger.setLevel(logging.INFO)
        with progress.progress("Reading", 1):
            pass
        assert re.fullmatch(r"Reading: \S+ s", caplog.messages[-1])
    finally:
        logger.setLevel(before)


def test_work_that_fails_ends_its_display(capfd, often):
    with pytest.raises(ValueError, match="no"), progress.progress("Reading", 1):
        raise ValueError("no")
    assert [thread for thread in threading.enumerate() if thread.name.startswith("progress")] == []


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.44, "0.4 s"), (20.4, "20 s"), (119.4, "119 s"), (170, "3 min"), (7500, "2 h 5 min")]
)
def test_durations_are_words(seconds, words):
    assert format_seconds(seconds) == words


def test_nothing_is_foretold_before_the_first_piece_is_done():
    work = Work("Reading", 10, before=3, done=3)
    assert re.fullmatch(r"Reading: 3 of 10 in \d\.\d s", work.line())
