"""The page over a scaling study: one section for all runs, with what the law says."""

from collections.abc import Mapping

import pytest

from configs.base import Resources
from configs.report import ReportSpec
from configs.study import ScalingSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.shards import File, ShardOutput
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.cluster.executor import InlineExecutor
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.report.charts import Band, Dots, Series, scatter_chart
from ray_jobs.report.figures import scientific
from ray_jobs.report.job import page_of
from ray_jobs.report.nodes import Nodes
from ray_jobs.report.page import render
from ray_jobs.report.scaling import facts_of
from ray_jobs.scaling.job import run
from tests.report.markup import Element, parsed
from tests.report.synthetic import finish
from tests.scaling.grid import BUDGETS, grid


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """A study's checkpoints by the names of their nodes."""
    store: Store = open_store(tmp_path_factory.mktemp("study") / "store")
    inputs = grid(store)
    output = NodeOutput(store, NodePath("scaling", "f" * 64), "attempt0", Resources(workers=1), InlineExecutor)
    spec = ScalingSpec(budgets=BUDGETS, bootstrap_samples=20)
    outcome = run(spec, inputs, output, Resources(workers=1))
    (receipt,) = output.receipts.values()
    written = {file.name: store.get(file.path) or b"" for file in receipt.files}
    shard = ShardOutput({name: File(data) for name, data in written.items()}, {"runs": 15})
    study = finish(store, "scaling", {"results": [shard]}, inputs, dict(outcome.metrics))
    return {"scaling": study, **{slot.replace(".", "-"): checkpoint for slot, checkpoint in inputs.items()}}


def page_over(nodes: Mapping[str, Checkpoint]) -> Element:
    return parsed(render(page_of(Nodes(nodes), ReportSpec())).decode())


def test_all_runs_are_told_of_in_one_section(nodes: dict[str, Checkpoint]) -> None:
    page = page_over(nodes)
    sections = {element.attributes["id"]: element for element in page.all("section")}
    assert set(sections) == {"graph", "scaling", "lineage", "nodes"}
    text = sections["scaling"].text()
    for said in ("alpha, exponent of size", "best size ∝ C to the", "FLOPs a parameter and token", "s2-b1", "1.6e17"):
        assert said in text, said
    assert len(sections["scaling"].all("table")[1].all("tr")) == 1 + 15
    assert "best size ∝ C^0.4" in page.all("h1")[0].text()
    assert page.with_class("lede")[0].text() == "pretrain × 15 → evaluate × 15 → scaling"
    drawings = sections["graph"].with_class("graph")
    assert [len(drawing.with_class("box")) for drawing in drawings] == [3, 3]  # across and down


def test_the_charts_hold_every_run_a_parabola_a_budget_and_the_band(nodes: dict[str, Checkpoint]) -> None:
    over_size, over_compute, predicted = page_over(nodes).with_class("chart")[-3:]
    assert len(over_size.with_class("dot")) == len(predicted.with_class("dot")) == 15
    assert len(over_size.with_class("line")) == len(over_size.with_class("ring")) == 3
    assert len(over_compute.with_class("band")) == 1
    assert len(over_compute.with_class("line")) == 2 and len(over_compute.with_class("ring")) == 3
    titles = [title.text() for dot in over_size.with_class("dot") for title in dot.all("title")]
    assert any(title.startswith("s2-b1: loss ") for title in titles)


def test_a_ring_lies_below_the_runs_of_its_budget(nodes: dict[str, Checkpoint]) -> None:
    over_size = page_over(nodes).with_class("chart")[-3]
    for style in ("s0", "s1", "s2"):
        (ring,) = (each for each in over_size.with_class("ring") if style in each.attributes["class"])
        dots = [each for each in over_size.with_class("dot") if style in each.attributes["class"]]
        assert float(ring.attributes["cy"]) > sorted(float(dot.attributes["cy"]) for dot in dots)[-2]
        places = [float(dot.attributes["cx"]) for dot in dots]
        assert min(places) < float(ring.attributes["cx"]) < max(places)


def test_a_scatter_chart_places_values_by_its_scales() -> None:
    layers: list[Series | Dots | Band] = [
        Band("", [(1.0, 1.0, 10.0), (100.0, 10.0, 100.0)]),
        Series("a line", [(1.0, 3.0), (100.0, 30.0)]),
        Dots("dots", [(10.0, 10.0, "ten")], "b"),
    ]
    chart = parsed(str(scatter_chart(layers, "x", "y", log_x=True, log_y=True, x_text=scientific)))
    (dot,) = chart.with_class("dot")
    assert dot.text() == "ten"
    assert "1e1" in chart.text() and "a line" in chart.text()
    (line,) = chart.with_class("line")
    first, last = (part.split() for part in line.attributes["d"][1:].split("L"))
    assert float(dot.attributes["cx"]) == pytest.approx((float(first[0]) + float(last[0])) / 2, abs=0.1)


def test_an_empty_scatter_chart_says_so() -> None:
    assert "nothing recorded" in str(scatter_chart([], "x", "y"))


def test_a_bound_of_nothing_is_shown_as_zero() -> None:
    law = {"law": {"E": 2.634, "A": 5763.2, "B": 4.77e4, "alpha": 0.88, "beta": 0.85}, "size_exponent": 0.49}
    rest = {
        "intervals_95": {"E": [4.1e-9, 2.878]},
        "power": None,
        "residual": 0.0104,
        "flops_per_parameter_token": 7.91,
    }
    shown = dict(facts_of({**law, **rest}))
    assert shown["E, irreducible loss"] == "2.63 (0–2.88)"
    assert shown["A, weight of size"] == "5,763" and shown["B, weight of tokens"] == "47.7k"


@pytest.mark.parametrize(("value", "shown"), [(3e11, "3e11"), (2.5e20, "2.5e20"), (1e10, "1e10"), (0.05, "5e-2")])
def test_scientific_figures_are_short(value: float, shown: str) -> None:
    assert scientific(value) == shown
