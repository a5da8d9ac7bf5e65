"""The loader accepts no text that DVC would read otherwise; DVC's own reader is the judge."""

import pytest
from dvc.utils.serialize import loads_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML, YAMLError

from lema.errors import RecipeError
from lema.recipe import yaml

# Scalars, many of which YAML 1.1 and 1.2 take for different things. DVC's reader says what they are.
SCALARS = [
    *("1e-4", "1E+3", "1.0e-4", "yes", "NO", "on", "true", "True", "tRUE", "012", "0o14", "0o18", "0x1F", "-0x1f"),
    *("0b11", "0b2", "1_000", "_1", "1,000", ".5", "5.", ".5e3", ".5e+3", "+1", "-0", "~", "null", "Null", "nULL"),
    *("1:30", "1.2.3", ".inf", "-.INF", ".nan", "inf", "'1.0'", "''", '""', "", "'2024-01-01'", "2024-1-1", "a#b", "é"),
]
# What is said, and of which scalars.
REFUSED = {
    "put it in quotes": ("2024-01-01", "2024-01-01 10:00:00", "2024-01-01T1:02:03Z", "2001-12-14t21:59:43.10-05:00"),
    "looks like a number": ("-_", "0b_", "._", "9" * 5000),
    "a meaning of its own": ("=", "<<"),
    "a tag": ("!!python/object/apply:os.system [ls]", "!!python/name:os.system x", "!!set {x: }", "!!binary eA=="),
    "undefined alias": ("*nothing",),
    "mapping values are not allowed": ("a: b",),
    "cannot start any token": ("@x", "|-\n\tx"),
    "an invisible line break (U+2028)": ("\u2028",),
}


def ours(text):
    return yaml.parse_yaml(text, "f.yaml").plain()


def dvc(text):
    def tuples(value):
        if isinstance(value, dict):
            return {key: tuples(child) for key, child in value.items()}
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return tuples(YAML(typ="safe").load(text) or {})


@pytest.mark.parametrize("text", SCALARS)
def test_scalars(text):
    assert repr(ours(f"a: {text}")["a"]) == repr(loads_yaml(f"a: {text}")["a"])


def test_scalars_are_those_of_yaml_1_2():
    read = ours("{a: 1e-4, b: yes, c: 012, d: 0o14, e: 1:30, f: ~, g: 1_000}")
    assert list(read.values()) == [1e-4, "yes", 12, 12, "1:30", None, 1000]


@pytest.mark.parametrize(("text", "said"), [(text, said) for said, texts in REFUSED.items() for text in texts])
def test_refused(text, said):
    with pytest.raises(RecipeError) as error:
        ours(f"b: 1\na: {text}")
    (problem,) = error.value.problems
    assert said in problem.message
    assert problem.line >= 2
    assert len(problem.message) < 200


DOCUMENTS = [
    *("", "# nothing", "null", "[]", "a:\n- 1\n- [2, {b: c}]", "a: &x {b: 1}\nc: *x", "'<<': 1", "a: |2\n    x\n"),
    *("a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  b: 3", "a: {<<: [{b: 1}, {b: 2, c: 3}], d: 4}", "? a\n: b"),
    *("a: |\n  x\n   y\n\nb: >-\n  x\n  y\n", 'a: "\\x41\\n\\u263a"', "{a, b: , 'c': 1}", "a: x # comment\n"),
    *("\ufeffa: 1", "---\na: 1\n...\n", "a: 'x\n\n  y'", "- - - a", "{a: b:c, d: http://e}", "a: [b:]", "a: &x: 1"),
    *('{"a": [1,{"b": {}}],"c": ""}', "%YAML 1.1\n---\na: yes", "a: !!str 1"),
]


@pytest.mark.parametrize("text", DOCUMENTS)
def test_documents_as_dvc_reads_them(text):
    assert list(ours(text) or {}) == list(dvc(text))
    assert repr(ours(text)) == repr(dvc(text))


