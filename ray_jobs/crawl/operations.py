"""Pages from botocore's service models: one an operation, with its parameters, results and errors."""

import gzip
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from ray_jobs.crawl.site import NUM_SIBLINGS, Page, render
from ray_jobs.files.installed import scattered, service_models

OPERATIONS_A_ROUND = 4
"""So many operations of a service before the next one's turn: enough for near-duplicates, few enough for variety."""


def operation_pages(first: int, step: int) -> Iterator[Page]:
    """Pages of every `step`-th service from the `first` on, some operations of each in turn until there are no more."""
    models = service_models()[first::step]
    remaining = [(service, iter(_pages_of(service, path))) for service, path in models]
    while remaining:
        still = []
        for service, pages in remaining:
            batch = [page for _, page in zip(range(OPERATIONS_A_ROUND), pages, strict=False)]
            yield from batch
            if len(batch) == OPERATIONS_A_ROUND:
                still.append((service, pages))
        remaining = still


def _pages_of(service: str, path: Path) -> Iterator[Page]:
    model = json.loads(gzip.decompress(path.read_bytes()))
    operations = model["operations"]
    names = sorted(operations)
    title = model["metadata"].get("serviceFullName", service)
    for name in sorted(names, key=scattered):
        if "documentation" not in operations[name]:
            continue
        place = names.index(name)
        siblings = [(_path(service, other), other) for other in names[max(0, place - 3) : place + NUM_SIBLINGS - 3]]
        main = _main(model["shapes"], operations[name], title)
        yield Page(_path(service, name), render(name, title, main, siblings))


def _path(service: str, operation: str) -> str:
    return f"/botocore/{service}/{operation}.html"


def _main(shapes: dict[str, Any], operation: dict[str, Any], service: str) -> str:
    http = operation.get("http", {})
    parts = [
        f'<p class="breadcrumb">{escape(service)} / API Reference</p>',
        operation["documentation"],
        f"<h2>Request syntax</h2><pre>{escape(http.get('method', 'POST'))} {escape(http.get('requestUri', '/'))}</pre>",
    ]
    for heading, slot in (("Request parameters", "input"), ("Response elements", "output")):
        shape = shapes.get(operation.get(slot, {}).get("shape"), {})
        parts += [f"<h2>{heading}</h2>", _members(shapes, shape)]
    errors = [
        f"<dt>{escape(error['shape'])}</dt><dd>{shapes.get(error['shape'], {}).get('documentation', '')}</dd>"
        for error in operation.get("errors", ())
    ]
    if errors:
        parts.append(f"<h2>Errors</h2><dl>{''.join(errors)}</dl>")
    return "\n".join(parts)


def _members(shapes: dict[str, Any], shape: dict[str, Any]) -> str:
    """The shape's members as a definition list, each with its own documentation and that of what it holds."""
    required = set(shape.get("required", ()))
    items = []
    for name, member in shape.get("members", {}).items():
        target = shapes.get(member["shape"], {})
        documentation = member.get("documentation", "") or target.get("documentation", "")
        constraint = "Required." if name in required else "Optional."
        items.append(
            f"<dt><code>{escape(name)}</code> ({escape(target.get('type', 'string'))})</dt>"
            f"<dd>{documentation}{_choices(target)}<p>{constraint}</p>{_nested(shapes, target)}</dd>"
        )
    if not items:
        return "<p>None.</p>"
    return f"<dl>{''.join(items)}</dl>"


def _choices(shape: dict[str, Any]) -> str:
    values = shape.get("enum")
    return f"<p>Valid values: <code>{escape(' | '.join(values))}</code></p>" if values else ""


def _nested(shapes: dict[str, Any], shape: dict[str, Any]) -> str:
    """Members of a structure, or of a list's elements, one level down."""
    if shape.get("type") == "list":
        shape = shapes.get(shape["member"]["shape"], {})
    documented = [
        f"<li><code>{escape(name)}</code>: {member['documentation']}</li>"
        for name, member in shape.get("members", {}).items()
        if "documentation" in member
    ]
    return f"<ul>{''.join(documented)}</ul>" if documented else ""
