"""Main text and what is measured of it, on real pages with gold."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from trafilatura import extract

from ray_jobs.crawl.extractor import Extractor
from ray_jobs.crawl.precise import OPTIONS, precise_text
from ray_jobs.crawl.statistics import measure_texts
from ray_jobs.crawl.text import MAX_NESTING, is_tangled, main_text
from tests.crawl.archive_bytes import PROSE
from tests.crawl.gold import f1_of_main_text, real_pages


def test_fast_main_text_of_real_pages_reaches_an_f1_of_93(data_dir: Path) -> None:
    score = f1_of_main_text(data_dir, main_text)
    assert score.pages >= 43
    assert score.f1 >= 0.93


def test_quality_main_text_of_real_pages_reaches_an_f1_of_965(data_dir: Path) -> None:
    with Extractor() as extractor:
        assert f1_of_main_text(data_dir, extractor.text_of).f1 >= 0.965


def test_quality_text_has_trafilaturas_own_lines_in_paragraphs(data_dir: Path) -> None:
    for _, html in itertools.islice(real_pages(data_dir), 0, 90, 3):
        own, text = extract(html, **OPTIONS) or "", precise_text(html) or ""
        assert [line.strip() for line in text.splitlines() if line.strip()] == [
            line.strip() for line in own.splitlines() if line.strip()
        ]


@pytest.mark.parametrize("extraction", [main_text, precise_text])
def test_paragraphs_are_set_apart_by_empty_lines_and_programs_are_not(extraction: Callable[[str], str | None]) -> None:
    program = "def turn(wheel):\n    return wheel + 1"
    parts = [f"<h1>Mills</h1><p>{PROSE * 4}</p><p>Second. {PROSE * 4}</p>", f"<pre>{program}</pre><p>{PROSE * 4}</p>"]
    text = extraction(f"<html><body><main><article>{''.join(parts)}</article></main></body></html>") or ""
    found = [paragraph.strip() for paragraph in text.split("\n\n")]
    prose = (PROSE * 4).strip()
    assert found == ["Mills", prose, f"Second. {prose}", program, prose]


def test_no_real_page_is_taken_for_a_tangle(data_dir: Path) -> None:
    assert [url for url, html in real_pages(data_dir) if is_tangled(html)] == []


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 200_000 + PROSE,
        "<DIV class=x>" * 100_000 + PROSE,
        "<dIv>" * 100_000 + PROSE,
        "<article>" * 100_000 + PROSE,
        "<Article><div>" * 50_000 + PROSE,
        "<div>" * 50_000 + PROSE + "</div>" * 50_000,
        "<div " + " ".join(f"a{n}=1" for n in range(200_000)) + f">{PROSE}</div>",
        f"<p {'x ' * 400_000}>{PROSE}</p>",
    ],
    ids=[
        "open",
        "upper case",
        "mixed case",
        "articles",
        "both",
        "closed",
        "attributes with values",
        "attributes without",
    ],
)
def test_a_tangle_is_seen_at_once(html: str) -> None:
    began = time.process_time()
    assert main_text(html) is None
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("tag", ["div", "article"])
def test_what_the_guard_lets_through_is_read_in_good_time(tag: str) -> None:
    html = f"<{tag}>" * MAX_NESTING + f"<p>{PROSE * 20}</p>" + f"</{tag}>" * MAX_NESTING
    began = time.process_time()
    assert PROSE.strip() in (main_text(html) or "")
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("tag", ["span", "b", "section", "p", "ul><li", "table><tr><td", "dl><dd", "blockquote", "x-y"])
def test_other_elements_may_nest_as_deep_as_a_page_has_room(tag: str) -> None:
    html = f"<{tag}>" * 30_000 + PROSE * 20
    began = time.process_time()
    main_text(html)
    assert time.process_time() - began < 2.0


def test_a_long_script_is_no_tangle() -> None:
    script = "<script>" + "if (a <b && c) { x = y ; call ( 'z' , 1 ) } " * 20_000 + "</script>"
    assert not is_tangled(f"<html>{script}<p>{PROSE}</p></html>")


def test_navigation_and_footer_are_left_out() -> None:
    html = f"""<html><body><header><nav><ul><li><a href=/a>Home page</a></li><li><a href=/b>Shop now</a></li></ul></nav>
    </header><main><article><h1>Mills</h1>{f"<p>{PROSE * 4}</p>" * 4}</article></main>
    <footer><p>All rights reserved. Cookie preferences.</p></footer></body></html>"""
    text = main_text(html) or ""
    assert text.count(PROSE.strip()) == 16
    assert "Home page" not in text and "Cookie" not in text


def test_words_are_counted_in_scripts_with_and_without_spaces() -> None:
    texts = {"one two\nthree": 3, "naïve café": 2, "水車小屋": 4, "a水b ไท": 5, "": 0}
    assert [measured.num_words for measured in measure_texts(list(texts))] == list(texts.values())


def test_symbols_are_hash_signs_or_ellipses_a_word() -> None:
    measured = measure_texts(["#a #b c d", "a... b… c d #", "a b"])
    assert [one.symbol_ratio for one in measured] == [0.5, 0.4, 0]
