"""The documentation site: real documentation of this Python environment as a site of HTML pages.

Its pages have what main-text extraction is there to remove (navigation, lists of siblings, a footer), and what real
crawls have: operations of one service share most of their parameters' text, so near-duplicates are natural, and one
page in `MIRROR_EVERY` answers under a second URL with the same bytes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from itertools import islice

from configs.crawl import PinnedDocumentation

GENERATOR = 1
"""Raised when the pages or archives that the same versions give would change."""

HOST = "docs.headrace.invalid"
"""RFC 6761 keeps `.invalid` from ever being a real host."""
MIRROR_EVERY = 25
NUM_SIBLINGS = 12

ROBOTS = b"User-agent: *\nAllow: /\n"


@dataclass(frozen=True)
class Page:
    path: str
    """From the host on, with its first slash."""
    body: bytes
    content_type: str = "text/html; charset=utf-8"

    @property
    def url(self) -> str:
        return f"http://{HOST}{self.path}"


def pages_of(site: PinnedDocumentation, file: int) -> Iterator[Page]:
    """The pages of one of the crawl's files, in the order in which they are fetched.

    Services and modules are dealt out to the files one by one, so the files are alike and need nothing of each other.

    Raises:
        ValueError: the environment holds fewer pages than are asked for.
    """
    from ray_jobs.crawl.docstrings import docstring_pages
    from ray_jobs.crawl.operations import operation_pages

    yield Page("/robots.txt", ROBOTS, "text/plain")
    num_operations = _share(site.num_operations, site.num_files, file)
    operations = list(islice(operation_pages(file, site.num_files), num_operations))
    _check_enough("operations", len(operations), num_operations, "num_operations")
    yield from operations
    for page in operations[::MIRROR_EVERY]:
        yield Page(f"/latest{page.path}", page.body)
    num_modules = _share(site.num_docstring_pages, site.num_files, file)
    modules = list(islice(docstring_pages(file, site.num_files), num_modules))
    _check_enough("documented modules", len(modules), num_modules, "num_docstring_pages")
    yield from modules


def _share(total: int, num_files: int, file: int) -> int:
    """The file's part of `total`, as even as whole pages allow."""
    return (total + num_files - 1 - file) // num_files


def _check_enough(what: str, found: int, wanted: int, field: str) -> None:
    if found < wanted:
        raise ValueError(
            f"a file should hold {wanted} {what}, its share has {found}: lower snapshot.documentation.{field}"
        )


def render(title: str, section: str, main: str, siblings: Iterable[tuple[str, str]]) -> bytes:
    """A whole page around its main content.

    Args:
        title, section: plain text.
        main: HTML.
        siblings: (path, plain name) of neighbouring pages.
    """
    links = "\n".join(f'<li><a href="{escape(path)}">{escape(name)}</a></li>' for path, name in siblings)
    return _TEMPLATE.format(title=escape(title), section=escape(section), main=main, links=links).encode()


_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title} - {section} documentation</title>
<link rel="stylesheet" href="/static/site.css">
<script>document.documentElement.className = "js";</script>
</head>
<body>
<header class="site-header">
<a class="skip-link" href="#content">Skip to main content</a>
<nav class="navbar" role="navigation"><ul>
<li><a href="/">Home</a></li>
<li><a href="/botocore/">Services</a></li>
<li><a href="/python/">Python</a></li>
<li><a href="/search.html">Search</a></li>
</ul></nav>
</header>
<div class="container">
<aside class="sidebar"><h3>On this site</h3><ul>
{links}
</ul></aside>
<main id="content" role="main">
<article>
<h1>{title}</h1>
{main}
</article>
</main>
</div>
<footer class="site-footer"><nav><ul>
<li><a href="/about.html">About</a></li>
<li><a href="/privacy.html">Privacy</a></li>
<li><a href="/terms.html">Terms</a></li>
</ul></nav><p>Cookie preferences | Contact us | All rights reserved</p></footer>
</body>
</html>
"""
