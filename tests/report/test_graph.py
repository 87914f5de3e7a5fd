"""The graph as it is drawn: layers, order, and room between boxes."""

import itertools
import random

import pytest

from ray_jobs.report.graph import BOX_HEIGHT, BOX_WIDTH, Box, draw_graph, layered, spaced, wrapped
from tests.report.markup import Element, parsed


def boxes_of(edges: dict[str, list[str]]) -> list[Box]:
    return [Box(name, inputs, "headline of a few words", "1 s", 0.5, title=name) for name, inputs in edges.items()]


def places(drawing: Element) -> dict[str, tuple[float, float]]:
    found = {}
    for group in drawing.all("g"):
        frame = group.all("rect")[0]
        found[group.all("title")[0].text()] = (float(frame.attributes["x"]), float(frame.attributes["y"]))
    return found


MAIN_LINE = {
    "snapshot": [],
    "filter": ["snapshot"],
    "tokenizer": ["filter"],
    "tokens": ["filter", "tokenizer"],
    "pretrain": ["tokens", "tokenizer"],
    "evaluate": ["pretrain", "tokens", "tokenizer"],
}


def test_every_box_stands_behind_its_inputs_and_the_main_line_is_straight() -> None:
    at = places(parsed(draw_graph(boxes_of(MAIN_LINE))))
    for name, inputs in MAIN_LINE.items():
        assert all(at[upstream][0] + BOX_WIDTH < at[name][0] for upstream in inputs)
    heights = [y for _, y in at.values()]
    assert max(heights) - min(heights) < 1


def test_downward_it_is_the_same_graph_turned() -> None:
    at = places(parsed(draw_graph(boxes_of(MAIN_LINE), downward=True)))
    for name, inputs in MAIN_LINE.items():
        assert all(at[upstream][1] + BOX_HEIGHT < at[name][1] for upstream in inputs)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("downward", [False, True])
def test_boxes_of_any_graph_do_not_overlap_and_stay_in_the_drawing(seed: int, downward: bool) -> None:
    chance = random.Random(seed)
    names = [f"n{place}" for place in range(18)]
    edges = {name: [other for other in names[:place] if chance.random() < 0.2] for place, name in enumerate(names)}
    drawing = parsed(draw_graph(boxes_of(edges), downward)).all("svg")[0]
    at = places(drawing)
    assert set(at) == set(names)
    for (x, y), (u, v) in itertools.combinations(at.values(), 2):
        assert abs(x - u) >= BOX_WIDTH or abs(y - v) >= BOX_HEIGHT
    _, _, width, height = map(float, drawing.attributes["viewbox"].split())
    for x, y in at.values():
        assert x >= 0 and y >= 0 and x + BOX_WIDTH <= width and y + BOX_HEIGHT <= height


def test_long_edges_of_one_box_share_their_way() -> None:
    layers, _ = layered({"a": [], "b": ["a"], "c": ["a", "b"], "d": ["a", "c"]})
    assert [sum(not place.is_box for place in layer) for layer in layers] == [0, 1, 1, 0]


def test_no_box_and_one_box() -> None:
    assert parsed(draw_graph([])).all("g") == []
    assert len(parsed(draw_graph(boxes_of({"only": []}))).all("g")) == 1


def test_spaced_is_the_nearest_arrangement_with_room() -> None:
    assert spaced([0, 100], [1, 1], [10, 10]) == [0, 100]
    close = spaced([0, 0], [1, 1], [10, 10])
    assert close[1] - close[0] == pytest.approx(26) and sum(close) == pytest.approx(0)


def test_long_headlines_end_in_an_ellipsis() -> None:
    assert wrapped("one two three four five", 9, 2) == ["one two", "three …"]
    assert wrapped("unbreakablelongword", 9, 2) == ["unbreaka…"]
    assert wrapped("", 9, 2) == []
