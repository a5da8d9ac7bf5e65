"""Markdown from a template in which no value is markup, and the page that is made of it.

The text is rendered once, with a marker in the place of every chart: in the Markdown it becomes the chart's line of
characters, in the page its SVG.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from lema.report.charts import Chart, bar, interval, scale
from lema.report.data import short_digests
from lema.report.findings import points, probability

# Noncharacters (Unicode, 23.7), which `escape_markdown` takes out of every value.
_MARKER = re.compile("\ufdd0([0-9]+)\ufdd1")
# A paragraph that begins so is a list, a rule or the underline of a heading.
_LEADING = re.compile(r"^(?:([0-9]+)(?=[.)](?:\s|$))|(?=[-+=](?:[-+=\s]|$)))")
_FOLDED = "settings-and-provenance"


def escape_markdown(value: object) -> str:
    """One line for a paragraph or a table cell: nothing in it is markup or HTML."""
    line = " ".join(re.sub("[\ufdd0-\ufdef]", "", str(value)).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LEADING.sub(r"\1\\", re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", line))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table, numbers with thousands apart and on the right."""
    lines = [list(row) for row in rows]
    right = [all(isinstance(row[at], int) for row in lines) and bool(lines) for at in range(len(header))]
    cells = [[f"{cell:,}" if isinstance(cell, int) else escape_markdown(cell) for cell in row] for row in lines]
    rule = "|".join("--:" if yes else "---" for yes in right)
    return [f"| {' | '.join(header)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in cells)]


def render_report(title: str, context: Mapping[str, Any]) -> tuple[str, str]:
    """The report as a page and as Markdown."""
    charts: list[Chart] = []
    text = _jinja_templates().get_template("report.md.j2").render(context, title=title, _charts=charts)
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    body = _MARKER.sub(lambda found: charts[int(found[1])].svg, to_html(text))
    page = _jinja_templates().get_template("report.html.j2").render(title=Markup.escape(title), body=Markup(body))
    return page.strip() + "\n", _MARKER.sub(lambda found: charts[int(found[1])].text, text)


@cache
def _jinja_templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # what macros return is known to be escaped
        finalize=_escaped_output,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"bar": bar, "interval": interval, "points": points, "probability": probability, "scale": scale}
    made.globals |= {
        "pct": lambda share: f"{points(share)}%",
        "decimal": lambda value: f"{value:+.2f}".replace("-", "−"),
    }
    made.filters |= {"points": points, "short_digests": short_digests}
    return made


@pass_context
def _escaped_output(context: Context, value: Any) -> Markup:
    """What an expression of the template writes: values are escaped, charts become markers."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, Chart):
        context["_charts"].append(value)
        return Markup(f"\ufdd0{len(context['_charts']) - 1}\ufdd1")
    return Markup(f"{value:,}" if isinstance(value, int) else escape_markdown(value))


def to_html(text: str) -> str:
    """The body of the page: a section for every `##`, an article for every `###`, folded in the last section. HTML,
    links and images are not read."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["link", "image", "autolink", "html_inline", "html_block", "reference", "code"])
    return str(parser.renderer.render(list(_sectioned(parser.parse(text))), parser.options, {}))


def _sectioned(tokens: Sequence[Token]) -> Iterator[Token]:
    section = inner = ""
    for at, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag in ("h2", "h3"):
            if inner:
                yield _html_token(f"</{inner}>\n")
            inner = ""
            if token.tag == "h2":
                yield _html_token("</section>\n" * bool(section))
                section = re.sub(r"\W+", "-", tokens[at + 1].content.lower())
                yield _html_token(f'<section id="{section}">\n')
            else:
                inner = "details" if section == _FOLDED else "article"
                yield _html_token(f"<{inner}>\n")
        if inner == "details" and token.tag == "h3":
            token.tag = "summary"
        if token.type == "table_open":
            yield _html_token('<div class="scroll">\n')
        yield token
        if token.type == "table_close":
            yield _html_token("</div>\n")
    yield _html_token(f"</{inner}>\n" * bool(inner) + "</section>\n" * bool(section))


def _html_token(content: str) -> Token:
    return Token("html_block", "", 0, content=content)
