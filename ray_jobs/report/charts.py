"""Charts as inline SVG: line, bars, histogram, funnel. Colours are classes of the CSS, which knows light and dark.

Line charts and histograms are drawings of WIDTH x HEIGHT units that scale as a whole. Bars and funnels are rows of the
page: their text stays text of the page's size, and only the bar stretches.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ray_jobs.report.figures import compact, count, share
from ray_jobs.report.svg import Scale, element, tick_labels, titled

WIDTH, HEIGHT = 520, 250
TOP, RIGHT, BOTTOM = 14, 14, 44
LEGEND_ROW = 18
"""What a further row of the legend adds to HEIGHT."""
CHARACTER = 7.2
"""Width of a digit in the charts' type size of 13 units."""
MAX_POINTS = 400
"""More than one a unit of width is not seen; of each stretch the lowest and the highest stay: no spike is lost."""
MAX_HOVER_POINTS = 120
BAR = 1000
"""Units of a bar's length."""


@dataclass(frozen=True)
class Series:
    name: str
    points: Sequence[tuple[float, float]]
    """By rising x. A value that is no finite number (on a logarithmic scale: nor positive) breaks the line."""
    style: str = "a"


@dataclass(frozen=True)
class Mark:
    """A vertical line at `x`."""

    x: float
    label: str


