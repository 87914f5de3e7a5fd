"""Reference texts that are installed: Python's language reference, and docstrings of packages, read by `ast`.

The packages are others than those that the documentation crawl reads, so that a demo's reference and its crawl differ
in what they say and agree in how it is said.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from itertools import islice

from configs.external import PinnedPythonDocumentation
from ray_jobs.files.installed import documented_modules, python_version, versions_of

GENERATOR = 1
"""Raised when the documents that the same versions give would change."""

PACKAGES = ("torch", "transformers", "fastapi", "httpx", "jinja2", "typer")
"""Direct dependencies with prose in their docstrings, by the name under which they are installed and imported."""

MODULES_A_FILE = 100
MIN_DOCSTRING_WORDS = 75
MAX_SOURCE_BYTES = 100_000
"""Parsing is most of the time that a document takes; longer modules are left out."""

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def installed_versions() -> dict[str, str]:
    """Raises NotInstalled where a package is missing."""
    versions = versions_of(PACKAGES, "the reference corpus python_documentation")
    # What follows the plus is the build's, such as torch's for CPUs or for GPUs: its docstrings are the same.
    release = {name: version.partition("+")[0] for name, version in versions.items()}
    return {"python": python_version(), **release}


def num_files(content: PinnedPythonDocumentation) -> int:
    """File 0 is the language reference, the others hold the modules, dealt out one by one."""
    return 1 + -(-content.num_modules // MODULES_A_FILE)


def documents(content: PinnedPythonDocumentation, file: int) -> Iterator[tuple[str, str]]:
    """(url, text) of one file.

    Raises:
        ValueError: the environment holds fewer documented modules than are asked for.
    """
    if file == 0:
        yield from _topics()
        return
    first, step = file - 1, num_files(content) - 1
    wanted = (content.num_modules + step - 1 - first) // step
    found = 0
    for document in islice(_modules(first, step), wanted):
        found += 1
        yield document
    if found < wanted:
        raise ValueError(
            f"a file should hold {wanted} documented modules, its share has {found}: "
            "lower reference.python_documentation.num_modules"
        )


def _topics() -> Iterator[tuple[str, str]]:
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    for name in sorted(topics):
        yield f"pydoc:{name}", _flowing(topics[name])


def _modules(first: int, step: int) -> Iterator[tuple[str, str]]:
    """Documents of every `step`-th module from the `first` on, of those that are documented well enough."""
    for _, name, path in documented_modules(PACKAGES)[first::step]:
        source = path.read_bytes()
        if source.count(b'"""') < 4 or len(source) > MAX_SOURCE_BYTES:
            continue
        parts = list(_docstrings(ast.parse(source)))
        if sum(len(text.split()) for _, text in parts) >= MIN_DOCSTRING_WORDS:
            yield f"pydoc:{name}", "\n\n".join(part for title, text in parts for part in (title or name, text))


def _docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(signature, text) of the module itself, its public classes and functions, and their methods."""
    definitions: list[tuple[str, ast.Module | Definition]] = [("", tree)]
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            definitions.append((_signature(node), node))
            for member in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(member, Definition) and not member.name.startswith("_"):
                    definitions.append((f"{node.name}.{_signature(member)}", member))
    for title, definition in definitions:
        text = ast.get_docstring(definition)
        if text:
            yield title, _flowing(text)


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        return f"{node.name}({', '.join(map(ast.unparse, node.bases))})"
    return f"{node.name}({ast.unparse(node.args)})"


def _flowing(text: str) -> str:
    """Without the line breaks within paragraphs and the lines drawn under headings; code stays as it is."""
    blocks = [block for block in re.split(r"\n\s*\n", inspect.cleandoc(text)) if block.strip()]
    return "\n\n".join(block if block.startswith((" ", ">>>", "```")) else _joined(block) for block in blocks)


def _joined(block: str) -> str:
    return " ".join(line.strip() for line in block.splitlines() if not re.fullmatch(r'\s*([*=\-~^"#])\1{2,}\s*', line))
