"""The key of a request: a test a line of the table in docs/completions.md."""

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lema.completions.generate import Generate
from lema.completions.store import Store
from lema.compute.executor import LocalExecutor
from lema.models import types as models
from lema.models.types import Completion, Model, Request, Sampling, _sampling_json
from lema.pipeline.providers import adapted, named_model
from lema.recipe.basic_types import Prompt
from lema.recipe.params import Budget, Endpoint, Price, Run, Vllm
from lema.recipe.prompt import render
from lema.recipe.schema import ModelSpec
from lema.rows import Message

TABLE = (Path(__file__).parents[2] / "docs" / "completions.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ([\w. ']+) \| (yes|no) \|", TABLE, re.MULTILINE))

SPEC = {"backend": "openai", "name": "m", "endpoint": "here"}
MESSAGES = (Message("system", "Solve it."), Message("user", "1 + 1"))


def request_of(
    spec: dict[str, Any] | None = None, messages: tuple[Message, ...] = MESSAGES, label: str = "strong", **sampling: Any
) -> Request:
    model = named_model(label, ModelSpec.model_validate({**SPEC, **(spec or {})}))
    return Request(model, messages, Sampling(**sampling))


def asked(*given: Any, **more: Any) -> str:
    return request_of(*given, **more).key


SAID: dict[str, tuple[Callable[[], str], bool]] = {
    "backend": (lambda: asked({"backend": "scripted"}), True),
    "endpoint's name": (lambda: asked({"endpoint": "there"}), True),
    "model's name": (lambda: asked({"name": "n"}), True),
    "revision": (lambda: asked({"revision": "2026-01-01"}), True),
    "options": (lambda: asked({"options": {"omit": ["seed"]}}), True),
    "chat": (lambda: asked({"chat": False}), True),
    "role of a message": (lambda: asked(messages=(Message("user", "Solve it."), MESSAGES[1])), True),
    "text of a message": (lambda: asked(messages=(MESSAGES[0], Message("user", "1 + 1 "))), True),
    "order of messages": (lambda: asked(messages=MESSAGES[::-1]), True),
    "temperature": (lambda: asked(temperature=0.5), True),
    "top_p": (lambda: asked(top_p=0.9), True),
    "top_k": (lambda: asked(top_k=20), True),
    "max_tokens": (lambda: asked(max_tokens=511), True),
    "stop": (lambda: asked(stop=("\n\n",)), True),
    "seed": (lambda: asked(seed=1), True),
    "label": (lambda: asked(label="weak"), False),
    "prompt": (lambda: replace(request_of(), prompt="p").key, False),
}


@pytest.mark.parametrize("part", SAID)
def test_what_is_asked(part: str) -> None:
    changed, in_key = SAID[part]
    assert ROWS[part] == ("yes" if in_key else "no")
    assert (changed() != asked()) == in_key


def test_index_and_version_of_the_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_of()
    assert ROWS["index"] == ROWS["version of the scheme"] == "yes"
    before = request.key
    assert replace(request, index=1).key != before
    monkeypatch.setattr(models, "KEY_SCHEME", models.KEY_SCHEME + 1)
    assert replace(request).key != before


def test_sampling_json_a_prompt_is_written() -> None:
    assert ROWS["how a prompt is written"] == "no"
    one = render(Prompt(system="Solve it.", user="{{ question }}"), {"question": "1 + 1"})
    two = render(Prompt(system="{{ 'Solve' }} it.", user="1 + {{question[4:]}}"), {"question": "1 + 1"})
    assert asked(messages=one) == asked(messages=two) == asked()


def test_code_of_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def written(code: str) -> str:
        (tmp_path / "own_program.py").write_text(code)
        return named_model("x", ModelSpec(backend="own_program:answer")).identity

    first = written("def answer(model, run): return 1\n")
    assert ROWS["code of a program"] == "yes"
    assert written("def answer(model, run): return 2\n") != first
    assert written("# A comment.\ndef answer(model, run): return 1\n") == first


