"""Pages from docstrings: one a module, read by `ast` without importing it."""

import ast
import inspect
import re
from collections.abc import Iterator
from html import escape

from ray_jobs.crawl.site import NUM_SIBLINGS, Page, render
from ray_jobs.files.installed import documented_modules

DOCUMENTED_PACKAGES = ("numpy", "pyarrow", "fsspec", "pydantic", "rich", "numba", "boto3", "prefect", "ray")
"""Direct dependencies with prose in their docstrings, by the name under which they are installed and imported."""

MIN_DOCSTRING_WORDS = 75
MAX_SOURCE_BYTES = 50_000
"""Parsing is most of the time that a page takes; longer modules are left out."""

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstring_pages(first: int, step: int) -> Iterator[Page]:
    """Pages of every `step`-th module from the `first` on, of those that are documented well enough."""
    modules = documented_modules(("python", *DOCUMENTED_PACKAGES))
    for index in range(first, len(modules), step):
        package, name, path = modules[index]
        source = path.read_bytes()
        if source.count(b'"""') < 4 or len(source) > MAX_SOURCE_BYTES:
            continue
        tree = ast.parse(source)
        main, num_words = _main(tree)
        if num_words >= MIN_DOCSTRING_WORDS:
            neighbours = modules[index + 1 : index + 1 + NUM_SIBLINGS]
            siblings = [(_path(other, sibling), sibling) for other, sibling, _ in neighbours]
            yield Page(_path(package, name), render(name, package, main, siblings))


def _path(package: str, module: str) -> str:
    return f"/{package}/{module}.html"


def _main(tree: ast.Module) -> tuple[str, int]:
    """The module's documentation as HTML, and how many words of docstrings it holds."""
    text = ast.get_docstring(tree) or ""
    parts, num_words = [_prose(text)], len(text.split())
    for node in tree.body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        html, words = _definition(node, "h2")
        if words:
            parts.append(html)
            num_words += words
        for member in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(member, Definition) and not member.name.startswith("_"):
                html, words = _definition(member, "h3")
                parts.append(html if words else "")
                num_words += words
    return "\n".join(parts), num_words


def _definition(node: Definition, heading: str) -> tuple[str, int]:
    text = ast.get_docstring(node) or ""
    if isinstance(node, ast.ClassDef):
        signature = f"class {node.name}({', '.join(map(ast.unparse, node.bases))})"
    else:
        signature = f"{node.name}({ast.unparse(node.args)})"
    html = f"<{heading}>{escape(node.name)}</{heading}><pre>{escape(signature)}</pre>{_prose(text)}"
    return html, len(text.split())


def _prose(text: str) -> str:
    """Paragraphs of a docstring: indented ones and doctests as they are, others as flowing text."""
    blocks = [block for block in re.split(r"\n\s*\n", inspect.cleandoc(text)) if block.strip()]
    return "\n".join(
        f"<pre>{escape(block)}</pre>" if block.startswith((" ", ">>>")) else f"<p>{escape(' '.join(block.split()))}</p>"
        for block in blocks
    )
