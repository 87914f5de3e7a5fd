"""Nodes reference and labels: texts from files of every format, near and far, become documents."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from configs.external import LabelsSource, ReferenceSource, ReferenceSpec
from ray_jobs.checkpoint.keys import key_of, key_payload
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.cluster.fan_out import NodeFailed, UserError
from ray_jobs.external.pins import pin_reference
from ray_jobs.external.python_documentation import PACKAGES
from tests.crawl.common_crawl_server import Break, serving
from tests.dedup.corpus import computed, rows, table
from tests.external.nodes import compressed, labels, reference, written

TEXTS = ['The first text, with a comma and a "quote".', "Zweiter Text\nmit Zeilen: äöü 日本語 🦀", "third"]
ROWS = [{"number": number, "text": text} for number, text in enumerate(TEXTS)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.ndjson.gz", "a.csv", "a.csv.gz", "a.parquet"]
)
def test_every_format_gives_the_same_documents(tmp_path: Path, store: Store, name: str) -> None:
    node = reference(store, urls=[written(tmp_path / name, ROWS)], language="de")
    found = rows(node, "documents.parquet", "documents")
    assert [row["text"] for row in found] == TEXTS
    assert [row["id"] for row in found] == [f"reference/00000/{row:012d}" for row in (1, 2, 3)]
    assert found[1]["url"] == f"file://{tmp_path}/{name}#2"
    assert {(row["language"], row["language_score"]) for row in found} == {("de", None)}
    assert node.manifest.counters == {
        "rows": 3,
        "text_bytes": sum(len(text.encode()) for text in TEXTS),
        "texts": 3,
        "without_text": 0,
    }


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.csv", "a.parquet"])
def test_files_over_http_give_what_they_give_on_disk(tmp_path: Path, store: Store, name: str) -> None:
    data = Path(written(tmp_path / name, ROWS * 500)).read_bytes()
    path = f"{name}?version=2"
    with serving({path: data}) as server:
        server.play(path, Break(len(data) // 2, reset=False))
        node = reference(store, urls=[f"{server.url}/{path}"])
    assert [row["text"] for row in rows(node, "documents.parquet")] == TEXTS * 500


def test_globs_name_files_in_order_and_each_is_a_shard(tmp_path: Path, store: Store) -> None:
    for name in ("b.jsonl.gz", "a.jsonl", "c.txt"):
        written(tmp_path / name, [{"text": name}])
    node = reference(store, urls=[f"{tmp_path}/*.jsonl*"])
    assert [(row["id"][:15], row["text"]) for row in rows(node, "documents.parquet")] == [
        ("reference/00000", "a.jsonl"),
        ("reference/00001", "b.jsonl.gz"),
    ]


@pytest.mark.parametrize(
    ("unit", "texts"),
    [
        ("file", ["One.\nTwo.\n\n \n  Three.\n"]),
        ("paragraph", ["One.\nTwo.\n", "  Three.\n"]),
        ("line", ["One.\n", "Two.\n", "  Three.\n"]),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.md.zst"])
def test_plain_text_is_a_document_a_unit(tmp_path: Path, store: Store, unit: str, texts: list[str], name: str) -> None:
    (tmp_path / name).write_bytes(compressed(name, b"\xef\xbb\xbfOne.\nTwo.\n\n \n  Three.\n"))
    node = reference(store, urls=[str(tmp_path / name)], text_unit=unit, text_field="never asked for")
    found = rows(node, "documents.parquet")
    assert [row["text"].strip() for row in found] == [text.strip() for text in texts]
    assert [int(row["id"][-1]) for row in found] == {"file": [1], "paragraph": [1, 5], "line": [1, 2, 5]}[unit]


def test_fields_within_fields_and_lists_are_text(tmp_path: Path, store: Store) -> None:
    path = written(tmp_path / "a.jsonl", [{"page": {"text": ["one", {"x": 2}], "n": 1}, "a.b": "dotted"}])
    assert rows(reference(store, urls=[path], text_field="page.text"), "documents.parquet")[0]["text"] == "one\n2"
    assert rows(reference(store, urls=[path], text_field="a.b"), "documents.parquet")[0]["text"] == "dotted"
    table_path = written(tmp_path / "a.parquet", [{"page": {"text": "one", "n": 1}, "a.b": "dotted", "x": 1}])
    for field, text in (("page.text", "one"), ("a.b", "dotted")):
        node = reference(store, urls=[table_path], text_field=field)
        assert rows(node, "documents.parquet")[0]["text"] == text
    with pytest.raises(UserError, match=r"row 1 has no field 'page\.txt': it has 'page'"):
        reference(store, urls=[table_path], text_field="page.txt")
    with pytest.raises(UserError, match=r"row 1 has no field 'pages\.text': it has 'page', 'a\.b', 'x'"):
        reference(store, urls=[table_path], text_field="pages.text")


def test_rows_without_text_are_counted(tmp_path: Path, store: Store) -> None:
    path = written(tmp_path / "a.jsonl", [{"text": None}, {"text": " \n"}, {"text": "kept"}])
    node = reference(store, urls=[path])
    assert (node.manifest.counters["rows"], node.manifest.counters["without_text"]) == (3, 2)
    assert [row["id"][-1] for row in rows(node, "documents.parquet")] == ["3"]


def test_half_surrogates_of_json_become_question_marks(tmp_path: Path, store: Store) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a \\ud83d b \\ud83e\\udd80"}\n')
    assert rows(reference(store, urls=[str(tmp_path / "a.jsonl")]), "documents.parquet")[0]["text"] == "a ? b 🦀"


def test_texts_longer_than_a_row_group_are_all_there(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_jobs.external.tables.GROUP_CHARACTERS", 10)
    node = reference(store, urls=[written(tmp_path / "a.jsonl", ROWS * 9)])
    assert [row["text"] for row in rows(node, "documents.parquet")] == TEXTS * 9


WRONG = [
    ("a.jsonl", b'{"text": "a"}\n{"txt": "b", "n": 1}\n', r"row 2 has no field 'text': it has 'txt', 'n'"),
    ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', r"row 3 is not JSON .*write one object a line"),
    ("a.jsonl", b'["a"]\n', r"row 1 is a list: write one JSON object a line"),
    ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', r"row 2 is not UTF-8 \(byte 0xff at 10\)"),
    ("a.jsonl", b"[" * 100_000 + b"\n", r"row 1 is not JSON"),
    ("a.jsonl", b'{"text": ' + b"9" * 5000 + b"}\n", r"row 1 is not JSON"),
    ("a.txt", b"fine\n\xc3", r"row 2 is not UTF-8"),
    ("a.csv", b"text,n\na,1\nb\n", r"row 2 has 1 fields, the header has 2"),
    ("a.csv", b"text,n\na,1\nb,2,3,4\n", r"row 2 has 4 fields, the header has 2"),
    ("a.csv", b'text,n\n"a" b,1\n', r"row 1 is not CSV"),
    ("a.csv", b'text,n\n"a,1\n', r"row 1 is not CSV"),
    ("a.csv", b"words,n\na,1\n", r"row 1 has no field 'text': it has 'words', 'n'"),
    ("a.parquet", b"", r"is no Parquet file"),
    ("a.parquet", b"PAR1 or not", r"is no Parquet file"),
    ("a.jsonl.gz", compressed("a.gz", b'{"text": "abc"}\n' * 99)[:-9], r"cannot be decompressed"),
    ("a.jsonl.gz", b"no gzip", r"row 1 cannot be decompressed"),
    ("a.jsonl.zst", b"no zstd at all", r"row 1 cannot be decompressed"),
    ("a.jsonl.zst", compressed("a.zst", json.dumps({"text": "abc" * 99}).encode())[:-9], r"cannot be decompressed"),
    ("a.bin", b"", r"is of no format that its name tells"),
    ("a.jsonl", b"", r"reference has no texts: its files are empty"),
    ("a.csv", b"", r"reference has no texts"),
    ("a.txt", b" \n", r"reference has no texts"),
]


@pytest.mark.parametrize(("name", "data", "error"), WRONG)
def test_what_is_wrong_names_file_and_row(tmp_path: Path, store: Store, name: str, data: bytes, error: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=error) as raised:
        reference(store, urls=[str(tmp_path / name)])
    assert name in str(raised.value) or "its files are empty" in str(raised.value)


def test_a_row_too_long_to_hold_is_refused(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_jobs.external.rows.MAX_ROW_BYTES", 1 << 20)
    for name, error in (("a.jsonl", "row 1 is longer than 1 MiB"), ("a.txt", "row 1 begins a text of more than 1 MiB")):
        (tmp_path / name).write_bytes((b"x" * 100_000 + b"\n" * (name == "a.txt")) * 12)
        with pytest.raises(UserError, match=error):
            reference(store, urls=[str(tmp_path / name)])


def test_a_file_that_changed_since_it_was_pinned_is_refused(tmp_path: Path, store: Store) -> None:
    path = written(tmp_path / "a.jsonl", ROWS)
    spec = pin_reference(ReferenceSource.model_validate({"files": {"urls": [path]}}))
    before = key_of(key_payload(spec.node, spec.version, spec, {}))
    written(tmp_path / "a.jsonl", ROWS[::-1])
    with pytest.raises(NodeFailed, match=r"a\.jsonl changed since it was pinned: its sha256.*--refresh"):
        computed(spec, {}, store)
    again = pin_reference(ReferenceSource.model_validate({"files": {"urls": [path]}}))
    assert key_of(key_payload(spec.node, spec.version, again, {})) != before


def test_a_file_that_changed_on_its_server_is_refused(tmp_path: Path, store: Store) -> None:
    data = Path(written(tmp_path / "a.parquet", ROWS)).read_bytes()
    with serving({"a.parquet": data}) as server:
        spec = pin_reference(ReferenceSource.model_validate({"files": {"urls": [f"{server.url}/a.parquet"]}}))
        server.files["a.parquet"] = data[::-1]
        with pytest.raises(NodeFailed, match="its etag is"):
            computed(spec, {}, store)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "exactly one of files, python_documentation"),
        ({"files": {"urls": ["a.txt"]}, "python_documentation": {}}, "exactly one"),
        ({"files": {"urls": []}}, "urls"),
        ({"files": {"urls": ["ftp://a/b"]}}, "use one of http, https, s3, file"),
        ({"files": {"urls": ["a"], "format": "xml"}}, "'auto', 'jsonl', 'csv', 'parquet' or 'text'"),
        ({"name": "a/b", "python_documentation": {}}, "name"),
    ],
)
def test_a_source_that_is_wrong_says_where(fields: dict[str, Any], error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        ReferenceSource.model_validate(fields)


def test_installed_documentation_is_a_reference_without_a_network(store: Store) -> None:
    source = ReferenceSource.model_validate({"python_documentation": {"num_modules": 110}})
    assert not source.needs_network
    spec = pin_reference(source)
    assert ReferenceSpec.model_validate_json(spec.model_dump_json()) == spec
    assert not any("+" in version for version in spec.content.versions.values())
    node = computed(spec, {}, store)
    found = rows(node, "documents.parquet")
    assert [len(table(node, file)) for file in node.files("documents.parquet")] == [79, 55, 55]
    assert len({row["id"] for row in found}) == len({row["url"] for row in found}) == len(found)
    assert {row["url"].split(":")[1].split(".")[0] for row in found[79:]} <= set(PACKAGES)
    texts = {row["url"]: row["text"] for row in found}
    assert texts["pydoc:assert"].startswith(
        'The "assert" statement\n\nAssert statements are a convenient way to insert debugging assertions into a program'
    )
    assert node.manifest.counters["text_bytes"] > 1_000_000


def test_installed_documentation_is_not_made_of_other_versions(store: Store) -> None:
    spec = pin_reference(ReferenceSource.model_validate({"python_documentation": {"num_modules": 1}}))
    fields = spec.model_dump()
    fields["content"]["versions"]["torch"] = "1.0"
    with pytest.raises(UserError, match=r"pinned with torch 1\.0 \(here .*--refresh"):
        computed(ReferenceSpec.model_validate(fields), {}, store)
    fields = spec.model_dump()
    fields["content"]["num_modules"] = 100_000
    with pytest.raises(UserError, match=r"lower reference\.python_documentation\.num_modules"):
        computed(ReferenceSpec.model_validate(fields), {}, store)


def test_pinning_what_is_installed_imports_nothing_heavy() -> None:
    code = (
        "import sys; from configs.external import *; from ray_jobs.external.pins import *; "
        "pin_reference(ReferenceSource(python_documentation={})); "
        "pin_eval_sets(EvalSetsSource(service_questions={})); "
        "print([m for m in ('httpx', 'boto3', 'botocore', 'pyarrow', 'ray', 'torch', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_labels_stand_beside_their_texts(tmp_path: Path, store: Store) -> None:
    given = [{"comment": "nice", "bad": False, "n": 0}, {"comment": "no, you", "bad": True, "n": 1}]
    for name, field, expected in (
        ("a.jsonl", "bad", ["false", "true"]),
        ("a.parquet", "n", ["0", "1"]),
        ("a.csv", "bad", ["False", "True"]),
    ):
        node = labels(store, urls=[written(tmp_path / name, given)], text_field="comment", label_field=field)
        found = rows(node, "documents.parquet")
        assert [(row["text"], row["label"]) for row in found] == list(zip(["nice", "no, you"], expected, strict=True))
        assert node.manifest.counters[f"label.{expected[1]}"] == 1


def test_labels_that_are_none_are_refused(tmp_path: Path, store: Store) -> None:
    path = written(tmp_path / "a.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": None}])
    with pytest.raises(UserError, match=r"labels, file .*a\.jsonl, row 2 has no label: 'label' is empty"):
        labels(store, urls=[path])
    path = written(tmp_path / "b.jsonl", [{"text": "a", "label": number / 7} for number in range(1002)])
    with pytest.raises(UserError, match=r"row 1001 has label number 1001: 'label' is no column of classes"):
        labels(store, urls=[path])
    with pytest.raises(ValidationError, match="label_feild"):
        LabelsSource.model_validate({"urls": [path], "label_feild": "x"})


def test_real_labelled_comments_are_read(data_dir: Path, store: Store) -> None:
    path = data_dir / "toxicity" / "surge_toxicity_en.csv"
    node = labels(store, urls=[str(path)], label_field="is_toxic", language="en")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        wanted = [(row["text"], row["is_toxic"]) for row in csv.DictReader(stream)]
    assert [(row["text"], row["label"]) for row in rows(node, "documents.parquet")] == wanted
    assert sum(node.manifest.counters[f"label.{label}"] for label in {label for _, label in wanted}) == len(wanted)


def test_a_real_corpus_is_read_by_paragraph(data_dir: Path, store: Store) -> None:
    path = data_dir / "corpora" / "wikitext2-valid.txt"
    node = reference(store, urls=[str(path)], text_unit="paragraph", language="en")
    wanted = [line for line in path.read_text().split("\n") if line.strip()]
    found = [row["text"] for row in rows(node, "documents.parquet")]
    assert "".join("".join(found).split()) == "".join("".join(wanted).split())
    assert len(found) == node.manifest.counters["texts"] > 1000
