"""Long context: the loss by position of each method, the passkey, and where each breaks."""

import json
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from configs.long_context import CUT, LABELS, TRAINED
from ray_jobs.report.charts import Mark, Series, line_chart
from ray_jobs.report.documents import Figure
from ray_jobs.report.figures import count
from ray_jobs.report.nodes import Node, Nodes
from ray_jobs.report.page import Section
from ray_jobs.report.svg import element, titled

COMPARISON = "comparison.json"
METHOD_STYLES = dict(zip(LABELS, ("n", "a", "c", "b", "d", "e", "f"), strict=True))
MODEL_STYLES = ("a", "g", "c", "d", "e", "f")
LABEL_WIDTH, CELL_WIDTH, CELL_HEIGHT, LENGTH_GAP, HEADER = 150, 36, 22, 14, 40
LETTER_WIDTH = 7.0
NATS = " nats a token"
CONTROL = 2.0
"""A model that finds the passkey less than so many times as often as by chance is taken not to find it."""


@dataclass(frozen=True)
class LongContextView:
    node: Node
    facts: list[tuple[str, str]]
    sentences: list[str]
    figures: list[Figure]
    lengths: list[int]
    rows: list[dict[str, Any]]
    """A model and method each, with `cells` by length: None where the method does nothing."""
    grid: Markup | None
    chance: float | None


def long_context_section(nodes: Nodes) -> Section | None:
    views = [_view(node) for node in nodes.of_kind("long-context")]
    if not views:
        return None
    names = tuple(view.node.name for view in views)
    return Section("long-context", "Long context", "long_context.html", {"views": views}, names)


def _view(node: Node) -> LongContextView:
    found = json.loads(node.checkpoint.read(node.checkpoint.file(COMPARISON)))
    cells, training_length, texts = found["cells"], found["training_length"], found["texts"]
    longest = [cell for cell in cells if cell["length"] == texts["length"]]
    lengths = sorted({cell["length"] for cell in cells})
    names = list(dict.fromkeys((cell["model"], cell["method"]) for cell in cells))
    at = {(cell["model"], cell["method"], cell["length"]): cell for cell in cells}
    rows = [{"label": label_of(*name), "cells": [at.get((*name, length)) for length in lengths]} for name in names]
    facts = [
        ("training length", f"{count(training_length)} tokens"),
        ("texts", f"{count(texts['number'])} of {count(texts['length'])} tokens"),
        ("cut from held-out documents", count(texts["documents"])),
        ("tokens a document", f"{texts['tokens_a_document']:,.0f}"),
        ("own document in sight", f"{texts['own_context'][-1]:,.0f} tokens at the end"),
        ("margin of a break", f"{found['margin']:g} nats a token"),
    ]
    return LongContextView(
        node=node,
        facts=facts,
        sentences=[
            *(sentence(cell, training_length) for cell in longest if cell["method"] != CUT),
            *of_control(cells, found["chance"]),
        ],
        figures=figures_of(longest, training_length, found["margin"]),
        lengths=lengths,
        rows=rows,
        grid=passkey_grid(cells),
        chance=found["chance"],
    )


def label_of(model: str, method: str) -> str:
    return f"{model} {LABELS[method]}"


def sentence(cell: dict[str, Any], training_length: int) -> str:
    """Where it breaks, as far as these texts show."""
    what = label_of(cell["model"], cell["method"])
    if cell["method"] != TRAINED:
        what += f" × {cell['factor']:g}"
    if cell["breaks"] is None:
        end = _excess(cell["end_excess"], NATS)
        return f"{what} does not break within {count(cell['length'])} tokens; at their end {end}"
    broken = cell["curve"][cell["breaks"]]
    where = f"{what} breaks at tokens {count(broken['begin'] + 1)} to {count(broken['end'])}"
    if broken["end"] <= training_length:
        where += ", within the training length"
    return f"{where}: {_excess(broken['excess'], NATS)}; at the end of the texts {_excess(cell['end_excess'])}"


def _excess(loss: dict[str, Any], unit: str = "") -> str:
    interval = "" if loss["low"] is None else f" ({loss['low']:+.2f} to {loss['high']:+.2f})"
    return f"{loss['value']:+.2f}{unit}{interval}"


