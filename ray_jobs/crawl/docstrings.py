"""Pages from docstrings: one a module, read by `ast` without importing it.

Importing would run the modules' code and print addresses and paths; what is read here is text in files whose content is
decided by the versions of Python and of the packages.
"""

import ast
import importlib.util
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path

from ray_jobs.crawl.operations import scattered
from ray_jobs.crawl.site import NUM_SIBLINGS, Page, render

DOCUMENTED_PACKAGES = ("numpy", "pyarrow", "fsspec", "pydantic", "rich", "numba", "boto3", "prefect", "ray")
"""Direct dependencies with prose in their docstrings, by the name under which they are installed and imported."""

MIN_DOCSTRING_WORDS = 75
MAX_SOURCE_BYTES = 50_000
"""Parsing is most of the time that a page takes; longer modules are left out."""

# Jokes, an editor, converters and tests of the standard library are not documentation.
_LEFT_OUT = frozenset({"antigravity", "this", "idlelib", "lib2to3", "turtledemo", "test", "tests", "testing", "vendor"})

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstring_pages(first: int, step: int) -> Iterator[Page]:
    """Pages of every `step`-th module from the `first` on, of those that are documented well enough."""
    modules = documented_modules()
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


@cache
def documented_modules() -> tuple[tuple[str, str, Path], ...]:
    """(package, module, source) of all candidates, packages mixed, in an order that is the same everywhere."""
    library = Path(sysconfig.get_path("stdlib"))
    found = []
    for name in sys.stdlib_module_names:
        if not name.startswith("_") and name not in _LEFT_OUT:
            found += _modules("python", name, library)
    for package in DOCUMENTED_PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations, f"{package} is pinned, so it is installed"
        found += _modules(package, package, Path(spec.submodule_search_locations[0]).parent)
    return tuple(sorted(found, key=lambda module: scattered(module[1])))


def _modules(package: str, name: str, folder: Path) -> list[tuple[str, str, Path]]:
    """The public modules at and below `name` in `folder`."""
    if (folder / f"{name}.py").is_file():
        return [(package, name, folder / f"{name}.py")]
    modules = []
    for path in (folder / name).rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if not any(part.startswith("_") or part in _LEFT_OUT for part in parts):
            modules.append((package, ".".join(parts), path))
    return modules


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
