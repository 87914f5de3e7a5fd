"""One self-contained HTML page: templates that escape, styles inside, nothing loaded from anywhere."""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ray_jobs.report import figures

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Section:
    """A part of the page: a template and what it is filled with."""

    id: str
    title: str
    template: str
    content: dict[str, Any]
    nodes: tuple[str, ...] = field(default=())
    """Names of the nodes that it shows in full."""


@dataclass(frozen=True)
class Tile:
    """A headline figure."""

    figure: str
    label: str


@dataclass(frozen=True)
class Page:
    title: str
    subtitle: str
    tiles: list[Tile]
    sections: list[Section]


@cache
def environment() -> Any:
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats: list[Callable[..., str]] = [
        figures.count,
        figures.close_lines,
        figures.compact,
        figures.data_size,
        figures.dollars,
        figures.duration,
        figures.excerpt,
        figures.figure,
        figures.scientific,
        figures.share,
        figures.words,
    ]
    made.filters.update({function.__name__: function for function in formats})
    return made


def _finalized(value: Any) -> Any:
    """What every `{{ … }}` goes through, before it is escaped."""
    return figures.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def render(page: Page) -> bytes:
    """The page as UTF-8. Its policy allows nothing but this very style sheet: no script, no image, no request."""
    style = (TEMPLATES / "style.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    html: str = environment().get_template("page.html").render(page=page, style=Markup(style), policy=policy)
    return html.encode()
