"""`lema check` as a user meets it: one broken recipe of each kind, with the place and the words of its problem."""

import subprocess
import sys
import textwrap

import pytest

from lema.check.check import check

# What each recipe says beside `extends: good.yaml`, which is line 1, and what is said about it.
BROKEN = {
    "unknown key at the top": ("reprot: {}", ["2:1: unknown key 'reprot'; did you mean 'report'?"]),
    "unknown key": (
        "samples: {samplers: {student: {temprature: 1}}}",
        ["2:32: samples.samplers.student: unknown key 'temprature'; did you mean 'temperature'? allowed: max_tokens,"],
    ),
    "wrong type": ("questions: {train: three}", ["2:20: questions.train: needs a whole number, got 'three'"]),
    "fraction of a question": ("questions: {train: 1.5}", ["2:20: questions.train: needs a whole number, got 1.5"]),
    "boolean for a number": ("adapter: {rank: true}", ["2:17: adapter.rank: needs a whole number, got true"]),
    "1.1 boolean": ("base: {chat: yes}", ["2:14: base.chat: needs true or false, got 'yes'"]),
    "text for a list": ("answers: {stop: x}", ["2:17: answers.stop: needs a list, each a text, got 'x'"]),
    "number for a mapping": ("adapter: 3", ["2:10: adapter: needs a mapping, got 3"]),
    "out of bounds": ("adapter: {lr: 0}", ["2:15: adapter.lr: needs more than 0, got 0"]),
    "not a number": ("adapter: {lr: .nan}", ["2:15: adapter.lr: needs a finite number"]),
    "missing key": ("adapter: {epochs: null}", ["2:1: adapter: needs exactly one of epochs, steps"]),
    "missing mapping": ("answers: null", ["1:1: missing key 'answers'"]),
    "missing key of a sampler": (
        "samples: {samplers: {other: {model: base}}}",
        ["2:22: samples.samplers.other: missing key 'prompt'"],
    ),
    "two origins": ("base: {hub: a/b}", ["2:1: base: needs exactly one of embedded, pretrain, hub, folder"]),
    "unknown variable of pretraining's corrections": (
        "base: {embedded: null, pretrain: {format: cot, steps: 9, "
        "corrections: {share: 0.5, format: {user: '{{ wrong }}', assistant: x}}}}",
        ["2:99: base.pretrain.corrections.format.user: unknown variable 'wrong'; allowed: path, question, steps"],
    ),
    "error of pretraining's corrections that a program cannot make": (
        "base: {embedded: null, pretrain: {format: cot, steps: 9, "
        "corrections: {share: 0.5, format: correction, errors: [misread question]}}}",
        ["2:113: base.pretrain.corrections.errors.0: needs one of arithmetic slip"],
    ),
    "unknown sampler that stops": (
        "samples: {want: {per_question: 1, samplers: [student, studnet]}}",
        ["2:55: samples.want.samplers.1: unknown sampler 'studnet'; did you mean 'student'? allowed: student"],
    ),
    "nothing to stop for": ("samples: {want: {seed: 1}}", ["2:11: samples.want: needs per_question, in_all or both"]),
    "nobody to stop": (
        "samples: {want: {per_question: 1, samplers: []}}",
        ["2:11: samples.want: stops nobody: none of its samplers asks a model"],
    ),
    "more wrong paths than paths": (
        "samples: {want: {per_question: 3, in_all: 61}}",
        [
            "2:32: samples.want.per_question: 3 wrong paths, but there are at most 2 paths",
            "2:43: samples.want.in_all: 61 wrong paths, but there are at most 60 paths (30 questions, 2 each)",
        ],
    ),
    "more corrections than paths": (
        "corrections: {want: 61}",
        ["2:21: corrections.want: 61 accepted corrections, but there are at most 60 paths (30 questions, 2 each) to"],
    ),
    "a limit without a target": (
        "corrections: {max_candidates: 9}",
        ["2:15: corrections.max_candidates: limits the search for a target: say how many accepted corrections you"],
    ),
    "a limit below the target": (
        "corrections: {want: 9, max_candidates: 8}",
        ["2:40: corrections.max_candidates: 8 candidates cannot give the 9 accepted corrections that are wanted"],
    ),
    "a limit between two paths": (
        "corrections: {want: 9, max_candidates: 11, tries: 4}",
        ["2:40: corrections.max_candidates: 11 candidates with 4 tries a path cannot give the 9 accepted"],
    ),
    "a target of none": ("corrections: {want: 0}", ["2:21: corrections.want: needs at least 1, got 0"]),
    "unknown choice": (
        "corrections: {hint: gold}",
        ["2:21: corrections.hint: needs one of none, answer, rationale, got 'gold'"],
    ),
    "size of no kind": (
        "mix: {arms: {cot: {cot: {rows: half}}}}",
        ["2:32: mix.arms.cot.cot.rows: needs 'all' or a whole number or a mapping with fraction or a mapping"],
    ),
    "size out of bounds": (
        "mix: {arms: {cot: {cot: {rows: {fraction: 2}}}}}",
        ["2:43: mix.arms.cot.cot.rows.fraction: needs at most 1, got 2"],
    ),
    "empty arm": ("mix: {arms: {none: {}}}", ["2:14: mix.arms.none: needs cot, corrections or both"]),
    "name with a space": (
        "mix: {arms: {my arm: {cot: {}}}}",
        ["2:14: mix.arms.my arm: the name 'my arm' may hold only letters, digits, _ and -"],
    ),
    "reserved arm": ("mix: {arms: {base: {cot: {}}}}", ["2:14: mix.arms.base: `base` is the model before"]),
    "reserved model": ("models: {base: {backend: scripted}}", ["2:10: models.base: `base` is the student itself"]),
    "arm that takes nothing": (
        "mix: {arms: {cot: {cot: {rationales: false}}}}",
        ["2:20: mix.arms.cot.cot: takes nothing: `rationales` and `corrected` are false and `samplers` is"],
    ),
    "arm sized twice": (
        "mix: {arms: {cot: {cot: {rows: 5, tokens: 9}}}}",
        ["2:20: mix.arms.cot.cot: is sized by rows or by tokens, not by both"],
    ),
    "unknown arm to match in tokens": (
        "mix: {arms: {cot: {cot: {tokens: {match: lima}}}}}",
        ["2:42: mix.arms.cot.cot.tokens.match: unknown arm 'lima'; did you mean 'lema'? allowed: lema"],
    ),
    "arms in a circle of rows and tokens": (
        "mix:\n  arms:\n    cot: {cot: {rows: {match: lema}}}\n    lema: {cot: {tokens: {match: cot}}}",
        ["4:5: mix.arms.cot: is sized by itself: cot -> lema -> cot"],
    ),
    "unknown format of an arm": (
        "mix: {arms: {lema: {corrections: {format: corection}}}}",
        ["2:43: mix.arms.lema.corrections.format: there is no prompt 'corection' in recipes/prompts; did you mean"],
    ),
    "answer in the input of an arm's format": (
        "mix: {arms: {lema: {corrections: {format: {user: '{{ wrong }}', assistant: '{{ full }}'}}}}}",
        ["2:50: mix.arms.lema.corrections.format.user: unknown variable 'wrong'; allowed: path, question, steps"],
    ),
    "correction in an arm's CoT format": (
        "mix: {arms: {cot: {cot: {format: correction}}}}",
        [
            "prompts/correction.yaml:1:7: mix.arms.cot.cot.format.user: unknown variable 'path'; allowed: question",
            "prompts/correction.yaml:2:12: mix.arms.cot.cot.format.assistant: unknown variable 'explanation'",
            "prompts/correction.yaml:2:12: mix.arms.cot.cot.format.assistant: unknown variable 'incorrect_step'",
        ],
    ),
    "nothing to mask": (
        "mix: {arms: {lema: {corrections: {masked: true}}}}",
        ["2:43: mix.arms.lema.corrections.masked: nothing to mask: the format of these rows does not write out"],
    ),
    "source of an export without a licence": (
        "export: {sources: [{name: GSM8K}]}",
        ["2:20: export.sources.0: missing key 'license'"],
    ),
    "unknown arm to match": (
        "mix: {arms: {cot: {cot: {rows: {match: lima}}}}}",
        ["2:40: mix.arms.cot.cot.rows.match: unknown arm 'lima'; did you mean 'lema'? allowed: lema"],
    ),
    "arms in a circle": (
        "mix:\n  arms:\n    cot: {cot: {rows: {match: lema}}}\n    lema: {cot: {rows: {match: cot}}}",
        ["4:5: mix.arms.cot: is sized by itself: cot -> lema -> cot"],
    ),
    "unknown task": (
        "questions: {task: word_problem}",
        ["2:19: questions.task: unknown task 'word_problem'; did you mean 'word_problems'? allowed: "],
    ),
    "task from nowhere": (
        "questions: {task: 'nowhere.at_all:task'}",
        ["2:19: questions.task: task 'nowhere.at_all:task': there is no module 'nowhere'"],
    ),
    "task from the standard library": (
        "questions: {task: 'subprocess:run'}",
        ["2:19: questions.task: task 'subprocess:run': parts do not come from Python's standard library"],
    ),
    "not a task": (
        "questions: {task: 'lema.filters.changed:changed'}",
        ["2:19: questions.task: lema.filters.changed:changed is not a lema.tasks.Task"],
    ),
    "task that generates nothing": (
        "source: {generator: gsm8k}",
        ["2:21: source.generator: the task gsm8k has no generator"],
    ),
    "unknown option of a generator": (
        "source: {options: {seeds: 1}}",
        ["2:20: source.options.seeds: unknown option 'seeds'; did you mean 'seed'? allowed: "],
    ),
    "option that a generator refuses": (
        "source: {options: {largest: 1}}",
        ["2:19: source.options: largest is at least 20, not 1"],
    ),
    "endless source": ("source: {test: null}", ["2:1: source: a generator never ends; say how many `test` records"]),
    "unknown filter": (
        "verdicts:\n  filters:\n    - has_field",
        ["4:7: verdicts.filters.0: unknown filter 'has_field'; did you mean 'has_fields'? allowed: "],
    ),
    "unknown option of a filter": (
        "verdicts:\n  filters:\n    - max_tokens: {limits: 1, limit: 2}",
        ["4:20: verdicts.filters.0.max_tokens.limits: unknown option 'limits'; did you mean 'limit'? allowed: limit"],
    ),
    "wrong option of a filter": (
        "verdicts:\n  filters:\n    - max_tokens: {limit: many}",
        ["4:27: verdicts.filters.0.max_tokens.limit: option 'limit' needs a whole number, got 'many'"],
    ),
    "filter that judges anyway": (
        "verdicts: {filters: [contamination]}",
        ["2:22: verdicts.filters.0: contamination judges every recipe as it is; `verdicts: {contamination: ...}` sets"],
    ),
    "what a filter is given is no option": (
        "verdicts:\n  filters:\n    - majority: {task: gsm8k}",
        ["4:18: verdicts.filters.0.majority.task: unknown option 'task'; allowed: of, threshold"],
    ),
    "unknown model and prompt of a judge": (
        "verdicts:\n  filters:\n    - judge: {model: strng, prompt: corect}",
        [
            "4:22: verdicts.filters.0.judge.model: unknown model 'strng'; did you mean 'strong'? allowed: strong",
            "4:37: verdicts.filters.0.judge.prompt: there is no prompt 'corect' in recipes/prompts; did you mean",
        ],
    ),
    "the student is no judge": (
        "verdicts: {filters: [judge: {model: base, prompt: correct}]}",
        ["2:37: verdicts.filters.0.judge.model: unknown model 'base'; allowed: strong"],
    ),
    "unknown variable of a judge": (
        "verdicts:\n  filters:\n    - judge:\n        model: strong\n        prompt:\n"
        "          user: |\n            Hm\n            {{ sulution }}",
        ["9: verdicts.filters.0.judge.prompt.user: unknown variable 'sulution'; did you mean 'solution'? allowed: "],
    ),
    "judge with a prompt of no form": (
        "verdicts: {filters: [judge: {model: strong, prompt: {user: x, usr: y}}]}",
        ["2:63: verdicts.filters.0.judge.prompt: unknown key 'usr'; did you mean 'user'?"],
    ),
    "contamination of no kind": (
        "verdicts: {contamination: no}",
        ["2:27: verdicts.contamination: needs a mapping with ngram, limit, files, field or false, got 'no'"],
    ),
    "unknown key of contamination": (
        "verdicts: {contamination: {ngrm: 3}}",
        ["2:28: verdicts.contamination: unknown key 'ngrm'; did you mean 'ngram'?"],
    ),
    "no file of test questions": (
        "verdicts: {contamination: {files: [data/sources/more.jsonl]}}",
        ["2:36: verdicts.contamination.files.0: there is no file data/sources/more.jsonl"],
    ),
    "filter of no form": ("verdicts: {filters: [{a: 1, b: 2}]}", ["2:22: verdicts.filters.0: needs a name, or one"]),
    "unknown backend": (
        "models: {strong: {backend: open_ai}}",
        ["2:28: models.strong.backend: unknown backend 'open_ai'; did you mean 'openai'? allowed: "],
    ),
    "model without a name": (
        "models: {strong: {name: null}}",
        ["2:10: models.strong: the backend openai needs `name`"],
    ),
    "unknown endpoint": (
        "models: {strong: {endpoint: locl}}",
        ["2:29: models.strong.endpoint: params.yaml has no endpoint 'locl' in `run.endpoints`; did you mean 'local'?"],
    ),
    "missing environment variable": (
        "models: {strong: {endpoint: paid}}",
        ["params.yaml:9:47: run.endpoints.paid.key: the environment variable PAID_KEY is not set; the recipe broken"],
    ),
    "unknown model": (
        "corrections: {model: stong}",
        ["2:22: corrections.model: unknown model 'stong'; did you mean 'strong'? allowed: base, strong"],
    ),
    "unknown model of a sampler": (
        "samples: {samplers: {student: {model: bass}}}",
        ["2:39: samples.samplers.student.model: unknown model 'bass'; did you mean 'base'? allowed: base, strong"],
    ),
    "unknown sampler": (
        "corrections: {samplers: [studnt]}",
        ["2:26: corrections.samplers.0: unknown sampler 'studnt'; did you mean 'student'? allowed: student"],
    ),
    "unknown sampler of an arm": (
        "mix: {arms: {cot: {cot: {samplers: [strong]}}}}",
        ["2:37: mix.arms.cot.cot.samplers.0: unknown sampler 'strong'; allowed: student"],
    ),
    "unknown sampler of an arm's corrections": (
        "mix: {arms: {cot: {corrections: {samplers: [studnt]}}}}",
        ["2:45: mix.arms.cot.corrections.samplers.0: unknown sampler 'studnt'; did you mean 'student'?"],
    ),
    "corrections of a sampler whose paths nobody corrects": (
        "samples: {samplers: {other: {model: base, prompt: cot}}}\ncorrections: {samplers: [student]}\n"
        "mix: {arms: {cot: {corrections: {samplers: [other]}}}}",
        ["4:45: mix.arms.cot.corrections.samplers.0: nobody corrects paths of 'other'; allowed: student"],
    ),
    "unknown prompt": (
        "answers: {prompt: cto}",
        ["2:19: answers.prompt: there is no prompt 'cto' in recipes/prompts; did you mean 'cot'? allowed: correct,"],
    ),
    "prompt from elsewhere": (
        "answers: {prompt: ../../params}",
        ["2:19: answers.prompt: there is no prompt '../../params' in recipes/prompts; "],
    ),
    "unknown variable": (
        "answers:\n  prompt:\n    user: |\n      Question:\n      {{ qestion }}",
        ["6: answers.prompt.user: unknown variable 'qestion'; did you mean 'question'? allowed: question"],
    ),
    "gold answer for a blind corrector": (
        "corrections: {prompt: {user: '{{ path }} {{ gold }}'}}",
        ["2:30: corrections.prompt.user: unknown variable 'gold'; allowed: path, question, steps (`gold` is given"],
    ),
    "answer in the input of an example": (
        "mix: {cot: {user: '{{ question }} {{ answer }}', assistant: '{{ answer }}'}}",
        ["2:19: mix.cot.user: unknown variable 'answer'; allowed: question"],
    ),
    "format without a reply": (
        "mix: {cot: null}\n",
        ["2:1: mix: missing key 'cot'"],
    ),
    "format without an assistant": (
        "mix: {cot: solve}",
        ["prompts/solve.yaml:1:1: mix.cot: needs an `assistant` template: what the model learns to write"],
    ),
    "broken template": (
        "answers: {prompt: {user: 'Q: {{ question'}}",
        ["2:26: answers.prompt.user: unexpected end of template"],
    ),
    "call in a template": (
        "answers: {prompt: {user: '{{ question.upper() }}'}}",
        ["2:26: answers.prompt.user: a call is not available in prompts"],
    ),
    "demonstration without a variable": (
        "answers:\n  prompt:\n    user: '{{ question }}'\n    assistant: '{{ reply }}'\n    demonstrations:\n"
        "      - {question: a}",
        ["7:9: answers.prompt.demonstrations.0: lacks the variable 'reply'; allowed: question"],
    ),
    "demonstrations without a reply": (
        "answers: {prompt: {user: '{{ question }}', demonstrations: [{question: a}]}}",
        ["2:11: answers.prompt: demonstrations need an `assistant` template"],
    ),
    "reference without a hint": (
        "models: {strong: {backend: reference, name: null, endpoint: null}}",
        ["good.yaml:9:1: corrections.hint: the reference corrector compares a path with the gold rationale"],
    ),
    "reference as locator without a hint": (
        "models: {r: {backend: reference}}\nlocations: {model: r, prompt: correct}",
        ["3:1: locations.hint: the reference corrector compares a path with the gold rationale"],
    ),
    "unknown model of a locator": (
        "locations: {model: stong, prompt: correct}",
        ["2:20: locations.model: unknown model 'stong'; did you mean 'strong'?"],
    ),
    "incorrect step without locations": (
        "corrections: {prompt: {user: '{{ path }} {{ incorrect_step }}'}}",
        ["2:30: corrections.prompt.user: unknown variable 'incorrect_step'; allowed: path, question, steps ("],
    ),
    "no explanation, and a filter and a format that want one": (
        "corrections: {without: [explanation]}",
        [
            "2:24: corrections.without: has_fields drops corrections without explanation: write `has_fields: {without",
            "prompts/correction.yaml:2:12: mix.correction.assistant: unknown variable 'explanation'; allowed: after,",
        ],
    ),
    "error that takes a model": (
        "samples: {samplers: {slips: {inject: {errors: [misread question]}}}}",
        ["2:22: samples.samplers.slips: only a model can make the error 'misread question'; name one, or choose"],
    ),
    "unknown error": (
        "samples: {samplers: {slips: {inject: {errors: [typo]}}}}",
        ["2:48: samples.samplers.slips.inject.errors.0: needs one of"],
    ),
    "local model by an absolute path": (
        "models: {strong: {backend: transformers, endpoint: null, name: /models/big}}",
        ["2:64: models.strong.name: /models/big is an absolute path; write it relative to the project's folder"],
    ),
    "unknown sampler to begin with": (
        "samples: {samplers: {hot: {branch: {of: studnt}, model: strong, prompt: solve}}}",
        ["2:41: samples.samplers.hot.branch.of: 'studnt' is no sampler; did you mean 'student'? allowed: student"],
    ),
    "sampler that begins with another": (
        "samples: {samplers: {a: {inject: {of: b}}, b: {inject: {of: student}}}}",
        ["2:39: samples.samplers.a.inject.of: 'b' is no sampler whose paths others can be made of; allowed: student"],
    ),
    "variable of another kind of sampler": (
        "samples: {samplers: {student: {prompt: {user: '{{ path }}'}}}}",
        ["2:47: samples.samplers.student.prompt.user: unknown variable 'path'; allowed: question"],
    ),
    "task that cannot write": (
        "questions: {task: 'recipes.lema_test_tasks:toy'}\n"
        "evolved: {questions: 3, write: {model: strong, prompt: solve}, solve: {model: strong, prompt: solve}}",
        ["3:1: evolved: the task recipes.lema_test_tasks:toy cannot write records of new questions"],
    ),
    "unknown model of an evolution": (
        "evolved: {questions: 3, write: {model: strong, prompt: solve}, solve: {model: stong, prompt: solve}}",
        ["2:79: evolved.solve.model: unknown model 'stong'; did you mean 'strong'?"],
    ),
    "questions that another recipe does not evolve": (
        "source: {generator: null, train: null, test: null, evolved: good}",
        ["2:61: source.evolved: the recipe good has no `evolved`"],
    ),
    "questions of nobody": (
        "source: {generator: null, train: null, test: null, evolved: god}",
        ["2:61: source.evolved: there is no recipes/god.yaml"],
    ),
    "its own questions": (
        "source: {generator: null, train: null, test: null, evolved: broken}",
        ["2:61: source.evolved: a recipe cannot draw its questions from itself"],
    ),
    "originals of nothing": (
        "source: {originals: true}",
        ["2:1: source: originals are those of an evolved recipe"],
    ),
    "test records of nobody": (
        "source: {generator: null, train: null, evolved: good, test_from: train}",
        ["2:1: source: the test records are those of the recipe in `evolved`, not from `test_from: train`"],
    ),
    "adapter of no arm": (
        "models: {first: {backend: transformers, adapter: good/lima}}",
        ["2:50: models.first.adapter: the recipe good trains no good/lima; did you mean 'good/lema'? allowed: good"],
    ),
    "adapter behind an endpoint": (
        "models: {strong: {adapter: good/lema}}",
        [
            "2:28: models.strong.adapter: an adapter is asked with `backend: transformers` or `backend: vllm`, and "
            "neither name nor",
            "good.yaml:9:22: corrections.model: models with an adapter serve samplers only",
        ],
    ),
    "adapter as a corrector": (
        "models: {first: {backend: transformers, adapter: good/lema}}\ncorrections: {model: first}",
        ["3:22: corrections.model: models with an adapter serve samplers only"],
    ),
    "adapter as a judge": (
        "models: {first: {backend: transformers, adapter: good/lema}}\nverdicts: {filters: [judge: {model: first, "
        "prompt: {user: '{{ path }}'}}]}",
        ["3:37: verdicts.filters.0.judge.model: models with an adapter serve samplers only"],
    ),
    "seed that is no number": (
        "models: {first: {backend: transformers, name: tiny, adapter: good/lema/x}}",
        ["2:62: models.first.adapter: needs RECIPE/ARM or RECIPE/ARM/SEED, got 'good/lema/x'"],
    ),
    "seed of an arm that is trained once": (
        "models: {first: {backend: transformers, adapter: good/lema/3}}",
        ["2:50: models.first.adapter: the recipe good trains no good/lema/3; did you mean 'good/lema'? allowed: good/"],
    ),
    "arm of several seeds": (
        "models: {first: {backend: transformers, adapter: lema_test_seeds/lema}}",
        ["2:50: models.first.adapter: the recipe lema_test_seeds trains no lema_test_seeds/lema; did you"],
    ),
    "its own adapter": (
        "models: {first: {backend: transformers, adapter: broken/lema}}",
        ["2:50: models.first.adapter: a recipe cannot sample from its own adapters"],
    ),
    "missing file": (
        "source: {generator: null, file: 'data/sources/x-{split}.jsonl'}",
        [
            "2:33: source.file: there is no file data/sources/x-test.jsonl",
            "2:33: source.file: there is no file data/sources/x-train.jsonl",
        ],
    ),
    "missing file to import": (
        "samples: {samplers: {others: {import: {file: paths.jsonl}}}}",
        ["2:46: samples.samplers.others.import.file: there is no file paths.jsonl"],
    ),
    "file of another kind": (
        "samples: {samplers: {others: {import: {file: paths.txt}}}}",
        ["2:46: samples.samplers.others.import.file: paths.txt needs one of the endings .jsonl, .csv, .parquet"],
    ),
    "absolute path": (
        "samples: {samplers: {others: {import: {file: /tmp/paths.jsonl}}}}",
        ["2:46: samples.samplers.others.import.file: /tmp/paths.jsonl is an absolute path"],
    ),
    "missing folder": (
        "base: {embedded: null, folder: models/mine}",
        ["2:32: base.folder: there is no folder models/mine"],
    ),
    "base of a recipe that is not there": (
        "base: {embedded: null, folder: data/nope/base}",
        ["2:32: base.folder: there is no folder data/nope/base"],
    ),
    "its own base": (
        "base: {embedded: null, folder: data/broken/base}",
        ["2:32: base.folder: a recipe cannot build on what it makes itself"],
    ),
    "file of a recipe that is not there": (
        "samples: {samplers: {others: {import: {file: data/nope/samples.parquet}}}}",
        ["2:46: samples.samplers.others.import.file: there is no file data/nope/samples.parquet"],
    ),
    "file without a test split": (
        "source: {generator: null, file: params.jsonl}",
        ["2:33: source.file: one file has no test split", "2:33: source.file: there is no file params.jsonl"],
    ),
    "more questions than records": (
        "questions: {train: 50}",
        ["2:20: questions.train: 50 questions, but `source.train` keeps 40 records"],
    ),
    "more dev questions than train leaves": (
        "questions: {train: 30, dev: 11}",
        ["2:29: questions.dev: 11 questions beside 30 to learn from, but `source.train` keeps 40 records"],
    ),
    "answers to no dev questions": (
        "answers: {dev: true}",
        ["2:16: answers.dev: there are no dev questions; say how many in `questions.dev`"],
    ),
    "transfer sets": (
        """questions:
  transfer:
    dev: {source: {file: good.yaml}}
    more: {task: gsm9k, source: {generator: word_problems, options: {steps: [0]}}, test: 0}
    less: {source: {generator: gsm8k, train: 3, test: 4}, test: 5}
    last: {source: {evolved: good}}
""",
        [
            "4:5: questions.transfer.dev: `dev` has a meaning of its own; give this set another name",
            "4:26: questions.transfer.dev.source.file: good.yaml needs one of the endings .jsonl, .csv, .parquet",
            "5:5: questions.transfer.more: needs at least 1 question",
            "5:18: questions.transfer.more.task: unknown task 'gsm9k'",
            "5:25: questions.transfer.more.source: a generator never ends; say how many `test` records",
            "5:69: questions.transfer.more.source.options: steps are numbers from 1 to 6, not [0]",
            "6:32: questions.transfer.less.source.generator: the task gsm8k has no generator",
            "6:39: questions.transfer.less.source: unknown key 'train'; allowed: config, file, generator, hub, options",
            "6:65: questions.transfer.less.test: 5 questions, but its `source.test` keeps 4 records",
            "7:21: questions.transfer.last.source: unknown key 'evolved'; allowed: config, file, generator, hub,",
        ],
    ),
    "seeds": ("adapter: {seed: 1, seeds: [1, 2]}", ["2:1: adapter: needs one of seed, seeds"]),
    "the same seed twice": ("adapter: {seeds: [3, 3]}", ["2:1: adapter: seeds: the same seed twice would train"]),
    "votes": (
        "answers: {votes: {temperature: 0}}",
        [
            "2:11: answers.votes: missing key 'paths'",
            "2:32: answers.votes.temperature: needs more than 0, got 0",
        ],
    ),
    "no test questions": (
        "questions: {test: 0}",
        ["2:19: questions.test: needs at least 1: there would be nothing to"],
    ),
    "repeated key": ("adapter:\n  rank: 1\n  rank: 2", ["4:3: the key 'rank' is here a second time"]),
    "date": ("description: 2024-01-01", ["2:14: 2024-01-01 is a date to YAML, which DVC cannot track; put it in"]),
    "number as a key": ("models: {1: {backend: scripted}}", ["2:10: the key 1 is not a text; put it in quotes"]),
    "not YAML": ("adapter: {rank: 1", ["3:1: not valid YAML: expected ',' or '}', but got '<stream end>'"]),
    "tab": ("adapter:\n\trank: 1", ["3:1: not valid YAML: found character '\\t' that cannot start any token"]),
    "tag": ("description: !!python/name:os.system x", ["2:14: a tag (!) is not allowed"]),
    "sampler that is a mapping": (
        "corrections: {samplers: [{a: 1}]}",
        ["2:26: corrections.samplers.0: needs a text, got a mapping"],
    ),
    "sampler of an arm that is a list": (
        "mix: {arms: {lema: {corrections: {samplers: [[a]]}}}}",
        ["2:46: mix.arms.lema.corrections.samplers.0: needs a text, got a list"],
    ),
    "number as a sampler": (
        "samples: {samplers: {student: 5}}",
        ["2:31: samples.samplers.student: needs a mapping, got 5"],
    ),
    "character beyond Unicode": ('description: "\\U00110000"', [": not valid YAML: chr() arg not in range(0x110000)"]),
    "half of a character": ('description: "\\ud800"', ["2:14: half of a character (a lone surrogate)"]),
    "command of a terminal": (
        'reports: {}\n"\\e[31mred\\n": {}',
        ["2:1: unknown key 'reports'; did you mean 'report'?", "3:1: unknown key '\\x1b[31mred\\n'; allowed: "],
    ),
    "several": (
        "questions: {train: x}\nadapter: {rnk: 1}\nverdicts: {filters: [chnged]}\nanswers: {prompt: {user: '{{ q }}'}}",
        [
            "2:20: questions.train: needs a whole number, got 'x'",
            "3:11: adapter: unknown key 'rnk'; did you mean 'rank'?",
            "4:22: verdicts.filters.0: unknown filter 'chnged'; did you mean 'changed'?",
            "5:26: answers.prompt.user: unknown variable 'q'; allowed: question",
        ],
    ),
}
TOY = """\
from lema.tasks import Reading, Task

def read(record):
    if "question" not in record:
        raise ValueError("needs `question`")
    return Reading("?", "1", None)

toy = Task("toy", read, str, str.__eq__)
"""
JARGON = ("pydantic", "validation error", "Input should", "Traceback", "https://errors", "type=")


