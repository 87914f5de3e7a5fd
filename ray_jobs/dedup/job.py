"""The dedup node: drops exact and near-duplicates, and says of each what it duplicates.

    signatures   a shard for every group of input files: hashes, MinHash signature and keys of each document; the files
                 of a group that fails are signed one by one
    edges        a shard for every range of keys: which documents have a key in common
    clusters     components of these, dealt out to partitions (after rounds of `stars.py` in the largest corpora)
    routed       a shard for every group that has members: its members, sent to their partitions
    duplicates   a shard for every partition: compares candidates and applies the rule of `verify.py`
    index        a shard for every group: its duplicates by input file, and the keys of what is kept
    documents    a shard for every input file: the documents that are kept, and an audit of all
    sources      one shard: what each source lost, and an alarm for those that lost nearly all

Documents are ordered by their id, which is the order of (crawl, file, offset). With an input `earlier`, another dedup
node, this crawl's documents are compared with all that it and those before it kept, by their keys and signatures in the
store; of their texts only those are read that a pair in doubt needs. README.md of this folder says what it all costs.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from configs.base import Resources
from configs.dedup import DedupSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.shards import File, Outcome, Receipt, ShardOutput, add_counters
from ray_jobs.cluster.fan_out import NodeFailed, UserError
from ray_jobs.cluster.output import NodeOutput, apart
from ray_jobs.dedup import stars
from ray_jobs.dedup.bands import BandPlan, plan_bands
from ray_jobs.dedup.clustering import (
    ENTRIES_A_PART,
    cluster_in_memory,
    cut_partitions,
    find_edges,
    num_ranges,
    sources_with_members,
)
from ray_jobs.dedup.compaction import MAX_UNCOMPACTED, compact
from ray_jobs.dedup.corpus import SIGNATURES, Chain, Corpus, Level, earlier_levels, group_files, parts_for
from ray_jobs.dedup.keeping import add_up_sources, keep
from ray_jobs.dedup.removal import find
from ray_jobs.dedup.routing import route
from ray_jobs.dedup.signing import alone, index, sign

log = logging.getLogger("headrace")


def run(spec: DedupSpec, inputs: dict[str, Checkpoint], output: NodeOutput, resources: Resources) -> Outcome:
    source = inputs["documents"]
    files = tuple(source.files("documents.parquet"))
    rows = tuple(file.rows for file in files)
    if not sum(rows):
        raise UserError(
            f"{source.node} kept no documents: its audit names the rule that dropped each; "
            "loosen that rule, or take more of the crawl"
        )
    plan = plan_bands(spec.jaccard, spec.recall, spec.num_permutations)
    chain = earlier_levels(source.store, inputs.get("earlier"), spec)
    num_entries = sum(rows) * num_keys(plan, spec) + chain.num_entries
    level = Level(num_parts=parts_for(num_entries, ENTRIES_A_PART), file_rows=rows, groups=group_files(rows))
    stages = _Stages(output, Corpus(spec, plan, source.store, level, files, chain))

    groups = [{"group": i, "first": first, "end": end} for i, (first, end) in enumerate(level.groups)]
    level = order_crawls(level, stages.signatures(groups), chain)
    stages.corpus = replace(stages.corpus, level=level)
    if not sum(rows[file] for file in level.standing_files()):
        raise NodeFailed(
            f"no file with documents of {source.node} could be read: the traces are under "
            f"{output.path}/attempts/{output.attempt}/failures/. Mend the cause, raise the node's generation in the "
            "recipe and run again"
        )
    stages.one("numbering", write_numbering)

    stages.whole("edges", [{"part": part} for part in range(level.num_parts)], find_edges)
    clustered = find_clusters(stages)
    stages.corpus = replace(stages.corpus, bounds=cut_partitions(stages.corpus))
    with_members = sources_with_members([receipt.info for receipt in clustered])
    stages.whole("routed", [{"source": number} for number in with_members], route)
    partitions = range(len(stages.corpus.bounds))
    found = stages.whole("duplicates", [{"partition": number} for number in partitions], find)
    stages.whole("index", [{"group": group} for group in level.standing], index)
    runs = "index"
    if chain.num_uncompacted + 1 > MAX_UNCOMPACTED:
        stages.whole("compacted", [{"part": part} for part in range(level.num_parts)], compact)
        runs = "compacted"

    kept = stages.whole("documents", [{"input": file} for file in level.standing_files()], keep)
    alarm = stages.one("sources", add_up_sources)
    for loss in alarm.info["over_loss"]:
        log.warning(
            "dedup dropped %d of %d documents of %s: look at its rows in audit.parquet, raise jaccard if they differ",
            loss["documents_in"] - loss["documents_kept"],
            loss["documents_in"],
            loss["source"] or "pages without a host",
        )
    return Outcome(
        ("documents", "sources", "numbering", SIGNATURES, apart(SIGNATURES), runs),
        counters=add_counters(receipt.counters for receipt in [*kept, alarm]),
        metrics=headline(stages.corpus, found, kept, alarm),
    )


class _Stages:
    """Runs the stages one after the other, each on what those before it left."""

    def __init__(self, output: NodeOutput, corpus: Corpus):
        self._output, self.corpus = output, corpus

    def signatures(self, groups: Sequence[dict[str, int]]) -> list[Receipt]:
        """In the order of files, without those that are quarantined within the spec's limit."""
        receipts = self._output.fan_out_apart(SIGNATURES, groups, alone, sign, self.corpus)
        receipts.sort(key=lambda receipt: receipt.info["files"])
        self._add(SIGNATURES, receipts)
        return receipts

    def whole(
        self, stage: str, shards: Sequence[dict[str, int]], process: Callable[[dict[str, int], Corpus], ShardOutput]
    ) -> list[Receipt]:
        """A stage in which no shard can be left out: duplicates would be kept, or originals lost."""
        receipts = self._output.fan_out(stage, shards, process, self.corpus, may_lose=False)
        self._add(stage, receipts)
        return receipts

    def one(self, stage: str, compute: Callable[[Corpus], ShardOutput]) -> Receipt:
        receipt = self._output.standing(stage) or self._output.write(stage, compute(self.corpus))
        self._add(stage, [receipt])
        return receipt

    def _add(self, stage: str, receipts: Sequence[Receipt]) -> None:
        files = tuple(file for receipt in receipts for file in receipt.files)
        self.corpus = replace(self.corpus, stages={**self.corpus.stages, stage: files})


