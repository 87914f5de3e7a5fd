"""RefinedWeb's line corrections, kind by kind."""

import time
from pathlib import Path

import pytest

from configs.crawl import FilterSpec, RefinedWebLines
from ray_jobs.crawl.lines import Corrected, correct_line, correct_lines, count_words
from ray_jobs.crawl.rules import redecide
from ray_jobs.crawl.statistics import measure_texts
from tests.crawl.archive_bytes import PROSE, http, members, page, record
from tests.crawl.nodes import NO_HEURISTICS, counted, filter_one, rows

ON = RefinedWebLines()
SPEC = FilterSpec(languages=(), refinedweb_lines=ON, **NO_HEURISTICS)


def corrected(line: str, spec: RefinedWebLines = ON) -> str | None:
    return correct_line(line, count_words(line), spec)


@pytest.mark.parametrize(
    "field, off, lines",
    [
        ("max_uppercase", None, ["SUBSCRIBE TO OUR NEWSLETTER TODAY", "NEWS AND SPORT of TODAY", "ÜBER UNS ALLE"]),
        ("remove_numbers", False, ["12 345", "2026 / 10 / 01", "(555) 0199-234", "$ 12.50"]),
        ("remove_counters", False, ["3 likes", "1,204 Shares", "2.5k followers", "15 comments.", "1 reply"]),
        ("remove_single_words", False, ["Home", "»", "Contact."]),
    ],
)
def test_lines_of_a_kind_are_removed_if_the_kind_is(field: str, off: object, lines: list[str]) -> None:
    assert [corrected(line) for line in lines] == [None] * len(lines)
    others = {"max_uppercase": None, "remove_numbers": False, "remove_counters": False, "remove_single_words": False}
    without = RefinedWebLines(**others)
    assert [corrected(line, without) for line in lines] == lines
    alone = RefinedWebLines(**others | {field: getattr(ON, field)})
    assert [corrected(line, alone) for line in lines] == [None] * len(lines)
    assert getattr(without, field) == off


@pytest.mark.parametrize(
    "line, left",
    [
        ("Sign in The mill by the river", "The mill by the river"),
        ("log in | The mill", "The mill"),
        ("Skip to content: The mill", "The mill"),
        ("The mill turns all day. Read more...", "The mill turns all day."),
        ("The mill turns [Continue reading →]", "The mill turns"),
        ("The mill shop 3 items in your cart open today", "The mill shop  open today"),
        ("Sign in", None),
        ("0 items in cart", None),
        ("Read more »", None),
    ],
)
def test_short_lines_are_edited_at_their_beginning_end_and_anywhere(line: str, left: str | None) -> None:
    assert corrected(line) == left
    assert corrected(line, RefinedWebLines(max_edited_words=0)) == line


@pytest.mark.parametrize(
    "line",
    [
        "The mill turns its wheel all day long.",
        "In 2026 it had 3 likes and then some.",
        "NATO and the EU met in the USA today.",
        "They asked whether one should read more or less.",
        "Click here and there is nothing at all.",
        "Whoever wants to know about mills of other rivers may as well read more",
        "3.2 Likes and dislikes",
        "水車小屋",
        "",
        "   ",
    ],
)
def test_other_lines_stay_as_they_are(line: str) -> None:
    assert corrected(line) is line


def test_words_are_counted_as_the_statistics_count_them() -> None:
    for text in ("one two\nthree", "水車小屋", "a水b ไท", "", " x "):
        assert count_words(text) == measure_texts([text])[0].num_words


def test_removed_words_are_a_share_of_all() -> None:
    text = f"Home\n{PROSE.strip()}\n\n3 likes\n\n{PROSE.strip()} \nSign in now please"
    result = correct_lines(text, ON)
    assert result == Corrected(f"{PROSE.strip()}\n\n\n{PROSE.strip()} \nnow please", 2, 1, 5 / 47)
    assert correct_lines(PROSE, ON) == Corrected(PROSE)
    assert correct_lines("Home\nNews", ON) == Corrected("", 2, 0, 1.0)


@pytest.mark.parametrize("unit", ["-", " - ", "1", "1 ", ">", "sign in", "read more.", "X", "1 items in", "12,k"])
def test_patterns_take_linear_time(unit: str) -> None:
    spec = RefinedWebLines(remove_single_words=False, max_uppercase=None, max_edited_words=10**9)
    began = time.process_time()
    correct_lines(unit * 100_000 + "!", spec)
    assert time.process_time() - began < 2.0


def test_a_document_that_loses_too_many_words_is_dropped_and_the_audit_says_how_many(tmp_path: Path) -> None:
    prose = "<p>" + "</p><p>".join([PROSE] * 12) + "</p>"
    bodies = [prose, prose + "<p>1,204 likes</p><p>Sign in now</p>", prose + "<p>BUY OUR FLOUR NOW OR NEVER</p>" * 6]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(members(*(record(http(page(body))) for body in [*bodies, "<p>Home</p><p>News</p>"])))
    output = filter_one(path, SPEC)
    audit = rows(output, "audit.parquet")
    rule = "refinedweb_removed_words"
    assert [row["rule"] for row in audit] == [None, None, rule, rule]
    assert [row["num_removed_lines"] for row in audit] == [0, 1, 6, 2]
    assert [row["num_edited_lines"] for row in audit] == [0, 1, 0, 0]
    assert (audit[2]["value"], audit[2]["threshold"]) == (pytest.approx(36 / 276), 0.05)
    assert counted(output, "lines_", "dropped.") == {
        "lines_removed": 9,
        "lines_edited": 1,
        f"dropped.{rule}": 2,
    }
    texts = [row["text"] for row in rows(output, "documents.parquet")]
    assert "likes" not in texts[1] and "Sign in" not in texts[1] and texts[1].endswith("now")
    # Statistics are those of the corrected text, and thresholds can be set anew.
    assert [row["num_words"] for row in audit] == [240, 241, 240, 0]
    lax = SPEC.model_copy(update={"refinedweb_lines": RefinedWebLines(max_removed_words=0.2)})
    assert [redecide(row, lax) is None for row in audit] == [True, True, True, False]


def test_a_document_of_which_nothing_is_left_has_no_text_whatever_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.warc.gz"
    path.write_bytes(members(record(http(page("<p>Home</p><p>News</p>")))))
    off = {"min_language_score": 0, "min_words": 0, "min_tokens": 0}
    lax = SPEC.model_copy(update={**off, "refinedweb_lines": RefinedWebLines(max_removed_words=None)})
    (row,) = rows(filter_one(path, lax), "audit.parquet")
    assert row["rule"] == "no_text" and row["num_removed_lines"] == 2
    verdict = redecide(row, lax)
    assert verdict is not None and verdict.rule == "no_text"


def test_without_the_group_no_line_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.warc.gz"
    path.write_bytes(members(record(http(page(f"{PROSE * 12}<p>3 likes</p>")))))
    output = filter_one(path)
    (row,) = rows(output, "audit.parquet")
    assert row["num_removed_lines"] is None and "lines_removed" not in output.counters
    assert "3 likes" in rows(output, "documents.parquet")[0]["text"]
