"""Progress: seen when it is worth it, where it is fit."""

import io
import re
import sys
import time

import pytest

from lema.compute import progress
from lema.compute.progress import ProgressBar, format_duration, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("total", "before", "done", "seconds", "note", "line"),
    [
        (200, 0, 50, 10, "", "samples: 50/200, 5.0/s, 30 s left"),
        (200, 150, 10, 10, "150 hits", "samples: 160/200, 1.0/s, 40 s left, 150 hits"),
        (200, 0, 1, 10, "", "samples: 1/200, 6.0/min, 33 min 10 s left"),
        (200, 0, 200, 100, "", "samples: 200/200, 2.0/s, in 1 min 40 s"),
        (200, 0, 0, 3, "", "samples: 0/200, 0.0/s, 3 s"),
        (None, 0, 7, 1, "", "samples: 7, 7.0/s, 1 s"),
    ],
)
def test_lines(
    clock: list[float], total: int | None, before: int, done: int, seconds: float, note: str, line: str
) -> None:
    bar = ProgressBar("samples", total, before)
    clock[0] = seconds
    bar.advance(done, note)
    assert bar.line() == line


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min 0 s"), (75, "1 min 15 s"), (7380, "2 h 3 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_nothing_is_shown_for_what_is_soon_done(monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    with track("samples", 3) as bar:
        bar.advance(3)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_long_work_is_shown(monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.01)
    monkeypatch.setattr(progress, "EVERY", (0.02, 0.02))
    monkeypatch.setattr(sys, "stderr", stream())
    with track("samples", 3) as bar:
        for n in range(3):
            bar.advance(1, note=f"{n} failed")
            time.sleep(0.1)
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"samples.*3/3.*2 failed", shown)
    if stream is io.StringIO:
        assert "\x1b" not in shown
        assert len(shown.splitlines()) > 2
