"""A seeded fuzz of recipes: what `lema check` makes of mutated ones.

    python benchmarks/fuzz_recipes.py [--count 1000] [--seed 0] [--show] [--keep FOLDER]

Mutates shipped recipes, prompts and params.yaml in a temporary project: values and keys of the parsed tree (wrong
types, extreme numbers, odd texts, misspelt, moved and repeated keys) and the text of the file (control characters, torn
ends, aliases, deep nesting, bytes that are no UTF-8). Each case must end in "ok" or in a RecipeError within LIMIT
seconds of processor time and with at most LINES lines without raw control characters; anything else is a failure, shown
with its number. Exit code 1 if there is any.
"""

import argparse
import copy
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from lema.check.check import check
from lema.errors import RecipeError

ROOT = Path(__file__).resolve().parents[1]
LIMIT, LINES = 5.0, 200
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**25, 0.5, -0.0, 1e-320, 1e308, float("inf"),
    float("nan"), "", " ", "0", "null", "\x00", "\x1b[2J", "a\nb", "ß" * 300, "x" * 100_000, "../../etc/passwd", "/",
    "~", "data/../..", "{{ question }}", "{% for a in b %}", "{{ " * 200, "os:system", "lema.cli:main", "builtins:eval",
    "base", "cot", [], {}, [[]], [None], [1, "a"], {"a": None}, {"": ""}, {"use": 1}, {"use": "x", "options": []},
    list(range(5000)), {f"k{n}": n for n in range(3000)}, "http://user:password@host/", "file:///etc/passwd",
)  # fmt: skip
TORN = (
    "\x00", "\x1b", "\t", "\r", "\u2028", "\ufeff", "&a [*a]", "!!python/object:os.system []", "<<: *none", "? [",
    "---\n", "%YAML 9\n", "'", '"\\U00110000"', '"\\ud800"', "{" * 2000, "[" * 20_000, "- " * 3000, "#" * 100_000,
)  # fmt: skip


def paths(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of all values in a tree of dicts and lists."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path for key, value in inside for path in ((*above, key), *paths(value, (*above, key)))]


def change_tree(tree: Any, rng: random.Random) -> Any:
    """One to three values or keys are changed."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = paths(tree)
        if not places:
            break
        *above, key = rng.choice(places)
        parent = tree
        for step in above:
            parent = parent[step]
        action = rng.choice(("odd", "odd", "odd", "delete", "rename", "copy", "add"))
        if action == "odd":
            parent[key] = copy.deepcopy(rng.choice(ODD))
        elif action == "delete":
            del parent[key]
        elif action == "copy":
            *_, other = rng.choice(places)
            parent[key] = copy.deepcopy(parent[other]) if isinstance(parent, dict) and other in parent else other
        elif isinstance(parent, dict):
            name = rng.choice((f"{key}s", str(key)[:-1], "x", "", key, 5, "\x1b[31m", "use", "extends", "model"))
            parent[name] = parent.pop(key) if action == "rename" else copy.deepcopy(rng.choice(ODD))
    return tree


def change_text(text: str, rng: random.Random) -> bytes:
    """Characters, lines or bytes of a file are changed."""
    data = text.encode()
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(data) + 1)
        action = rng.choice(("insert", "insert", "cut", "line", "byte"))
        if action == "insert":
            data = data[:place] + rng.choice(TORN).encode() + data[place:]
        elif action == "cut":
            data = data[:place]
        elif action == "line":
            lines = data.split(b"\n")
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
            data = b"\n".join(lines)
        else:
            data = data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    return data


def mutate(root: Path, name: str, rng: random.Random) -> bytes:
    """The mutated content of a file of the project."""
    text = (root / name).read_text(encoding="utf-8")
    if rng.random() < 0.3:
        return change_text(text, rng)
    tree = change_tree(yaml.safe_load(text), rng)
    return yaml.dump(tree, sort_keys=False, allow_unicode=rng.random() < 0.5).encode()


def judge(root: Path, recipe: str) -> tuple[str, str]:
    """What check makes of the project: `ok`, `problems`, or a failure with what was seen."""
    began, text = time.process_time(), ""
    try:
        report = check([recipe], root, {})
        text = str(RecipeError(report.problems))
    except RecipeError as error:
        text = str(error)
    except Exception:
        return "traceback", traceback.format_exc()
    seconds = time.process_time() - began
    if seconds > LIMIT:
        return "slow", f"{seconds:.1f} s"
    if text.count("\n") > LINES or len(text) > 200 * LINES:
        return "long", f"{text.count(chr(10))} lines, {len(text)} characters"
    if any(ord(mark) < 32 and mark != "\n" for mark in text):
        return "raw", repr(text[:300])
    return ("problems" if text else "ok"), text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print what check says of every case")
    parser.add_argument("--keep", type=Path, help="a folder for the files of failures")
    arguments = parser.parse_args()
    outcomes = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(ROOT / "recipes", root / "recipes")
        for name in ("params.yaml", "constraints.txt"):
            shutil.copy(ROOT / name, root)
        os.chdir(root)
        recipes = sorted(path.stem for path in (root / "recipes").glob("*.yaml") if not path.name.startswith("_"))
        prompts = sorted(str(path.relative_to(root)) for path in (root / "recipes/prompts").glob("*.yaml"))
        for number in range(arguments.count):
            rng = random.Random(f"{arguments.seed} {number}")
            recipe = rng.choice(recipes)
            file = rng.choice((f"recipes/{recipe}.yaml",) * 7 + ("params.yaml", rng.choice(prompts)))
            before, changed = (root / file).read_bytes(), mutate(root, file, rng)
            (root / file).write_bytes(changed)
            outcome, seen = judge(root, recipe)
            outcomes[outcome] += 1
            if outcome not in ("ok", "problems") or arguments.show:
                print(f"case {number} ({recipe}, {file}): {outcome}: {seen}", flush=True)
                if arguments.keep and outcome not in ("ok", "problems"):
                    (arguments.keep / f"{number}-{outcome}-{Path(file).name}").write_bytes(changed)
            (root / file).write_bytes(before)
    print(", ".join(f"{name} {outcomes[name]}" for name in ("ok", "problems", "traceback", "slow", "long", "raw")))
    sys.exit(bool(set(outcomes) - {"ok", "problems"}))


if __name__ == "__main__":
    main()
