"""Prompts: from a template and variables to chat messages.

A recipe from a stranger must not run code, so templates are a small part of Jinja in its immutable sandbox: text,
`{{ variable }}`, `{{ mapping.key }}`, `{{ list[0] }}`, `for` (two deep), `if`, comparisons, `+`, `-`, `~` and the
filters below. Nothing can be called, nothing included, nothing assigned, no attribute of a Python object reached,
and no expression makes more than a million characters. A variable that is not given is an error, never an empty text.

White space: a line that holds only a `{% tag %}` leaves no trace, and every message is stripped at both ends.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lema.errors import LemaError, allowed
from lema.recipe.basic_types import Prompt
from lema.rows import Message

LONGEST = 1_000_000
DEEPEST = 2
MAX_RENDERED = 64  # prompts, more than a recipe has

Turn = Literal["system", "user", "assistant"]
TURNS: tuple[Turn, ...] = ("system", "user", "assistant")


class PromptError(LemaError):
    """A template that cannot be read or rendered. The message holds names, never the prompt's text.

    `turn` is the template ("system", "user" or "assistant"), `line` counts from 1 in it and is 0 when unknown.
    """

    exit_code = 2

    def __init__(self, message: str, turn: Turn = "user", line: int = 0) -> None:
        self.message, self.turn, self.line = message, turn, line
        super().__init__(f"prompt, {turn} template{f', line {line}' if line else ''}: {message}")


class _TooLong(Exception):
    """A filter was about to make a text of more than LONGEST characters."""


def _bounded_join(values: Iterable[Any], separator: str = "") -> str:
    parts = [str(value) for value in values]
    if sum(map(len, parts)) + len(separator) * len(parts) > LONGEST:
        raise _TooLong
    return separator.join(parts)


def _replace(text: str, old: str, new: str) -> str:
    if len(text) + str(text).count(old) * len(new) > LONGEST:
        raise _TooLong
    return str(text).replace(old, new)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "first": lambda values: values[0],
    "join": _bounded_join,
    "last": lambda values: values[-1],
    "length": len,
    "lower": lambda text: str(text).lower(),
    "replace": _replace,
    "trim": lambda text: str(text).strip(),
    "upper": lambda text: str(text).upper(),
}
TESTS = ("even", "none", "odd")
LOOP = ("first", "index", "index0", "last", "length", "revindex", "revindex0")
FRAGMENTS = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If),
    *(nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Getattr, nodes.Getitem, nodes.Slice),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr, nodes.Test),
    *(nodes.Add, nodes.Sub, nodes.Neg, nodes.Concat, nodes.Filter),
)
SIGNS = {"Assign": "set", "AssignBlock": "set", "Call": "a call", "FromImport": "import", "Scope": "autoescape"}
SIGNS |= {"Div": "/", "FloorDiv": "//", "Mod": "%", "Mul": "*", "Pos": "+", "Pow": "**"}


class _Sandbox(ImmutableSandboxedEnvironment):
    """Looks into mappings, sequences and `loop`, and at nothing else of an object."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        if isinstance(obj, LoopContext) and attribute in LOOP:
            return getattr(obj, attribute)
        return self._absent(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Mapping | Sequence):
            try:
                return obj[argument]
            except (KeyError, IndexError, TypeError):
                pass
        return self._absent(obj, argument)

    def _absent(self, obj: Any, name: Any) -> Any:
        if isinstance(obj, StrictUndefined):
            return obj  # its own message tells more
        if isinstance(obj, LoopContext):
            return self.undefined(hint=f"loop has no {name!r}; {allowed(name, LOOP)}")
        kind = "mapping" if isinstance(obj, Mapping) else "text" if isinstance(obj, str) else "list"
        return self.undefined(hint=f"a {kind} has no {name!r}" if isinstance(obj, Mapping | Sequence) else None)


SANDBOX = _Sandbox(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, cache_size=0)
SANDBOX.globals = {}
SANDBOX.filters = dict(FILTERS)
SANDBOX.tests = {name: SANDBOX.tests[name] for name in TESTS}


@functools.lru_cache(maxsize=512)
def _compile(turn: Turn, text: str) -> tuple[Template, frozenset[str]]:
    """A template and its variables; raises PromptError with the line."""
    try:
        tree = SANDBOX.parse(text)
        _refuse(turn, tree, 0)
        return SANDBOX.from_string(text), frozenset(meta.find_undeclared_variables(tree))
    except TemplateSyntaxError as error:
        raise PromptError(_first_line(error), turn, error.lineno) from None
    except (RecursionError, SyntaxError, MemoryError):
        raise PromptError("nested too deeply", turn) from None
    except ValueError:  # Python refuses to read integers of thousands of digits
        raise PromptError("a number is too long", turn) from None


def _first_line(error: TemplateError) -> str:
    return (error.message or type(error).__name__).partition("\n")[0].rstrip(".")


