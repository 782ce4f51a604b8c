"""Sentences and progress, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from perpixel import console as room
from perpixel.console import Console

ERASE = "\r\x1b[2K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(room.time, "monotonic", clock)
    monkeypatch.setenv("COLUMNS", "60")
    return clock


def work(console: Console, clock: Clock, done: range, total: int, seconds: float, note: str = "") -> None:
    for position in done:
        console.progress("reading", position, total, note)
        clock.now += seconds


def test_without_a_terminal_a_line_comes_every_ten_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    work(Console(stream), clock, range(0, 36), 100, 1.0)
    assert stream.getvalue().splitlines() == [
        "reading: 10/100 (1.0/s, 1 min 30 s left)",
        "reading: 20/100 (1.0/s, 1 min 20 s left)",
        "reading: 30/100 (1.0/s, 1 min 10 s left)",
    ]


def test_short_work_says_nothing_outside_a_terminal(clock: Clock) -> None:
    stream = io.StringIO()
    work(Console(stream), clock, range(1, 11), 10, 0.5)
    assert stream.getvalue() == ""


def test_a_terminal_is_redrawn_and_left_clean(clock: Clock) -> None:
    stream = Terminal()
    console = Console(stream)
    work(console, clock, range(1, 11), 10, 0.5)
    drawn = stream.getvalue().split(ERASE)
    assert drawn[1] == "reading: 1/10"
    assert drawn[5] == "reading: 5/10 (2.0/s, 2 s left)"
    assert "\n" not in stream.getvalue()
    # What is printed next, on standard output too, has the line to itself.
    assert stream.getvalue().endswith(ERASE)


def test_a_sentence_takes_the_place_of_the_progress_line(clock: Clock) -> None:
    stream = Terminal()
    console = Console(stream)
    console.progress("reading", 1, 10)
    console.say("done")
    assert stream.getvalue() == f"{ERASE}reading: 1/10{ERASE}done\n"


def test_redrawing_is_not_faster_than_the_eye(clock: Clock) -> None:
    stream = Terminal()
    work(Console(stream), clock, range(1, 1000), 1000, 0.001)
    assert stream.getvalue().count(ERASE) <= 6


def test_a_long_line_is_cut_to_the_terminal(clock: Clock) -> None:
    stream = Terminal()
    work(Console(stream), clock, range(1, 3), 10, 1.0, note="x" * 200)
    assert {len(line) for line in stream.getvalue().split(ERASE)[1:]} == {59}


def test_the_rate_counts_from_where_this_work_began(clock: Clock) -> None:
    stream = io.StringIO()
    work(Console(stream), clock, range(70, 82), 100, 1.0)
    assert stream.getvalue().splitlines() == ["reading: 80/100 (1.0/s, 20 s left)"]


def test_slow_work_has_seconds_for_each(clock: Clock) -> None:
    stream = io.StringIO()
    work(Console(stream), clock, range(0, 3), 300, 30.0)
    assert stream.getvalue().splitlines() == [
        "reading: 1/300 (30.0 s each, 2 h 29 min left)",
        "reading: 2/300 (30.0 s each, 2 h 29 min left)",
    ]


def test_a_second_pass_begins_anew(clock: Clock) -> None:
    stream = io.StringIO()
    console = Console(stream)
    work(console, clock, range(5, 10), 10, 0.1)
    clock.now += 500
    work(console, clock, range(1, 4), 10, 6.0)
    assert stream.getvalue().splitlines() == ["reading: 3/10 (6.0 s each, 42 s left)"]


def test_another_label_begins_anew(clock: Clock) -> None:
    stream = io.StringIO()
    console = Console(stream)
    work(console, clock, range(0, 5), 10, 1.0)
    clock.now += 100
    console.progress("validation", 7, 10)
    clock.now += 10
    console.progress("validation", 8, 10)
    assert stream.getvalue().splitlines() == ["validation: 8/10 (10.0 s each, 20 s left)"]


def test_the_log_holds_what_was_said_and_nothing_else(tmp_path: Path, clock: Clock) -> None:
    stream = Terminal()
    console = Console(stream).with_log(tmp_path / "run" / "log.txt")
    console.say("erste Zeile: ä")
    work(console, clock, range(1, 40), 100, 1.0)
    console.say("second")
    lines = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", "", line) for line in lines] == ["erste Zeile: ä", "second"]


def test_a_silent_console_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.say("x")
    console.progress("reading", 1, 1)
    assert capsys.readouterr() == ("", "")


def test_an_error_replaces_the_progress_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, shown in ((Terminal(), f"{ERASE}Error: x\n"), (io.StringIO(), "Error: x\n")):
        monkeypatch.setattr(room.sys, "stderr", stream)
        room.show_error("Error: x")
        assert stream.getvalue() == shown