STRUCTURE = {
    "{a: 1, a: 2}": ["1:8: the key 'a' is here a second time"],
    "a: 1\nb: 2\na: 3\nb: 4": ["3:1: the key 'a'", "4:1: the key 'b'"],
    "<<: {a: 1}\n<<: {b: 1}": ["2:1: the key '<<' is here a second time"],
    "<<: 1": ["1:5: `<<` takes a mapping or a list of mappings"],
    "a: &x [*x]": ["1:4: an alias inside what it stands for"],
    "a: &x {<<: *x}": ["1:4: an alias inside what it stands for"],
    "1: a\ntrue: b\n[c]: d": [
        "1:1: the key 1 is not a text",
        "2:1: the key true is not",
        "3:1: this key is not a text",
    ],
    "---\na: 1\n---\nb: 1": ["3:1: not valid YAML: but found another document"],
    "[" * 5000: ["nested too deeply"],
    "a: [1\nb: 2": ["2:2: not valid YAML: expected ',' or ']', but got"],
    "a: \x07": ["not valid YAML: special characters are not allowed"],
}


@pytest.mark.parametrize("text", STRUCTURE)
def test_structure(text):
    with pytest.raises(RecipeError) as error:
        ours(text)
    said = [str(problem).removeprefix("f.yaml:").strip() for problem in error.value.problems]
    assert len(said) == len(STRUCTURE[text])
    for line, start in zip(said, STRUCTURE[text], strict=True):
        assert line.startswith(start)


def test_aliases_that_multiply():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(RecipeError, match="aliases make more than"):
        ours("\n".join(lines))


def test_places():
    tree = yaml.parse_yaml("a:\n  b: [1, {c: x}]\nd: |\n  one\n  two\n", "f.yaml")
    places = {}
    for path in [("a",), ("a", "b"), ("a", "b", 1), ("a", "b", 1, "c"), ("d",)]:
        found = tree.find(path)
        places[path] = (found.key.line, found.key.column, found.mark.line, found.mark.column)
    assert places == {
        ("a",): (1, 1, 2, 3),
        ("a", "b"): (2, 3, 2, 6),
        ("a", "b", 1): (2, 10, 2, 10),
        ("a", "b", 1, "c"): (2, 11, 2, 14),
        ("d",): (3, 1, 3, 4),
    }
    assert str(tree.find(("d",)).mark.problem("here", line=2)) == "f.yaml:5: here"
    assert tree.find(("a", "x")) is None


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "f.yaml").write_bytes(b"a: \xff\xfe")
    for name, message in (("f.yaml", "is not a text file in UTF-8"), ("g.yaml", "No such file or directory")):
        with pytest.raises(RecipeError, match=message):
            yaml.read_yaml(tmp_path / name, name)


PIECES = st.sampled_from(
    [*"0123456789abeExXoO_.,:;-+~=<>!?&*#%@|'\"[]{} \n\té", "null", "true", "no", "\n  ", ": ", "- ", "1e", "0x", "<<"]
)


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PIECES, max_size=14).map("".join))
def test_what_is_accepted_dvc_reads_the_same(text):
    for document in (text, f"a: {text}", f"a: [{text}]", f"{text}: 1"):
        try:
            value = ours(document)
        except RecipeError:
            continue
        assert repr(value or {}) == repr(dvc(document))


REASONS = ("quotes", "invisible", "tag", "special characters")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab<=~1.", max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), VALUES, max_size=4))
def test_what_dvc_writes_is_read_back(data):
    from dvc.utils.serialize import dumps_yaml

    text = dumps_yaml(data)
    try:
        value, refusal = ours(text), ""
    except RecipeError as error:
        value, refusal = None, str(error)
    # Keys and texts that the two readers of YAML could take for different things are refused.
    assert repr(value) == repr(dvc(text)) if not refusal else any(why in refusal for why in REASONS)


@pytest.mark.parametrize("text", [*SCALARS[:-8], "", "2024-1-1", "=", "2024-01-01", "plain", "1e5x"])
def test_texts_that_need_quotes_for_some_reader(text):
    def reads(loader):
        try:
            return loader(f"{text}\n") == text
        except (YAMLError, yaml.yaml.YAMLError, ValueError):
            return False

    both = reads(YAML(typ="safe").load) and reads(yaml.yaml.safe_load)
    assert both or not yaml.reads_as_text(text)
