from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from configs.repeats import RepeatsSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.cluster.fan_out import NodeFailed
from ray_jobs.repeats import job
from ray_jobs.repeats.units import find_units
from tasks.repeats import NODE
from tests.dedup.corpus import computed, debian_texts, document_table, published, rows, table
from tests.repeats.reference import cut_by_units, cut_by_windows, words_of

SPEC = RepeatsSpec(
    min_repeated_words=8, max_line_documents=2, max_paragraph_documents=2, min_characters=10, min_words=3
)
NOTICE = "Copyright 2024 the authors, all rights reserved"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def unique(number: int, words: int = 20) -> str:
    """Words that no other number has, without digits, which count as equal in lines."""
    digits = str.maketrans("0123456789", "abcdefghij")
    return " ".join(f"{number}x{i}".translate(digits) for i in range(words))


def computed_of(
    store: Store, files: Sequence[Sequence[str]], spec: RepeatsSpec = SPEC, name: str = "corpus"
) -> Checkpoint:
    tables = [document_table(texts, number) for number, texts in enumerate(files)]
    return computed(spec, {"documents": published(store, tables, name)}, store)


def test_a_line_of_many_documents_stays_in_the_first_ones_only(store: Store) -> None:
    texts = [f"{unique(i)}\n{NOTICE.replace('2024', str(2000 + i))}\n{unique(i + 10)}" for i in range(5)]
    done = computed_of(store, [texts[:1], texts[1:]])
    assert [row["text"] for row in rows(done, "documents.parquet")] == [
        *texts[:2],
        *(f"{unique(i)}\n{unique(i + 10)}" for i in range(2, 5)),
    ]
    audit = rows(done, "audit.parquet")
    assert [(row["words"], row["words_removed"], row["lines_removed"], row["paragraphs_removed"]) for row in audit] == [
        *([(47, 0, 0, 0)] * 2),
        *([(47, 7, 1, 0)] * 3),
    ]
    assert [row["first_source"] for row in audit] == [None, None, *["TEST/00000/000000000000"] * 3]
    assert done.manifest.counters["words_removed.lines"] == 21


def test_a_line_of_few_documents_and_a_short_one_stay(store: Store) -> None:
    texts = [f"See also\n{unique(i)}\n{NOTICE if i < 2 else ''}\n" for i in range(5)]
    assert [row["text"] for row in rows(computed_of(store, [texts]), "documents.parquet")] == texts


def test_a_line_stays_as_often_as_a_document_has_it(store: Store) -> None:
    texts = [f"{NOTICE}\n{unique(i)}\n{NOTICE}" for i in range(3)]
    done = computed_of(store, [texts])
    assert [row["text"] for row in rows(done, "documents.parquet")] == [*texts[:2], unique(2)]


def test_a_paragraph_of_short_lines_is_cut_as_a_whole(store: Store) -> None:
    texts = [f"{unique(i)}\n\nHome\nAbout\nContact\n\n{unique(i + 10)}" for i in range(4)]
    done = computed_of(store, [[text] for text in texts])
    assert [row["text"] for row in rows(done, "documents.parquet")][2] == f"{unique(2)}\n\n{unique(12)}"
    assert [row["paragraphs_removed"] for row in rows(done, "audit.parquet")] == [0, 0, 1, 1]
    assert done.manifest.counters["paragraphs_removed"] == 2


def test_a_sequence_of_words_stays_at_its_first_place_only(store: Store) -> None:
    licence = unique(99, 12)
    texts = [f"{unique(0)} {licence} {unique(1)}", f"{unique(2)}\n{licence.replace(' ', chr(10))}\n{unique(3)}"]
    done = computed_of(store, [texts[:1], texts[1:]])
    assert [row["text"] for row in rows(done, "documents.parquet")] == [texts[0], f"{unique(2)}\n{unique(3)}"]
    assert rows(done, "audit.parquet")[1] == {
        "id": "TEST/00001/000000000000",
        "decision": "kept",
        "rule": None,
        "words": 52,
        "words_removed": 12,
        "lines_removed": 0,
        "paragraphs_removed": 0,
        "substrings_removed": 1,
        "first_source": "TEST/00000/000000000000",
    }


