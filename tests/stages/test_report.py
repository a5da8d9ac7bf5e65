import copy
import html
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import yaml

from lema.recipe.training_schema import ReportSpec
from lema.report.charts import axis, histogram, interval, position
from lema.report.counts import count_rows
from lema.report.markdown import escape_markdown, points, probability, to_html, yaml_block
from lema.rows import Evolved
from lema.stages.report import ReportFiles, report
from tests.stages.rows import located
from tests.stages.world import FILTERS, PROMPT, world

WORLD = world()
SPEC = ReportSpec()
VOID = {"meta", "line", "circle", "rect", "polyline"}


def made(spec: ReportSpec = SPEC, **changes: Any) -> ReportFiles:
    return report(**{**WORLD, **changes}, spec=spec)


class Balance(HTMLParser):
    """Checks that every tag is closed in order, and collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text.append(data)


def read(page: str) -> str:
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    return " ".join("".join(parser.text).split())


def table_heights(markdown: str) -> list[int]:
    """The lines of every table, all of whose lines have equally many cells."""
    tables = [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)]
    assert all(len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1 for lines in tables)
    return [len(lines) for lines in tables]


def rescored(name: str, **figures: Any) -> dict[str, Any]:
    """The scores of the world with other figures of one pair of models."""
    scores = copy.deepcopy(WORLD["scores"])
    scores["pairs"][name] |= figures
    return scores


def lead(difference: float, low: float, high: float, p: float, **figures: float) -> dict[str, Any]:
    """Inputs in which lema - cot-more, the pair that the page leads with, has these figures."""
    mirrored = {"difference": -difference, "low": -high, "high": -low, "p": p, "holm": p} | figures
    return {"scores": rescored("cot-more-minus-lema", **mirrored)}


def other_control(difference: float) -> dict[str, Any]:
    return {"scores": rescored("lema-minus-cot", difference=difference, holm=0.012)}


def with_tokens(**tokens: int) -> dict[str, Any]:
    return {"adapters": {arm: WORLD["adapters"][arm] | {"loss_tokens_an_epoch": n} for arm, n in tokens.items()}}


def test_the_page_is_whole_and_asks_for_nothing() -> None:
    page = made().html
    text = read(page)
    assert not re.search(r"https?:|src=|href=|<script|<link|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
    for section in ("Arms side by side", "Corrections dropped", "Kinds of mistakes", "Training", "Settings"):
        assert section in text
    assert not {"None", "nan", "Contamination"} & set(text.split())


def test_the_page_holds_every_cell_and_paragraph_of_the_markdown() -> None:
    both = made()
    page = read(both.html)
    parts = re.split(r"^```(?:yaml)?$", both.markdown, flags=re.MULTILINE)
    assert all(" ".join(block.split()) in page for block in parts[1::2])
    for line in "".join(parts[::2]).splitlines():
        for cell in re.split(r"(?<!\\)\|", line.lstrip("# ")) if not line.startswith("|-") else []:
            text = html.unescape(re.sub(r"\\(.)", r"\1", re.sub(r"(?<!\\)[*`]", "", cell))).strip()
            assert " ".join(text.split()) in page


def test_equal_rows_give_equal_bytes() -> None:
    assert made() == made() == report(**world(), spec=SPEC)


def test_counts_are_those_of_the_rows() -> None:
    markdown = made().markdown
    incorrect = sum(row.outcome == "incorrect" for row in WORLD["grades"])
    accepted = sum(row.accepted for row in WORLD["verdicts"])
    judged = len(WORLD["verdicts"])
    share = f"{100 * incorrect / len(WORLD['samples']):.0f}%"
    assert re.search(rf"\| graded incorrect \| {incorrect} \| {share} \|", markdown)
    assert f"The filters accepted {accepted} of {judged} corrections." in markdown
    kinds = [example.kind for example in WORLD["mix"]["lema"]]
    assert f"{kinds.count('cot')} CoT, {kinds.count('correction')} corrections" in markdown
    for arm, score in WORLD["scores"]["models"].items():
        assert re.search(rf"\| {arm} \| {score['accuracy'] * 100:.1f}% \|", markdown)
        assert re.search(rf"\| {arm} \| .* \| {score['correct']} \| 0 \| 0 \|", markdown)


def test_the_drop_matrix_counts_pairs_of_filters() -> None:
    drops = [{drop.filter for drop in row.drops} for row in WORLD["verdicts"]]
    both = sum({"answer_matches", "max_tokens"} <= names for names in drops)
    assert 0 < both < sum("answer_matches" in names for names in drops)
    row = re.search(r"^\| 2 answer\\_matches \|(.*)\|", made().markdown, re.MULTILINE)
    assert row is not None
    names = [finding.filter for finding in WORLD["verdicts"][0].findings]
    assert row[1].split("|")[3 + names.index("max_tokens")].strip() == str(both)
    assert re.search(r"\| 3 changed \| 0 \| 0 \| 0 \|", made().markdown)


def test_what_filters_measured_is_set_out_as_quantiles() -> None:
    values = sorted(row.findings[FILTERS.index("max_tokens")].value for row in WORLD["verdicts"])
    middle = values[math.ceil(len(values) / 2) - 1]
    row = re.search(r"^\| max\\_tokens \| (\d+) \| (.*) \|$", made().markdown.partition("Measured |")[2], re.MULTILINE)
    assert row is not None
    quantiles = row[2].split(" | ")
    assert int(row[1]) == len(values)
    assert (quantiles[0], quantiles[3], quantiles[6]) == (f"{values[0]:g}", f"{middle:g}", f"{values[-1]:g}")
    assert f'aria-label="max_tokens: {values[0]:g} to {values[-1]:g}"' in made().html


def test_histograms_hold_every_measurement_once() -> None:
    chart = histogram("f<|", [1, 2, 2.5], [2, 10])
    found = re.findall(r'class="bar( dropped)?" x="([0-9.]+)" .*?height="([0-9.]+)"', chart)
    heights = {True: 0.0, False: 0.0}
    for dropped, _, height in found:
        heights[bool(dropped)] += float(height)
    assert heights[True] / heights[False] == pytest.approx(2 / 3)
    assert len({place for _, place, _ in found}) == 4
    assert 'aria-label="f&lt;&#124;: 1 to 10"' in chart
    assert "rect" not in histogram("f", [3, 3], [])


def test_a_target_that_was_set_is_told_of() -> None:
    accepted, corrected = sum(row.accepted for row in WORLD["verdicts"]), len(WORLD["corrections"])
    wrong = [row for row in WORLD["grades"] if row.outcome == "incorrect"]
    left = len({row.id for row in wrong} - {row.sample_id for row in WORLD["corrections"]})
    assert "wanted" not in made().markdown

    def said(corrections: dict[str, Any], samples: dict[str, Any] | None = None, **rows: Any) -> str:
        plan = {**WORLD["plan"], "corrections": corrections, "samples": {"want": samples or {}}}
        return made(plan=plan, **rows).markdown

    assert f"Of {corrected} corrections, {accepted} were accepted; {accepted} were wanted" in said({"want": accepted})
    missed = f"{accepted + 1} accepted corrections were wanted, and of {corrected} candidates {accepted} were accepted"
    assert f"{missed}: {'all wrong paths were used' if not left else '`max'}" in said({"want": accepted + 1})
    more = [*WORLD["grades"], *(replace(row, id=f"{row.id}0") for row in wrong[:2])]
    text = said({"want": accepted + 1}, {"in_all": len(wrong) + 5}, grades=more).replace("\\", "")
    assert f"`max_candidates` allowed no more, and {left + 2} wrong paths were left as they are." in text
    assert f"{len(wrong) + 5} wrong paths were wanted, and there were {len(wrong) + 2}" in text
    assert "there were 0: all" in said({}, {"in_all": 1, "samplers": ["nobody"]})
    assert "wanted" not in said({}, {"in_all": len(wrong)})


def test_everyone_who_was_asked_is_told() -> None:
    wrong = [row.sample_id for row in WORLD["corrections"]][:4]
    new = Evolved(
        "q/e0", "q", 0, "", ("1",) * 3, 3, True, None, "{}", "writer 1", "34" * 32, "",
        solver="solver 1", solver_prompt="", completions=("a", "b", "c"), prompt_tokens=40, completion_tokens=50,
    )  # fmt: skip
    used = [{"use": "judge", "options": {"model": model, "prompt": PROMPT}} for model in ("a", "b")]
    page = made(
        locations=[located(name, model="finder 1") for name in wrong],
        evolved=[new, replace(new, id="q/e1", index=1), replace(new, id="q/e2", index=2, model="solver 1")],
        plan={**WORLD["plan"], "verdicts": {"filters": used}},
        verdicts=[],
    )
    for line in (
        "| locator | finder 1 | 121212121212 | 8 | 12 |",
        "| evolver | writer 1, solved by solver 1 | 343434343434 | 80 | 100 |",
        "| evolver | solver 1 | 343434343434 | 40 | 50 |",
        "| filter judge | a | cdcdcdcdcdcd | – | – |",
        "| filter judge-2 | b | cdcdcdcdcdcd | – | – |",
    ):
        assert line in page.markdown


UNCHECKED = {**WORLD["plan"], "verdicts": {**WORLD["plan"]["verdicts"], "contamination": False}}
EVEN = {**WORLD["mix"], "cot-more": WORLD["mix"]["cot"][:1] * len(WORLD["mix"]["lema"])}
MORE = len(WORLD["mix"]["lema"]) - len(WORLD["mix"]["cot-more"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (lead(0.1, 0.03, 0.17, 0.004), "helped: 10.0 points more than cot-more"),
        (lead(-0.1, -0.17, -0.03, 0.004), "hurt: 10.0 points less than cot-more"),
        (lead(0.1, -0.03, 0.2, 0.2), "No clear difference"),
        (lead(0.1, -0.1, 0.2, 0.2, detectable=0.138), "of about 13.8 points"),
        (lead(0.0, -0.1, 0.1, 1.0), "answer equally many of 80 test questions"),
        (lead(0.0, 0.0, 0.0, 1.0, detectable=0.348), "no evidence of equality: only one of about 34.8 points"),
        (lead(0.1, -0.5, 0.5, 1.0, detectable=1.0), "cannot tell any"),
        (lead(0.1, 0.01, 0.17, 0.03, holm=0.04), "helped: 10.0 points"),
        (lead(0.1, 0.01, 0.17, 0.03, holm=0.06), "No clear difference"),
        (lead(0.1, 0.01, 0.17, 0.03, holm=0.06), "p = 0.030, corrected for 6 comparisons p = 0.060"),
        (lead(0.1, 0.01, 0.17, 0.03, holm=0.06), "true differences from +1.0 to +17.0 points fit these answers"),
        (other_control(-0.047), "without corrections, lema answers 4.7 points fewer than cot (corrected p = 0.012)."),
        (other_control(0.1), "without corrections, lema answers 10.0 points more than cot (corrected p = 0.012)."),
        (other_control(0.0), "without corrections, lema answers as many as cot (corrected p = 0.012)."),
        ({}, f"lema learnt from {MORE} more rows than cot-more"),
        ({"mix": EVEN}, "Both learnt from equally many rows."),
        (
            with_tokens(**{"cot": 9_000, "lema": 20_100, "cot-more": 20_000}),
            "Both learnt from equally many tokens: lema from 20,100, cot-more from 20,000.",
        ),
        (with_tokens(**{"lema": 20_300, "cot-more": 20_000}), f"lema learnt from {MORE} more rows than cot-more"),
        (with_tokens(lema=20_100), " | 20,100 | "),
        ({"plan": UNCHECKED}, "**Contamination is off in this recipe"),
        ({"plan": UNCHECKED}, "Contamination is off: nobody checked"),
        (world(arms={"base": 0.5, "cot": 0.6}), "No arm learnt from corrections"),
        (world(arms={"base": 0.5, "lema": 0.6}), "lema is compared with the base"),
    ],
)
def test_the_findings_are_what_was_seen_and_no_more(changes: dict[str, Any], says: str) -> None:
    assert says in made(**changes).markdown


def test_trainings_votes_strata_and_other_sets() -> None:
    rich = world(test=120, seeds=3, others=40, votes=4)
    both = report(**rich, spec=SPEC)
    scores = rich["scores"]
    assert "On average over 3 trainings, lema answers" in both.markdown
    assert both.html.count('class="seed"') == 9
    for arm in ("cot", "lema"):
        own = scores["models"][arm]
        seeds = ", ".join(points(accuracy) for accuracy in own["by_seed"].values())
        assert re.search(rf"\| {arm} \| {points(own['accuracy'])}% \|.*\| {seeds} \|", both.markdown)
        voted = [points(own["majority"][figure]) for figure in ("accuracy", "low", "high")]
        assert "| {} | {}% | {}–{} |".format(arm, *voted) in both.markdown
    harder = scores["transfer"]["harder"]["models"]
    figures = " | ".join(f"{points(row['accuracy'])}%" for row in harder.values())
    assert f"| harder | 40 | {figures} |" in both.markdown
    assert "| dev | 40 |" in both.markdown
    lead = scores["transfer"]["harder"]["pairs"]["cot-more-minus-lema"]
    assert f"| {points(-lead['difference'], True)} | {points(-lead['high'], True)} to " in both.markdown
    for value, one in scores["strata"]["steps"].items():
        assert f"| {value} | {one['n']} | {points(one['accuracy']['base'])}% |" in both.markdown
    for said in ("t-test over both questions and seeds", "Other questions", "Test questions by kind", "pass@2"):
        assert said in both.markdown
    assert min(table_heights(both.markdown)) > 2


def test_perplexities_have_a_table_when_there_are_any() -> None:
    figures = {"n": 30, "right": 2.5, "wrong": 2.25, "delta": -0.25, "low": -0.5, "high": 0.004, "preferred": 0.4}
    both = made(scores={**WORLD["scores"], "probe": {"base": figures}})
    assert "| base | 30 | 2.50 | 2.25 | −0.25 | −0.50 to +0.00 | 40.0% |" in both.markdown
    assert "Right and wrong paths" not in made().markdown


def test_nothing_in_a_row_becomes_markup() -> None:
    evil = '</p><script>alert("1")</script><img src=x onerror=y> | **bold** `code` \n\n# head'
    questions = [replace(row, text=evil) for row in WORLD["questions"]]
    corrections = [replace(row, explanation=evil, error_type=evil, model=evil) for row in WORLD["corrections"]]
    samples = [replace(row, text=f"{evil}\nThe answer is 1.") for row in WORLD["samples"]]
    answers = [replace(row, text=evil) for row in WORLD["answers"]]
    drops = [replace(row, reason=row.reason and evil) for row in WORLD["verdicts"]]
    plan = {**WORLD["plan"], "description": evil, evil: {evil: evil}}
    adapters = {arm: {**figures, evil: evil} for arm, figures in WORLD["adapters"].items()}
    both = made(
        ReportSpec(title=evil), plan=plan, questions=questions, corrections=corrections, samples=samples,
        answers=answers, verdicts=drops, adapters=adapters,
    )  # fmt: skip
    assert '<script>alert("1")</script>' in read(both.html)
    assert "<script" not in both.html
    assert "<img" not in both.html
    text = re.sub(r"^```yaml\n.*?^```$", "", both.markdown, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"<(?!!)[a-z/]", text)
    assert not re.search(r"(?<!\\)\*\*bold|(?<!\\)`code|^# head", text, re.MULTILINE)
    assert table_heights(both.markdown)


def test_examples_are_spread_over_error_types_and_show_dropped_ones_too() -> None:
    both = made(ReportSpec(examples=8))
    shown = re.findall(r"^### ([A-Z][a-z ]+) · (?:\*accepted|\*\*dropped)", both.markdown, re.MULTILINE)
    verdicts = re.findall(r"<h3>.*?(accepted|dropped)<", both.html)
    assert verdicts == ["accepted"] * 6 + ["dropped"] * 2
    assert len(shown) == both.markdown.count(" ✗** |") == 8
    assert len(set(shown[:4])) == 4
    assert "Corrections to read" not in made(ReportSpec(examples=0)).html


def test_a_step_is_marked_where_the_corrector_found_the_mistake() -> None:
    accepted = {verdict.id: verdict for verdict in WORLD["verdicts"] if verdict.accepted}
    row = next(row for row in WORLD["corrections"] if row.id in accepted and row.incorrect_step == 2)
    both = made(ReportSpec(examples=1), corrections=[row], verdicts=[accepted[row.id]])
    assert re.search(r"^\| 2 \| \*\*.* ✗\*\* \| \w", both.markdown, re.MULTILINE)
    assert re.search(r"^\| 1 \| \w.* \| \*as before\* \|$", both.markdown, re.MULTILINE)
    assert re.search(r"<td[^>]*>2</td>\n<td><strong>.* ✗</strong></td>", both.html)
    assert html.escape(str(row.explanation), quote=False) in both.html


def test_little_data_is_no_trouble() -> None:
    nothing: dict[str, Any] = {
        "samples": [], "grades": [], "corrections": [], "verdicts": [], "adapters": {},
        "plan": {"recipe": "toy", "description": ""}, "mix": {arm: [] for arm in WORLD["mix"]},
    }  # fmt: skip
    text = read(made(**nothing).html)
    assert "The filters accepted 0 of 0 corrections." in text
    bare = {arm: {"curve": [{"step": 1, "loss": float("nan")}, {"step": 2}]} for arm in WORLD["adapters"]}
    assert "<polyline" not in made(adapters=bare).html


def test_settings_are_yaml_that_nothing_in_them_ends() -> None:
    tree = {"a": {"b": 1.5, "```": 1}, "texts": ["one\n```\n````\ntwo", "\u2028```\r```"], "digest": "ab" * 32}
    fence, *lines, end = yaml_block(tree).splitlines()
    assert (fence, end) == ("```yaml", "```")
    assert not [line for line in lines if line.lstrip().startswith("```")]
    assert yaml.safe_load("\n".join(lines)) == tree | {"digest": "ab" * 6}


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.08, 0.62, [0.0, 0.2, 0.4, 0.6, 0.8]),
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.03, 0.02, [-0.03, -0.02, -0.01, 0.0, 0.01, 0.02]),
        (0.0, 340, [0, 100, 200, 300, 400]),
    ],
)
def test_axes_are_round_and_hold_what_they_show(low: float, high: float, ticks: list[float]) -> None:
    assert axis(low, high) == ticks
    assert position(ticks[-1], ticks) == 100


def test_figures_in_words_and_intervals_as_drawn() -> None:
    assert [points(value, True) for value in (0.051, -0.051, 0.0, -0.0001)] == ["+5.1", "−5.1", "0.0", "0.0"]
    assert [probability(p) for p in (0.0001, 0.0123, 0.5)] == ["< 0.001", "0.012", "0.50"]
    chart = interval({"d": 0.1, "low": -0.1, "high": 0.3}, "d", [-0.2, 0.0, 0.2, 0.4])
    assert 'cx="50.0%"' in chart
    assert 'aria-label="10.0%, interval -10.0% to 30.0%"' in chart


def test_mistakes_are_counted_by_sampler_and_kind_of_question() -> None:
    inputs = {name: WORLD[name] for name in ("plan", "questions", "samples", "grades", "locations", "mix")}
    counts = count_rows(**inputs, corrections=WORLD["corrections"], verdicts=WORLD["verdicts"])
    wrong = {row.id: row.sampler for row in WORLD["grades"] if row.outcome == "incorrect"}
    assert next(iter(counts.kinds)) == "sampler"
    for name, own in counts.kinds["sampler"].items():
        ids = {id_ for id_, sampler in wrong.items() if sampler == name}
        assert own["wrong"] == len(ids)
        assert own["corrections"] == sum(row.sample_id in ids for row in WORLD["corrections"])
        assert own["accepted"] == sum(row.accepted and row.sample_id in ids for row in WORLD["verdicts"])
    accepted = {row.id for row in WORLD["verdicts"] if row.accepted}
    for values in counts.kinds.values():
        sums = [sum(own[figure] for own in values.values()) for figure in ("wrong", "corrections", "accepted")]
        assert sums == [len(wrong), len(WORLD["corrections"]), len(accepted)]
    types = [row.error_type for row in WORLD["corrections"] if row.error_type and row.id in accepted]
    assert counts.accepted_types.total() == len(types)
    (name, own), *_ = counts.kinds["sampler"].items()
    line = "| {} | {wrong} | {corrections} | {accepted} ".format(name, **own)
    assert f"| Sampler | Wrong paths | Corrections | Accepted |\n|---|--:|--:|--:|\n{line}" in made().markdown
    steps = re.findall(r"^\| (\d) \| \d+ \| \d+ \| \d+ \(", made().markdown, re.MULTILINE)
    assert steps == sorted(counts.kinds["steps"])


class Stream:
    """Rows as the pipeline gives them: without length or index, to be iterated over again and again."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __iter__(self) -> Any:
        return iter(self.rows)


def test_rows_may_be_streams() -> None:
    streams = {name: Stream(rows) for name, rows in WORLD.items() if isinstance(rows, list)}
    mix = {arm: Stream(rows) for arm, rows in WORLD["mix"].items()}
    assert made(**streams, mix=mix) == made()


@pytest.mark.parametrize(
    "text",
    ["1. no list", "- no list", "=====", "---", "+ x", "<b>no</b> &amp; <!-- x -->", "![a](b) [c](d) <http://e.f>",
     "`no` *code* __x__ ~~y~~ $z$ a|b", "a\nb\\", "<svg></svg>"],
)  # fmt: skip
def test_escaped_text_means_itself(text: str) -> None:
    shown = html.unescape(to_html(escape_markdown(text)).strip().removeprefix("<p>").removesuffix("</p>"))
    assert shown == " ".join(text.split())
