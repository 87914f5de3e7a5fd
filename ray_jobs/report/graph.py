"""The graph of a run as SVG: layers by longest path, few crossings, smooth edges (Sugiyama et al. 1981)."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ray_jobs.report.svg import element, number, titled

BOX_WIDTH, BOX_HEIGHT = 128, 88
WAYPOINT = 14
"""Room that an edge takes in a layer which it passes."""
LAYER_GAP, ROW_GAP = 22, 16
MARGIN = 3
LONG = 1500
"""Wider drawings are scrolled, not shrunk."""
SWEEPS = 8
SETTLING_SWEEPS = 60
STRAIGHT = 1000.0
"""How much more an edge between boxes wants to be straight than one through waypoints."""
TYPE_WIDTH = 6.1
"""Average width of a letter in the boxes' type size of 11.5."""


@dataclass(frozen=True)
class Box:
    """A node as drawn."""

    name: str
    inputs: Sequence[str]
    headline: str
    cost: str
    """Time and CPU-seconds."""
    weight: float
    """Share of the run's time, 0 to 1: the length of the bar at the box's foot."""
    warn: bool = False
    title: str = ""


@dataclass(eq=False)
class _Place:
    """A box, or the point where a long edge passes a layer."""

    source: str
    """The box itself, or the one that the edge comes from."""
    is_box: bool
    above: list["_Place"]
    """Neighbours in the layer before."""
    below: list["_Place"]
    across: float = 0.0
    """Centre, across the direction of the layers."""


def draw_graph(boxes: Sequence[Box], downward: bool = False) -> Markup:
    """Boxes in layers from left to right, or from top to bottom."""
    layers, ends = layered({box.name: list(box.inputs) for box in boxes})
    box_across, box_along = (BOX_WIDTH, BOX_HEIGHT) if downward else (BOX_HEIGHT, BOX_WIDTH)
    _settle(layers, box_across)
    lowest = min((place.across - _room(place, box_across) / 2 for layer in layers for place in layer), default=0)
    along = {
        id(place): MARGIN + depth * (box_along + LAYER_GAP) for depth, layer in enumerate(layers) for place in layer
    }
    for layer in layers:
        for place in layer:
            place.across += MARGIN - lowest
    drawn = [element("path", d=_edge(upper, lower, along, box_along, downward), class_="edge") for upper, lower in ends]
    by_name = {box.name: box for box in boxes}
    for layer in layers:
        for place in layer:
            if place.is_box:
                a, b = along[id(place)], place.across - box_across / 2
                drawn.append(_box(by_name[place.source], *((b, a) if downward else (a, b))))
    long = len(layers) * (box_along + LAYER_GAP) - LAYER_GAP + 2 * MARGIN
    wide = MARGIN + max((p.across + _room(p, box_across) / 2 for layer in layers for p in layer), default=0)
    width, height = (wide, long) if downward else (long, wide)
    return element(
        "svg",
        *drawn,
        viewBox=f"0 0 {number(width)} {number(height)}",
        width=width,
        height=height,
        class_="graph long" if not downward and width > LONG else "graph",
        role="img",
        aria_label="the graph: "
        + ", ".join(f"{box.name} reads {' and '.join(box.inputs) or 'nothing'}" for box in boxes),
    )


