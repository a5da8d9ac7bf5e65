"""What must hold of the questions that nothing is learnt from: the dev split and transfer sets."""

from collections.abc import Iterator

from lema.check.external_files import Found
from lema.check.rules import BASE, task
from lema.errors import Problem
from lema.recipe.load import Draft
from lema.recipe.messages import problem_at

# Names that scores give to sets of their own.
TAKEN = ("train", "dev", "test", BASE)


def problems(draft: Draft) -> list[Problem]:
    """Everything that is wrong with them."""
    rules = (dev(draft), transfer(draft))
    return [problem_at(draft.tree, found.path, found.message, key=found.key) for rule in rules for found in rule]


def dev(draft: Draft) -> Iterator[Found]:
    """Dev questions leave enough training questions, and are there when they are to be answered."""
    source, questions, answers = (draft.sections[key] for key in ("source", "questions", "answers"))
    if questions and answers and answers.dev and not questions.dev:
        yield Found(("answers", "dev"), "there are no dev questions; say how many in `questions.dev`")
    if not source or source.train is None or not questions or not questions.dev:
        return
    learnt = 1 if questions.train is None else questions.train
    if learnt <= source.train < learnt + questions.dev:
        message = f"{questions.dev} questions beside {learnt} to learn from, but `source.train` keeps {source.train}"
        yield Found(("questions", "dev"), f"{message} records")


def transfer(draft: Draft) -> Iterator[Found]:
    """Transfer sets have names of their own, tasks and generators that exist, and questions."""
    questions = draft.sections["questions"]
    for name, one in (questions.transfer if questions else {}).items():
        path, source = ("questions", "transfer", name), one.source
        if name in TAKEN:
            yield Found(path, f"`{name}` has a meaning of its own; give this set another name", key=True)
        if one.task:
            yield from task((*path, "task"), one.task, None)
        if source.generator:
            yield from task((*path, "source", "generator"), source.generator, source.options)
            if source.test is None:
                yield Found((*path, "source"), "a generator never ends; say how many `test` records", key=True)
        if one.test is not None and source.test is not None and one.test > source.test:
            yield Found((*path, "test"), f"{one.test} questions, but its `source.test` keeps {source.test} records")
        if 0 in (one.test, source.test):
            yield Found(path, "needs at least 1 question", key=True)