def test_weights_folder_and_adapter(tmp_path: Path) -> None:
    def local(folder: str, weights: str) -> Model:
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        (path / "config.json").write_text("{}")
        (path / "model.safetensors").write_text(weights)
        return named_model("x", ModelSpec(backend="transformers", name=str(path)))

    def name(model: Model) -> str:
        return Request(model, MESSAGES, Sampling()).key

    assert (ROWS["weights"], ROWS["adapter"], ROWS["folder"]) == ("yes", "yes", "no")
    base = local("a", "one")
    assert name(base) == name(local("b", "one")) != name(local("b", "two"))

    def trained(folder: str, weights: str) -> Model:
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        (path / "adapter_model.safetensors").write_text(weights)
        return adapted(base, "lema", path)

    assert name(trained("x", "one")) == name(trained("y", "one")) != name(trained("y", "two"))
    assert name(trained("x", "one")) != name(base)


class Nowhere(LocalExecutor):
    def map(self, *args: Any, **options: Any) -> Iterator[Any]:
        raise AssertionError("started")


RUN = {
    "executor": "ray",
    "workers": 3,
    "batch": 7,
    "trainers": 2,
    "trainings": 2,
    "vllm": Vllm(enforce_eager=True),
    "max_failures": 0.5,
    "prices": {"m": Price(input=Decimal(1), output=Decimal(2))},
    "budget": Budget(total=Decimal(1)),
}
ENDPOINT = {
    "url": "http://there/v1",
    "key": "OTHER_KEY",
    "concurrency": 3,
    "actors": 2,
    "requests_per_minute": 60,
    "input_tokens_per_minute": 1000,
    "output_tokens_per_minute": 1000,
    "mode": "batch",
    "timeout": 5.0,
    "retries": 0,
    "models": {"m": "./served/m"},
}


@pytest.mark.parametrize("field", [*RUN, *(f"endpoints.{field}" for field in ENDPOINT)])
def test_what_is_in_params_buys_nothing(field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path))
    assert ROWS[f"run.{field}"] == "no"
    place, _, inner = field.rpartition(".")
    endpoint = Endpoint(url="http://here/v1").model_copy(update={inner: ENDPOINT[inner]} if place else {})
    run = Run(endpoints={"here": endpoint}).model_copy(update={} if place else {field: RUN[field]})
    request = request_of()
    store = Store(tmp_path / "journal", tmp_path / "completions")
    store.add([(asked(), Completion("2", "stop"))], model="strong")
    assert [reply.text for reply in Generate(store, Nowhere(), run)([request])] == ["2"]


def test_the_table_says_everything() -> None:
    """A new field of a request, of a model or of params.yaml is a new line of the table."""
    inside = {"identity", "name", "endpoint"}  # in the key under the words of a user
    parts = {field.name for kind in (Model, Sampling, Request) for field in fields(kind)} - inside
    parts -= {"model", "messages", "sampling", "key"}
    assert parts <= set(ROWS)
    run = {f"run.{field}" for field in Run.model_fields if field != "endpoints"}
    run |= {f"run.endpoints.{field}" for field in Endpoint.model_fields}
    assert run == {name for name in ROWS if name.startswith("run.")}
    tested = {*SAID, "index", "version of the scheme", "how a prompt is written", "code of a program", "weights"}
    assert set(ROWS) - run == tested | {"folder", "adapter"}


def test_keys_stay_as_they_are() -> None:
    """What was bought is found again by every later version."""
    model = Model("any", "openai", "openai here m", name="m", endpoint="here")
    messages = (Message("system", "Solve it."), Message("user", "Two ☃ and\n3?"))
    request = Request(model, messages, Sampling(0.7, 0.95, None, 256, ("\n\n",), 5), 2)
    assert request.key == "5b5ac4f47847baf2bd7465e0c2809f2821021cafab656a71a421dc5661a6c3d0"


def test_a_key_does_not_depend_on_what_was_asked_before() -> None:
    def alone(temperature: float) -> str:
        _sampling_json.cache_clear()
        return asked(temperature=temperature)

    found = [alone(0.0), alone(0)]
    _sampling_json.cache_clear()
    assert [asked(temperature=one) for one in (0.0, 0, 0.0)] == [*found, found[0]]
    assert found[0] != found[1]