def test_a_document_that_is_left_too_little_is_dropped_and_a_short_one_that_lost_nothing_stays(store: Store) -> None:
    done = computed_of(store, [[unique(0), unique(0) + " and more", "two words"]])
    assert [row["text"] for row in rows(done, "documents.parquet")] == [unique(0), "two words"]
    assert [(row["decision"], row["rule"]) for row in rows(done, "audit.parquet")] == [
        ("kept", None),
        ("dropped", "repeats_left_too_little"),
        ("kept", None),
    ]
    counters = done.manifest.counters
    assert (counters["documents_in"], counters["documents_kept"], counters["dropped.repeats_left_too_little"]) == (
        3,
        2,
        1,
    )
    assert (counters["words_removed.substrings"], counters["words_removed.repeats_left_too_little"]) == (20, 2)


@pytest.mark.parametrize("field", ["max_line_documents", "max_paragraph_documents", "min_repeated_words"])
def test_a_rule_that_is_null_cuts_nothing(store: Store, field: str) -> None:
    texts = [f"{unique(i)}\n\nHome\nAbout us\n{NOTICE}\n\n{unique(90, 12)}" for i in range(3)]
    rule = {"max_line_documents": "lines", "max_paragraph_documents": "paragraphs", "min_repeated_words": "substrings"}[
        field
    ]
    counters = computed_of(store, [texts]).manifest.counters
    without = computed_of(store, [texts], SPEC.model_copy(update={field: None})).manifest.counters
    assert counters[f"{rule}_removed"] > 0
    assert without.get(f"{rule}_removed", 0) == 0


def test_without_any_rule_the_spec_is_refused() -> None:
    with pytest.raises(ValidationError, match="take repeats out of the recipe"):
        RepeatsSpec(max_line_documents=None, max_paragraph_documents=None, min_repeated_words=None)


