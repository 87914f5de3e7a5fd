"""The first two nodes: `snapshot`, which holds what a run reads, and `filter`, which makes documents of its pages.

    snapshot   pinned archives stay where they are; the documentation crawl is made here, a WARC file a shard
    filter     archive → records → HTML → main text → scores → kept or dropped, an archive a shard

Every record that may hold a document leaves a row in `audit.parquet`, kept or not: which rule, its value, threshold and
source. In = kept + dropped, by reason.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from configs.base import Resources
from configs.crawl import FilterSpec, PinnedArchives, PinnedDocumentation, PinnedFile, SnapshotSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import File, Outcome, ShardOutput
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.files.installed import check_versions
from ray_jobs.files.streams import CheckedFile, LocalFile, Openable

if TYPE_CHECKING:
    from ray_jobs.crawl.extractor import Extractor

ARCHIVE = "crawl.warc.gz"
JUDGED_TOGETHER = 256


def snapshot(spec: SnapshotSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    """Makes the documentation crawl's archives. Pinned archives of others are listed in the spec and not copied."""
    content = spec.content
    if isinstance(content, PinnedArchives):
        total = sum(file.size for file in content.files)
        return Outcome(("archives",), {}, {"archives": len(content.files), "archive_bytes": total})
    shards = [{"file": file} for file in range(content.num_files)]
    receipts = output.fan_out("archives", shards, make_archive, content)
    total = sum(file.bytes for receipt in receipts for file in receipt.files)
    return Outcome(("archives",), metrics={"archives": len(receipts), "archive_bytes": total})


def make_archive(shard: dict[str, Any], content: PinnedDocumentation) -> ShardOutput:
    """Crawls one file's share of the documentation site.

    Raises:
        UserError: this worker's environment is not the one that was pinned, or holds too few pages.
    """
    from ray_jobs.crawl.crawler import crawl
    from ray_jobs.crawl.site import pages_of

    _check_versions(content)
    try:
        pages = list(pages_of(content, shard["file"]))
    except ValueError as error:
        raise UserError(str(error)) from error
    archive = crawl(pages, f"documentation-{shard['file']:05d}.warc.gz")
    return ShardOutput({ARCHIVE: File(archive, rows=len(pages))}, {"pages": len(pages)})


def _check_versions(content: PinnedDocumentation) -> None:
    """The pages come out of this environment, so it must be the one that was pinned."""
    from ray_jobs.crawl.pins import installed_versions
    from ray_jobs.crawl.site import GENERATOR

    check_versions(
        content.versions | {"generator": str(content.generator)},
        installed_versions() | {"generator": str(GENERATOR)},
        "the documentation crawl",
    )


@dataclass(frozen=True)
class FilterContext:
    """What all of filter's shards share."""

    spec: FilterSpec
    crawl: str
    """First part of the documents' ids."""
    snapshot: Checkpoint | None
    """Holds the archives that the snapshot node made."""
    allowed_hosts: tuple[str, ...] = ()


def filter(spec: FilterSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    """Reads every archive of the snapshot and writes its documents."""
    crawl = inputs["crawl"]
    pinned = SnapshotSpec.model_validate(crawl.manifest.payload["spec"])
    if isinstance(pinned.content, PinnedArchives):
        context = FilterContext(spec, pinned.crawl, None, pinned.content.allowed_hosts)
        shards = [
            {"file": index, "pinned": file.model_dump(mode="json")} for index, file in enumerate(pinned.content.files)
        ]
    else:
        context = FilterContext(spec, pinned.crawl, crawl)
        # Named by number: the same archive made again lies under another attempt's name.
        shards = [{"file": file.shard} for file in crawl.files(ARCHIVE)]
    receipts = output.fan_out("documents", shards, filter_archive, context)
    kept = sum(receipt.counters["documents_kept"] for receipt in receipts)
    entered = sum(receipt.counters["documents_in"] for receipt in receipts)
    metrics: dict[str, float | int | str] = {"documents": kept, "kept_share": round(kept / max(1, entered), 4)}
    if clock_decided := sum(receipt.counters.get("clock_decided", 0) for receipt in receipts):
        metrics["may_not_reproduce"] = f"the clock dropped {clock_decided} pages, which another machine may keep"
    if compared := sum(receipt.counters.get("languages_compared", 0) for receipt in receipts):
        agreed = sum(receipt.counters.get("languages_agreed", 0) for receipt in receipts)
        metrics["language_agreement"] = round(agreed / compared, 4)
    return Outcome(("documents",), metrics=metrics)


def filter_archive(shard: dict[str, Any], context: FilterContext) -> ShardOutput:
    """One archive's documents and audit.

    Raises:
        Changed: the archive is not the one that was pinned, or is gone.
        ConnectionError: its server does not answer.
        UserError: the spec asks for an extractor or a second opinion that is not installed, or for a language that
            its model has not.
    """
    from ray_jobs.crawl.extractor import extractor_for
    from ray_jobs.crawl.languages import check_languages_of

    check_languages_of(context.spec)
    with extractor_for(context.spec) as extractor:
        return _filter_archive(shard, context, extractor)


def _filter_archive(shard: dict[str, Any], context: FilterContext, extractor: "Extractor | None") -> ShardOutput:
    from ray_jobs.crawl.documents import Document, document_of, judge_all
    from ray_jobs.crawl.records import NOT_DOCUMENTS, Faults, read_records
    from ray_jobs.crawl.tables import Tables

    faults, types = Faults(), Counter[str]()
    tables = Tables(f"{context.crawl}/{shard['file']:05d}")
    unjudged: list[Document] = []

    def judge_unjudged() -> None:
        judge_all(unjudged, context.spec)
        tables.add(unjudged)
        unjudged.clear()

    for record in read_records(_archive_of(shard, context), context.spec.max_bytes, faults):
        types[f"records.{record.type}"] += 1
        # A damaged request leaves a row too: nobody can say any more what it was.
        if record.type not in NOT_DOCUMENTS or record.fault is not None:
            unjudged.append(document_of(record, context.spec, extractor))
            record.block = b""  # of 256 records, whose blocks may be of 5 MiB, only the texts are kept
        if len(unjudged) == JUDGED_TOGETHER:
            judge_unjudged()
    judge_unjudged()
    counters = {
        "archives": 1,
        "archive_truncated": faults.truncated,
        "archive_damaged": faults.damaged,
        "archive_not_warc": faults.not_warc,
        "archive_empty": faults.empty,
        **types,
        **tables.counters(),
        **(extractor.counters() if extractor else {}),
    }
    return ShardOutput(tables.files(), counters, tables.info() | (extractor.info() if extractor else {}))


def _archive_of(shard: dict[str, Any], context: FilterContext) -> Openable:
    if "pinned" in shard:
        return CheckedFile(PinnedFile.model_validate(shard["pinned"]), context.allowed_hosts)
    assert context.snapshot is not None, "archives that were made are in the snapshot's checkpoint"
    (file,) = [file for file in context.snapshot.files(ARCHIVE) if file.shard == shard["file"]]
    return LocalFile(context.snapshot.local_path(file))
