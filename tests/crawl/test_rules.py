"""Each rule drops what it is for and nothing else, and the audit is enough to decide again."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from configs.crawl import C4, FilterSpec, FineWeb, GopherQuality, GopherRepetition
from ray_jobs.crawl.rules import (
    OF_SCORES,
    RULES,
    SOURCES,
    URL_BLOCKLIST,
    VERSIONS,
    Rule,
    Verdict,
    is_blocked,
    judge,
    redecide,
)
from ray_jobs.crawl.scores import Scores
from ray_jobs.crawl.statistics import NAMES, measure_texts
from tests.crawl.archive_bytes import PROSE, http, members, page, record
from tests.crawl.nodes import NO_HEURISTICS, filter_one, rows

GROUPS = {"gopher_quality": GopherQuality, "gopher_repetition": GopherRepetition, "c4": C4, "fineweb": FineWeb}
# With values for the thresholds that have none in C4's paper.
ALL_ON = FilterSpec(max_words=3000, c4=C4(min_punctuated_lines=0.1, max_few_word_lines=0.4, max_javascript_lines=0.1))


def scored(text: str, language: str = "en", language_score: float = 0.9) -> Scores:
    (measured,) = measure_texts([text])
    return Scores(language, language_score, measured)


def alone(rule: Rule, spec: FilterSpec = ALL_ON) -> FilterSpec:
    """The spec with this rule as the only one."""
    fields: dict[str, Any] = {
        "languages": (),
        "min_language_score": 0,
        "min_words": 0,
        "min_tokens": 0,
        "max_words": 10**9,
    }
    fields |= {"max_symbol_ratio": 10**9} | dict.fromkeys(GROUPS)
    if rule.group is None:
        return FilterSpec(**fields | {rule.threshold: getattr(spec, rule.threshold)})
    group = GROUPS[rule.group]
    nothing = {name: None for name in group.model_fields if name != "languages"}
    value = getattr(getattr(spec, rule.group), rule.threshold)
    return FilterSpec(**fields | {rule.group: group(**nothing | {rule.threshold: value})})


# Of line corrections, which tests/crawl/test_lines.py is about.
REMOVED_WORDS = "refinedweb_removed_words"


def broken(scores: Scores) -> set[str]:
    rules = (rule for rule in RULES if rule.name != REMOVED_WORDS)
    return {rule.name for rule in rules if judge(scores, None, alone(rule)) is not None}


def new_words(length: int = 6) -> Iterator[str]:
    """Words of so many letters, none twice."""
    for number in count():
        letters = ""
        for _ in range(length):
            number, letter = divmod(number, 26)
            letters += chr(ord("a") + letter)
        yield letters


def lines(num: int, words: Iterator[str], num_words: int = 10, end: str = ".") -> list[str]:
    return [" ".join(next(words) for _ in range(num_words)) + end for _ in range(num)]


STOP = "We have the mill that turns with water."


def text(*parts: str) -> str:
    return "\n".join([STOP, *parts])


def good(num: int = 40) -> list[str]:
    return lines(num, new_words())


SPACED = 7 / 6
"""Characters of a word with the space after it, over those without."""


def n_grams(width: int, share: float) -> str:
    """Stretches of `width` words, each twice with other words after it, that are this share of the text."""
    share *= SPACED
    words, out, num_stretches = new_words(), list[str](), 12
    stretches = [[next(words) for _ in range(width)] for _ in range(num_stretches)]
    room = round(num_stretches * width / share) - 2 * num_stretches * width - 44  # of the lines around them
    for stretch in stretches * 2:
        out += [*stretch, *(next(words) for _ in range(room // (2 * num_stretches)))]
    out += [next(words) for _ in range(room % (2 * num_stretches))]
    return text(" ".join(out), *lines(6, words, 6))


def frequent(width: int, share: float) -> str:
    """One stretch of `width` words, again and again, of which this share of the text is made."""
    share *= SPACED
    words = new_words()
    stretch = " ".join(next(words) for _ in range(width))
    between = round(width / share) - width
    return text(*(f"{stretch} {line}" for line in lines(60, words, between)))


def interleaved(some: list[str], others: list[str]) -> list[str]:
    """Each of `some` after one of `others`, which are more."""
    return [line for place, other in enumerate(others) for line in (other, *some[place : place + 1])]


def with_duplicate_lines(num_duplicates: int, num_others: int) -> list[str]:
    """Lines of four words, so that no 5-gram stands twice."""
    words = new_words(8)
    twice = lines(num_duplicates, words, 4)
    return interleaved(twice * 2, lines(num_others, words, 4))


def paragraphs(*parts: str) -> str:
    return "\n\n".join([STOP, *parts])


BREAKING = {
    "min_words": text(*lines(5, new_words(), 8)),
    "min_tokens": "\n".join(["to be of", *lines(4, new_words(2), 12, "!")]),
    "max_words": text(*good(310)),
    "symbol_ratio": text(*(f"# {line} #" for line in lines(40, new_words()))).replace(". #", " #."),
    "gopher_min_word_length": "\n".join(["to be of", *lines(20, new_words(2), 16, "!")]),
    "gopher_max_word_length": text(*lines(40, new_words(12))),
    "gopher_bullet_lines": "\n".join(f"- {line}" for line in [STOP, *good()]),
    "gopher_ellipsis_lines": text(*lines(20, new_words(7)), *lines(20, new_words(6), end="...")),
    "gopher_alphabetic_words": text(*(f"{n} {n + 500} {n + 1000} {line}" for n, line in enumerate(good()))),
    "gopher_stop_words": "\n".join(good()),
    "gopher_duplicate_lines": text(*interleaved(["Yes it is."] * 42, lines(80, new_words(), 14))),
    "gopher_duplicate_line_characters": text(*with_duplicate_lines(24, 52)),
    "gopher_duplicate_paragraphs": paragraphs(
        *interleaved(
            ["Yes it is."] * 16, ["\n".join(lines(4, words, 12)) for words in [new_words()] for _ in range(29)]
        )
    ),
    "gopher_duplicate_paragraph_characters": paragraphs(*with_duplicate_lines(24, 52)),
    "gopher_top_2_grams": frequent(2, 0.22),
    "gopher_top_3_grams": frequent(3, 0.19),
    "gopher_top_4_grams": frequent(4, 0.17),
    **{f"gopher_duplicate_{n}_grams": n_grams(n, (20.6 - n) / 100) for n in range(5, 11)},
    "c4_sentences": text(*lines(40, new_words(), end='"')),
    "c4_lorem_ipsum": text("Lorem ipsum dolor sit amet and whatever follows.", *good()),
    "c4_curly_brackets": text("The word } stands in this line without its fellow.", *good()),
    "c4_javascript_lines": text(*(f"javascript {line}" for line in lines(10, new_words())), *lines(30, new_words(7))),
    "c4_few_word_lines": text(*interleaved(lines(39, new_words(15), 2), lines(40, new_words()))),
    "fineweb_duplicate_line_characters": text(*with_duplicate_lines(14, 60)),
    "fineweb_short_lines": text(*lines(40, new_words(5), 4)),
    "fineweb_newlines_per_word": text(*lines(80, new_words(9), 3, end="s.")),
    "fineweb_punctuated_lines": text(*(line.replace(" ", ". ", 1) for line in lines(40, new_words(), end=""))),
}
# Nothing breaks the one rule without the other.
IMPLIED = {
    "min_tokens": {"gopher_min_word_length", "c4_sentences"},
    "gopher_duplicate_line_characters": {"fineweb_duplicate_line_characters"},
    "gopher_duplicate_paragraph_characters": {
        "gopher_duplicate_line_characters",
        "fineweb_duplicate_line_characters",
    },
    "fineweb_punctuated_lines": {"c4_punctuated_lines"},
}


def test_a_good_document_breaks_no_rule() -> None:
    scores = scored(text(*good()))
    assert broken(scores) == set()
    assert judge(scores, "https://a.example/", ALL_ON) is None


@pytest.mark.parametrize("name", BREAKING)
def test_each_rule_drops_a_document_that_breaks_just_it(name: str) -> None:
    scores = scored(BREAKING[name])
    assert broken(scores) == {name, *IMPLIED.get(name, ())}
    (rule,) = [rule for rule in RULES if rule.name == name]
    verdict = judge(scores, None, alone(rule))
    assert verdict is not None and verdict.rule == name and verdict.value is not None
    on_it = alone(rule).model_dump()
    (on_it if rule.group is None else on_it[rule.group])[rule.threshold] = verdict.value
    assert judge(scores, None, FilterSpec(**on_it)) is None


def test_every_rule_has_a_document_that_breaks_it() -> None:
    assert {rule.name for rule in RULES} == {*BREAKING, "c4_punctuated_lines", "language_score", REMOVED_WORDS}
    assert set(SOURCES) == set(VERSIONS) and all(rule.score in {*NAMES, *OF_SCORES} for rule in RULES)


def test_every_threshold_of_the_specs_has_a_rule() -> None:
    named = {(rule.group, rule.threshold) for rule in RULES if rule.group and rule.name != REMOVED_WORDS}
    assert named == {
        (group, name) for group, spec in GROUPS.items() for name in spec.model_fields if name != "languages"
    }


def test_languages_are_judged_first() -> None:
    german = scored(text(*good()), "de")
    assert judge(german, None, FilterSpec()) == Verdict("language", 0.9, None)
    assert judge(german, None, FilterSpec(languages=("de", "ja"))) is None
    unsure = scored(text(*good()), "en", 0.64)
    assert judge(unsure, None, FilterSpec()) == Verdict("language_score", 0.64, 0.65)
    assert judge(scored(text(*good()), "en", 0.65), None, FilterSpec()) is None


def test_rules_made_for_english_judge_no_other_language() -> None:
    no_stop_words = BREAKING["gopher_stop_words"]
    everywhere = FilterSpec(languages=(), gopher_quality=GopherQuality(languages=()))
    assert judge(scored(no_stop_words, "sv"), None, FilterSpec(languages=())) is None
    for scores, spec in ((scored(no_stop_words), FilterSpec()), (scored(no_stop_words, "sv"), everywhere)):
        verdict = judge(scores, None, spec)
        assert verdict is not None and verdict.rule == "gopher_stop_words"


@pytest.mark.parametrize(
    ("url", "blocked"),
    [
        ("https://spam.example/a", True),
        ("http://WWW.Spam.Example.:8080/", True),
        ("https://user:x@deep.www.spam.example", True),
        ("https://notspam.example/", False),
        ("https://example/", False),
        ("https://a.example/?u=https://spam.example/", False),
        ("https://[broken/", False),
        ("dns:spam.example", False),
        ("", False),
        (None, False),
    ],
)
def test_a_blocked_domain_takes_what_is_below_it_and_nothing_else(url: str | None, blocked: bool) -> None:
    assert is_blocked(url, ("spam.example",)) is blocked
    verdict = judge(scored(text(*good())), url, FilterSpec(url_blocklist=("spam.example",)))
    assert (verdict == Verdict(URL_BLOCKLIST, None, None)) is blocked


def test_blocked_domains_are_hosts_in_one_order() -> None:
    assert FilterSpec(url_blocklist=("b.example", "A.example.", "b.example")).url_blocklist == (
        "a.example",
        "b.example",
    )
    for wrong in ("https://a.example", "a.example/path", "*.example", "a.example:80", "", "mühle.example"):
        with pytest.raises(ValidationError, match="is no domain: write hosts alone"):
            FilterSpec(url_blocklist=(wrong,))


def specs() -> list[FilterSpec]:
    return [
        FilterSpec(languages=(), min_language_score=0, min_words=1, **NO_HEURISTICS),
        FilterSpec(languages=()),
        FilterSpec(url_blocklist=("soldaini.net", "b.example"), c4=C4()),
        FilterSpec(gopher_repetition=GopherRepetition(max_top_2_grams=0.02), fineweb=None),
    ]


def test_deciding_again_from_the_audit_is_deciding(data_dir: Path) -> None:
    for path in (data_dir / "warc/dolma/sample-0000.warc.gz", data_dir / "realpages/realpages-dev.warc.gz"):
        audits = [rows(filter_one(path, spec), "audit.parquet") for spec in specs()]
        for audit in audits:
            for spec, wanted in zip(specs(), audits, strict=True):
                decided = [redecide(row, spec) for row in audit]
                assert decided == [
                    Verdict(row["rule"], row["value"], row["threshold"]) if row["rule"] else None for row in wanted
                ]


def test_the_funnel_holds_with_every_rule_on(tmp_path: Path) -> None:
    texts = [*BREAKING.values(), text(*good()), PROSE]
    blocks = [
        record(
            http(page("<br>".join(body.split("\n"))), content_type="text/html; charset=utf-8"),
            f"https://{'b' if n % 7 == 0 else 'a'}.example/{n}",
        )
        for n, body in enumerate(texts)
    ]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(members(*blocks))
    spec = ALL_ON.model_copy(update={"languages": (), "min_language_score": 0.0, "url_blocklist": ("b.example",)})
    output = filter_one(path, spec)
    audit = rows(output, "audit.parquet")
    dropped = sum(number for name, number in output.counters.items() if name.startswith("dropped."))
    assert output.counters["documents_in"] == len(texts) == len(audit) == output.counters["documents_kept"] + dropped
    assert output.counters["dropped.url_blocklist"] == len(texts[::7])
    for row in audit:
        assert all(row[name] is not None for name in NAMES)
        assert row["rule_version"] == (VERSIONS[row["rule"]] if row["rule"] else None)
        assert row["source"] == (SOURCES[row["rule"]] if row["rule"] else None)
