"""How many modules and functions one completion goes through, from `generate` to the journal and back.

    python -m benchmarks.trace [--list]

A request to an endpoint on this machine, in process, with a price but without a limit: everything is warm, since one
request went before it. Then the same request again, from a new store: a hit. Functions of `lema` that are called are
counted once each, comprehensions among them. Writes benchmarks/results/trace.md.
"""

import argparse
import http.server
import itertools
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "trace.md"
PACKAGE = f"{ROOT / 'lema'}{os.sep}"

Call = tuple[str, str, int]  # module, function, thread


class Tracer:
    """Notes every call of a function of the package, in all threads, while it is `on`."""

    def __init__(self) -> None:
        self.on, self.calls = False, list[Call]()
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if self.on and event == "call" and code.co_filename.startswith(PACKAGE):
            module = code.co_filename.removeprefix(PACKAGE).removesuffix(".py").replace(os.sep, ".")
            self.calls.append((module, code.co_qualname, threading.get_ident()))

    def of(self, work: Callable[[], object]) -> list[Call]:
        """The calls that some work makes."""
        self.calls, self.on = [], True
        work()
        self.on = False
        return self.calls


class Endpoint(http.server.BaseHTTPRequestHandler):
    """Gives every request the same text."""

    protocol_version = "HTTP/1.1"
    number = itertools.count()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        choice = {"message": {"content": "The answer is 7."}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 5}
        answer = json.dumps({"id": f"chatcmpl-{next(self.number)}", "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def traced(folder: Path, url: str, tracer: Tracer) -> dict[str, list[Call]]:
    """The calls for one completion, and for one hit."""
    from lema.completions.budget import BudgetTracker
    from lema.completions.generate import Generate
    from lema.completions.store import Store
    from lema.compute.executor import LocalExecutor
    from lema.models.types import Model, Request, Sampling
    from lema.recipe.params import Endpoint as Settings
    from lema.recipe.params import Price, Run
    from lema.rows import Message

    price = Price(input=Decimal(1), output=Decimal(1))
    run = Run(executor="local", endpoints={"here": Settings(url=url, concurrency=2)}, prices={"m": price})
    model = Model("strong", "openai", "openai/m", name="m", endpoint="here")

    def ask(generate: Generate, number: int) -> None:
        list(generate([Request(model, (Message("user", f"What is 3 + {number}?"),), Sampling(), prompt="digest")]))

    tracker = BudgetTracker(run, "recipe", "samples")
    store = Store(folder / "journal", folder / "packs")
    generate = Generate(store, LocalExecutor(), run, budget=tracker)
    ask(generate, 0)
    completion = tracer.of(lambda: ask(generate, 1))
    store.seal()
    tracker.close()
    again = Generate(Store(folder / "journal", folder / "packs"), LocalExecutor(), run)
    return {"one completion": completion, "one hit": tracer.of(lambda: ask(again, 1))}


def report(found: dict[str, list[Call]]) -> str:
    """A table of the counts, and the modules in the order in which they are entered."""
    lines = ["# Calls of one completion", "", "`python -m benchmarks.trace`; see there what is counted.", ""]
    lines += ["| | modules | functions | calls | switches of module | threads |", "|---|---|---|---|---|---|"]
    for name, calls in found.items():
        modules, functions = {module for module, *_ in calls}, {call[:2] for call in calls}
        switches = sum(one[0] != two[0] for one, two in itertools.pairwise(calls))
        threads = len({call[2] for call in calls})
        lines.append(f"| {name} | {len(modules)} | {len(functions)} | {len(calls)} | {switches} | {threads} |")
    for name, calls in found.items():
        lines += ["", f"Modules of {name}: {', '.join(dict.fromkeys(module for module, *_ in calls))}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--list", action="store_true", help="Print the functions, too.")
    options = parser.parse_args()
    tracer = Tracer()
    with tempfile.TemporaryDirectory() as folder, http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        os.environ["LEMA_HOME"] = folder
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = traced(Path(folder), f"http://127.0.0.1:{server.server_port}/v1", tracer)
        server.shutdown()
    if options.list:
        for name, calls in found.items():
            print(name, *(f"    {module} {function}" for module, function, _ in dict.fromkeys(calls)), sep="\n")
    RESULT.write_text(report(found), encoding="utf-8")
    print(report(found))


if __name__ == "__main__":
    main()
