"""The process that compares: what it cannot finish is a timeout, wherever it is called from."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lema.compute.executor import pmap
from lema.compute.ray_pool import RayExecutor
from lema.errors import RunError
from lema.stages.grades import grade_text
from lema.tasks import Undecided
from lema.tasks.math import equal_math, math, symbolic
from lema.tasks.math.symbolic import compare

ROOT = Path(__file__).resolve().parents[2]
TOWER = "9^{9^{9^{9}}}"


def test_what_never_ends_is_a_timeout_and_the_next_comparison_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbolic, "_idle", [])
    monkeypatch.setattr(symbolic, "CPU_SECONDS", 1.0)
    assert compare("x+1", "1+x") == "equal"
    (process,) = symbolic._idle
    assert compare(TOWER, "3") == "timeout"
    assert process.poll() is not None
    monkeypatch.undo()
    assert compare("x+1", "x+2") == "different"


def test_a_timeout_is_an_outcome_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lema.tasks.math.equality.compare", lambda answer, gold: "timeout")
    assert equal_math(TOWER, "3") is Undecided.TIMEOUT
    assert grade_text(f"The answer is ${TOWER}$.", "stop", "3", math) == ("timeout", TOWER)
    assert grade_text(f"The answer is ${TOWER}$.", "length", "3", math) == ("truncated", TOWER)


@pytest.mark.parametrize("limits", ["0.3, 60", "60, 0.3"], ids=["processor time", "time on the clock"])
def test_the_kernel_ends_it(limits: str) -> None:
    """Within the process alone: no parent kills it, and no handler of Python's runs in a power of integers."""
    code = f"from lema.tasks.math.symbolic import serve; serve({limits})"
    request = f'\n["{TOWER}", "3"]\n'.replace("\\", "\\\\")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, input=request, capture_output=True, text=True)
    assert done.stdout == "ready\n"
    assert done.returncode < 0


def test_grading_in_threads_gives_the_same() -> None:
    pairs = [(f"(x+{n})^2", f"x^2+{2 * n}x+{n * n}") for n in range(1, 13)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda pair: compare(*pair), pairs)) == ["equal"] * 12
    assert len(symbolic._idle) <= 5


def _same(pair: tuple[str, str]) -> bool | Undecided:
    return equal_math(*pair)


def test_grading_on_ray_gives_the_same(ray: RayExecutor) -> None:
    pairs = [("(x+1)^2", "x^2+2x+1"), ("(x+1)^2", "x^2+2x"), ("\\frac{1}{", "2")]
    assert list(pmap(ray, _same, pairs, block=1, small=0)) == [True, False, Undecided.UNPARSED]


def test_what_cannot_be_compared_is_no_mistake() -> None:
    assert compare("\\frac{1}{", "2") == "unreadable"
    assert grade_text("The answer is $\\frac{1}{$.", "stop", "2", math)[0] == "unparsed"


def test_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in (
        "__import__('os').mkdir('pwned')",
        "exec(\"open('pwned','w')\")",
        "\\text{eval('1')}",
        "os.system('x')",
    ):
        assert compare(text, "2") in ("different", "unreadable")
    assert list(tmp_path.iterdir()) == []


def test_a_user_without_math_verify_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbolic, "_idle", [])
    monkeypatch.setattr(symbolic.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"needs the extra `math`: pip install -e '\.\[math\]'"):
        compare("x", "y")


def test_the_process_ends_with_its_parent() -> None:
    code = "from lema.tasks.math import symbolic as s; s.compare('x','y'); print(s._idle[0].pid)"
    pid = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    deadline = time.monotonic() + 30
    while Path(f"/proc/{int(pid)}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{int(pid)}").exists()