def num_keys(plan: BandPlan, spec: DedupSpec) -> int:
    """Of a document with words and a URL."""
    from ray_jobs.dedup.simhash import band_masks

    simhash = 0 if spec.simhash_bits is None else len(band_masks(spec.simhash_bits))
    return plan.num_bands + simhash + 1 + spec.same_url


def order_crawls(level: Level, signed: Sequence[Receipt], chain: Chain) -> Level:
    """The level with the ids it spans, which must come after those of every earlier crawl and in order; what is left of
    a group that failed stands as groups of a file each.

    Raises:
        UserError: a file or a crawl is out of order.
    """
    last = chain.last_id
    spans = [(receipt.info["first_id"], receipt.info["last_id"]) for receipt in signed if "first_id" in receipt.info]
    for first_id, last_id in spans:
        if first_id <= last:
            raise UserError(
                f"document {first_id} would come after {last}, which stands already: later crawls need names that "
                "sort after those of earlier ones, and a crawl's files their own order; and no file may come twice"
            )
        last = last_id
    stand = {tuple(receipt.info["files"]): (receipt.stage, receipt.shard) for receipt in signed}
    groups = [
        part for group in level.groups for part in ([group] if group in stand else [(f, f + 1) for f in range(*group)])
    ]
    standing = [number for number, group in enumerate(groups) if group in stand]
    return level.model_copy(
        update={
            "last_id": last,
            "groups": tuple(groups),
            "standing": tuple(standing),
            "signed": tuple(stand[groups[number]] for number in standing),
        }
    )


def find_clusters(stages: _Stages) -> list[Receipt]:
    """The stage "clusters", after as many rounds of stars as it takes where the corpus is too large for one machine."""
    ranges = num_ranges(stages.corpus.num_documents)
    if ranges == 1:
        return stages.whole("clusters", [{}], cluster_in_memory)
    before = None
    for stage in range(1, stars.MOST_ROUNDS, 2):
        small = [{"stage": stage - 1, "range": number} for number in range(ranges)]
        stages.whole(f"stars-{stage:02d}", small, stars.small_star)
        large = [{"stage": stage, "range": number} for number in range(ranges)]
        received = stages.whole(f"stars-{stage + 1:02d}", large, stars.large_star)
        fingerprint = sum(receipt.counters["fingerprint"] for receipt in received)
        if fingerprint == before:
            return stages.whole("clusters", large, stars.finish)
        before = fingerprint
    raise AssertionError(f"components are not found after {stars.MOST_ROUNDS} rounds")


def write_numbering(corpus: Corpus) -> ShardOutput:
    return ShardOutput({"numbering.json": File(corpus.level.to_json())}, {})


def headline(corpus: Corpus, found: list[Receipt], kept: list[Receipt], alarm: Receipt) -> dict[str, float | int | str]:
    entered = sum(receipt.counters["documents_in"] for receipt in kept)
    remain = sum(receipt.counters["documents_kept"] for receipt in kept)
    total = add_counters(receipt.counters for receipt in found)
    return {
        "kept_share": round(remain / entered, 4),
        "earlier_crawls": len(corpus.chain.levels),
        "clusters": total.get("clusters", 0),
        "largest_cluster": max((receipt.info["largest_cluster"] for receipt in found), default=1),
        "pairs_estimated": total.get("pairs_estimated", 0),
        "pairs_compared": total.get("pairs_compared", 0),
        "earlier_texts_read": total.get("earlier_texts_read", 0),
        "bands": f"{corpus.plan.num_bands} x {corpus.plan.rows}",
        "sources": alarm.counters["sources"],
        "sources_over_loss": alarm.counters["sources_over_loss"],
        "recall_at_threshold": round(corpus.plan.recall(corpus.spec.jaccard), 4),
    }