def line_chart(
    series: Sequence[Series], x_label: str, y_label: str, log: bool = False, marks: Sequence[Mark] = ()
) -> Markup:
    """Lines over common axes. `log` makes y logarithmic."""
    runs = [(line, _runs(thinned(line.points), log)) for line in series]
    points = [point for _, parts in runs for part in parts for point in part]
    if not points:
        return _frame([element("text", "nothing recorded", x=WIDTH / 2, y=HEIGHT / 2, class_="middle")], "empty chart")
    ys = [y for _, y in points]
    low, high = min(ys), max(ys)
    if not log:  # a little air, and zero where it is near
        air = (high - low) * 0.06
        low, high = (0 if 0 <= low < 0.35 * high else low - air), high + air
    left = _left_margin(Scale(low, high, 0, 1, log))
    x = Scale(min(x for x, _ in points), max(x for x, _ in points), left, WIDTH - RIGHT)
    y = Scale(low, high, HEIGHT - BOTTOM, TOP, log)
    drawn = [*_y_axis(y, left, y_label), *_x_axis(x, x_label)]
    for mark in marks:
        if x.low <= mark.x <= x.high:
            place = x(mark.x)
            drawn.append(titled("path", mark.label, d=f"M{place:.1f} {TOP}V{HEIGHT - BOTTOM}", class_="mark"))
    for line, parts in runs:
        path = "".join("M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in part) for part in parts)
        drawn.append(element("path", d=path, class_=f"line {line.style}"))
        lone = [part[0] for part in parts if len(part) == 1]
        drawn += [element("circle", cx=x(a), cy=y(b), r=3.5, class_=f"dot {line.style}") for a, b in lone]
        known = [point for part in parts for point in part]
        for a, b in known[:: -(-len(known) // MAX_HOVER_POINTS)]:
            title = f"{x_label} {compact(a)}: {line.name} {b:,.4g}"
            drawn.append(titled("circle", title, cx=x(a), cy=y(b), r=6, class_=f"hover {line.style}"))
    rows = 1
    if len(series) > 1:
        legend, rows = _legend([(line.name, line.style) for line in series], left)
        drawn += legend
    return _frame(drawn, f"{y_label} over {x_label}: {', '.join(line.name for line in series)}", rows)


@dataclass(frozen=True)
class Dots:
    """Single points, each with what it says when pointed at."""

    name: str
    points: Sequence[tuple[float, float, str]]
    """(x, y, title)."""
    style: str = "a"
    ring: bool = False
    """Hollow and larger: what was found, beside what was measured."""


@dataclass(frozen=True)
class Band:
    """The area between two curves."""

    name: str
    points: Sequence[tuple[float, float, float]]
    """(x, low, high), by rising x."""
    style: str = "a"


def scatter_chart(
    layers: Sequence[Series | Dots | Band],
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    x_text: Callable[[float], str] | None = None,
) -> Markup:
    """Dots, curves and bands over common axes, the first ones lowest; a layer without a name is not in the legend.

    Values must be finite, and positive on a logarithmic axis.
    """
    places = [(point[0], y) for layer in layers for point in layer.points for y in _heights(layer, point)]
    if not places:
        return _frame([element("text", "nothing recorded", x=WIDTH / 2, y=HEIGHT / 2, class_="middle")], "empty chart")
    (x_low, x_high), (y_low, y_high) = (
        _with_air(values, log)
        for values, log in zip(([x for x, _ in places], [y for _, y in places]), (log_x, log_y), strict=True)
    )
    left = _left_margin(Scale(y_low, y_high, 0, 1, log_y))
    x = Scale(x_low, x_high, left, WIDTH - RIGHT, log_x)
    y = Scale(y_low, y_high, HEIGHT - BOTTOM, TOP, log_y)
    drawn = [*_y_axis(y, left, y_label), *_x_axis(x, x_label, x_text)]
    for layer in layers:
        if isinstance(layer, Series):
            path = "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in layer.points)
            drawn.append(titled("path", layer.name, d=path, class_=f"line {layer.style}"))
        elif isinstance(layer, Band):
            there = [f"{x(a):.1f} {y(high):.1f}" for a, _, high in layer.points]
            back = [f"{x(a):.1f} {y(low):.1f}" for a, low, _ in reversed(layer.points)]
            drawn.append(titled("path", layer.name, d=f"M{'L'.join(there + back)}Z", class_=f"band {layer.style}"))
        else:
            shape, radius = ("ring", 5.5) if layer.ring else ("dot", 4)
            drawn += [
                titled("circle", title, cx=x(a), cy=y(b), r=radius, class_=f"{shape} {layer.style}")
                for a, b, title in layer.points
            ]
    legend, rows = _legend([(layer.name, layer.style) for layer in layers if layer.name], left)
    return _frame([*drawn, *legend], f"{y_label} over {x_label}", rows)


def _heights(layer: Series | Dots | Band, point: tuple[Any, ...]) -> tuple[float, ...]:
    return (point[1], point[2]) if isinstance(layer, Band) else (point[1],)


def _with_air(values: Sequence[float], log: bool) -> tuple[float, float]:
    """The values' range and a twentieth more at each end, so that no dot lies on the frame."""
    low, high = min(values), max(values)
    if log:
        air = (high / low) ** 0.05
        return low / air, high * air
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS points: the lowest and the highest of each stretch, in order."""
    if len(points) <= MAX_POINTS:
        return list(points)
    size = -(-2 * len(points) // MAX_POINTS)
    kept = []
    for first in range(0, len(points), size):
        stretch = [point for point in points[first : first + size] if math.isfinite(point[1])]
        if stretch:
            kept += sorted({min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])})
    return kept


def _runs(points: Sequence[tuple[float, float]], log: bool) -> list[list[tuple[float, float]]]:
    """The stretches without a gap."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if math.isfinite(point[1]) and math.isfinite(point[0]) and not (log and point[1] <= 0):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


@dataclass(frozen=True)
class Layer:
    """One colour of a histogram's bars, or of a bar."""

    name: str
    values: Sequence[float]
    style: str = "a"


def histogram(
    edges: Sequence[float],
    layers: Sequence[Layer],
    x_label: str,
    y_label: str,
    log: bool = False,
    marks: Sequence[Mark] = (),
) -> Markup:
    """Stacked counts in bins. `edges` are one more than each layer's values; `log` makes x logarithmic."""
    assert all(len(layer.values) == len(edges) - 1 for layer in layers), "one value a bin"
    totals = [sum(values) for values in zip(*(layer.values for layer in layers), strict=True)]
    if not any(totals):
        return _frame([element("text", "nothing to count", x=WIDTH / 2, y=HEIGHT / 2, class_="middle")], "empty chart")
    left = _left_margin(Scale(0, max(totals), 0, 1))
    x = Scale(edges[0], edges[-1], left, WIDTH - RIGHT, log)
    y = Scale(0, max(totals) * 1.06, HEIGHT - BOTTOM, TOP)
    drawn = [*_y_axis(y, left, y_label, whole=True), *_x_axis(x, x_label)]
    for place, (first, end) in enumerate(itertools.pairwise(edges)):
        below = 0.0
        for layer in layers:
            value = layer.values[place]
            if value:
                title = f"{compact(first)} to {compact(end)} {x_label}: {count(value)} {layer.name}"
                top, bottom = y(below + value), y(below)
                gap = min(1.0, (x(end) - x(first)) / 8)
                width = x(end) - x(first) - gap
                drawn.append(
                    titled(
                        "rect", title, x=x(first), y=top, width=width, height=bottom - top, class_=f"fill {layer.style}"
                    )
                )
            below += value
    for mark in marks:
        if x.low <= mark.x <= x.high:
            drawn.append(titled("path", mark.label, d=f"M{x(mark.x):.1f} {TOP}V{HEIGHT - BOTTOM}", class_="mark"))
    rows = 1
    if len(layers) > 1:
        legend, rows = _legend([(layer.name, layer.style) for layer in layers], left)
        drawn += legend
    return _frame(drawn, f"histogram of {x_label}", rows)


def _left_margin(y: Scale) -> float:
    return 12 + CHARACTER * max((len(label) for label in tick_labels(y.ticks(5))), default=1)


def _y_axis(y: Scale, left: float, label: str, whole: bool = False) -> list[Markup]:
    """Grid lines with their values; where things are counted, at whole numbers only."""
    ticks = [tick for tick in y.ticks(5) if not whole or float(tick).is_integer()]
    drawn = []
    for value, text in zip(ticks, tick_labels(ticks), strict=True):
        drawn.append(element("path", d=f"M{left:.1f} {y(value):.1f}H{WIDTH - RIGHT}", class_="grid"))
        drawn.append(element("text", text, x=left - 7, y=y(value) + 4.5, class_="end"))
    # Stands above the plot's upper right corner, where neither ticks nor legend are.
    return [*drawn, element("text", label, x=WIDTH - RIGHT, y=TOP - 2, class_="end label")]


def _x_axis(x: Scale, label: str, text_of: Callable[[float], str] | None = None) -> list[Markup]:
    floor = HEIGHT - BOTTOM
    ticks = x.ticks(7)
    texts = [text_of(tick) for tick in ticks] if text_of else tick_labels(ticks)
    drawn = [element("path", d=f"M{x(x.low):.1f} {floor}H{WIDTH - RIGHT}", class_="axis")]
    for value, text in zip(ticks, texts, strict=True):
        place = min(x(value), WIDTH - CHARACTER * len(text) / 2)
        drawn.append(element("path", d=f"M{x(value):.1f} {floor}v4", class_="axis"))
        drawn.append(element("text", text, x=place, y=floor + 18, class_="middle"))
    return [*drawn, element("text", label, x=WIDTH - RIGHT, y=floor + 38, class_="end label")]


def _legend(names: Sequence[tuple[str, str]], left: float) -> tuple[list[Markup], int]:
    """Its drawings, and how many rows they take."""
    drawn, place, row = [], left, 0
    for name, style in names:
        width = 16 + CHARACTER * len(name)
        if place > left and place + width > WIDTH:
            place, row = left, row + 1
        y = HEIGHT + LEGEND_ROW * row
        drawn.append(element("rect", x=place, y=y - 16, width=11, height=11, rx=2, class_=f"fill {style}"))
        drawn.append(element("text", name, x=place + 16, y=y - 6, class_="label"))
        place += width + 18
    return drawn, row + 1


def _frame(drawn: Sequence[Markup], description: str, legend_rows: int = 1) -> Markup:
    view = f"0 0 {WIDTH} {HEIGHT + LEGEND_ROW * (legend_rows - 1)}"
    return element("svg", *drawn, viewBox=view, class_="chart", role="img", aria_label=description)


@dataclass(frozen=True)
class Bar:
    """A row: label, bar, figure. `interval` draws whiskers; more than one part stacks them."""

    label: str
    parts: Sequence[tuple[str, float, str]]
    """(name, value, style) from the left."""
    figure: str
    note: str = ""
    interval: tuple[float, float] | None = None

    @property
    def total(self) -> float:
        return sum(value for _, value, _ in self.parts)


def bar(label: str, value: float, figure: str, style: str = "a", note: str = "") -> Bar:
    """A row with one part."""
    return Bar(label, [(label, value, style)], figure, note)


def bar_chart(bars: Sequence[Bar], description: str, longest: float | None = None) -> Markup:
    """Rows of horizontal bars on a common scale from 0 (to `longest`, where charts are to be compared)."""
    most = longest or max((max(row.total, *(row.interval or (0,))) for row in bars), default=0) or 1
    rows = [
        element(
            "div",
            element("span", row.label, class_="bar-label", title=row.note or row.label),
            element("svg", *_bar_parts(row, most), **_STRETCH),
            element("span", row.figure, class_="bar-figure"),
            class_="bar",
            role="listitem",
        )
        for row in bars
    ]
    return element("div", *rows, class_="bars", role="list", aria_label=description)


_STRETCH = {"viewBox": f"0 0 {BAR} 20", "preserveAspectRatio": "none", "class_": "stretch", "aria_hidden": "true"}


def _bar_parts(row: Bar, most: float) -> list[Markup]:
    drawn, start = [], 0.0
    for name, value, style in row.parts:
        if value > 0:
            title = f"{name}: {row.figure}" if len(row.parts) == 1 else f"{name}: {compact(value)}"
            # What is there is seen, however little it is.
            width = max(BAR * value / most, 2)
            drawn.append(titled("rect", title, x=start, y=2, width=width, height=16, class_=f"fill {style}"))
            start += BAR * value / most
    if row.interval is not None:
        low, high = (BAR * value / most for value in row.interval)
        title = f"95% interval {row.interval[0]:.4g} to {row.interval[1]:.4g}"
        path = f"M{low:.1f} 10H{high:.1f}M{low:.1f} 5V15M{high:.1f} 5V15"
        drawn.append(titled("path", title, d=path, class_="whisker"))
    return drawn


@dataclass(frozen=True)
class FunnelStage:
    name: str
    entered: int
    kept: int
    dropped: Sequence[tuple[str, int]]
    """(reason, documents), most first."""
    continues: bool
    """What enters is what the stage above kept."""


def funnel(stages: Sequence[FunnelStage]) -> Markup:
    """A bar a stage: what it kept, then what it dropped by reason; what was kept flows into the stage below."""
    most = max((stage.entered for stage in stages), default=0) or 1
    rows: list[Markup] = []
    for above, stage in zip([None, *stages], stages, strict=False):
        if above is not None and stage.continues:
            first, second = BAR * above.kept / most, BAR * stage.entered / most
            flow = element(
                "path", d=f"M0 0H{first:.1f}C{first:.1f} 10 {second:.1f} 10 {second:.1f} 20H0Z", class_="flow"
            )
            rows.append(element("div", element("svg", flow, **_STRETCH), class_="funnel-flow"))
        parts = [("kept", stage.kept, "a")]
        parts += [(f"dropped: {reason}", n, f"d{min(place, 4)}") for place, (reason, n) in enumerate(stage.dropped)]
        row = Bar(stage.name, parts, "")
        figures = f"{count(stage.kept)} of {count(stage.entered)}"
        rows.append(
            element(
                "div",
                element("span", stage.name, class_="bar-label"),
                element("svg", *_bar_parts(row, most), **_STRETCH),
                element("span", figures, element("small", f" {share(stage.kept, stage.entered)}"), class_="bar-figure"),
                class_="bar",
                role="listitem",
            )
        )
    return element(
        "div", *rows, class_="bars funnel", role="list", aria_label="documents kept and dropped, stage by stage"
    )
