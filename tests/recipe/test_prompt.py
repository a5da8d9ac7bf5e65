"""Prompts as a user writes them, and as a stranger may."""

import pytest

from lema.recipe.basic_types import Prompt
from lema.recipe.prompt import PromptError, digest, line_of, render, reply, variables
from lema.rows import Message


def text(template, **values):
    return render(Prompt(user=template), values)[-1].content


def test_messages_in_order():
    prompt = Prompt(
        system="You solve {{ kind }}.",
        user="Q: {{ question }}",
        assistant="A: {{ answer }}",
        demonstrations=({"question": "1+1", "answer": 2}, {"question": "2+2", "answer": 4}),
    )
    assert render(prompt, {"question": "3+3", "kind": "sums"}) == (
        Message("system", "You solve sums."),
        Message("user", "Q: 1+1"),
        Message("assistant", "A: 2"),
        Message("user", "Q: 2+2"),
        Message("assistant", "A: 4"),
        Message("user", "Q: 3+3"),
    )
    assert reply(prompt, {"answer": 6}) == "A: 6"


def test_system_that_comes_out_empty_is_no_message():
    prompt = Prompt(system="{% if hint %}Hint: {{ hint }}{% endif %}", user="x")
    assert [message.role for message in render(prompt, {"hint": ""})] == ["user"]
    assert [message.role for message in render(prompt, {"hint": "h"})] == ["system", "user"]


TEMPLATES = [
    ("\n\n  {{ q }}  \n", "a"),
    ("{% for s in steps %}\nStep {{ loop.index }}: {{ s }}\n{% endfor %}\nEnd", "Step 1: x\nStep 2: y\nEnd"),
    ("a\n  {% if n > 2 %}\n  yes\n  {% else %}\n  no\n  {% endif %}\nb", "a\n  yes\nb"),
    ("{{ steps | join(', ') }} {{ steps | length }} {{ steps[1:] | first }} {{ steps[-1] }}", "x, y 2 y y"),
    ("{{ d.key }} {{ d['key'] }} {{ d.list[0] }}", "v v 1"),
    ("{{ q ~ n }} {{ n + 1 }} {{ n - 1 }} {{ -n }}", "a3 4 2 -3"),
    ("{{ 'long' if n is odd and not n == 4 else 'short' }}", "long"),
    ("{{ q | upper }}{{ ' b ' | trim }}{{ 'x-y' | replace('-', '+') | lower }}", "Abx+y"),
    ("{% for a in steps %}{% for b in a %}{{ b }}{% endfor %}{% endfor %}", "xy"),
    ("{# nothing #}{{ '{{' }} {% raw %}{{ x }}{% endraw %}", "{{ {{ x }}"),
    ("<b> & \"q\" 'q'", "<b> & \"q\" 'q'"),
    ("{{ None is none }}", "True"),
]


@pytest.mark.parametrize(("template", "expected"), TEMPLATES)
def test_templates(template, expected):
    assert text(template, q="a", n=3, steps=["x", "y"], d={"key": "v", "list": [1]}) == expected


# What is said, and of which templates.
ATTACKS = {
    "a text has no '__class__'": ["{{ q.__class__.__mro__ }}"],
    "a mapping has no 'items'": ["{{ d.items }}"],
    "a call is": [
        *("{{ steps.append(1) }}", "{{ '{0.__class__}'.format(q) }}", "{{ range(999999999) }}"),
        "{% for s in steps recursive %}{{ loop(s) }}{% endfor %}",
    ],
    "% is": ["{{ '%999999999d' % 1 }}"],
    "* is": ["{{ 'a' * 999999999 }}"],
    "** is": ["{{ 9 ** 9 ** 9 }}"],
    "// is": ["{{ 1 // 0 }}"],
    "'self' is": ["{{ self._TemplateReference__context }}"],
    "include is": ["{% include '/etc/passwd' %}"],
    "import is": ["{% import 'os' as os %}", "{% from 'os' import system %}"],
    "extends is": ["{% extends '/etc/passwd' %}"],
    "block is": ["{% block x %}{% endblock %}", "{% filter upper %}x{% endfilter %}", "{% call x() %}{% endcall %}"],
    "macro is": ["{% macro f() %}{% endmacro %}"],
    "set is": ["{% set x = q %}", "{% set x %}y{% endset %}"],
    "dict is": ["{{ {'a': 1} }}"],
    "autoescape is": ["{% autoescape true %}{% endautoescape %}"],
    "'lipsum' is undefined": ["{{ lipsum.__globals__ }}"],
    "Encountered unknown tag 'do'": ["{% do q %}"],
    "unknown filter": ["{{ q | attr('__class__') }}", "{{ steps | map(attribute='__class__') }}"],
    "takes no named arguments": ["{{ steps | join(attribute='x') }}"],
    "unknown test 'filter'": ["{{ q is filter('x') }}"],
    "loop has no 'cycle'; allowed: first, index,": ["{% for s in steps %}{{ loop.cycle }}{% endfor %}"],
    "nested too deeply": ["{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{% if q %}" * 200 + "{% endif %}" * 200],
    "a number is too long": ["{{ " + "1" * 5000 + " }}"],
    "a text of more than 1,000,000 characters": [
        *("{{ q" + " | join(many)" * 9 + " }}", "{{ q" + " | replace('a', many)" * 9 + " }}"),
        "{% for a in many %}{% for b in many %}" + "x" * 100 + "{% endfor %}{% endfor %}",
    ],
    "loops are nested at most 2 deep": ["{% for a in many %}" * 3 + "{% endfor %}" * 3],
}


