"""What a person sees while work goes on: sentences, and one line of progress with rate and time left."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TextIO

_LINE_SECONDS = 10.0
_REDRAW_SECONDS = 0.2


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
            print(text, file=self.stream, flush=True)
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
        rate = (done - self._first) / max(now - self._started, 1e-9)
        left = f", {_duration((total - done) / rate)} left" if rate > 0 and done < total else ""
        text = f"{label}: {done}/{total} ({rate:.1f}/s{left}){'  ' + note if note else ''}"
        if self._live:
            self.stream.write("\r\x1b[2K" + text)
            self._open_line = True
        else:
            self.stream.write(text + "\n")
        self.stream.flush()

    def _interval(self) -> float:
        return _REDRAW_SECONDS if self._live else _LINE_SECONDS

    def _close_line(self) -> None:
        if self._open_line and self.stream is not None:
            self.stream.write("\r\x1b[2K")
            self._open_line = False


def terminal() -> Console:
    """A console on standard error, so that results on standard output can be piped."""
    return Console(sys.stderr)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )
