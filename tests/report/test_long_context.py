"""The page over a long-context node: curves, the passkey's grid, and where each method breaks in words."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from configs.report import ReportSpec
from ray_jobs.checkpoint.shards import File, ShardOutput
from ray_jobs.checkpoint.store import Store
from ray_jobs.report.job import page_of
from ray_jobs.report.long_context import of_control, sentence
from ray_jobs.report.nodes import Nodes
from ray_jobs.report.page import render
from tasks.node import task_of
from tests.report.markup import Element, parsed
from tests.report.synthetic import SCRIPT, finish

DEPTHS = (0.0, 0.5)
METHODS = ("cut", "trained", "linear", "yarn")


def loss(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.03}


def asked(first: float) -> dict[str, Any]:
    return {"trials": 10, "first": first, "first_95": [0, 1], "beaten": 0.5, "written": 0.0}


def cell(model: str, method: str, factor: float, excess: Sequence[float], first: float | None = 0.3) -> dict[str, Any]:
    curve = [
        {"begin": 32 * place, "end": 32 * place + 32, "loss": loss(3 + more), "excess": loss(more)}
        for place, more in enumerate(excess)
    ]
    return {
        "model": model,
        "method": method,
        "factor": factor,
        "length": round(64 * factor),
        "loss": loss(3.0),
        "end_loss": curve[-1]["loss"],
        "end_excess": curve[-1]["excess"],
        "curve": curve,
        "breaks": next((place for place, more in enumerate(excess) if more > 0.1), None),
        "passkey": None if first is None else asked(first),
        "passkey_by_depth": [] if first is None else [{"depth": depth, **asked(first)} for depth in DEPTHS],
    }


def published(store: Store, cells: list[dict[str, Any]]) -> dict[str, Any]:
    texts = {"number": 9, "length": 128, "documents": 12, "tokens_a_document": 345.6, "own_context": [10.0, 77.7]}
    content = {"training_length": 64, "margin": 0.1, "chance": 0.1, "texts": texts, "cells": cells}
    shard = ShardOutput({"comparison.json": File(json.dumps(content).encode())}, {"cells": len(cells)})
    metrics = {"finding": "rope breaks at token 65 of 128", "rope_trained_2x_nats": 3.25, "rope_trained_breaks_at": 65}
    return {"long-context": finish(store, "long-context", {"results": [shard]}, metrics=metrics)}


@pytest.fixture
def page(store: Store) -> Element:
    cells = [
        cell("rope", "cut", 2, (0, 0, 0, 0), first=None),
        cell("rope", "trained", 1, (0, 0)),
        cell("rope", "trained", 2, (0, 0, 0.5, 1.5)),
        cell("rope", "linear", 2, (0.3, 0.3, 0.3, 0.3)),
        cell("rope", "yarn", 2, (0.01, 0.01, 0.02, 0.05), first=0.8),
        cell(SCRIPT, "trained", 2, (0, 0, 0, 0), first=None),
    ]
    return parsed(render(page_of(Nodes(published(store, cells)), ReportSpec())).decode())


def test_the_section_says_where_each_method_breaks(page: Element) -> None:
    (section,) = (element for element in page.all("section") if element.attributes["id"] == "long-context")
    said = [item.text() for item in section.all("li")]
    assert said == [
        "rope as trained breaks at tokens 65 to 96: +0.50 nats a token (+0.48 to +0.53); at the end of the texts "
        "+1.50 (+1.48 to +1.53).",
        "rope PI × 2 breaks at tokens 1 to 32, within the training length: +0.30 nats a token (+0.28 to +0.33); at the "
        "end of the texts +0.30 (+0.28 to +0.33).",
        "rope YaRN × 2 does not break within 128 tokens; at their end +0.05 nats a token (+0.03 to +0.08).",
        f"{SCRIPT} as trained does not break within 128 tokens; at their end +0.00 nats a token (-0.02 to +0.03).",
    ]
    assert "346" in section.text() and "9 of 128 tokens" in section.text()
    rows = section.all("table")[0].all("tr")[1:]
    assert [row.all("th")[0].text() for row in rows] == [
        "rope cut to the training length",
        "rope as trained",
        "rope PI",
        "rope YaRN",
        f"{SCRIPT} as trained",
    ]
    assert page.all("h1")[0].text().endswith("rope breaks at token 65 of 128")


def test_the_task_shows_the_finding_and_where_each_method_breaks(store: Store) -> None:
    task = task_of("long-context")
    manifest = published(store, [cell("rope", "trained", 2, (0, 0, 0, 0))])["long-context"].manifest
    assert task.headline(manifest) == "rope breaks at token 65 of 128"
    assert task.facts(manifest) == [("rope trained breaks at", "65")]


def test_charts_have_a_line_for_each_method_and_the_grid_a_cell_for_each_depth(page: Element) -> None:
    trained, *by_model = page.with_class("chart")
    assert len(trained.with_class("line")) == 2 and len(trained.with_class("mark")) == 1
    assert [len(chart.with_class("line")) for chart in by_model] == [4, 2]  # with the margin's
    (grid,) = page.with_class("passkeys")
    assert len(grid.all("rect")) == 4 * len(DEPTHS)
    titles = [rect.all("title")[0].text() for rect in grid.all("rect")]
    assert "rope YaRN, 128 tokens, depth 0.5: the right number is the likeliest in 8 of 10, and written in 0%" in titles


def test_a_passkey_that_is_never_found_is_said_to_tell_nothing() -> None:
    blind = [cell("rope", "trained", 1, (0, 0), first=0.12), cell("rope", "trained", 2, (0, 0, 0, 0), first=0.3)]
    assert of_control(blind, 0.1) == [
        "the passkey tells nothing of the methods of rope (12% of trials in 64 tokens): in the shortest texts, as "
        "trained, it is found less than 2 times as often as by chance (10%)"
    ]
    assert of_control([cell("rope", "trained", 1, (0, 0), first=0.9)], 0.1) == []
    assert of_control([cell("rope", "trained", 1, (0, 0), first=None)], None) == []


def test_without_intervals_the_values_stand_alone() -> None:
    made = cell("rope", "trained", 2, (0, 0, 0.5, 1.5))
    for each in (made["end_excess"], *(stretch["excess"] for stretch in made["curve"])):
        each |= {"low": None, "high": None}
    assert (
        sentence(made, 64)
        == "rope as trained breaks at tokens 65 to 96: +0.50 nats a token; at the end of the texts +1.50"
    )
