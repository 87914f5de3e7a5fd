"""Decontamination in the scrub node: what is planted is found, and nothing else."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from configs.scrub import Decontamination, ScrubSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.scrub.decontaminate import cut
from tests.dedup.corpus import computed, debian_texts, document_table, published, rows
from tests.external.nodes import eval_sets, written
from tests.scrub.test_ngrams import ngrams, plain_words

QUESTION = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
SHORT = "What boils at one hundred degrees? Water, of course."
FILLER = "The harbour was quiet that morning and nobody had yet opened the shutters of the old customs house. " * 6


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def sets_of(store: Store, folder: Path, **sets: list[str]) -> Checkpoint:
    """An evaluation set of one field for each name."""
    named = [
        {
            "name": name,
            "urls": [written(folder / f"{name}.jsonl", [{"q": text} for text in texts])],
            "fields": ["q"],
        }
        for name, texts in sets.items()
    ]
    return eval_sets(store, *named)


def scrubbed(store: Store, files: list[list[str]], examples: Checkpoint, **fields: Any) -> Checkpoint:
    source = published(store, [document_table(texts, number) for number, texts in enumerate(files)])
    spec = ScrubSpec(decontamination=Decontamination(**fields))
    return computed(spec, {"documents": source, "eval_sets": examples}, store)


def dropped(node: Checkpoint) -> list[str]:
    return [row["id"] for row in rows(node, "audit.parquet") if row["decision"] == "dropped"]


def test_a_document_that_shares_13_words_is_dropped_and_its_example_named(tmp_path: Path, store: Store) -> None:
    examples = sets_of(store, tmp_path, math=["Unrelated to all of it, this one.", QUESTION], facts=[SHORT])
    disguised = "natalia SOLD  clips – to 48 of\nher friends; in «April» and then she (sold) half"
    files = [
        [FILLER, f"{FILLER} {disguised} {FILLER}", QUESTION.replace("half", "a tenth")],
        [f"x {SHORT.upper()} y {QUESTION}", "What boils at one hundred degrees? Water. Mail a@example.org of course."],
    ]
    node = scrubbed(store, files, examples)
    assert dropped(node) == ["TEST/00000/000000000001", "TEST/00000/000000000002", "TEST/00001/000000000000"]
    audit = {row["id"]: row for row in rows(node, "audit.parquet")}
    assert len(audit) == 5
    first = audit["TEST/00000/000000000001"]
    assert (first["rule"], first["value"], first["contaminated_by"]) == ("contaminated", 3, "math/1")
    assert first["email"] is None
    assert audit["TEST/00000/000000000000"]["rule"] is None
    assert audit["TEST/00001/000000000001"]["email"] == 1
    hits = rows(node, "contamination.parquet", "documents")
    assert [(row["id"][-14:], row["set"], row["example"], row["count"]) for row in hits] == [
        ("0/000000000001", "math", 1, 3),
        ("0/000000000002", "math", 1, 2),
        ("1/000000000000", "math", 1, 8),
        ("1/000000000000", "facts", 0, 1),
    ]
    assert hits[0]["words"] == "natalia sold clips to 48 of her friends in april and then she"
    assert hits[3]["words"] == "what boils at one hundred degrees water of course"
    counters = node.manifest.counters
    assert (counters["documents_in"], counters["documents_kept"], counters["dropped.contaminated"]) == (5, 2, 3)
    assert (counters["contaminated.math"], counters["contaminated.facts"]) == (3, 1)
    assert node.manifest.metrics["examples_too_short"] == 1
    assert [row["text"] for row in rows(node, "documents.parquet")] == [
        FILLER,
        "What boils at one hundred degrees? Water. Mail <EMAIL> of course.",
    ]


def test_ngrams_of_more_documents_than_ten_count_for_nothing(tmp_path: Path, store: Store) -> None:
    licence = "Permission is hereby granted free of charge to any person obtaining a copy of this software"
    examples = sets_of(store, tmp_path, q=[licence, QUESTION])
    files = [[f"{licence} {number} {FILLER}" for number in range(6)] for _ in range(2)]
    files[0][0] += QUESTION
    files[1][0] += f" {licence}"  # twice in one document is one document
    node = scrubbed(store, files, examples)
    assert dropped(node) == ["TEST/00000/000000000000"]
    assert node.manifest.metrics["common_ngrams"] == 4
    assert len(dropped(scrubbed(store, files, examples, max_documents=12))) == 12
    assert len(dropped(scrubbed(store, files, examples, max_documents=None))) == 12


@pytest.mark.parametrize("max_documents", [10, None])
def test_crawls_scrubbed_apart_lose_all_that_they_lose_together(
    tmp_path: Path, store: Store, max_documents: int | None
) -> None:
    licence = "Permission is hereby granted free of charge to any person obtaining a copy of this software"
    examples = sets_of(store, tmp_path, q=[licence, QUESTION])
    spec = ScrubSpec(decontamination=Decontamination(max_documents=max_documents))
    tables = [document_table([f"{licence} {n} {FILLER}" for n in range(6)] + [QUESTION], crawl) for crawl in range(2)]

    def lost(*numbers: int) -> list[str]:
        source = published(store, [tables[number] for number in numbers], f"crawls {numbers}")
        return dropped(computed(spec, {"documents": source, "eval_sets": examples}, store))

    together, apart = lost(0, 1), [*lost(0), *lost(1)]
    questions = [f"TEST/{crawl:05d}/000000000006" for crawl in range(2)]
    everything = [id for table in tables for id in table["id"].to_pylist()]
    # The licence stands in 12 documents of the two, in 6 of each.
    assert together == (questions if max_documents else everything)
    assert apart == everything


def expected(files: list[list[str]], examples: list[str], spec: Decontamination) -> list[str]:
    """The rule on sets of tuples of words."""
    wanted: set[tuple[str, ...]] = set()
    for example in examples:
        num_words = len(plain_words(example.encode()))
        if num_words >= spec.min_words:
            wanted |= ngrams(example.encode(), min(num_words, spec.ngram_words))
    sizes = {len(one) for one in wanted}
    shared = {
        f"TEST/{file:05d}/{number:012d}": {one for size in sizes for one in ngrams(text.encode(), size)} & wanted
        for file, texts in enumerate(files)
        for number, text in enumerate(texts)
    }
    documents = Counter(one for found in shared.values() for one in found)
    common = {one for one in wanted if spec.max_documents is not None and documents[one] > spec.max_documents}
    return [id for id, found in shared.items() if found - common]


@pytest.mark.parametrize("seed", range(12))
def test_the_node_drops_what_plain_sets_of_words_drop(tmp_path: Path, seed: int) -> None:
    choice = random.Random(seed)
    vocabulary = ["red", "Green", "BLUE", "«sky»", "日本", "tree,", "é!"]
    spec = Decontamination(
        ngram_words=choice.randint(4, 6), min_words=choice.randint(2, 4), max_documents=choice.choice([1, 3, 10, None])
    )

    def text(most: int) -> str:
        words = [choice.choice(vocabulary) for _ in range(choice.randint(1, most))]
        return "".join(word + choice.choice([" ", "\n", " - "]) for word in words)

    examples = [text(9) for _ in range(6)]
    files = [[text(25) for _ in range(30)] for _ in range(3)]
    store = open_store(tmp_path / "store")
    node = scrubbed(store, files, sets_of(store, tmp_path, one=examples[:3], two=examples[3:]), **spec.model_dump())
    assert dropped(node) == expected(files, examples, spec)
    found = {row["id"] for row in rows(node, "contamination.parquet")}
    assert found == set(dropped(node))


def test_a_cut_document_loses_the_ngram_and_200_characters_around_it(tmp_path: Path, store: Store) -> None:
    before, after = "é" * 500 + "b" * 100, "ü" * 300 + "🦀" * 300
    files = [[f"{before} {QUESTION} {after}", f"{'x' * 399} {QUESTION} {'y' * 150}", f"{FILLER} a@example.org"]]
    node = scrubbed(store, files, sets_of(store, tmp_path, q=[QUESTION]), action="cut")
    left = {row["id"][-1]: row["text"] for row in rows(node, "documents.parquet")}
    assert left["0"] == "é" * 401 + "\n\n" + "ü" * 100 + "🦀" * 300
    assert left["1"] == "x" * 200
    assert left["2"].endswith("<EMAIL>")
    audit = rows(node, "audit.parquet")
    assert [(row["decision"], row["rule"], row["contaminated_by"]) for row in audit] == [
        ("kept", None, "q/0"),
        ("kept", None, "q/0"),
        ("kept", None, None),
    ]
    counters = node.manifest.counters
    assert (counters["documents_kept"], counters["documents_cut"], counters["dropped.contaminated"]) == (3, 2, 0)


def test_a_document_that_falls_into_too_many_or_too_short_pieces_is_dropped_whole(tmp_path: Path, store: Store) -> None:
    piece = "w" * 700
    files = [[f" {QUESTION} ".join([piece] * 11), f" {QUESTION} ".join([piece] * 10), f"{'a' * 399} {QUESTION}"]]
    node = scrubbed(store, files, sets_of(store, tmp_path, q=[QUESTION]), action="cut", max_documents=None)
    assert dropped(node) == ["TEST/00000/000000000000"]
    assert rows(node, "documents.parquet")[0]["text"].count("\n\n") == 9
    assert rows(node, "documents.parquet")[1]["text"] == "a" * 200


def test_cutting_is_exact_on_bytes_that_are_no_utf8() -> None:
    text = b"\xff" * 450 + b"SPAN" + b"\xc3\xa4" * 450
    assert cut(text, ((450, 454),)) == b"\xff" * 250 + b"\n\n" + b"\xc3\xa4" * 250
    assert cut(text, ((450, 452), (452, 454))) == b"\xff" * 250 + b"\n\n" + b"\xc3\xa4" * 250
    assert cut(b"a" * 399 + b"SPAN", ((399, 403),)) is None
    assert cut(b"SPAN", ((0, 4),)) is None


def test_without_eval_sets_or_rule_nothing_is_dropped(tmp_path: Path, store: Store) -> None:
    source = published(store, [document_table([QUESTION])])
    examples = sets_of(store, tmp_path, q=[QUESTION])
    for spec, inputs in (
        (ScrubSpec(), {"documents": source}),
        (ScrubSpec(decontamination=None), {"documents": source, "eval_sets": examples}),
    ):
        node = computed(spec, inputs, store)
        assert (node.manifest.counters["documents_kept"], node.files("contamination.parquet")) == (1, [])


def test_two_runs_leave_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        store = open_store(tmp_path / name)
        examples = sets_of(store, tmp_path, a=[QUESTION, SHORT], b=[QUESTION])
        digests.add(scrubbed(store, [[QUESTION, FILLER], [SHORT]], examples).manifest.content_digest)
    assert len(digests) == 1


def test_a_rule_that_is_wrong_says_so() -> None:
    with pytest.raises(ValidationError, match="min_words 9 is above ngram_words 5: lower it"):
        Decontamination(ngram_words=5, min_words=9)


def test_planted_questions_are_found_among_manual_pages_and_none_else(
    data_dir: Path, tmp_path: Path, store: Store
) -> None:
    """Real manuals in many languages, with 50 of 7,473 real questions in them."""
    with (data_dir / "eval" / "gsm8k_train.jsonl").open() as stream:
        questions = [json.loads(line)["question"] for line in stream]
    choice = random.Random(7)
    pages = debian_texts(data_dir, 400)
    planted = sorted(choice.sample(range(len(pages)), 50))
    asked = {}
    for page in planted:
        number = choice.randrange(len(questions))
        middle = choice.randrange(len(pages[page]))
        pages[page] = f"{pages[page][:middle]}\n{questions[number]}\n{pages[page][middle:]}"
        asked[f"TEST/{page // 100:05d}/{page % 100:012d}"] = number
    source = {
        "name": "gsm8k",
        "urls": [str(data_dir / "eval" / "gsm8k_train.jsonl")],
        "fields": ["question", "answer"],
    }
    node = scrubbed(store, [pages[i : i + 100] for i in range(0, 400, 100)], eval_sets(store, source))
    assert dropped(node) == sorted(asked)
    named = {row["id"]: row["contaminated_by"] for row in rows(node, "audit.parquet") if row["contaminated_by"]}
    same_text = {id: questions[int(by.removeprefix("gsm8k/"))] for id, by in named.items()}
    assert same_text == {id: questions[number] for id, number in asked.items()}


def test_an_encyclopedia_holds_no_question_of_gsm8k(data_dir: Path, store: Store) -> None:
    text = (data_dir / "corpora" / "wikitext2-valid.txt").read_text()
    articles = [text[i : i + 20_000] for i in range(0, len(text), 20_000)]
    sets = [
        {"name": name, "urls": [str(data_dir / "eval" / f"{file}.jsonl")], "fields": fields}
        for name, file, fields in (
            ("gsm8k", "gsm8k_train", ["question", "answer"]),
            ("piqa", "piqa", ["query", "choices"]),
            ("arc", "arc_easy", ["query", "choices"]),
        )
    ]
    node = scrubbed(store, [articles], eval_sets(store, *sets))
    assert dropped(node) == []
    assert node.manifest.counters["documents_kept"] == len(articles)
