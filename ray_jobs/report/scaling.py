"""A scaling study: the loss over size of each budget, the best size over compute, and what the law says of each run."""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_jobs.report.charts import Band, Dots, Series, scatter_chart
from ray_jobs.report.documents import Figure
from ray_jobs.report.figures import compact, scientific
from ray_jobs.report.nodes import Node, Nodes
from ray_jobs.report.page import Section

LAW, POINTS, PLAN = "law.json", "points.json", "plan.json"
NUM_STYLES = 5
NUM_PARABOLA_POINTS = 40
CONSTANTS = {
    "E": "E, irreducible loss",
    "A": "A, weight of size",
    "B": "B, weight of tokens",
    "alpha": "alpha, exponent of size",
    "beta": "beta, exponent of tokens",
    "size_exponent": "best size ∝ C to the",
}


@dataclass(frozen=True)
class ScalingView:
    node: Node
    facts: list[tuple[str, str]]
    notes: list[str]
    figures: list[Figure]
    plan: list[dict[str, Any]]
    points: list[dict[str, Any]]


def scaling_section(nodes: Nodes) -> Section | None:
    views = [_view(node) for node in nodes.of_kind("scaling")]
    if not views:
        return None
    names = tuple(view.node.name for view in views)
    return Section("scaling", "Scaling law", "scaling.html", {"views": views}, (*names, *sorted(nodes.studied())))


def _view(node: Node) -> ScalingView:
    law, points, plan = (_read(node, name) for name in (LAW, POINTS, PLAN))
    figures = [
        Figure(
            "Loss over size",
            "held-out nats a token; a parabola for each budget, a ring at its lowest point",
            loss_over_size(law, points),
        ),
        Figure(
            "Best size over compute",
            "by the law with its 95% band, and by the power law through the rings",
            size_over_compute(law),
        ),
        Figure("Measured over predicted loss", "a run on the line is as the law says", measured_over_predicted(points)),
    ]
    return ScalingView(node, facts_of(law), law["notes"], figures, plan, points)


def facts_of(law: dict[str, Any]) -> list[tuple[str, str]]:
    """The constants with their intervals."""
    values = {**law["law"], "size_exponent": law["size_exponent"]}
    rows = [(label, _between(values[name], law["intervals_95"].get(name))) for name, label in CONSTANTS.items()]
    if law["power"]:
        rows.append(("the same by parabolas", f"{law['power']['exponent']:.3f}"))
    rows.append(("residual of log loss", f"{law['residual']:.4f}"))
    rows.append(("FLOPs a parameter and token", f"{law['flops_per_parameter_token']:.2f}"))
    return rows


def _between(value: float, interval: list[float] | None) -> str:
    shown = _three_digits(value)
    return f"{shown} ({_three_digits(interval[0])}–{_three_digits(interval[1])})" if interval else shown


def _three_digits(value: float) -> str:
    if value >= 1000:
        return compact(round(value))
    # A bound that the runs do not hold away from zero comes out as any tiny number.
    return "0" if 0 <= value < 0.0005 else f"{value:.3g}"


def loss_over_size(law: dict[str, Any], points: list[dict[str, Any]]) -> Any:
    layers: list[Series | Dots] = []
    valleys = {valley["flops"]: valley for valley in law["valleys"]}
    for place, budget in enumerate(sorted({point["budget"] for point in points})):
        runs = [point for point in points if point["budget"] == budget]
        style = f"s{place % NUM_STYLES}"
        valley = valleys.get(budget)
        if valley:
            sizes = [run["parameters"] for run in runs]
            low, high = min(sizes), max(sizes)
            if valley["inside"]:
                low, high = min(low, valley["parameters"]), max(high, valley["parameters"])
            layers.append(Series("", [(size, _parabola(valley, size)) for size in _spaced(low, high)], style))
        dots = [(run["parameters"], run["loss"], f"{run['name']}: loss {run['loss']:.3f}") for run in runs]
        layers.append(Dots(scientific(budget), dots, style))
        if valley and valley["inside"]:
            title = f"{scientific(budget)} FLOPs: best {compact(valley['parameters'])}, loss {valley['loss']:.3f}"
            layers.append(Dots("", [(valley["parameters"], valley["loss"], title)], style, ring=True))
    return scatter_chart(layers, "parameters", "nats a token", log_x=True)


def _parabola(valley: dict[str, Any], size: float) -> float:
    return float(valley["curvature"] * math.log(size / valley["parameters"]) ** 2 + valley["loss"])


def _spaced(low: float, high: float) -> list[float]:
    return [float(value) for value in np.geomspace(low, high, NUM_PARABOLA_POINTS)]


def size_over_compute(law: dict[str, Any]) -> Any:
    curve, power = law["curve"], law["power"]
    layers: list[Series | Dots | Band] = []
    if all(best["parameters_95"] for best in curve):
        layers.append(Band("", [(best["flops"], *best["parameters_95"]) for best in curve]))
    layers.append(Series("by the law", [(best["flops"], best["parameters"]) for best in curve]))
    if power:
        line = [(best["flops"], power["factor"] * best["flops"] ** power["exponent"]) for best in curve]
        layers.append(Series("by parabolas", line, "b"))
    rings = [
        (each["flops"], each["parameters"], f"{scientific(each['flops'])} FLOPs: {compact(each['parameters'])}")
        for each in law["valleys"]
        if each["inside"]
    ]
    layers.append(Dots("", rings, "b", ring=True))
    return scatter_chart(layers, "FLOPs", "parameters", log_x=True, log_y=True, x_text=scientific)


def measured_over_predicted(points: list[dict[str, Any]]) -> Any:
    budgets = sorted({point["budget"] for point in points})
    losses = [value for point in points for value in (point["loss"], point["predicted_loss"])]
    ends = (min(losses), max(losses))
    layers: list[Series | Dots] = [Series("", [(end, end) for end in ends], "n")]
    for place, budget in enumerate(budgets):
        dots = [
            (
                point["predicted_loss"],
                point["loss"],
                f"{point['name']}: measured {point['loss']:.3f}, predicted {point['predicted_loss']:.3f}",
            )
            for point in points
            if point["budget"] == budget
        ]
        layers.append(Dots(scientific(budget), dots, f"s{place % NUM_STYLES}"))
    return scatter_chart(layers, "predicted, nats a token", "measured")


def _read(node: Node, name: str) -> Any:
    return json.loads(node.checkpoint.read(node.checkpoint.file(name)))
