from linkcontext import progress


def test_progress_is_silent_where_stderr_is_no_terminal(capfd, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE_S", 0)
    with progress.progress("Reading", 3) as advance:
        for _ in range(3):
            advance()
    assert capfd.readouterr() == ("", "")


def test_progress_shows_on_a_terminal_after_a_while(capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress.progress("Reading", 1) as advance:
        advance()
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(progress, "PATIENCE_S", 0)
    with progress.progress("Reading", 1) as advance:
        advance()
    out, err = capfd.readouterr()
    assert out == ""
    assert "Reading" in err
