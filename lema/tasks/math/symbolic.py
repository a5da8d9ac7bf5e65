"""Equality of two mathematical expressions through math-verify, in a process of its own that can be killed.

sympy may run for ever or eat all memory on what a model wrote, in C code too, where an alarm's handler never runs.
So each comparison has a budget of processor time, kept by the kernel: it kills the process, and the answer is
"timeout". Time on the clock would make grades depend on how busy the machine is; it only backs up the other limit.
The process is used again for the next comparison, takes its work from standard input and ends when that is closed.

Only LaTeX is parsed, by a grammar: math-verify's reader of plain expressions, which calls `eval`, is not used.
"""

import importlib.util
import json
import os
import selectors
import subprocess
import sys
import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from lema.errors import RunError

Comparison = Literal["equal", "different", "unreadable", "timeout"]

CPU_SECONDS = 5.0
WALL_SECONDS = 60.0
START_SECONDS = 300.0
MEMORY_BYTES = 2 * 2**30

_lock = threading.Lock()
_idle_children: list["_Child"] = []


def compare(answer: str, gold: str) -> Comparison:
    """Whether two LaTeX expressions are equal; "unreadable" when one is none, or comparing them failed.

    Safe in any thread and process; each thread that compares at the same time has a process of its own.
    RunError when math-verify is not installed, or its process cannot be started.
    """
    child = _take()
    finding = child.ask(answer, gold)
    if finding is None:
        child.kill()
        return "timeout"
    with _lock:
        _idle_children.append(child)
    return finding


def _take() -> "_Child":
    with _lock:
        # After a fork, the pipes of the parent's processes are here too, but they are not ours.
        _idle_children[:] = [child for child in _idle_children if child.owner == os.getpid()]
        if _idle_children:
            return _idle_children.pop()
    return _Child()


class _Child:
    """One process and its pipes."""

    def __init__(self) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise RunError("the task math needs the extra `math`: pip install -e '.[math]'")
        self.owner = os.getpid()
        home = str(Path(__file__).resolve().parents[3])
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        # -P: a user's folder may hold a file named like a module of ours.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from lema.tasks.math.symbolic import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
        if self._line(START_SECONDS) != "ready":
            self.kill()
            raise RunError("the process that compares answers of the task math cannot be started")

    def ask(self, answer: str, gold: str) -> Comparison | None:
        """None when the process died or was too slow to say anything."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(json.dumps([answer, gold]).encode() + b"\n")
            self._process.stdin.flush()
            line = self._line(WALL_SECONDS)
            return next((finding for finding in get_args(Comparison) if finding == line), None)
        return None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _line(self, seconds: float) -> str:
        """The next line; empty when the process ended, or did not write one in time."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return ""
        return self._process.stdout.readline().decode().strip()


def serve() -> None:
    """The process: a line [answer, gold] in, a line with the finding out."""
    import resource
    import signal

    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is for the parent, whose end ends this process
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    import math_verify  # noqa: F401

    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    replies.write("ready\n")
    for line in sys.stdin:
        answer, gold = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        finding = _compare_parsed(answer, gold)
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(f"{finding}\n")


def _compare_parsed(answer: str, gold: str) -> Comparison:
    from math_verify import verify

    try:
        left, right = _parsed(gold), _parsed(answer)
        if left is None or right is None:
            return "unreadable"
        if _far_apart(left, right):
            return "different"
        # Its own alarms are off: they count time on the clock, and make a comparison that was cut short a "no".
        same = verify(left, right, timeout_seconds=None, raise_on_error=True, allow_set_relation_comp=True)
    except MemoryError:
        return "timeout"
    except Exception:
        return "unreadable"
    return "equal" if same else "different"


def _far_apart(left: Any, right: Any) -> bool:
    """Do two expressions have clearly different values? Simplifying their difference would take long to say no."""
    from sympy import Expr, Float, Symbol

    # A symbol alone may be a word, which math-verify compares by its letters.
    if not all(isinstance(one, Expr) and not isinstance(one, Symbol) for one in (left, right)):
        return False
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    point = {symbol: Float(1.37 + 0.61 * place) for place, symbol in enumerate(symbols)}
    values = [one.subs(point).evalf(15) for one in (left, right)]
    if not all(value.is_number and value.is_finite for value in values):
        return False
    one, other = (complex(value) for value in values)
    return abs(one - other) > 1e-3 * max(1.0, abs(one), abs(other))


@lru_cache(maxsize=4096)
def _parsed(latex: str) -> Any:
    """The expression as sympy has it; None when math-verify cannot read it."""
    from math_verify import LatexExtractionConfig, parse
    from sympy import Expr, I

    config = [LatexExtractionConfig(boxed_match_priority=-1)]
    found = parse(f"${latex}$", config, fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=True)
    expression = found[0] if found else None
    # `i` is the imaginary unit; as an index it is the same on both sides.
    if not isinstance(expression, Expr):
        return expression
    return expression.subs({symbol: I for symbol in expression.free_symbols if symbol.name == "i"})