def _refuse(turn: Turn, node: nodes.Node, depth: int) -> None:
    """Raise PromptError for anything but the small language."""
    what = None
    if not isinstance(node, FRAGMENTS):
        what = f"{SIGNS.get(type(node).__name__, type(node).__name__.lower())} is not available in prompts"
    elif isinstance(node, nodes.Name) and node.name in ("self", "caller", "varargs", "kwargs"):
        what = f"{node.name!r} is not available in prompts"
    elif isinstance(node, nodes.Filter) and node.name not in FILTERS:
        what = f"unknown filter {node.name!r}; {allowed(node.name, FILTERS)}"
    elif isinstance(node, nodes.Test) and node.name not in TESTS:
        what = f"unknown test {node.name!r}; {allowed(node.name, TESTS)}"
    elif isinstance(node, nodes.Filter) and (node.kwargs or node.dyn_args or node.dyn_kwargs):
        what = f"filter {node.name!r} takes no named arguments"
    elif isinstance(node, nodes.For) and depth == DEEPEST:
        what = f"loops are nested at most {DEEPEST} deep"
    if what:
        raise PromptError(what, turn, node.lineno)
    for child in node.iter_child_nodes():
        _refuse(turn, child, depth + isinstance(node, nodes.For))


def _fill_template(turn: Turn, text: str, variables: Mapping[str, Any]) -> str:
    template, _ = _compile(turn, text)
    try:
        pieces, size = [], 0
        for piece in template.generate(variables):
            pieces.append(piece)
            size += len(piece)
            if size > LONGEST:
                raise _TooLong
        return "".join(pieces).strip()
    except _TooLong:
        raise PromptError(f"makes a text of more than {LONGEST:,} characters", turn) from None
    except UndefinedError as error:
        raise PromptError(_first_line(error), turn, _template_line(error)) from None
    except Exception as error:  # wrong types: `steps - 1`, `incorrect_step | join`
        raise PromptError(f"cannot be rendered ({type(error).__name__})", turn, _template_line(error)) from None


def _template_line(error: Exception) -> int:
    """The line of the template in which rendering stopped; Jinja puts it into the traceback."""
    line, frame = 0, error.__traceback__
    while frame:
        if frame.tb_frame.f_code.co_filename == "<template>":
            line = frame.tb_lineno
        frame = frame.tb_next
    return line


def render(prompt: Prompt, variables: Mapping[str, Any]) -> tuple[Message, ...]:
    """The messages of one request: system, then user and assistant of each demonstration, then the user's turn.
    A system template that comes out empty makes no message. Raises PromptError."""
    system = _fill_template("system", prompt.system, variables) if prompt.system is not None else ""
    before = (Message("system", system),) if system else ()
    return (*before, *_demonstration_turns(prompt), Message("user", _fill_template("user", prompt.user, variables)))


# Prompts are known by where they are, so they are held: no other can then be there.
_rendered_shots: dict[int, tuple[Prompt, tuple[Message, ...]]] = {}


def _demonstration_turns(prompt: Prompt) -> tuple[Message, ...]:
    """The demonstrations, rendered once: a prompt is asked with a million times."""
    if id(prompt) not in _rendered_shots:
        turns = (
            (Message("user", _fill_template("user", prompt.user, shown)), Message("assistant", reply(prompt, shown)))
            for shown in prompt.demonstrations
        )
        messages = tuple(chain.from_iterable(turns))
        if len(_rendered_shots) == MAX_RENDERED:
            _rendered_shots.clear()
        _rendered_shots[id(prompt)] = prompt, messages
    return _rendered_shots[id(prompt)][1]


def reply(prompt: Prompt, variables: Mapping[str, Any]) -> str:
    """The assistant template, filled: what a training example's completion is. Raises PromptError."""
    if prompt.assistant is None:
        raise PromptError("there is none, and a reply is needed", "assistant")
    return _fill_template("assistant", prompt.assistant, variables)


def variables(prompt: Prompt, *turns: Turn) -> frozenset[str]:
    """The names that the templates of these turns use; without turns, what `render` must be given: those of
    system and user. Raises PromptError."""
    names = (_compile(turn, getattr(prompt, turn) or "")[1] for turn in turns or ("system", "user"))
    return frozenset[str]().union(*names)


def digest(prompt: Prompt) -> str:
    """SHA-256 of what decides the messages; outer white space does not."""
    turns: dict[str, Any] = {turn: text and text.strip() for turn in TURNS for text in [getattr(prompt, turn)]}
    canonical = json.dumps(turns | {"demonstrations": prompt.demonstrations}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def line_of(text: str, variable: str) -> int:
    """The line of a template, counted from 1, on which a variable is used first; 0 when it is not."""
    lines = [name.lineno for name in SANDBOX.parse(text).find_all(nodes.Name) if name.name == variable]
    return min(lines, default=0)
