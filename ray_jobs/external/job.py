"""Outside data as nodes: files that were pinned, or what the Python environment carries, become tables.

    reference   documents   a shard a file: documents.parquet
    labels      documents   a shard a file: documents.parquet with a column `label`
    eval-sets   sets        a shard a set: examples.parquet

A row that is not as the spec says is an error: outside data is looked at by people, once, and a row left out there
would never be missed. Rows without text are left out, and counted. A file is read as a stream, and its table held
compressed.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from configs.base import Resources
from configs.external import (
    EvalSetsSpec,
    LabelsSpec,
    PinnedEvalSet,
    PinnedPythonDocumentation,
    PinnedServiceQuestions,
    PinnedTextFiles,
    ReferenceSpec,
)
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import Outcome, Receipt, ShardOutput
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.external import python_documentation, service_questions
from ray_jobs.external.rows import Fields, Rows
from ray_jobs.external.tables import LABELLED, DocumentsFile, examples_file
from ray_jobs.files.installed import check_versions

MAX_LABELS = 1000


def reference(spec: ReferenceSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    content = spec.content
    if isinstance(content, PinnedTextFiles):
        num_files, make = len(content.files), text_documents
    else:
        num_files, make = python_documentation.num_files(content), installed_documents
    receipts = output.fan_out("documents", [{"file": file} for file in range(num_files)], make, spec)
    return _outcome(spec.name, receipts)


def labels(spec: LabelsSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    shards = [{"file": file} for file in range(len(spec.files))]
    return _outcome(spec.name, output.fan_out("documents", shards, labelled_documents, spec))


def eval_sets(spec: EvalSetsSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    receipts = output.fan_out("sets", [{"set": number} for number in range(len(spec.sets))], examples, spec)
    return Outcome(
        ("sets",),
        metrics={"sets": len(receipts), "examples": sum(receipt.counters["examples"] for receipt in receipts)},
    )


def _outcome(name: str, receipts: list[Receipt]) -> Outcome:
    num_documents = sum(receipt.counters["texts"] for receipt in receipts)
    if not num_documents:
        raise UserError(f"{name} has no texts: its files are empty, or text_field names a column without text")
    num_bytes = sum(receipt.counters["text_bytes"] for receipt in receipts)
    return Outcome(("documents",), metrics={"texts": num_documents, "text_mb": round(num_bytes / 1e6, 3)})


def text_documents(shard: dict[str, Any], spec: ReferenceSpec) -> ShardOutput:
    """One file's texts."""
    content = spec.content
    assert isinstance(content, PinnedTextFiles)
    file = shard["file"]
    rows = Rows(
        spec.name,
        content.files[file],
        content.format,
        content.allowed_hosts,
        content.text_unit,
        columns=(content.text_field,),
    )
    documents = DocumentsFile(f"{spec.name}/{file:05d}", content.language)
    num_rows = 0
    for row, fields in rows:
        num_rows += 1
        text = rows.text(row, fields, _text_field(rows, content.text_field))
        if text.strip():
            documents.add(row, f"{rows.file.url}#{row}", text)
    return _documents_output(documents, num_rows)


def installed_documents(shard: dict[str, Any], spec: ReferenceSpec) -> ShardOutput:
    """One file's share of what is installed."""
    content, file = spec.content, shard["file"]
    assert isinstance(content, PinnedPythonDocumentation)
    check_versions(
        content.versions | {"generator": str(content.generator)},
        python_documentation.installed_versions() | {"generator": str(python_documentation.GENERATOR)},
        "the reference corpus python_documentation",
    )
    documents = DocumentsFile(f"{spec.name}/{file:05d}", "en")
    try:
        for row, (url, text) in enumerate(python_documentation.documents(content, file)):
            documents.add(row, url, text)
    except ValueError as error:
        raise UserError(str(error)) from error
    return _documents_output(documents, documents.num_documents)


def labelled_documents(shard: dict[str, Any], spec: LabelsSpec) -> ShardOutput:
    """One file's texts, each with its label."""
    file = shard["file"]
    rows = Rows(
        spec.name,
        spec.files[file],
        spec.format,
        spec.allowed_hosts,
        spec.text_unit,
        columns=(spec.text_field, spec.label_field),
    )
    documents = DocumentsFile(f"{spec.name}/{file:05d}", spec.language, LABELLED)
    num_rows, found = 0, Counter[str]()
    for row, fields in rows:
        num_rows += 1
        text = rows.text(row, fields, _text_field(rows, spec.text_field))
        label = rows.text(row, fields, spec.label_field)
        if not label:
            raise rows.error(row, f"has no label: {spec.label_field!r} is empty")
        found[label] += 1
        if len(found) > MAX_LABELS:
            raise rows.error(row, f"has label number {len(found)}: {spec.label_field!r} is no column of classes")
        if text.strip():
            documents.add(row, f"{rows.file.url}#{row}", text, label=label)
    output = _documents_output(documents, num_rows)
    return ShardOutput(output.files, output.counters | {f"label.{label}": n for label, n in sorted(found.items())})


def examples(shard: dict[str, Any], spec: EvalSetsSpec) -> ShardOutput:
    """One set's examples."""
    content = spec.sets[shard["set"]]
    if isinstance(content, PinnedServiceQuestions):
        found = _service_questions(content)
    else:
        found = list(_file_examples(content))
    if not found:
        raise UserError(f"eval-sets {content.name} has no examples: its files are empty; check its urls")
    file = examples_file(content.name, found)
    return ShardOutput({"examples.parquet": file}, {"examples": len(found), f"examples.{content.name}": len(found)})


def _file_examples(content: PinnedEvalSet) -> Iterator[tuple[str, Fields]]:
    for file in content.files:
        rows = Rows(f"eval-sets {content.name}", file, content.format, content.allowed_hosts)
        for row, fields in rows:
            text = "\n".join(rows.text(row, fields, name) for name in content.fields)
            if not text.strip():
                raise rows.error(row, f"has no text in {', '.join(content.fields)}: name other fields")
            yield text, fields


def _service_questions(content: PinnedServiceQuestions) -> list[tuple[str, Fields]]:
    check_versions(
        content.versions | {"generator": str(content.generator)},
        service_questions.installed_versions() | {"generator": str(service_questions.GENERATOR)},
        "the evaluation set service_questions",
    )
    try:
        return list(service_questions.examples(content))
    except ValueError as error:
        raise UserError(str(error)) from error


def _text_field(rows: Rows, name: str) -> str:
    """Rows of plain text have the one field "text"."""
    return "text" if rows.is_text else name


def _documents_output(documents: DocumentsFile, num_rows: int) -> ShardOutput:
    counters = {
        "rows": num_rows,
        "texts": documents.num_documents,
        "without_text": num_rows - documents.num_documents,
        "text_bytes": documents.num_bytes,
    }
    return ShardOutput({"documents.parquet": documents.finish()}, counters)