def layered(inputs: Mapping[str, Sequence[str]]) -> tuple[list[list[_Place]], list[tuple[_Place, _Place]]]:
    """Layers of places in drawing order, and the edges between neighbouring layers.

    Each box lies behind all its inputs. Long edges of one box share their waypoints.
    """
    depth: dict[str, int] = {}

    def depth_of(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max((depth_of(upstream) for upstream in inputs[name]), default=-1)
        return depth[name]

    places: dict[tuple[str, int], _Place] = {}
    for name in inputs:
        places[name, depth_of(name)] = _Place(name, True, [], [])
    ends = []
    for name, upstreams in inputs.items():
        for upstream in dict.fromkeys(upstreams):
            for level in range(depth[upstream], depth[name]):
                upper = places.setdefault((upstream, level), _Place(upstream, False, [], []))
                last = level + 1 == depth[name]
                key = (name, level + 1) if last else (upstream, level + 1)
                lower = places.setdefault(key, _Place(upstream, False, [], []))
                if lower not in upper.below:
                    upper.below.append(lower)
                    lower.above.append(upper)
                    ends.append((upper, lower))
    layers: list[list[_Place]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for (_, level), place in places.items():
        layers[level].append(place)
    _order(layers)
    return layers, ends


def _order(layers: list[list[_Place]]) -> None:
    """Sorts each layer by the mean place of its neighbours, to and fro."""
    for sweep in range(SWEEPS):
        towards_end = sweep % 2 == 0
        for layer in layers if towards_end else reversed(layers):
            rank = {id(place): index for other in layers for index, place in enumerate(other)}
            current = {id(place): index for index, place in enumerate(layer)}

            def mean(place: _Place, rank: dict[int, int] = rank, current: dict[int, int] = current) -> float:
                neighbours = place.above if towards_end else place.below  # noqa: B023
                ranks = [rank[id(other)] for other in neighbours]
                return sum(ranks) / len(ranks) if ranks else current[id(place)]

            layer.sort(key=mean)


def _room(place: _Place, box_across: float) -> float:
    return box_across if place.is_box else WAYPOINT


def _settle(layers: list[list[_Place]], box_across: float) -> None:
    """Places each layer as near to its neighbours as its order and its boxes' sizes let it."""
    for sweep in range(SETTLING_SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted, weights = [], []
            for place in layer:
                near = place.above + place.below if sweep else []
                pulls = [(_pull(place, other), other.across) for other in near]
                total = sum(weight for weight, _ in pulls)
                wanted.append(sum(weight * at for weight, at in pulls) / total if total else place.across)
                weights.append(STRAIGHT if place.is_box else 1.0)
            rooms = [_room(place, box_across) for place in layer]
            for place, across in zip(layer, spaced(wanted, weights, rooms), strict=True):
                place.across = across


def _pull(place: _Place, other: _Place) -> float:
    """The main line is to be straight, and long edges within; where they leave and enter a box, they may turn."""
    return STRAIGHT if place.is_box == other.is_box else 1.0


def spaced(wanted: Sequence[float], weights: Sequence[float], rooms: Sequence[float]) -> list[float]:
    """Centres in order, apart by their rooms and ROW_GAP, with the least weighted sum of squared distances to `wanted`
    (isotonic regression by pooling adjacent violators)."""
    offsets = [0.0]
    for before, after in itertools.pairwise(rooms):
        offsets.append(offsets[-1] + (before + after) / 2 + ROW_GAP)
    pools: list[tuple[float, float, int]] = []  # mean, weight, size
    for want, weight, offset in zip(wanted, weights, offsets, strict=False):
        mean, size = want - offset, 1
        while pools and pools[-1][0] > mean:
            other, heavy, members = pools.pop()
            mean = (mean * weight + other * heavy) / (weight + heavy)
            weight, size = weight + heavy, size + members
        pools.append((mean, weight, size))
    flat = [mean for mean, _, size in pools for _ in range(size)]
    return [mean + offset for mean, offset in zip(flat, offsets, strict=False)]


def _edge(upper: _Place, lower: _Place, along: Mapping[int, float], box_along: float, downward: bool) -> str:
    """A curve from one place's far side to the next one's near side; through a waypoint it runs straight."""
    start, end = along[id(upper)] + box_along, along[id(lower)]
    half = (start + end) / 2
    points = [(start, upper.across), (half, upper.across), (half, lower.across), (end, lower.across)]
    straight = (along[id(lower)] + box_along, lower.across)
    turned = [(b, a) if downward else (a, b) for a, b in [*points, straight]]
    pairs = [f"{number(a)} {number(b)}" for a, b in turned]
    through = "" if lower.is_box else f"L{pairs[4]}"
    return f"M{pairs[0]}C{pairs[1]} {pairs[2]} {pairs[3]}{through}"


def _box(box: Box, x: float, y: float) -> Markup:
    inner = BOX_WIDTH - 20
    lines = wrapped(box.headline, int(inner / TYPE_WIDTH), 2)
    drawn = [
        element("rect", x=x, y=y, width=BOX_WIDTH, height=BOX_HEIGHT, rx=6, class_="box warn" if box.warn else "box"),
        element("text", _cut(box.name, int(inner / 7.5)), x=x + 10, y=y + 20, class_="name"),
        *(element("text", line, x=x + 10, y=y + 37 + 14 * place) for place, line in enumerate(lines)),
        element("text", _cut(box.cost, int(inner / 5.2)), x=x + 10, y=y + 71, class_="cost"),
        element("rect", x=x + 10, y=y + 78, width=inner, height=3, rx=1.5, class_="track"),
        element("rect", x=x + 10, y=y + 78, width=max(2, inner * box.weight), height=3, rx=1.5, class_="fill a"),
    ]
    return titled("g", box.title or box.name, *drawn)


def wrapped(text: str, width: int, most: int) -> list[str]:
    """At most `most` lines of at most `width` letters; what does not fit ends in an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        elif len(lines) == most:
            lines[-1] = _cut(f"{lines[-1]} …", width)
            break
        else:
            lines.append(_cut(word, width))
    return lines


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(1, width - 1)].rstrip() + "…"
