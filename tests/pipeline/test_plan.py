"""Which edit changes which keys of the plan: what `dvc repro` will run."""

import shutil
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from yaml import safe_load

import lema
from lema.pipeline.fingerprint import CodeGraph, fingerprint
from lema.pipeline.plan import KEYWORD_CODE, arm_settings, make_plan, plan_key, plan_text
from lema.pipeline.stage_runner import PROVIDERS
from lema.recipe.load import load_recipe

KEYS = {
    *("recipe", "description", "source", "questions", "base", "samples", "grades", "corrections", "verdicts"),
    *("locations", "evolved", "mix", "export", "adapter", "answers", "probe", "scores", "report"),
}


def plan(project, name="good"):
    return make_plan(load_recipe(project.root / f"recipes/{name}.yaml", project.root), project.root)


def changed(before, after):
    """Keys that differ, those of mix by arm."""

    def flat(made):
        return {**made, **{f"mix.{arm}": one for arm, one in made["mix"].items()}, "mix": None}

    old, new = flat(before), flat(after)
    return {key for key in old | new if old.get(key) != new.get(key)}


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the package whose files a test may edit; fingerprints are of it."""
    folder = tmp_path / "copy/lema"
    shutil.copytree(Path(lema.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sys.modules["lema.pipeline.fingerprint"], "OWN", folder)
    return folder


def test_every_key_is_there(project):
    assert plan(project).keys() == KEYS
    assert set(plan(project)["mix"]) == {"cot", "lema"}


def test_a_key_alone_is_that_of_the_plan(project):
    recipe = load_recipe(project.root / "recipes/good.yaml", project.root).recipe
    whole = plan(project)
    for artifact in KEYS - {"recipe", "description"}:
        assert plan_key(artifact, recipe, CodeGraph(project.root)) == whole[artifact]


FAR = "{source: {generator: word_problems, test: 5, options: {steps: [4]}}}"
RECIPE_EDITS = [
    ("adapter: {epochs: 1}", "# A comment.\nadapter:\n  epochs: 1.0 # another", set()),
    ("adapter: {epochs: 1}", "adapter: {epochs: 1, rank: 16, lr: 2e-4}", set()),
    ("train: 30", "train: 31", {"questions"}),
    ("verdicts: {", "locations: {model: strong, prompt: correct}\nverdicts: {", {"locations"}),
    ("student: {", "slips: {inject: {}}\n    student: {", {"samples"}),
    ("train: 40", "train: 41", {"source"}),
    ("paths: 2", "paths: 3", {"samples"}),
    ("samplers:\n", "want: {per_question: 1}\n  samplers:\n", {"samples"}),
    ("prompt: correct}", "prompt: correct, want: 9, max_candidates: 40}", {"corrections"}),
    ("student: {", "other: {model: base, prompt: cot}\n    student: {", {"samples"}),
    ("prompt: correct", "prompt: solve", {"corrections"}),
    ("name: strong-1", "name: strong-2", {"corrections"}),
    ("  strong:", "  idle: {backend: openai, endpoint: local, name: x}\n  strong:", set()),
    ("limit: 50", "limit: 51", {"verdicts"}),
    ("limit: 50}]", "limit: 50}], contamination: {ngram: 13}", set()),
    ("limit: 50}]", "limit: 50}], contamination: {ngram: 8}", {"questions", "verdicts"}),
    ("limit: 50}]", "limit: 50}], contamination: false", {"questions", "verdicts"}),
    ("prompt: correct}", "prompt: correct, hint: answer}", {"corrections", "verdicts"}),
    ("lema: {cot: {}, corrections: {}}", "lema: {cot: {}, corrections: {rows: 9}}", {"mix.lema"}),
    ("lema: {cot: {}, corrections: {}}", "lema: {cot: {rows: {match: cot}}, corrections: {}}", {"mix.lema"}),
    ("  arms:\n", "  arms:\n    more: {cot: {}}\n", {"mix.more", "answers", "probe", "scores"}),
    ("  arms:\n", "  seed: 1\n  arms:\n", {"mix.cot", "mix.lema"}),
    ("correction: correction", "correction: {user: '{{ path }}', assistant: '{{ explanation }}'}", {"mix.lema"}),
    ("lema: {cot: {}, corrections: {}}", "lema: {cot: {}, corrections: {format: cot_of_wrong}}", {"mix.lema"}),
    ("lema: {cot: {}, corrections: {}}", "lema: {cot: {tokens: {match: cot}}, corrections: {}}", {"mix.lema"}),
    ("  arms:\n", "  tokens: example\n  arms:\n", {"mix.cot", "mix.lema"}),
    ("answers: {prompt: cot}", "answers: {prompt: cot}\nexport: {license: mit}", {"export"}),
    ("epochs: 1", "epochs: 2", {"adapter"}),
    ("answers: {prompt: cot}", "answers: {prompt: solve}", {"answers"}),
    ("answers: {prompt: cot}", "answers: {prompt: cot, votes: {paths: 4}}", {"answers"}),
    ("answers: {prompt: cot}", "answers: {prompt: cot}\nprobe: {questions: 9}", {"probe"}),
    ("epochs: 1", "epochs: 1, seeds: [0, 1]", {"adapter"}),
    ("train: 30", "train: 30, dev: 5", {"questions"}),
    ("train: 30", f"train: 30, transfer: {{far: {FAR}}}", {"source", "questions", "answers"}),
    ("answers: {prompt: cot}", "answers: {prompt: cot}\nscores: {seed: 1}", {"scores"}),
    ("answers: {prompt: cot}", "answers: {prompt: cot}\nreport: {examples: 1}", {"report"}),
    ("source:", "description: words\nsource:", {"description"}),
    ("embedded: smollm2-135m-instruct", "embedded: smollm2-135m-instruct, chat: false", {"base"}),
    ("task: word_problems", "task: gsm8k", {"questions", "grades", "corrections", "verdicts", "answers"}),
]


def test_the_prompts_of_a_probe_count_when_there_is_one(project):
    project.edit("recipes/good.yaml", "answers: {prompt: cot}", "answers: {prompt: cot}\nprobe: {questions: 9}")
    before = plan(project)
    project.edit("recipes/good.yaml", "answers: {prompt: cot}", "answers: {prompt: solve}")
    assert changed(before, plan(project)) == {"answers", "probe"}


@pytest.mark.parametrize(("old", "new", "expected"), RECIPE_EDITS)
def test_edit_of_the_recipe(project, old, new, expected):
    project.write("recipes/prompts/cot_of_wrong.yaml", "user: '{{ question }}'\nassistant: '{{ wrong }}'\n")
    before = plan(project)
    project.edit("recipes/good.yaml", old, new)
    assert changed(before, plan(project)) == expected


PROMPT_EDITS = [
    (
        "correct",
        "user: |\n  {{ question }}\n  {{ path }}\n",
        "user: |\n  {{ path }}\n  {{ question }}\n",
        {"corrections"},
    ),
    ("correct", "user: |\n", "# A comment.\nuser: |\n", set()),
    ("solve", "{{ question }}", "{{ question }}!", {"samples"}),
    ("cot", "{{ question }}", "{{ question }}!", {"mix.cot", "mix.lema", "export", "answers"}),
    ("correction", "Step", "step", {"mix.lema"}),
]


@pytest.mark.parametrize(("name", "old", "new", "expected"), PROMPT_EDITS)
def test_edit_of_a_prompt(project, name, old, new, expected):
    before = plan(project)
    project.edit(f"recipes/prompts/{name}.yaml", old, new)
    assert changed(before, plan(project)) == expected


def test_edit_of_a_part_of_the_user(project):
    parts = project.write("recipes/lema_test_parts.py", "def few(candidates, *, limit: int):\n    yield None\n")
    filters = "[has_fields, max_tokens: {limit: 50}]"
    project.edit("recipes/good.yaml", filters, "['recipes.lema_test_parts:few': {limit: 3}]")
    before = plan(project)
    parts.write_text("# A comment.\n" + parts.read_text())
    assert changed(before, plan(project)) == set()
    parts.write_text(parts.read_text() + "more = 1\n")
    assert changed(before, plan(project)) == {"verdicts"}


def test_a_judge_and_its_prompt_concern_the_verdicts(project):
    filters = "[has_fields, max_tokens: {limit: 50}]"
    project.write("recipes/prompts/fair.yaml", "user: 'Is {{ explanation }} right?'\n")
    project.edit("recipes/good.yaml", filters, "[judge: {model: strong, prompt: fair}]")
    before = plan(project)
    assert "Is" not in str(before["verdicts"])
    project.edit("recipes/prompts/fair.yaml", "right", "fair")
    middle = plan(project)
    assert changed(before, middle) == {"verdicts"}
    project.edit("recipes/good.yaml", "name: strong-1", "name: strong-2")
    assert changed(middle, plan(project)) == {"corrections", "verdicts"}


def test_without_contamination_its_code_concerns_nobody(project, copy):
    project.edit("recipes/good.yaml", "limit: 50}]", "limit: 50}], contamination: false")
    before = plan(project)
    path = copy / "filters/contamination.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nprint()\n", encoding="utf-8")
    assert changed(before, plan(project)) == set()


def test_pretrained_base(project):
    project.edit(
        "recipes/good.yaml",
        "base: {embedded: smollm2-135m-instruct}",
        "base: {pretrain: {task: word_problems, format: cot, steps: 9}}",
    )
    before = plan(project)
    assert before["base"]["pretrain"]["steps"] == 9
    project.edit("recipes/prompts/cot.yaml", "{{ question }}", "{{ question }}?")
    assert "base" in changed(before, plan(project))


def test_arm_sized_by_an_arm_that_is_sized_by_a_third(project):
    arms = "    cot: {cot: {}}\n    lema: {cot: {}, corrections: {}}\n"
    sized = (
        "    cot: {cot: {rows: {match: more}}}\n"
        "    more: {cot: {rows: {match: lema}}}\n"
        "    lema: {corrections: {rows: 5}}\n"
    )
    project.edit("recipes/good.yaml", arms, sized)
    recipe = load_recipe(project.root / "recipes/good.yaml", project.root).recipe
    assert list(arm_settings(recipe.mix, "cot")["matched"]) == ["lema", "more"]
    assert arm_settings(recipe.mix, "lema")["matched"] == {}
    before = plan(project)
    project.edit("recipes/good.yaml", "rows: 5", "rows: 6")
    assert changed(before, plan(project)) == {"mix.cot", "mix.more", "mix.lema"}


def test_arm_sized_by_tokens_depends_on_the_formats_of_the_other(project):
    project.edit("recipes/good.yaml", "    cot: {cot: {}}\n", "    cot: {cot: {tokens: {match: lema}, format: cot}}\n")
    before = plan(project)
    project.edit("recipes/prompts/correction.yaml", "Step", "step")
    assert changed(before, plan(project)) == {"mix.cot", "mix.lema"}


def test_plan_holds_no_prompt_and_no_path(project):
    secret = "The secret of our prompt"
    project.edit("recipes/prompts/solve.yaml", "{{ question }}", f"{secret} {{{{ question }}}}")
    project.edit(
        "recipes/good.yaml",
        "prompt: correct}",
        f"prompt: {{user: '{secret}', assistant: '{secret}', demonstrations: [{{x: '{secret}'}}]}}}}",
    )
    text = plan_text(plan(project))
    assert secret not in text
    assert str(project.root) not in text


@pytest.mark.parametrize("value", [1e-4, 1e-05, 1e16, 0.1, 3e-3, 1.0, 7])
def test_numbers_read_alike_by_every_reader(project, value):
    project.edit("recipes/good.yaml", "adapter: {epochs: 1}", f"adapter: {{epochs: 1, lr: {value}}}")
    text = plan_text(plan(project))
    for read in (safe_load, YAML(typ="safe").load):
        assert read(text)["adapter"]["lr"] == value
        assert read(text) == plan(project)


@pytest.mark.parametrize("text", ["1e5", "yes", "012", "~", "1:30", "2024-01-01", "a\n\nb", "", "#x", "é", "{x}", "on"])
def test_texts_read_alike_by_every_reader(project, text):
    made = {**plan(project), "description": text}
    for read in (safe_load, YAML(typ="safe").load):
        assert read(plan_text(made)) == made


def test_equal_recipes_make_equal_bytes(project):
    text = (project.root / "recipes/good.yaml").read_text()
    first = plan_text(plan(project))
    lines = text.splitlines(keepends=True)
    project.write("recipes/good.yaml", "".join([*lines[-2:], *lines[:-2]]))
    assert plan_text(plan(project)) == first


def test_an_artifact_that_a_recipe_does_without_changes_with_nothing(project):
    made = plan(project)
    assert made["locations"] == made["evolved"] == {}


def test_filters_concern_corrections_where_enough_are_enough(project, copy):
    file = copy / "filters/max_tokens.py"
    edits = (
        lambda at: project.edit("recipes/good.yaml", f"limit: 5{at}", f"limit: 5{at + 1}"),
        lambda at: file.write_text(file.read_text(encoding="utf-8") + f"\nprint({at})\n"),
        lambda at: (copy / "stages/verdicts.py").open("a").write(f"\nprint({at})\n"),
    )
    for at, concerned in enumerate(({"verdicts"}, {"verdicts", "corrections"})):
        for edit in edits:
            before = plan(project)
            edit(at)
            assert changed(before, plan(project)) == concerned
        if not at:
            project.edit("recipes/good.yaml", "prompt: correct}", "prompt: correct, want: 9}")


def test_the_task_matters_to_samplers_that_begin_with_right_paths_or_stop(project, copy):
    file = copy / "tasks/word_problems.py"
    project.edit("recipes/good.yaml", "samplers:\n", "want: {per_question: 1}\n  samplers:\n")
    before = plan(project)
    file.write_text(file.read_text(encoding="utf-8") + "\nprint()\n")
    assert "samples" in changed(before, plan(project))
    project.edit("recipes/good.yaml", "want: {per_question: 1}\n  samplers:\n", "samplers:\n")
    for sampler, concerned in (("other: {model: base, prompt: cot}", False), ("slips: {inject: {of: student}}", True)):
        project.edit("recipes/good.yaml", "    student: {", f"    {sampler}\n    student: {{")
        before = plan(project)
        file.write_text(file.read_text(encoding="utf-8") + "\nprint()\n")
        assert ("samples" in changed(before, plan(project))) is concerned


@pytest.mark.parametrize("name", sorted(KEYWORD_CODE))
def test_the_code_behind_a_keyword_is_there(name):
    assert name in PROVIDERS
    assert fingerprint([KEYWORD_CODE[name]], Path.cwd())