@pytest.mark.parametrize(("template", "said"), [(one, said) for said, many in ATTACKS.items() for one in many])
def test_attacks(template, said):
    values = {"q": "aaaa", "steps": ["x"], "d": {}, "many": "a" * 1000}
    with pytest.raises(PromptError) as error:
        text(template, **values)
    assert (f"{said} not available" if said.endswith(" is") else said) in str(error.value)


MISTAKES = [
    ("{{ q }}\n\n{{ qestion }}", 3, "'qestion' is undefined"),
    ("a\n{{ q", 2, "unexpected end of template"),
    ("{% for s in steps %}\n", 1, "Unexpected end of template"),
    ("\n{% fro s in steps %}{% endfor %}", 2, "Encountered unknown tag 'fro'"),
    ("\n\n{{ steps - 1 }}", 3, "cannot be rendered (TypeError)"),
    ("x {{ steps[9] }}", 1, "a list has no 9"),
    ("{{ d.missing }}", 1, "a mapping has no 'missing'"),
    ("{{ nothing | length }}", 1, "'nothing' is undefined"),
    ("{% if nothing %}{% endif %}", 1, "'nothing' is undefined"),
]


@pytest.mark.parametrize(("template", "line", "message"), MISTAKES)
def test_mistakes(template, line, message):
    with pytest.raises(PromptError) as error:
        render(Prompt(user="u", system=template), {"q": "a", "steps": ["x"], "d": {}})
    assert message in error.value.message
    assert (error.value.turn, error.value.line) == ("system", line)
    assert str(error.value).startswith(f"prompt, system template, line {line}: ")


def test_messages_hold_no_text_of_the_prompt():
    for template in ("Our secret recipe {{ q }}", "Our secret {{ q", "Our secret {% for %}", "{{ q - 1 }}"):
        with pytest.raises(PromptError) as error:
            render(Prompt(user=template), {"p": "secret"} if "- 1" not in template else {"q": "secret"})
        shown = str(error.value) + repr(error.value)
        assert "secret" not in shown
        assert error.value.__cause__ is None


def test_reply_needs_an_assistant_template():
    with pytest.raises(PromptError, match="prompt, assistant template: there is none"):
        reply(Prompt(user="x"), {})


def test_variables():
    prompt = Prompt(
        system="{{ a }}",
        user="{% for s in steps %}{{ loop.index }}{{ s }}{{ b.c }}{% endfor %}{{ 'd' }}",
        assistant="{{ e }}",
        demonstrations=({"steps": [], "b": {}, "e": 1},),
    )
    assert variables(prompt) == {"a", "b", "steps"}
    assert variables(prompt, "assistant") == {"e"}
    assert variables(prompt, "user", "assistant") == {"b", "e", "steps"}
    assert line_of("x\n{{ y }}\n{{ z }} {{ y }}", "y") == 2
    assert line_of("x", "y") == 0


def test_digest_is_of_what_decides_the_messages():
    prompt = Prompt(user="Q: {{ q }}", assistant="A", demonstrations=({"q": 1, "r": 2},))
    same = Prompt(user="\nQ: {{ q }}\n", assistant="A ", demonstrations=({"r": 2, "q": 1},))
    assert digest(prompt) == digest(same)
    assert len(digest(prompt)) == 64
    others = [
        prompt.model_copy(update=change)
        for change in (
            *({"demonstrations": ()}, {"demonstrations": ({"q": 1, "r": "2"},)}),
            *({"user": "Q:  {{ q }}"}, {"assistant": "B"}, {"system": "A"}),
        )
    ]
    assert len({digest(one) for one in [prompt, *others]}) == 6
