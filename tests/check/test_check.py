"""`lema check` as a user meets it: one broken recipe of each kind, with the place and the words of its problem."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lema.check.check import check

# What each recipe says beside `extends: good.yaml`, which is line 1, and after `> ` what is said about it.
BROKEN = [
    (recipe, [line.removeprefix("> ") for line in said.splitlines()])
    for recipe, said in re.findall(
        r"((?:^(?!> ).*\n)+)((?:^> .*\n)+)", (Path(__file__).parent / "broken.txt").read_text(encoding="utf-8"), re.M
    )
]
TOY = """\
from lema.tasks import Reading, Task

def read(record):
    if "question" not in record:
        raise ValueError("needs `question`")
    return Reading("?", "1", None)

toy = Task("toy", read, str, str.__eq__)
"""
JARGON = ("pydantic", "validation error", "Input should", "Traceback", "https://errors", "type=")


@pytest.mark.parametrize(("text", "expected"), BROKEN, ids=[expected[0][:60] for _, expected in BROKEN])
def test_broken(project, text, expected):
    project.write("recipes/lema_test_tasks.py", TOY)
    project.write("recipes/lema_test_seeds.yaml", "extends: good.yaml\nadapter: {seeds: [7, -2]}\n")
    project.write("recipes/broken.yaml", f"extends: good.yaml\n{text}")
    report = check(["broken"], project.root, {})
    said = [str(problem) for problem in report.problems]
    wanted = [line if ".yaml:" in line else f"broken.yaml:{line}".replace("::", ":") for line in expected]
    assert len(said) == len(wanted), said
    for line, start in zip(said, wanted, strict=True):
        assert line.removeprefix("recipes/").startswith(start), said
        assert not any(word in line for word in JARGON)


def test_good_project_has_no_problems(project):
    report = check(None, project.root, {})
    assert report.problems == ()
    assert report.notes == ()


EXTENDS = {
    "missing": ({"a": "extends: b.yaml"}, "a.yaml:1:10: extends: there is no file b.yaml; allowed: good"),
    "itself": ({"a": "extends: a.yaml"}, "a.yaml:1:10: extends: a.yaml extends this file in turn"),
    "circle": ({"a": "extends: b.yaml", "b": "extends: a.yaml"}, "b.yaml:1:10: extends: a.yaml extends this file"),
    "no path": ({"a": 'extends: "b\\0.yaml"'}, "a.yaml:1:10: extends: there is no file b\\x00.yaml; allowed: good"),
    "too long": ({"a": f"extends: {'b/' * 3000}c.yaml"}, "a.yaml:1:10: extends: there is no file of this"),
    "outside": ({"a": "extends: ../../x.yaml"}, "a.yaml:1:10: extends: ../../x.yaml lies outside the project"),
    "list": ({"a": "extends: [good.yaml]"}, "a.yaml:1:10: extends: needs the name of one recipe file"),
    "no mapping": ({"a": "- 1"}, "a.yaml:1:1: a recipe is a mapping: one key an artifact"),
}


@pytest.mark.parametrize("kind", EXTENDS)
def test_extends(project, kind):
    files, expected = EXTENDS[kind]
    for name, text in files.items():
        project.write(f"recipes/{name}.yaml", text)
    (problem,) = check(["a"], project.root, {}).problems
    assert str(problem).removeprefix("recipes/").startswith(expected)


def test_error_in_what_is_extended_points_there_and_says_so(project):
    project.edit("recipes/good.yaml", "epochs: 1", "epoch: 1")
    project.write("recipes/other.yaml", "extends: good.yaml\nadapter: {rank: 0}\n")
    said = [str(problem) for problem in check(["other"], project.root, {}).problems]
    assert said[0].startswith("recipes/good.yaml:17:11: adapter: unknown key 'epoch'")
    assert said[0].endswith("(comes from recipes/good.yaml:17, which recipes/other.yaml extends; null removes it)")
    assert said[1] == "recipes/other.yaml:2:17: adapter.rank: needs at least 1, got 0"
    both = [str(problem) for problem in check(["good", "other"], project.root, {}).problems]
    assert [("comes from" in line) for line in both if "epoch" in line] == [False]


def test_a_key_that_another_file_brings_is_named(project):
    project.write("recipes/other.yaml", "extends: good.yaml\nbase: {hub: a/b}\n")
    (problem,) = check(["other"], project.root, {}).problems
    assert str(problem) == (
        "recipes/other.yaml:2:1: base: needs exactly one of embedded, pretrain, hub, folder; embedded comes from "
        "recipes/good.yaml:3, which you extend; null removes it"
    )


def test_a_thousand_unknown_keys_are_a_few_lines(project):
    project.write("recipes/other.yaml", "extends: good.yaml\n" + "".join(f"k{n}: 1\n" for n in range(1000)))
    problems = check(["other"], project.root, {}).problems
    assert len(problems) == 10
    assert problems[-1].message.endswith("and 990 more problems in this mapping")


def test_parts_that_are_right_are_checked_beside_thousands_that_are_not(project):
    keys = "".join(f"    k{n}: 1\n" for n in range(3000))
    project.write("recipes/other.yaml", f"extends: good.yaml\nmix:\n  arms:\n{keys}adapter: {{epochs: 0, rank: 0}}\n")
    said = [str(problem) for problem in check(["other"], project.root, {}).problems]
    assert len(said) == 12
    assert {line.split(": ")[1] for line in said if "adapter" in line} == {"adapter.epochs", "adapter.rank"}


def test_a_message_is_of_a_length_that_can_be_read(project):
    text = f"extends: good.yaml\nquestions: {{train: {'x' * 100_000}}}\n{'y' * 999}: 1\n"
    project.write("recipes/other.yaml", text)
    said = [str(problem) for problem in check(["other"], project.root, {}).problems]
    assert len(said) == 2
    assert max(map(len, said)) <= 2003


@pytest.mark.parametrize("text", ["[" * 5000, "a: {" * 5000, "- " * 5000])
def test_deep_nesting_is_refused_at_once(project, text):
    project.write("recipes/deep.yaml", text)
    assert [str(one) for one in check(["deep"], project.root, {}).problems] == ["recipes/deep.yaml: nested too deeply"]


def test_error_in_a_prompt_file_points_there_at_its_line(project):
    project.write("recipes/prompts/correct.yaml", "# A comment.\nuser: |\n  {{ question }}\n  {{ pth }}\n")
    (problem,) = check(["good"], project.root, {}).problems
    assert str(problem).startswith("recipes/prompts/correct.yaml:4: corrections.prompt.user: unknown variable 'pth'")


def test_broken_prompt_file_is_reported_once(project):
    project.write("recipes/prompts/cot.yaml", "user: [")
    said = [str(problem) for problem in check(["good"], project.root, {}).problems]
    assert len(said) == 1
    assert said[0].startswith("recipes/prompts/cot.yaml:")


def test_messages_hold_no_text_of_a_prompt(project):
    secret = "The secret of our prompt is long and must not be seen in any log of anybody"
    project.write("recipes/broken.yaml", f"extends: good.yaml\nanswers: {{prompt: '{secret}', stop: '{secret}'}}\n")
    report = check(["broken"], project.root, {})
    assert len(report.problems) == 2
    assert "secret" not in "".join(map(str, report.problems))


# Lines of params.yaml, what they become, and what is said then: as in a diff, and after `> `.
EDITS = re.findall(
    r"((?:^- .*\n)+)((?:^\+ .*\n)*)^> (.*)\n", (Path(__file__).parent / "params.txt").read_text(encoding="utf-8"), re.M
)


@pytest.mark.parametrize(("old", "new", "expected"), EDITS, ids=[expected[:60] for *_, expected in EDITS])
def test_params(project, old, new, expected):
    project.edit("params.yaml", *("\n".join(line[2:] for line in text.splitlines()) for text in (old, new)))
    said = [str(problem) for problem in check(None, project.root, {}).problems]
    assert any(line.startswith(expected) for line in said), said


def test_a_folder_without_params_is_no_project(project):
    (project.root / "params.yaml").unlink()
    said = [str(problem) for problem in check(None, project.root, {}).problems]
    assert said[0].startswith("params.yaml: is not here; lema runs in the folder of a project")


OUTSIDE = [
    ({"one.jsonl": "", "two.jsonl": ""}, "good: data/in", ()),
    ({"one.jsonl": "", "two.jsonl": ""}, "good: data", ("write `good: data/in`",)),
    ({"one.jsonl": "", "two.jsonl": ""}, "good: constraints.txt", ("write `good: data/in`",)),
    ({"one.jsonl": "", "two.jsonl": ""}, "good: data/in/one.jsonl", ("write `good: data/in`",)),
]


@pytest.mark.parametrize(("files", "line", "expected"), OUTSIDE)
def test_params_name_what_a_recipe_reads(project, files, line, expected):
    for name, text in files.items():
        project.write(f"data/in/{name}", text)
    project.edit(
        "recipes/good.yaml",
        "  samplers:\n",
        "  samplers:\n    a: {import: {file: data/in/one.jsonl}}\n    b: {import: {file: data/in/two.jsonl}}\n",
    )
    project.edit("params.yaml", "good: constraints.txt", line)
    problems = check(None, project.root, {}).problems
    assert len(problems) == len(expected)
    for problem, words in zip(problems, expected, strict=True):
        assert words in problem.message


def test_recipe_that_is_not_built_is_a_note_with_the_lines_to_add(project):
    project.write("recipes/other.yaml", "extends: good.yaml\nmodels: {strong: {endpoint: paid}}\n")
    project.write("recipes/_part.yaml", "adapter: {}\n")
    report = check(None, project.root, {})
    assert report.problems == ()
    key, lines = (str(note) for note in report.notes)
    assert key.startswith("params.yaml:9:47: run.endpoints.paid.key: the environment variable PAID_KEY is not set")
    assert lines.startswith("recipes/other.yaml: not built by `dvc repro`")
    assert "`other: constraints.txt`" in lines
    assert "`other-lema: {recipe: other, arm: lema}`" in lines


def test_notes_of_one_kind_are_one_line(project):
    for name in ("one", "two"):
        project.write(f"recipes/{name}.yaml", "extends: good.yaml\nmodels: {strong: {endpoint: paid}}\n")
    report = check(None, project.root, {})
    assert report.problems == ()
    idle, key = (str(note) for note in report.notes)
    assert key.endswith("the environment variable PAID_KEY is not set; the recipes one, two need it")
    assert "recipes: not built by `dvc repro`: one, two; `lema check NAME` says what to add" in idle
    (note,) = check(["two"], project.root, {"PAID_KEY": "x"}).notes
    assert "`two: constraints.txt`" in str(note)


JUDGE = "judge: {model: strong, prompt: {user: hm}}"


@pytest.mark.parametrize(
    ("recipe", "noted"),
    [
        ("corrections: {want: 9}", True),
        ("corrections: {tries: 1}", False),
        ("corrections: {want: 9, model: base}", False),
        (
            "corrections: {want: 9, model: base}\nverdicts: {filters: [judge: {model: strong, prompt: {user: hm}}]}",
            True,
        ),
    ],
)
def test_a_search_in_batches_is_noted(project, recipe, noted):
    project.write("recipes/two.yaml", f"extends: good.yaml\n{recipe}\n")
    assert not any("rounds" in str(note) for note in check(["two"], project.root, None).notes)
    project.edit("params.yaml", "local: {", "local: {mode: batch, ")
    report = check(["two"], project.root, None)
    assert report.problems == ()
    found = [str(note) for note in report.notes if "rounds" in str(note)]
    assert len(found) == noted
    if noted:
        assert found[0].startswith(
            "recipes/two.yaml:2:21: corrections.want: is searched for in a dozen rounds or so, and"
        )


def test_batches_are_made_by_one_backend(project):
    assert check(["good"], project.root, None).problems == ()
    project.edit("params.yaml", "local: {", "local: {mode: batch, ")
    assert check(["good"], project.root, None).problems == ()
    project.edit("recipes/good.yaml", "backend: openai", "backend: scripted")
    (problem,) = (one for one in check(["good"], project.root, None).problems if "batches" in one.message)
    assert "params.yaml has local asked in batches, which this backend does not make; allowed: openai" in str(problem)


def test_keys_are_looked_for_only_in_an_environment(project):
    project.edit("recipes/good.yaml", "endpoint: local", "endpoint: paid")
    assert len(check(["good"], project.root, {}).problems) == 1
    assert check(["good"], project.root, {"PAID_KEY": "x"}).problems == ()
    assert check(["good"], project.root, None).problems == ()


def test_a_budget_needs_prices_and_recipes_that_exist(project):
    project.edit("params.yaml", "run:\n", "run:\n  budget: {recipes: {goood: 5, good: 0.5}}\n")
    first, second = check(None, project.root, {}).problems
    assert str(first).startswith(
        "params.yaml:7:3: run.budget: the price of strong-1 is unknown, and the recipe good needs it: without"
    )
    assert str(second).startswith("params.yaml:7:22: run.budget.recipes.goood: there is no recipes/goood.yaml; did you")
    project.edit("params.yaml", "{goood: 5, good: 0.5}", "{good: 0.5}")
    project.edit("params.yaml", "run:\n", "run:\n  prices: {strong-1: {input: 0.1, output: 2}}\n")
    assert check(None, project.root, {}).problems == ()


def test_recipes_by_name_and_by_path(project):
    for given in ("good", "recipes/good.yaml", project.root / "recipes/good.yaml"):
        assert check([given], project.root, {}).problems == ()
    (problem,) = check(["goood"], project.root, {}).problems
    assert str(problem) == "recipes/goood.yaml: there is no such recipe; did you mean 'good'? allowed: good"


def test_name_of_a_recipe(project):
    project.write("recipes/not.good.yaml", "extends: good.yaml\n")
    (problem,) = check(["recipes/not.good.yaml"], project.root, {}).problems
    assert "the recipe's name 'not.good' may hold only" in problem.message


def test_round_on_what_another_recipe_makes(project):
    text = "extends: good.yaml\nsource: {generator: null, file: data/good/evolved.parquet, test_from: train}\n"
    project.write("recipes/second.yaml", text)
    assert check(["second"], project.root, {}).problems == ()


def test_parts_of_the_user(project):
    project.write(
        "recipes/parts.py",
        "from lema.filters import Finding\ndef short(all, *, limit: int):\n    yield from (Finding(1) for _ in all)\n",
    )
    filters = "[has_fields, max_tokens: {limit: 50}]"
    project.edit("recipes/good.yaml", filters, "['recipes.parts:short': {limit: 3}]")
    assert check(["good"], project.root, {}).problems == ()
    project.edit("recipes/good.yaml", "recipes.parts:short", "recipes.parts:shot")
    (problem,) = check(["good"], project.root, {}).problems
    assert "recipes.parts has no 'shot'; did you mean 'short'?" in problem.message


def test_nothing_heavy_is_imported(project):
    program = f"""
        import sys
        from pathlib import Path
        from lema.check.check import check
        assert not check(None, Path({str(project.root)!r}), {{}}).problems
        heavy = ["ray", "torch", "openai", "dvc", "datasets", "pyarrow", "transformers", "peft", "numpy", "scipy"]
        print(*[name for name in heavy if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_round_reads_the_folder_of_the_recipe_that_it_builds_on(project):
    evolve = "evolved: {questions: 3, write: {model: strong, prompt: solve}, solve: {model: strong, prompt: solve}}\n"
    project.write("recipes/one.yaml", f"extends: good.yaml\n{evolve}")
    second = "source: {generator: null, train: null, test: null, evolved: one}\n"
    models = "models: {first: {backend: transformers, adapter: one/lema}}\n"
    project.write("recipes/two.yaml", f"extends: good.yaml\n{second}{models}")
    project.edit("params.yaml", "recipes:\n", "recipes:\n  two: data/one\n")
    runs = "".join(
        f"  {name}-{arm}: {{recipe: {name}, arm: {arm}}}\n" for name in ("one", "two") for arm in ("cot", "lema")
    )
    project.edit("params.yaml", "runs:\n", f"runs:\n{runs}")
    said = [str(problem) for problem in check(None, project.root, {}).problems]
    missing = "params.yaml:2:3: recipes.two: the recipe two reads what one makes; add the recipe one and its arms"
    assert missing in said
    project.edit("params.yaml", "recipes:\n", "recipes:\n  one: constraints.txt\n")
    assert check(None, project.root, {}).problems == ()
    project.edit("params.yaml", "two: data/one", "two: data/one/evolved.parquet")
    (problem,) = check(None, project.root, {}).problems
    assert "write `two: data/one`" in problem.message


def test_a_round_on_the_base_of_another_recipe_and_one_of_its_seeds(project):
    project.write("recipes/one.yaml", "extends: good.yaml\nadapter: {seeds: [7, 8]}\n")
    base = "base: {embedded: null, folder: data/one/base}\n"
    project.write("recipes/two.yaml", f"extends: good.yaml\n{base}")
    project.edit("params.yaml", "recipes:\n", "recipes:\n  two: data/one/base\n")
    runs = "".join(f"  two-{arm}: {{recipe: two, arm: {arm}}}\n" for arm in ("cot", "lema"))
    project.edit("params.yaml", "runs:\n", f"runs:\n{runs}")
    missing = "params.yaml:2:3: recipes.two: the recipe two reads what one makes; add the recipe one and its arms"
    assert [str(problem) for problem in check(None, project.root, {}).problems] == [missing]
    project.edit("params.yaml", "recipes:\n", "recipes:\n  one: constraints.txt\n")
    project.edit("params.yaml", "runs:\n", "runs:\n" + runs.replace("two", "one"))
    assert check(None, project.root, {}).problems == ()
    models = "models: {first: {backend: transformers, adapter: one/lema/8}}\n"
    project.write("recipes/two.yaml", f"extends: good.yaml\n{base}{models}")
    project.edit("params.yaml", "two: data/one/base", "two: data/one")
    assert check(None, project.root, {}).problems == ()


@pytest.mark.parametrize(
    ("samplers", "told"), [("", True), (", samplers: [student]", True), (", samplers: [old]", False)]
)
def test_a_sampler_that_stops_and_is_learnt_from_is_noted(project, samplers, told):
    project.write(
        "recipes/two.yaml",
        f"""\
extends: good.yaml
samples:
  want: {{per_question: 1{samplers}}}
  samplers:
    old: {{model: strong, prompt: solve}}
mix: {{arms: {{cot: {{cot: {{samplers: [student]}}}}}}}}
""",
    )
    report = check(["two"], project.root, {})
    assert report.problems == ()
    notes = [str(note) for note in report.notes if "stops" in str(note)]
    assert [note.partition(" so it")[0] for note in notes] == [
        "recipes/two.yaml:6:37: mix.arms.cot.cot.samplers.0: student stops where there are enough wrong paths,"
    ] * told
