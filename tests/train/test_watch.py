"""Progress, lines, and signals."""

from __future__ import annotations

import io
import signal
import threading

import pytest

from minires.train import Watch
from minires.train.watch import catch_signals

__all__: list[str] = []


def test_the_first_signal_waits_and_the_second_does_not():
    before = signal.getsignal(signal.SIGINT)
    with catch_signals() as stop:
        assert not stop
        signal.raise_signal(signal.SIGINT)
        assert stop
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_leave_signals_alone():
    seen: list[bool] = []

    def work() -> None:
        with catch_signals() as stop:
            seen.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_lines_go_out_and_the_bar_to_stderr(capsys: pytest.CaptureFixture[str]):
    watch = Watch()
    with watch.bar("epoch 1/2", 100) as bar:
        bar.update(50)
        watch.say("half way")
    watch.say("done")
    out, err = capsys.readouterr()
    assert out.splitlines() == ["half way", "done"]
    assert "epoch 1/2" in err
    assert "img/s" in err


def test_quiet(capsys: pytest.CaptureFixture[str]):
    watch = Watch(quiet=True)
    with watch.bar("epoch 1/2", 100) as bar:
        bar.update(50)
    watch.say("half way")
    assert capsys.readouterr() == ("", "")


def test_lines_to_another_stream():
    out = io.StringIO()
    Watch(out).say("hello")
    assert out.getvalue() == "hello\n"