words = st.sampled_from(["alpha", "beta", "Beta", "日", "7", "8", "é"])
line = st.lists(words, max_size=12).map(" ".join)
document = st.lists(line, max_size=5).map("\n".join)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(document, max_size=4), min_size=1, max_size=4).filter(any), st.integers(1, 3))
def test_any_corpus_in_any_files_loses_what_brute_force_finds(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[str]], num_ranges: int
) -> None:
    store = open_store(tmp_path_factory.mktemp("store"))
    with pytest.MonkeyPatch.context() as patch:
        size = sum(
            file.bytes
            for file in published(store, [document_table(f, n) for n, f in enumerate(files)]).files("documents.parquet")
        )
        patch.setattr(job, "RANGE_BYTES", -(-size // num_ranges))
        done = computed_of(store, files)
    texts = [text for file in files for text in file]
    by_rule = [
        cut_by_units(texts, "lines", 2, 10),
        cut_by_units(texts, "paragraphs", 2, 10),
        cut_by_windows([words_of(text) for text in texts], 8),
    ]
    audit = rows(done, "audit.parquet")
    removed = [[any(flags) for flags in zip(*rules, strict=True)] for rules in zip(*by_rule, strict=True)]
    assert [row["words_removed"] for row in audit] == [sum(flags) for flags in removed]
    kept = [
        [word for word, flag in zip(words_of(text), flags, strict=True) if not flag]
        for text, flags in zip(texts, removed, strict=True)
    ]
    is_kept = [len(left) >= 3 or not any(flags) for left, flags in zip(kept, removed, strict=True)]
    assert [row["decision"] == "kept" for row in audit] == is_kept
    assert ["".join(words_of(row["text"])) for row in rows(done, "documents.parquet")] == [
        "".join(left) for left, flag in zip(kept, is_kept, strict=True) if flag
    ]
    assert [row["first_source"] is not None for row in audit] == [any(flags) for flags in removed]
    check_sums(done)


def check_sums(done: Checkpoint) -> None:
    counters = done.manifest.counters
    removed = sum(value for name, value in counters.items() if name.startswith("words_removed."))
    assert counters["words_in"] == counters["words_kept"] + removed
    assert counters["words_kept"] <= counters["words_in"]


def outcome(done: Checkpoint) -> list[Any]:
    audit = rows(done, "audit.parquet")
    verdicts = [(row["words_removed"], row["decision"], row["lines_removed"]) for row in audit]
    return [[row["text"] for row in rows(done, "documents.parquet")], verdicts]


def test_the_spread_of_documents_over_files_and_ranges_changes_nothing(
    store: Store, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = debian_texts(data_dir, 400)
    whole = computed_of(store, [texts], RepeatsSpec(), "one")
    monkeypatch.setattr(job, "RANGE_BYTES", 100_000)
    many = computed_of(store, [texts[i : i + 57] for i in range(0, 400, 57)], RepeatsSpec(), "many")
    assert outcome(many) == outcome(whole)
    assert whole.manifest.counters["words_removed.substrings"] > 10_000
    check_sums(many)
    plain = [words_of(text) for text in texts]
    spec = RepeatsSpec(max_line_documents=None, max_paragraph_documents=None)
    alone = rows(computed_of(store, [texts], spec, "one"), "audit.parquet")
    assert [row["words_removed"] for row in alone] == [sum(flags) for flags in cut_by_windows(plain, 50)]


def test_windows_and_the_suffix_array_leave_the_same_files(store: Store, data_dir: Path) -> None:
    texts = debian_texts(data_dir, 400)
    files = [texts[:250], texts[250:]]
    windows, suffixes = (
        computed_of(store, files, RepeatsSpec(within_files=method)) for method in ("windows", "suffix-array")
    )
    assert windows.key != suffixes.key
    assert [file.sha256 for file in suffixes.manifest.outputs] == [file.sha256 for file in windows.manifest.outputs]
    assert suffixes.manifest.counters["words_removed.substrings"] > 10_000


def test_documents_that_are_appended_change_nothing_before_them(store: Store, data_dir: Path) -> None:
    texts = debian_texts(data_dir, 200)
    spec = RepeatsSpec(max_line_documents=2, max_paragraph_documents=2)
    one_crawl = rows(computed_of(store, [texts[:70]], spec, "one"), "audit.parquet")
    three = rows(computed_of(store, [texts[:70], texts[70:150], texts[150:]], spec, "three"), "audit.parquet")
    assert three[:70] == one_crawl
    assert sum(row["words_removed"] for row in one_crawl) > 0


def test_two_runs_leave_the_same_bytes(tmp_path: Path) -> None:
    texts = [f"{unique(i)}\n{NOTICE}\n{unique(50)}" for i in range(5)]
    digests = {
        computed_of(open_store(tmp_path / attempt), [texts[:2], texts[2:]]).manifest.content_digest
        for attempt in ("one", "two")
    }
    assert len(digests) == 1


def test_odd_documents_pass_unchanged(store: Store) -> None:
    odd: list[Any] = [b"", b"\x00", b"\xed\xa0\x80 lone surrogate \xff", b"\n\n\n", b" "]
    done = computed_of(store, [[], odd])
    text = table(done, done.files("documents.parquet")[1])["text"].cast(pa.large_binary()).to_pylist()
    assert text == odd
    check_sums(done)


def test_a_range_that_fails_for_good_fails_the_node(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("ray_jobs.repeats.sharing.shared_windows", broken)
    spec = SPEC.model_copy(update={"max_quarantined_share": 1.0})
    with pytest.raises(NodeFailed, match="repeated text would be kept"):
        computed_of(store, [["one"], ["two"]], spec)


def test_a_file_that_cannot_be_hashed_is_left_out_and_the_rest_compared(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [[f"{unique(i)} {unique(50)}"] for i in range(3)]

    def first_fails(column: pa.ChunkedArray, *arguments: Any) -> Any:
        if unique(0) in column[0].as_py():
            raise RuntimeError("broken")
        return find_units(column, *arguments)

    monkeypatch.setattr("ray_jobs.repeats.units.find_units", first_fails)
    done = computed_of(store, texts, SPEC.model_copy(update={"max_quarantined_share": 0.5}))
    assert [quarantined.shard for quarantined in done.manifest.quarantined] == [0]
    assert [row["text"] for row in rows(done, "documents.parquet")] == [texts[1][0], unique(2)]


def test_its_figures_are_shown(store: Store) -> None:
    manifest = computed_of(store, [[unique(0), unique(0) + " and more", unique(1)]]).manifest
    assert NODE.headline(manifest) == "2 of 3 documents kept, 35.5% of words cut"
    assert ("words cut: substrings", "20 (32.3%)") in NODE.facts(manifest)


def test_an_empty_corpus_is_refused_with_what_to_do(store: Store) -> None:
    with pytest.raises(ValueError, match="take more of the crawl"):
        computed_of(store, [[]])
