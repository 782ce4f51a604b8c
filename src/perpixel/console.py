"""What a person sees while work goes on: sentences, and one line of progress with rate and time left."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import TextIO

_LINE_SECONDS = 10.0
_REDRAW_SECONDS = 0.2
_ERASE = "\r\x1b[2K"
_WARNING = re.compile(r"^.*\bWARNING: .*$", re.MULTILINE)


class Console:
    """Writes to a stream, and what is said (not the progress) to a log file as well."""

    def __init__(self, stream: TextIO | None = None, log_file: Path | None = None) -> None:
        self.stream, self.log_file = stream, log_file
        self._live = stream is not None and stream.isatty()
        self._label = ""
        self._started = self._shown = 0.0
        self._first = 0
        self._open_line = False

    def with_log(self, log_file: Path) -> Console:
        """The same stream, and a log file."""
        return Console(self.stream, log_file)

    def say(self, text: str) -> None:
        """One or more finished lines."""
        self._close_line()
        if self.stream is not None:
            print(in_red(text) if self._live else text, file=self.stream, flush=True)
        if self.log_file is not None:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            with self.log_file.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:
        """Where a long work stands. On a terminal the line is redrawn; elsewhere a line comes every 10 s."""
        now = time.monotonic()
        if label != self._label or done <= self._first:
            self._label, self._started, self._first = label, now, done
            self._shown = now - (_REDRAW_SECONDS if self._live else 0)
        if self.stream is None or (now - self._shown < self._interval() and not (self._live and done == total)):
            return
        self._shown = now
        text = f"{label}: {done}/{total}{self._speed(done, total, now)}{'  ' + note if note else ''}"
        if self._live and done == total:
            self._close_line()  # what comes next, on this stream or another, has the line to itself
        elif self._live:
            # A line that wraps could not be redrawn.
            self.stream.write(_ERASE + text[: shutil.get_terminal_size().columns - 1])
            self._open_line = True
        else:
            self.stream.write(text + "\n")
        self.stream.flush()

    def _speed(self, done: int, total: int, now: float) -> str:
        """Rate and time left, counted from where this work began: a resumed one does not begin at 0."""
        count, seconds = done - self._first, now - self._started
        if count <= 0 or seconds <= 0:
            return ""
        rate = f"{count / seconds:.1f}/s" if count >= seconds else f"{seconds / count:.1f} s each"
        return f" ({rate}, {duration((total - done) * seconds / count)} left)" if done < total else f" ({rate})"

    def _interval(self) -> float:
        return _REDRAW_SECONDS if self._live else _LINE_SECONDS

    def _close_line(self) -> None:
        if self._open_line and self.stream is not None:
            self.stream.write(_ERASE)
            self._open_line = False


def in_red(text: str) -> str:
    """The text for a terminal: lines with a WARNING are red, unless the variable NO_COLOR is set."""
    return text if os.environ.get("NO_COLOR") else _WARNING.sub("\x1b[1;31m\\g<0>\x1b[0m", text)


def terminal() -> Console:
    """A console on standard error, so that results on standard output can be piped."""
    return Console(sys.stderr)


def show_error(text: str) -> None:
    """A message on standard error, in place of a progress line that may still stand there."""
    print(_ERASE + text if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds for a person, as in ``2 min 05 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )
