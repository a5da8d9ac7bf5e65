"""Equality of two mathematical expressions through math-verify, in a process of its own that the kernel can kill.

sympy may run for ever or eat all memory on what a model wrote, in C code too, where an alarm's handler never runs.
So each comparison has a budget of processor time, kept by the kernel: it kills the process, and the answer is
"timeout". Time on the clock would make grades depend on how busy the machine is; it only backs up the other limit.
The process is used again for the next comparison and ends when its standard input is closed.

Only LaTeX is parsed, by a grammar: math-verify's reader of plain expressions, which calls `eval`, is not used.
"""

import importlib.util
import json
import os
import subprocess
import sys
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

_idle: list["subprocess.Popen[str]"] = []
# After a fork, the pipes of the parent's processes are here too, but they are not ours.
os.register_at_fork(after_in_child=_idle.clear)


def compare(answer: str, gold: str) -> Comparison:
    """Whether two LaTeX expressions are equal; "unreadable" when one is none, or comparing them failed.

    Safe in any thread and process; each thread that compares at the same time has a process of its own.
    RunError when math-verify is not installed, or its process cannot be started.
    """
    try:
        process = _idle.pop()
    except IndexError:
        process = _start()
    line = _ask(process, json.dumps([answer, gold]))
    finding: Comparison | None = next((one for one in get_args(Comparison) if one == line), None)
    if finding is None:
        _end(process)
        return "timeout"
    _idle.append(process)
    return finding


def _start() -> "subprocess.Popen[str]":
    if importlib.util.find_spec("math_verify") is None:
        raise RunError("the task math needs the extra `math`: pip install -e '.[math]'")
    path = os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH")]))
    code = f"from lema.tasks.math.symbolic import serve; serve({CPU_SECONDS}, {WALL_SECONDS})"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code],  # -P: a user's folder may hold a file named like a module of ours
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        bufsize=1,
    )
    if _ask(process, "") != "ready":
        _end(process)
        raise RunError("the process that compares answers of the task math cannot be started")
    return process


def _ask(process: "subprocess.Popen[str]", line: str) -> str:
    """The reply to a line; empty when the process died."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError):
        process.stdin.write(f"{line}\n")
        return process.stdout.readline().strip()
    return ""


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    with suppress(OSError):
        process.communicate()


def serve(cpu_seconds: float, wall_seconds: float) -> None:
    """The process: an empty line in, "ready" out; then a line [answer, gold] in, a line with the finding out."""
    import resource
    import signal

    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is for the parent, whose end ends this process
    for timer in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(timer, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, START_SECONDS)
    import math_verify  # noqa: F401

    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, wall_seconds)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        finding = _compare_parsed(*json.loads(line)) if line.strip() else "ready"
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
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
