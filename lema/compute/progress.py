"""Progress on stderr: a bar on a terminal, an occasional plain line elsewhere, nothing for what is soon done."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUIET_SECONDS = 2.0  # seconds before anything is shown
EVERY = (5.0, 60.0)  # seconds between plain lines, at first and at most


class ProgressBar:
    """How far some work is. `done` rows were there at the start and count for neither rate nor time left."""

    def __init__(self, name: str, total: int | None, done: int) -> None:
        self.name, self.total, self.done, self.note = name, total, done, ""
        self._status: dict[str, str] = {}
        self._done_before, self._start = done, time.monotonic()

    def advance(self, n: int = 1, note: str | None = None) -> None:
        """`n` more rows are done; a note stays until the next one."""
        self.done += n
        self.note = self.note if note is None else note

    def set_status(self, who: str, text: str) -> None:
        """A status of one of those who are waited for, shown until it is set anew."""
        self._status[who] = text

    def facts(self) -> str:
        """Rate, time left or taken, the note, and statuses.

        Under one row a second the rate is given a minute.
        """
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._done_before) / seconds
        pace = f"{rate:.1f}/s" if rate >= 1 or not rate else f"{rate * 60:.1f}/min"
        if self.total is None or not rate:
            when = format_duration(seconds)
        elif self.done < self.total:
            when = f"{format_duration((self.total - self.done) / rate)} left"
        else:
            when = f"in {format_duration(seconds)}"
        return ", ".join(part for part in (pace, when, self.note, *self._status.values()) if part)

    def line(self) -> str:
        count = f"{self.done}/{self.total}" if self.total is not None else f"{self.done}"
        return f"{self.name}: {count}, {self.facts()}"


def format_duration(seconds: float) -> str:
    """Seconds in words.

    >>> [format_duration(s) for s in (4.2, 75, 7380)]
    ['4 s', '1 min 15 s', '2 h 3 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def track(name: str, total: int | None = None, done: int = 0) -> Iterator[ProgressBar]:
    """Show how far the work of this block is: `with track("samples", 200) as bar: bar.advance(10, "3 failed")`."""
    bar, end = ProgressBar(name, total, done), threading.Event()
    show = _draw if sys.stderr.isatty() else _print
    thread = threading.Thread(target=show, args=(bar, end), daemon=True)
    thread.start()
    try:
        yield bar
    finally:
        end.set()
        thread.join()


@contextmanager
def progress_callback(name: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show work that reports its own progress, by calling what this yields: rows done, rows in all, a note."""
    with track(name) as bar:

        def log(done: int, total: int, note: str) -> None:
            bar.total = total
            bar.advance(done - bar.done, note or None)

        yield log


def _print(bar: ProgressBar, end: threading.Event) -> None:
    pause = QUIET_SECONDS
    while not end.wait(pause):
        print(bar.line(), file=sys.stderr, flush=True)  # noqa: T201
        pause = EVERY[0] if pause == QUIET_SECONDS else min(pause * 1.2, EVERY[1])
    if pause != QUIET_SECONDS:
        print(bar.line(), file=sys.stderr, flush=True)  # noqa: T201


def _draw(bar: ProgressBar, end: threading.Event) -> None:
    if end.wait(QUIET_SECONDS):
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"))
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as progress:
        task = progress.add_task(bar.name, total=bar.total, facts="")
        while True:
            over = end.wait(0.25)
            progress.update(task, completed=bar.done, facts=bar.facts(), refresh=True)
            if over:
                return
