"""Charts hold with no point, one point and many, and put values where they belong."""

import math

import pytest

from ray_jobs.report.charts import (
    MAX_POINTS,
    Bar,
    FunnelStage,
    Layer,
    Mark,
    Series,
    bar,
    bar_chart,
    funnel,
    histogram,
    line_chart,
    thinned,
)
from ray_jobs.report.svg import Scale, linear_ticks, log_ticks, tick_labels
from tests.report.markup import Element, parsed

SCRIPT = "</title><script>alert(1)</script>"


def titles(chart: Element) -> list[str]:
    return [title.text() for title in chart.all("title")]


def test_a_line_of_no_points_says_so() -> None:
    for points in ([], [(1.0, math.nan)]):
        assert "nothing recorded" in parsed(line_chart([Series("loss", points)], "step", "nats")).text()
    assert "nothing recorded" in parsed(line_chart([Series("norm", [(1, 0.0)])], "step", "norm", log=True)).text()


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("points", [[(1, 5.0)], [(1, 5.0), (2, 5.0)], [(0, 1e-9), (1, 1e9)]])
def test_few_points_are_drawn_within_the_frame(points: list[tuple[float, float]], log: bool) -> None:
    chart = parsed(line_chart([Series("loss", points)], "step", "nats", log))
    hovers = chart.with_class("hover")
    assert len(hovers) == len(points)
    for dot in hovers:
        assert 0 <= float(dot.attributes["cx"]) <= 520 and 0 <= float(dot.attributes["cy"]) <= 250
    assert len(chart.with_class("dot")) == (len(points) == 1)


def test_a_line_rises_where_its_values_rise() -> None:
    dots = parsed(line_chart([Series("a", [(0, 1.0), (1, 2.0), (2, 4.0)])], "x", "y")).with_class("hover")
    places = [(float(dot.attributes["cx"]), float(dot.attributes["cy"])) for dot in dots]
    assert places == sorted(places) and [y for _, y in places] == sorted((y for _, y in places), reverse=True)
    assert places[1][0] - places[0][0] == pytest.approx(places[2][0] - places[1][0], abs=0.02)


def test_a_gap_breaks_the_line() -> None:
    (line,) = parsed(line_chart([Series("a", [(0, 1.0), (1, math.inf), (2, 1.0)])], "x", "y")).with_class("line")
    assert line.attributes["d"].count("M") == 2


def test_many_points_are_thinned_without_losing_a_spike() -> None:
    points = [(float(step), 1.0 + (step == 54_321) * 99 - (step == 777) * 0.5) for step in range(100_000)]
    few = thinned(points)
    assert len(few) <= MAX_POINTS and few == sorted(few)
    assert (54_321.0, 100.0) in few and (777.0, 0.5) in few
    assert len(line_chart([Series("norm", points)], "step", "norm")) < 60_000


def test_marks_stand_at_their_step_and_only_within_the_axis() -> None:
    marks = [Mark(5, "restart"), Mark(50, "later")]
    chart = parsed(line_chart([Series("a", [(0, 1.0), (10, 2.0)])], "x", "y", marks=marks))
    (mark,) = chart.with_class("mark")
    assert titles(mark) == ["restart"]


def test_histogram_of_nothing_one_and_many() -> None:
    assert "nothing to count" in parsed(histogram([0, 1], [Layer("a", [0])], "words", "documents")).text()
    (only,) = parsed(histogram([1, 2], [Layer("a", [7])], "words", "documents")).with_class("fill")
    assert titles(only) == ["1 to 2 words: 7 a"]
    layers = [Layer("kept", [1, 2, 0], "a"), Layer("dropped", [0, 2, 4], "d0")]
    bars = parsed(histogram([1, 10, 100, 1000], layers, "words", "documents", True)).all("rect")
    heights = {titles(e)[0]: float(e.attributes["height"]) for e in bars if e.children}
    assert heights["100 to 1,000 words: 4 dropped"] == pytest.approx(4 * heights["1 to 10 words: 1 kept"], rel=0.02)


def test_bars_are_as_long_as_their_values() -> None:
    chart = parsed(bar_chart([bar("a", 10, "ten"), bar("b", 5, "five"), bar("c", 0, "none")], "values"))
    assert [float(e.attributes["width"]) for e in chart.with_class("fill")] == [1000, 500]
    assert [e.text() for e in chart.with_class("bar-figure")] == ["ten", "five", "none"]
    assert parsed(bar_chart([], "nothing")).with_class("bar") == []


def test_an_interval_is_within_the_common_scale() -> None:
    rows = [Bar("model", [("model", 1.5, "a")], "1.5", interval=(1.0, 2.0))]
    (whisker,) = parsed(bar_chart(rows, "bits")).with_class("whisker")
    assert whisker.attributes["d"].startswith("M500.0 10H1000.0")
    assert titles(whisker) == ["95% interval 1 to 2"]


def test_a_funnel_flows_only_from_what_a_stage_kept() -> None:
    first = FunnelStage("filter", 100, 60, [("short", 30), ("other", 10)], False)
    assert parsed(funnel([])).with_class("bar") == []
    chart = parsed(funnel([first, FunnelStage("dedup", 60, 50, [("exact", 10)], True)]))
    assert len(chart.with_class("flow")) == 1
    widths = [float(e.attributes["width"]) for e in chart.with_class("fill")]
    assert widths == [600, 300, 100, 500, 100]
    assert parsed(funnel([first, FunnelStage("other", 9, 9, [], False)])).with_class("flow") == []


def test_names_are_escaped_in_every_chart() -> None:
    stage = FunnelStage(SCRIPT, 2, 1, [(SCRIPT, 1)], False)
    for chart in (
        line_chart([Series(SCRIPT, [(0, 1.0)]), Series("b", [(1, 1.0)])], SCRIPT, SCRIPT, marks=[Mark(0, SCRIPT)]),
        histogram([1, 2], [Layer(SCRIPT, [1]), Layer("b", [1])], SCRIPT, SCRIPT),
        bar_chart([bar(SCRIPT, 1, SCRIPT, note=SCRIPT)], SCRIPT),
        funnel([stage]),
    ):
        page = parsed(chart)
        assert page.all("script") == [] and SCRIPT in page.text()


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0.12, 0.17, [0.12, 0.13, 0.14, 0.15, 0.16, 0.17]), (-3, 3, [-2, 0, 2])],
)
def test_linear_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert linear_ticks(low, high, 6) == ticks


def test_logarithmic_ticks_are_round() -> None:
    assert log_ticks(1, 100, 7) == [1, 2, 5, 10, 20, 50, 100]
    assert log_ticks(1, 1e6, 7) == [1, 10, 100, 1e3, 1e4, 1e5, 1e6]
    assert len(log_ticks(1e-9, 1e9, 5)) <= 5


def test_tick_labels_tell_ticks_apart() -> None:
    assert tick_labels([0, 0.5, 1]) == ["0.0", "0.5", "1.0"]
    assert tick_labels([0, 20_000, 40_000]) == ["0", "20k", "40k"]
    assert tick_labels([30_010, 30_020]) == ["30,010", "30,020"]
    assert tick_labels([0, 1e-6]) == ["0", "1.0e-6"]


def test_a_scale_of_one_value_has_it_in_the_middle() -> None:
    assert Scale(5, 5, 0, 100)(5) == pytest.approx(50)
    assert Scale(5, 5, 0, 100, log=True)(5) == pytest.approx(50)
