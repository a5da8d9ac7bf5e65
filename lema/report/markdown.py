"""Markdown from templates in which no value is markup, and the page that is made of it.

Charts stand in the Markdown as inline SVG while the page is made; the Markdown file leaves their columns out.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from lema.report.charts import bar, interval, scale

# A paragraph that begins so is a list, a rule or the underline of a heading.
_LEADING = re.compile(r"^(?:([0-9]+)(?=[.)](?:\s|$))|(?=[-+=](?:[-+=\s]|$)))")
_TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
_FOLDED = "settings-and-provenance"


def escape_markdown(value: object) -> str:
    """One line for a paragraph or a table cell: nothing in it is markup or HTML."""
    line = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LEADING.sub(r"\1\\", re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", line))


def points(share: float, sign: bool = False) -> str:
    """A share in percentage points, with a true minus sign."""
    return f"{share * 100:{'+' if sign else ''}.1f}".replace("-", "−").replace("+0.0", "0.0").replace("−0.0", "0.0")


def probability(p: float) -> str:
    """A p-value to as many digits as matter."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def short_digests(text: str) -> str:
    """A text with its SHA-256 digests cut to twelve digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b", r"\1", text)


class _OneLineDumper(yaml.SafeDumper):
    """Writes a text of several lines in one, so that nothing can close the fence around it."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, None if text.isprintable() else '"')


_OneLineDumper.add_representer(str, _represent_text)


def yaml_block(value: Any) -> Markup:
    """Settings as a block of YAML."""
    text = yaml.dump(value, Dumper=_OneLineDumper, sort_keys=False, allow_unicode=True, width=10_000)
    return Markup(f"```yaml\n{short_digests(text)}```")


def render_template(name: str, values: Mapping[str, Any]) -> str:
    """The Markdown of a template; at most one blank line in a row."""
    text = _jinja_templates().get_template(name).render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def render_report(title: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """The report as a page and as Markdown."""
    text = render_template("report.md.j2", {**values, "title": title})
    page = _jinja_templates().get_template("report.html.j2").render(title=Markup.escape(title), body=to_html(text))
    return page.strip() + "\n", _TABLE.sub(_without_charts, text)


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
    made.filters |= {"points": points, "short_digests": short_digests, "yaml": yaml_block, "json": json.dumps}
    made.filters["line"] = lambda text: Markup(" ".join(text.split()))
    return made


def _escaped_output(value: Any) -> Markup:
    """What an expression of a template writes."""
    if isinstance(value, Markup):
        return value
    return Markup(f"{value:,}" if isinstance(value, int) else escape_markdown(value))


def _without_charts(table: re.Match[str]) -> str:
    """A table without its columns of charts, and without a row that is nothing but the axis of one."""
    rows = [re.split(r"(?<!\\)\|", line) for line in table[0].splitlines()]
    charts = {at for row in rows for at, cell in enumerate(row) if "<svg" in cell}
    kept = ([cell for at, cell in enumerate(row) if at not in charts] for row in rows)
    return "".join("|".join(row) + "\n" for row in kept if any(cell.strip() for cell in row))


def to_html(text: str) -> Markup:
    """The body of the page: a section for every `##`, an article for every `###`, folded in the last section. Links
    and images are not read, and HTML only within a line: charts, since values hold none."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    parser.disable(["link", "image", "autolink", "html_block", "reference", "code"])
    return Markup(parser.renderer.render(list(_sectioned(parser.parse(text))), parser.options, {}))


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
