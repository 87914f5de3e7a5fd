"""Main text and what is measured of it, on real pages with gold."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastwarc import ArchiveIterator, WarcRecordType

from configs.crawl import LANGUAGES, FilterSpec
from ray_jobs.crawl.extractor import Extractor
from ray_jobs.crawl.payload import decode_text
from ray_jobs.crawl.rules import SOURCES, judge
from ray_jobs.crawl.scores import Scores, count_words, identify_language, measure
from ray_jobs.crawl.text import MAX_NESTING, is_tangled, main_text
from tests.crawl.archive_bytes import PROSE


def real_pages(data_dir: Path) -> Iterator[tuple[str, str]]:
    archive = str(data_dir / "realpages/realpages-dev.warc.gz")
    for record in ArchiveIterator(archive, record_types=WarcRecordType.response):
        yield record.headers["WARC-Target-URI"], decode_text(record.reader.read(), record.http_content_type or "")


def four_grams(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[at : at + 4]) for at in range(max(1, len(words) - 3)))


def f1_on_gold(extract: Callable[[str], str | None], data_dir: Path) -> float:
    gold = json.loads((data_dir / "realpages/gold_articleBody.json").read_text())
    precisions, recalls = [], []
    for url, html in real_pages(data_dir):
        if url in gold:
            wanted, found = four_grams(gold[url]), four_grams(extract(html) or "")
            common = (wanted & found).total()
            precisions.append(common / found.total())
            recalls.append(common / wanted.total())
    assert len(precisions) >= 43
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 2 * precision * recall / (precision + recall)


def test_fast_main_text_of_real_pages_reaches_an_f1_of_93(data_dir: Path) -> None:
    assert f1_on_gold(main_text, data_dir) >= 0.93


def test_quality_main_text_of_real_pages_reaches_an_f1_of_965(data_dir: Path) -> None:
    with Extractor() as extractor:
        assert f1_on_gold(extractor.text_of, data_dir) >= 0.965


def test_no_real_page_is_taken_for_a_tangle(data_dir: Path) -> None:
    assert [url for url, html in real_pages(data_dir) if is_tangled(html)] == []


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 200_000 + PROSE,
        "<DIV class=x>" * 100_000 + PROSE,
        "<div>" * 50_000 + PROSE + "</div>" * 50_000,
        "<div " + " ".join(f"a{n}=1" for n in range(200_000)) + f">{PROSE}</div>",
        f"<p {'x ' * 400_000}>{PROSE}</p>",
    ],
    ids=["open", "upper case", "closed", "attributes with values", "attributes without"],
)
def test_a_tangle_is_seen_at_once(html: str) -> None:
    began = time.process_time()
    assert main_text(html) is None
    assert time.process_time() - began < 1.0


def test_what_the_guard_lets_through_is_read_in_good_time() -> None:
    html = "<div>" * MAX_NESTING + f"<p>{PROSE * 20}</p>" + "</div>" * MAX_NESTING
    began = time.process_time()
    assert PROSE.strip() in (main_text(html) or "")
    assert time.process_time() - began < 0.5


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


def test_languages_are_told_as_well_as_the_model_can(data_dir: Path) -> None:
    right = total = 0
    for file in sorted((data_dir / "lid/sentences").glob("*.txt")):
        if file.stem not in LANGUAGES:
            continue
        for line in file.read_text().splitlines()[:20]:
            right += identify_language(line)[0] == file.stem
            total += 1
    assert total > 1000
    assert right / total > 0.85


def test_language_is_told_from_the_beginning() -> None:
    assert identify_language(PROSE * 20 + "Der Fluss trägt das Wasser zur Mühle. " * 500)[0] == "en"
    assert identify_language("Der Fluss trägt\ndas Wasser\nzur Mühle. " * 5)[0] == "de"


def test_a_text_without_words_has_no_certain_language() -> None:
    assert identify_language("12 34 !?")[1] < 0.65
    assert identify_language("") == ("", 0.0) or identify_language("")[1] < 0.65


def test_words_are_counted_in_scripts_with_and_without_spaces() -> None:
    assert count_words("one two\nthree") == 3
    assert count_words("naïve café") == 2
    assert count_words("水車小屋") >= 4
    assert count_words("") == 0


def test_symbols_are_hash_signs_or_ellipses_a_word() -> None:
    assert measure("#a #b c d").symbol_ratio == 0.5
    assert measure("a... b… c d #").symbol_ratio == 0.4
    assert measure("a b").symbol_ratio == 0


GOOD = Scores("en", 0.9, 500, 0.01)


@pytest.mark.parametrize(
    ("scores", "rule", "value", "threshold"),
    [
        (Scores("de", 0.9, 500, 0.0), "language", 0.9, None),
        (Scores("en", 0.64, 500, 0.0), "language_score", 0.64, 0.65),
        (Scores("en", 0.9, 49, 0.0), "min_words", 49, 50),
        (Scores("en", 0.9, 100_001, 0.0), "max_words", 100_001, 100_000),
        (Scores("en", 0.9, 500, 0.11), "symbol_ratio", 0.11, 0.1),
    ],
)
def test_each_rule_drops_what_it_is_for(scores: Scores, rule: str, value: float, threshold: float | None) -> None:
    verdict = judge(scores, FilterSpec())
    assert verdict is not None
    assert (verdict.rule, verdict.value, verdict.threshold) == (rule, value, threshold)
    assert verdict.rule in SOURCES


@pytest.mark.parametrize("scores", [GOOD, Scores("en", 0.65, 50, 0.1), Scores("en", 1.0, 100_000, 0.0)])
def test_a_document_on_the_thresholds_is_kept(scores: Scores) -> None:
    assert judge(scores, FilterSpec()) is None


def test_no_languages_keeps_every_language() -> None:
    assert judge(Scores("ja", 0.9, 500, 0.0), FilterSpec(languages=())) is None
    assert judge(Scores("ja", 0.9, 500, 0.0), FilterSpec(languages=("de", "ja"))) is None