@pytest.mark.parametrize("kind", BROKEN)
def test_broken(project, kind):
    text, expected = BROKEN[kind]
    project.write("recipes/lema_test_tasks.py", TOY)
    project.write("recipes/lema_test_seeds.yaml", "extends: good.yaml\nadapter: {seeds: [7, -2]}\n")
    project.write("recipes/broken.yaml", f"extends: good.yaml\n{text}\n")
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
    "too long": (
        {"a": f"extends: {'b/' * 3000}c.yaml"},
        "a.yaml:1:10: extends: there is no file of this",
    ),
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


PARAMS = {
    "no file": ("", None, "params.yaml: is not here; lema runs in the folder of a project"),
    "recipe without file": (
        "recipes:\n",
        "recipes:\n  god: constraints.txt\n",
        "params.yaml:2:3: recipes.god: there is no recipes/god.yaml; did you mean 'good'? allowed: good",
    ),
    "arm left out": (
        "  good-lema: {recipe: good, arm: lema}\n",
        "",
        "params.yaml:3:1: runs: arm 'lema' of the recipe good is missing; add the line "
        "`good-lema: {recipe: good, arm: lema}`",
    ),
    "run of no recipe": (
        "runs:\n",
        "runs:\n  goo-cot: {recipe: goo, arm: cot}\n",
        "params.yaml:4:21: runs.goo-cot.recipe: the recipe 'goo' is not in `recipes`; did you mean 'good'?",
    ),
    "run of no arm": (
        "runs:\n",
        "runs:\n  good-cut: {recipe: good, arm: cut}\n",
        "params.yaml:4:33: runs.good-cut.arm: the recipe good has no arm 'cut'; did you mean 'cot'? allowed: cot, lema",
    ),
    "run of another name": (
        "good-cot:",
        "good-cut:",
        "params.yaml:4:3: runs.good-cut: a run is named after its recipe and arm: write `good-cot`",
    ),
    "file that is not read": (
        "good: constraints.txt",
        "good: data/x",
        "params.yaml:2:9: recipes.good: the recipe good reads no file outside it; write `good: constraints.txt`",
    ),
    "forbidden name": (
        "recipes:\n",
        'recipes:\n  "go.od": constraints.txt\n',
        "params.yaml:2:3: recipes.go.od: the name 'go.od' may hold only letters, digits, _ and -",
    ),
    "unknown key": (
        "run:\n",
        "run:\n  worker: 2\n",
        "params.yaml:7:3: run: unknown key 'worker'; did you mean 'workers'?",
    ),
    "unknown executor": (
        "run:\n",
        "run:\n  executor: dask\n",
        "params.yaml:7:13: run.executor: needs one of local, ray, got 'dask'",
    ),
    "trainers that cannot share a batch": (
        "run:\n",
        "run:\n  trainers: 3\n",
        "params.yaml:7:13: run.trainers: the recipe good learns from 8 examples an optimizer step (batch times "
        "accumulate), which 3 trainers cannot share equally",
    ),
    "trainers without Ray": (
        "run:\n",
        "run:\n  executor: local\n  trainers: 2\n",
        "params.yaml:6:1: run: trainers and trainings above 1 need executor: ray",
    ),
    "actors without Ray": (
        "  endpoints:\n",
        "  executor: local\n  endpoints:\n    here: {url: 'http://h', actors: 2}\n",
        "params.yaml:6:1: run: endpoints.here.actors above 1 needs executor: ray",
    ),
    "more actors than requests at a time": (
        "  endpoints:\n",
        "  endpoints:\n    here: {url: 'http://h', concurrency: 4, actors: 5}\n",
        "params.yaml:8:5: run.endpoints.here: actors is 5, and so many cannot share a limit of 4",
    ),
    "actors of batches": (
        "  endpoints:\n",
        "  endpoints:\n    here: {url: 'http://h', mode: batch, actors: 2}\n",
        "params.yaml:8:5: run.endpoints.here: actors above 1 needs mode: online",
    ),
    "a model on two GPUs of two workers": (
        "run:\n",
        "run:\n  vllm: {tensor_parallel_size: 2}\n",
        "params.yaml:6:1: run: vllm.tensor_parallel_size above 1 needs executor: local",
    ),
    "repeated run": (
        "good-lema:",
        "good-cot:",
        "params.yaml:5:3: the key 'good-cot' is here a second time",
    ),
    "date": ("run:\n", "run:\n  workers: 2024-01-01\n", "params.yaml:7:12: 2024-01-01 is a date to YAML"),
}


@pytest.mark.parametrize("kind", PARAMS)
def test_params(project, kind):
    old, new, expected = PARAMS[kind]
    if new is None:
        (project.root / "params.yaml").unlink()
    else:
        project.edit("params.yaml", old, new)
    said = [str(problem) for problem in check(None, project.root, {}).problems]
    assert any(line.startswith(expected) for line in said), said


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