def of_control(cells: list[dict[str, Any]], chance: float | None) -> list[str]:
    """A passkey that a model does not find in the shortest text, as trained, tells nothing of the methods."""
    trained = [cell for cell in cells if cell["method"] == TRAINED and cell["passkey"]]
    blind = []
    for model in dict.fromkeys(cell["model"] for cell in trained):
        shortest = min((cell for cell in trained if cell["model"] == model), key=lambda cell: int(cell["length"]))
        found = shortest["passkey"]["first"]
        if chance is not None and found < CONTROL * chance:
            blind.append(f"{model} ({found:.0%} of trials in {count(shortest['length'])} tokens)")
    if not blind or chance is None:
        return []
    return [
        f"the passkey tells nothing of the methods of {' and '.join(blind)}: in the shortest texts, as trained, it is "
        f"found less than {CONTROL:g} times as often as by chance ({chance:.0%})"
    ]


def figures_of(longest: list[dict[str, Any]], training_length: int, margin: float) -> list[Figure]:
    """The models as trained in one chart, and for each that was stretched its methods in one."""
    marks = [Mark(training_length, f"training length {count(training_length)}")]
    trained = [cell for cell in longest if cell["method"] == TRAINED]
    lines = [
        _line(cell, "loss", cell["model"], MODEL_STYLES[place % len(MODEL_STYLES)])
        for place, cell in enumerate(trained)
    ]
    note = "held-out nats a token; the dashed line is the training length"
    figures = [Figure("Loss by position, as trained", note, line_chart(lines, "position", "nats a token", marks=marks))]
    for model in dict.fromkeys(cell["model"] for cell in longest):
        own = [cell for cell in longest if cell["model"] == model and cell["method"] != CUT]
        lines = [_line(cell, "excess", LABELS[cell["method"]], METHOD_STYLES[cell["method"]]) for cell in own]
        lines.append(Series(f"margin {margin:g}", [(x, margin) for x, _ in lines[0].points], "n"))
        title = f"{model}: worse than with {count(training_length)} tokens in sight"
        chart = line_chart(lines, "position", "nats a token", marks=marks)
        figures.append(Figure(title, f"by how much, on the same tokens; methods × {own[0]['factor']:g}", chart))
    return figures


def _line(cell: dict[str, Any], what: str, name: str, style: str) -> Series:
    points = [((each["begin"] + each["end"]) / 2, each[what]["value"]) for each in cell["curve"]]
    return Series(name, points, style)


def passkey_grid(cells: list[dict[str, Any]]) -> Markup | None:
    """A row for each model and method, a column for each depth at each length: how often the right number is first."""
    asked = [cell for cell in cells if cell["passkey_by_depth"]]
    if not asked:
        return None
    lengths = sorted({cell["length"] for cell in asked})
    depths = sorted({each["depth"] for cell in asked for each in cell["passkey_by_depth"]})
    names = list(dict.fromkeys(label_of(cell["model"], cell["method"]) for cell in asked))
    label_width = max(LABEL_WIDTH, LETTER_WIDTH * max(map(len, names)))
    group = len(depths) * CELL_WIDTH + LENGTH_GAP
    drawn = []
    for place, length in enumerate(lengths):
        left = label_width + place * group
        middle = left + len(depths) * CELL_WIDTH / 2
        drawn.append(element("text", f"{count(length)} tokens", x=middle, y=14, class_="middle"))
        for column, depth in enumerate(depths):
            x = left + (column + 0.5) * CELL_WIDTH
            drawn.append(element("text", f"{depth:g}", x=x, y=HEADER - 7, class_="middle"))
    for row, name in enumerate(names):
        y = HEADER + row * CELL_HEIGHT
        drawn.append(element("text", name, x=0, y=y + 15))
    for cell in asked:
        name = label_of(cell["model"], cell["method"])
        y = HEADER + names.index(name) * CELL_HEIGHT
        for each in cell["passkey_by_depth"]:
            x = label_width + lengths.index(cell["length"]) * group + depths.index(each["depth"]) * CELL_WIDTH
            share = each["first"]
            title = (
                f"{name}, {count(cell['length'])} tokens, depth {each['depth']:g}: the right number is the likeliest "
                f"in {share * each['trials']:.0f} of {each['trials']}, and written in {each['written']:.0%}"
            )
            size = {"width": CELL_WIDTH - 2, "height": CELL_HEIGHT - 2, "rx": 2}
            shade = 0.08 + 0.72 * share
            drawn.append(titled("rect", title, x=x + 1, y=y + 1, **size, class_="fill a", fill_opacity=shade))
            drawn.append(element("text", f"{share:.0%}", x=x + CELL_WIDTH / 2, y=y + 15.5, class_="middle cell"))
    width = label_width + len(lengths) * group - LENGTH_GAP
    return element(
        "svg",
        *drawn,
        viewBox=f"0 0 {width:.0f} {HEADER + len(names) * CELL_HEIGHT}",
        width=width,
        class_="passkeys",
        role="img",
        aria_label="share of passkeys found, by method, length and depth",
    )
